"""Lanczos, trace and density against matrices whose spectrum is known."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from residua.xray.lanczos import Krylov, lanczos
from residua.xray.quadrature import density, negative_share, trace


def with_spectrum(values: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))
    return q @ torch.diag(values.double()) @ q.T


def signs(n: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(0, 2, (n,), generator=generator) * 2 - 1).double()


def probes(matrix: torch.Tensor, count: int, depth: int, first: int = 0) -> list[Krylov]:
    return [lanczos(matrix.mv, signs(len(matrix), first + i), depth) for i in range(count)]


def test_as_many_steps_as_dimensions_give_every_eigenvalue():
    values = torch.tensor([-3.0, -1, 0, 0.5, 2, 10], dtype=torch.float64)
    run = lanczos(with_spectrum(values).mv, signs(6, 1), 6)
    assert run.values == pytest.approx(values, abs=1e-10)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 12))
def test_an_eigenvalue_lies_within_every_residual_and_extremes_are_bounds(seed, size, steps):
    torch.manual_seed(seed)
    matrix = torch.randn(size, size, dtype=torch.float64)
    matrix = matrix + matrix.T
    true = torch.linalg.eigvalsh(matrix)
    run = lanczos(matrix.mv, torch.randn(size, dtype=torch.float64), steps)
    distances = (run.values[:, None] - true).abs().min(1).values
    assert (distances <= run.residuals + 1e-9).all()
    assert run.values[-1] <= true[-1] + 1e-9 and run.values[0] >= true[0] - 1e-9


def test_the_basis_stays_orthogonal_where_plain_lanczos_loses_it():
    values = torch.cat([torch.linspace(0, 1, 299), torch.tensor([1e3])])
    run = lanczos(with_spectrum(values).float().mv, signs(300, 0).float(), 60)
    identity = run.basis @ run.basis.T
    assert (identity - torch.eye(60)).abs().max() < 1e-5
    assert (run.values > 100).sum() == 1  # no ghost of the large one


def test_it_stops_at_an_invariant_subspace():
    run = lanczos(with_spectrum(torch.tensor([2.0, 2, 2, 5])).mv, signs(4, 3), 4)
    assert run.values.tolist() == pytest.approx([2.0, 5.0])
    assert run.residuals.max() < 1e-14


def test_the_zero_matrix_has_the_ritz_value_zero():
    run = lanczos(torch.zeros_like, signs(5, 0), 3)
    assert run.values.tolist() == [0.0]


@pytest.mark.parametrize("steps", [1, 3])
def test_the_first_product_is_read_off_the_recurrence(steps):
    matrix = with_spectrum(torch.linspace(-1, 3, 8))
    start = signs(8, 5)
    assert torch.allclose(lanczos(matrix.mv, start, steps).first_product, matrix @ start)


def test_the_trace_interval_covers_the_truth_at_its_rate():
    torch.manual_seed(4)
    matrix = torch.randn(40, 40, dtype=torch.float64)
    matrix = matrix + matrix.T
    true, rounds = float(matrix.trace()), 200
    inside = 0
    for round_ in range(rounds):
        estimate, _ = trace(probes(matrix, 8, 1, first=8 * round_))
        inside += true in estimate
    low, high = stats.binom.interval(0.9999, rounds, 0.95)
    assert low <= inside <= high


def test_one_probe_has_the_law_of_hutchinsons_variance_for_an_error():
    torch.manual_seed(5)
    matrix = torch.randn(60, 60, dtype=torch.float64)
    matrix = matrix + matrix.T
    matrix.fill_diagonal_(0.0)  # then the variance is 2 |H|^2 exactly, not a bound
    draws = [trace(probes(matrix, 1, 1, first=seed)) for seed in range(400)]
    spread = torch.tensor([estimate.value for estimate, _ in draws]).std()
    law = math.sqrt(2.0) * float(matrix.norm())
    assert float(spread) == pytest.approx(law, rel=4 / math.sqrt(2 * 400))
    assert sum(0.0 in estimate for estimate, _ in draws) / 400 == pytest.approx(0.95, abs=0.04)


def test_taking_out_a_known_subspace_keeps_the_trace_and_narrows_its_error():
    values = torch.cat([torch.linspace(-0.1, 0.1, 96), torch.tensor([30.0, 50, 80, 100])])
    matrix = with_spectrum(values)
    known = lanczos(matrix.mv, signs(100, 99), 6)
    plain, wide = trace(probes(matrix, 10, 1))
    better, narrow = trace(probes(matrix, 10, 1), known)
    assert narrow < wide / 20
    assert abs(better.value - 260.0) < 5 * narrow
    assert 260.0 in plain


def test_what_a_subspace_leaves_over_is_projected_from_both_sides():
    matrix, z = with_spectrum(torch.linspace(-2, 5, 12)), signs(12, 7)
    known = lanczos(matrix.mv, signs(12, 8), 4)
    outside = torch.eye(12, dtype=torch.float64) - known.basis.T @ known.basis
    by_hand = float(known.diagonal.sum()) + z @ outside @ matrix @ outside @ z
    assert trace([lanczos(matrix.mv, z, 2)], known)[0].value == pytest.approx(float(by_hand))


def test_the_density_of_a_gaussian_orthogonal_ensemble_is_the_semicircle():
    n, width, count = 1000, 0.15, 10
    torch.manual_seed(0)
    a = torch.randn(n, n, dtype=torch.float64)
    matrix = (a + a.T) / math.sqrt(2 * n)  # eigenvalues fill [-2, 2]
    found = density(probes(matrix, count, 40), width)
    inside = torch.linspace(-2, 2, 2001, dtype=torch.float64)
    semicircle = (4 - inside.square()).clamp(min=0).sqrt() / (2 * math.pi)
    bells = torch.exp(-0.5 * ((found.grid[:, None] - inside) / width).square())
    law = (bells * semicircle).sum(1) * (4 / 2000) / (width * math.sqrt(2 * math.pi))
    # a random vector's squared components vary by 2 / n^2 each: the density by law / (sqrt pi width n)
    error = (law / (math.sqrt(math.pi) * width * n * count)).sqrt()
    assert ((found.density - law).abs() < 4.5 * error + 1e-4).all()
    middle = found.grid.abs() < 1.5
    assert (found.error / error)[middle].mean() == pytest.approx(1.0, abs=0.3)
    assert torch.trapezoid(found.density, found.grid) == pytest.approx(1.0, abs=0.005)


def test_one_probe_gives_a_density_without_error_bars():
    found = density(probes(with_spectrum(torch.linspace(0, 1, 20)), 1, 5))
    assert found.error is None and found.width == pytest.approx(0.2, rel=0.3)


def test_the_negative_share_is_the_share_of_negative_eigenvalues():
    values = torch.cat([-torch.ones(30), torch.zeros(20), torch.ones(50)])
    share = negative_share(probes(with_spectrum(values), 40, 3))
    assert share.value == pytest.approx(0.3, abs=0.05)
