"""The counter's numbers are uniform, independent, and the same whoever asks and in whatever order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.data.counter import Draws, bits, integers, permutation, uniform

SEEDS = st.integers(-(2**80), 2**80)
# chi-square with 99 degrees of freedom exceeds 157 with probability 2e-4 (fixed seeds: no flakiness)
CHI2_99 = 157.0
GOLDEN = 0x9E3779B97F4A7C15


def splitmix64(state: int, n: int) -> list[int]:
    """The generator in its published sequential form, in Python's integers."""
    mask, out = (1 << 64) - 1, []
    for _ in range(n):
        state = (state + GOLDEN) & mask
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        out.append(z ^ (z >> 31))
    return out


def chi2(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def test_the_published_first_output_of_splitmix64_for_seed_zero():
    assert splitmix64(0, 1) == [0xE220A8397B1DCDAF]


def test_each_word_of_the_counter_is_a_jump_in_a_splitmix64_sequence():
    seed, epoch, draw = 7, 2, 3
    key = splitmix64(seed - GOLDEN, 1)[-1]  # mix(seed)
    key = splitmix64(key, epoch + 1)[-1]
    key = splitmix64(key, draw + 1)[-1]
    assert bits(seed, epoch, np.arange(5), draw).tolist() == splitmix64(key, 5)


@given(SEEDS, st.integers(0, 1000), st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_each_number_is_alone_a_function_of_its_index(seed, epoch, indices):
    together = uniform(seed, epoch, np.array(indices), 3)
    alone = [float(uniform(seed, epoch, i, 3)[0]) for i in indices]
    assert together.tolist() == alone
    assert all(0 <= u < 1 for u in alone)


@pytest.mark.parametrize("varied", ["seed", "epoch", "index", "draw"])
def test_numbers_are_uniform_along_every_argument(varied):
    n = 20_000
    if varied in ("index", "draw"):
        arguments = {"seed": 1, "epoch": 2, "index": 3, "draw": 4, varied: np.arange(n)}
        values = uniform(**arguments)
    else:
        base = {"seed": 1, "epoch": 2, "index": 3, "draw": 4}
        values = np.concatenate([uniform(**(base | {varied: k})) for k in range(n // 4)])
    assert chi2(np.histogram(values, 100, (0, 1))[0]) < CHI2_99


@pytest.mark.parametrize("shift", ["seed", "epoch", "index", "draw"])
def test_neighbours_are_independent(shift):
    base = {"seed": 1, "epoch": 2, "index": np.arange(40_000), "draw": 4}
    first, second = uniform(**base), uniform(**(base | {shift: base[shift] + 1}))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(40_000)
    assert chi2(np.histogram2d(first, second, 10, [(0, 1), (0, 1)])[0]) < CHI2_99


@given(SEEDS, st.integers(0, 50), st.integers(1, 1000))
def test_integers_stay_below_their_bound_and_reach_every_value(seed, epoch, high):
    values = integers(seed, epoch, np.arange(200), 0, high)
    assert values.min() >= 0
    assert values.max() < high
    assert high > 4 or set(values.tolist()) == set(range(high))


def test_integers_take_a_bound_for_each_index():
    values = integers(0, 0, np.arange(300), 0, np.tile([1, 2, 3], 100)).reshape(100, 3)
    assert [set(column) for column in values.T.tolist()] == [{0}, {0, 1}, {0, 1, 2}]


@given(SEEDS, st.integers(0, 50), st.integers(0, 300))
def test_a_permutation_holds_each_number_once(seed, epoch, n):
    assert sorted(permutation(seed, epoch, n).tolist()) == list(range(n))


def test_every_epoch_has_its_own_order_and_every_place_is_equally_likely():
    orders = np.array([permutation(5, epoch, 100) for epoch in range(2000)])
    assert len({tuple(order) for order in orders[:, :8].tolist()}) == 2000
    assert chi2(np.bincount(orders[:, 0], minlength=100)) < CHI2_99
    assert chi2(np.bincount((orders[:, 1] - orders[:, 0]) % 100, minlength=101)[1:]) < CHI2_99


def test_repeats_of_a_picture_draw_differently_and_the_first_is_the_plain_one():
    index = np.array([9, 9, 9, 4])
    draws = Draws(1, 2, index, np.array([0, 1, 2, 0]))
    assert len(set(draws.uniform(3).tolist())) == 4
    assert draws.uniform(3)[0] == uniform(1, 2, 9, 3)[0]
    assert len(set(np.concatenate([draws.bits(k) for k in range(50)]).tolist())) == 200
