"""The laws of random weights against drawn ones."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from residua.xray.laws.random_weights import overlap, shortest, smallest_bound, smallest_typical

DRAWS = 1000


def crossings(count: int, chance: float) -> bool:
    """Say whether `count` of DRAWS is what this chance gives, but for one in ten thousand."""
    low, high = stats.binom.interval(0.9999, DRAWS, chance)
    return bool(low <= count <= high)


@pytest.mark.parametrize(("units", "weights"), [(8, 4), (30, 27)])
@pytest.mark.parametrize("chance", [0.5, 0.05])
def test_the_most_alike_pair_crosses_its_quantile_at_the_stated_chance(units, weights, chance):
    torch.manual_seed(units)
    w = torch.nn.functional.normalize(torch.randn(DRAWS, units, weights), dim=2)
    cosines = (w @ w.transpose(1, 2)).abs().triu(1).flatten(1).max(1).values
    assert crossings(int((cosines > overlap(units, weights, chance)).sum()), chance)


@pytest.mark.parametrize("chance", [0.5, 0.05])
def test_the_shortest_unit_crosses_its_quantile_at_the_stated_chance(chance):
    units, weights = 400, 36  # many units: the median's own chance is small
    torch.manual_seed(0)
    lengths = torch.randn(DRAWS, units, weights).norm(dim=2)
    relative = lengths.min(1).values / lengths.quantile(0.5, dim=1)
    assert crossings(int((relative < shortest(units, weights, chance)).sum()), chance)


@pytest.mark.parametrize("shape", [(6, 6), (6, 8), (5, 20), (12, 4), (2, 9)])
@pytest.mark.parametrize("chance", [0.5, 0.05])
def test_the_smallest_singular_value_crosses_its_bound_no_more_often_than_stated(shape, chance):
    torch.manual_seed(1)
    w = torch.nn.functional.normalize(torch.randn(DRAWS, *shape), dim=2) * math.sqrt(shape[1])
    smallest = torch.linalg.svdvals(w)[:, -1] / math.sqrt(max(shape))
    crossed = int((smallest < smallest_bound(*shape, chance)).sum())
    assert crossed <= stats.binom.ppf(0.9999, DRAWS, chance)


def test_the_bound_of_square_gaussian_matrices_is_edelmans():
    # P(sqrt n smallest <= e) <= e: chance / 2, with units that come out `longest` times too long
    n, chance = 50, 1e-3
    longest = math.sqrt(stats.chi2.isf(chance / 2 / n, n) / n)
    assert smallest_bound(n, n, chance) * longest * n == pytest.approx(chance / 2, rel=0.01)


@pytest.mark.parametrize(("units", "weights"), [(100, 400), (400, 100)])
def test_marchenko_and_pasturs_edge_is_where_large_matrices_end(units, weights):
    torch.manual_seed(2)
    w = torch.randn(units, weights) / math.sqrt(max(units, weights))
    edge = smallest_typical(units, weights)
    assert edge == 0.5
    assert torch.linalg.svdvals(w)[-1] == pytest.approx(edge, abs=0.04)


@pytest.mark.parametrize("draw", ["uniform", "truncated"])
def test_other_initialisations_scatter_less_than_gaussian_weights(draw):
    torch.manual_seed(3)
    w = torch.empty(DRAWS, 20, 9)
    torch.nn.init.uniform_(w, -1, 1) if draw == "uniform" else torch.nn.init.trunc_normal_(w)
    lengths = w.norm(dim=2)
    relative = lengths.min(1).values / lengths.quantile(0.5, dim=1)
    assert (relative < shortest(20, 9, 0.01)).sum() <= stats.binom.ppf(0.9999, DRAWS, 0.01)
    unit = torch.nn.functional.normalize(w, dim=2)
    cosines = (unit @ unit.transpose(1, 2)).abs().triu(1).flatten(1).max(1).values
    assert (cosines > overlap(20, 9, 0.01)).sum() <= stats.binom.ppf(0.9999, DRAWS, 0.01)
