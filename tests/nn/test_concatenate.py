"""Concatenation along channels, with the centre of a larger shortcut; halving by pooling."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from residua.nn import Skip
from residua.nn.merges.concatenate import Concatenate
from residua.nn.pooling import Halve


def test_the_shortcut_comes_first_and_the_activation_last():
    x = torch.tensor([[[[-1.0]], [[2.0]]]])
    skip = Skip(nn.Conv2d(2, 3, 1), nn.Identity(), Concatenate(nn.ReLU()))
    y = skip(x)
    assert y.shape == (1, 5, 1, 1)
    assert torch.equal(y[:, :2], x.relu())
    assert torch.equal(y[:, 2:], skip.branch(x).relu())


@settings(deadline=None)
@given(
    sides=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=3),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_the_centre_of_the_shortcut_is_what_is_left_after_taking_pixels_from_both_ends(
    sides, channels
):
    sizes = [(small, small + more) for small, more in sides]
    s = torch.randn(2, channels[0], *(large for _, large in sizes))
    f = torch.randn(2, channels[1], *(small for small, _ in sizes))
    centre = s
    for dimension, (small, large) in enumerate(sizes, start=2):
        kept = list(range(large))
        while len(kept) > small:  # the far end loses its pixel first
            kept.pop(-1 if (len(kept) - small) % 2 else 0)
        centre = centre.index_select(dimension, torch.tensor(kept))
    assert torch.equal(Concatenate()(s, f), torch.cat((centre, f), 1))


def test_of_an_odd_border_the_far_side_loses_one_more():
    s, f = torch.arange(4.0).reshape(1, 1, 4), torch.tensor([[[9.0]]])
    assert Concatenate()(s, f).tolist() == [[[1.0], [9.0]]]


def test_a_valid_convolution_meets_its_own_input():
    """U-Net 2015: the centre pixel of the window is the pixel that it is concatenated with."""
    x = torch.randn(1, 2, 9, 8, dtype=torch.float64)
    pick = nn.Conv2d(2, 2, 5, bias=False).double()
    with torch.no_grad():
        pick.weight.zero_()
        pick.weight[0, 0, 2, 2] = pick.weight[1, 1, 2, 2] = 1
        y = Skip(pick, nn.Identity(), Concatenate())(x)
    assert y.shape == (1, 4, 5, 4)
    assert torch.equal(y[:, :2], y[:, 2:])


def test_gradient_reaches_both_sides_and_not_the_border():
    s = torch.zeros(1, 1, 4, 4, requires_grad=True)
    f = torch.zeros(1, 1, 2, 2, requires_grad=True)
    Concatenate()(s, f).sum().backward()
    assert torch.equal(s.grad, functional.pad(torch.ones(1, 1, 2, 2), (1, 1, 1, 1)))
    assert torch.equal(f.grad, torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("shape", [(1, 1, 4, 3), (1, 1, 3, 5), (1, 1, 5)])
def test_a_shortcut_smaller_than_its_branch_is_refused(shape):
    message = r"a shortcut of \(.*\) pixels cannot be cropped to the branch's \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        Concatenate()(torch.zeros(shape), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("kind, own", [("max", nn.MaxPool2d(2)), ("mean", nn.AvgPool2d(2))])
def test_halving_is_torchs_pooling_but_leaves_one_pixel(kind, own):
    for height in range(2, 7):
        for width in range(2, 7):
            x = torch.randn(2, 3, height, width)
            assert torch.equal(Halve(kind)(x), own(x))
    x = torch.randn(2, 3, 1, 5)
    torch.testing.assert_close(Halve(kind)(x), own(x.expand(2, 3, 2, 5)))
    x = torch.randn(2, 3, 1, 1)
    assert torch.equal(Halve(kind)(x), x)


def test_an_unknown_pooling_is_named():
    with pytest.raises(ValueError, match="pooling 'min' is unknown: expected max or mean"):
        Halve("min")
