"""Merges: each against its equation, where gates start, and what each does to the second moment."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn import MERGES, KeepBranch, make_merge
from residua.nn.merges import Place

PLACE = Place(channels=3, block=2, blocks=9)


@pytest.fixture
def sides():
    """A shortcut and a branch, (2, 3, 4, 5), in float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 3, 4, 5, generator=generator, dtype=torch.float64).unbind(0)


def merge(name, place=PLACE, activation=None):
    return make_merge(name, place, activation).double()


@pytest.mark.parametrize(
    "name, of_shortcut, of_branch",
    [
        ("add", 1, 1),
        ("constant", 0.5, 0.5),
        ("constant(0.25, 2)", 0.25, 2),
        ("constant(0, 1)", 0, 1),
        ("sqrt_half", 2**-0.5, 2**-0.5),
        ("stable", 1, 1 / 3),  # nine blocks
        ("stable_decreasing", 1, 1 / (math.sqrt(2) * math.log(3))),  # block 2
        ("skip_init", 1, 0),
        ("skip_init(0.3)", 1, 0.3),
        ("layer_scale", 1, 0.1),
        ("layer_scale(0.7)", 1, 0.7),
    ],
)
@torch.no_grad()
def test_a_scaled_addition_is_a_s_plus_b_f(name, of_shortcut, of_branch, sides):
    s, f = sides
    exact = {"rtol": 1e-7, "atol": 1e-7}  # starts are kept in float32
    torch.testing.assert_close(merge(name)(s, f), of_shortcut * s + of_branch * f, **exact)
    rectified = torch.clamp(of_shortcut * s + of_branch * f, min=0)
    torch.testing.assert_close(merge(name, activation=nn.ReLU())(s, f), rectified, **exact)


@torch.no_grad()
def test_learned_gains_scale_the_whole_branch_or_each_channel(sides):
    s, f = sides
    skip_init, layer_scale = merge("skip_init"), merge("layer_scale")
    skip_init.scale.fill_(-2.0)
    assert torch.equal(skip_init(s, f), s - 2.0 * f)
    layer_scale.gamma.copy_(torch.tensor([1.0, 0.0, -3.0]))
    expected = torch.stack([s[:, 0] + f[:, 0], s[:, 1], s[:, 2] - 3.0 * f[:, 2]], 1)
    torch.testing.assert_close(layer_scale(s, f), expected)


@pytest.mark.parametrize("blocks, start", [(1, 0.1), (18, 0.1), (19, 1e-5), (24, 1e-5), (25, 1e-6)])
def test_layer_scale_starts_as_the_paper_has_it_for_each_depth(blocks, start):
    gamma = make_merge("layer_scale", Place(4, 1, blocks), None).gamma
    assert torch.equal(gamma, torch.full((4,), start))


def gate(name, kernel):
    """A merge whose gate has drawn weights, and the gate's own equation."""
    torch.manual_seed(1)
    made = merge(name)
    weight = torch.randn(3, 3, kernel, kernel, dtype=torch.float64)
    bias = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    with torch.no_grad():
        made.gate.weight.copy_(weight)
        made.gate.bias.copy_(bias)
    return made, lambda s: 1 / (1 + torch.exp(-F.conv2d(s, weight, bias, padding=kernel // 2)))


@pytest.mark.parametrize("name, kernel", [("exclusive_gate", 1), ("highway", 3)])
@torch.no_grad()
def test_an_exclusive_gate_shares_out_between_branch_and_shortcut(name, kernel, sides):
    s, f = sides
    made, g = gate(name, kernel)
    torch.testing.assert_close(made(s, f), g(s) * f + (1 - g(s)) * s)


@torch.no_grad()
def test_a_shortcut_gate_lets_the_whole_branch_pass(sides):
    s, f = sides
    made, g = gate("shortcut_gate", 1)
    torch.testing.assert_close(made(s, f), f + (1 - g(s)) * s)


@pytest.mark.parametrize(
    "name, bias", [("exclusive_gate", -6), ("shortcut_gate", -6), ("highway", -2)]
)
@torch.no_grad()
def test_gates_start_at_their_bias_and_carry_the_shortcut(name, bias, sides):
    s, _ = sides
    assert torch.equal(merge(name).gate.bias, torch.full((3,), bias, dtype=torch.float64))
    other = merge(f"{name}(-3.5)")
    assert torch.equal(other.gate.bias, torch.full((3,), -3.5, dtype=torch.float64))
    nn.init.zeros_(other.gate.weight)
    share = 1 / (1 + math.exp(3.5))
    zero = torch.zeros_like(s)
    torch.testing.assert_close(other(s, zero), (1 - share) * s)


@torch.no_grad()
def test_a_plain_block_keeps_its_branch(sides):
    s, f = sides
    assert torch.equal(KeepBranch()(s, f), f)
    assert torch.equal(KeepBranch(nn.ReLU())(None, f), f.relu())


@settings(deadline=None, max_examples=30)
@given(name=st.sampled_from(list(MERGES)), seed=st.integers(0, 99))
def test_gradients_are_those_of_finite_differences(name, seed):
    torch.manual_seed(seed)
    made = make_merge(name, Place(2, 1, 4), None).double()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    sides = [torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(made, sides)


# -- what K merges in a row do to the second moment, where branches are independent and of one moment with
# their input (He's initialisation): the laws are exact for expectations, here over a million values.

VALUES, BLOCKS = 1_000_000, 8


def growth(name):
    """E[y_k^2] after each of K blocks, of a trunk that starts with E[y_0^2] = 1."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(1, 1, 1, VALUES, generator=generator)
    moments = []
    for block in range(1, BLOCKS + 1):
        f = torch.randn(y.shape, generator=generator) * y.square().mean().sqrt()
        with torch.no_grad():
            y = make_merge(name, Place(1, block, BLOCKS), None)(y, f)
        moments.append(y.square().mean().item())
    return moments


def test_addition_doubles_the_second_moment_with_each_block():
    assert growth("add") == pytest.approx([2.0**k for k in range(1, BLOCKS + 1)], rel=0.02)


def test_one_over_root_two_keeps_the_second_moment():
    assert growth("sqrt_half") == pytest.approx([1.0] * BLOCKS, rel=0.02)


def test_stable_scaling_grows_by_less_than_e_in_all():
    expected = [(1 + 1 / BLOCKS) ** k for k in range(1, BLOCKS + 1)]
    assert growth("stable") == pytest.approx(expected, rel=0.02)
    assert expected[-1] < math.e


def test_decreasing_scaling_grows_by_the_product_of_its_terms():
    terms = [1 + 1 / (k * math.log(k + 1) ** 2) for k in range(1, BLOCKS + 1)]
    expected = [math.prod(terms[:k]) for k in range(1, BLOCKS + 1)]
    assert growth("stable_decreasing") == pytest.approx(expected, rel=0.02)


def test_skip_init_starts_as_the_shortcut():
    assert growth("skip_init") == pytest.approx([1.0] * BLOCKS, rel=0.01)


@pytest.mark.parametrize(
    "name, says",
    [
        ("ad", "merge 'ad' is unknown: expected one of add, constant, sqrt_half"),
        ("add(1)", "merge 'add(1)' does not take the numbers (1,)"),
        ("constant(1, 2, 3)", "merge 'constant(1, 2, 3)' does not take the numbers (1, 2, 3)"),
        ("skip_init(x)", "'skip_init(x)' is not a name or name(number, ...)"),
        ("skip_init(0.1", "'skip_init(0.1' is not a name or name(number, ...)"),
    ],
)
def test_a_wrong_name_or_number_is_one_line(name, says):
    with pytest.raises(ValueError) as raised:
        make_merge(name, PLACE, None)
    assert str(raised.value).startswith(says)
    assert "\n" not in str(raised.value)
