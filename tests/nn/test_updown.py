"""Halving and doubling maps of any size, in one to three dimensions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn import make_norm
from residua.nn.updown import DOWNS, UPS, DownAndUp, fit, make_down, make_up

sizes = st.lists(st.integers(1, 13), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(size=sizes, down=st.sampled_from(DOWNS), up=st.sampled_from(UPS))
def test_any_size_halves_upward_and_comes_back(size, down, up):
    norm = make_norm("none", len(size))
    branch = DownAndUp(make_down(down, 2, norm), nn.Identity(), make_up(up, 2, 3, norm))
    x = torch.randn(1, 2, *size)
    assert branch.down(x).shape[2:] == tuple(-(-side // 2) for side in size)
    assert branch(x).shape == (1, 3, *size)


@settings(deadline=None, max_examples=40)
@given(size=sizes, kind=st.sampled_from(["max", "mean"]))
def test_a_coarse_pixel_is_the_largest_or_the_mean_of_the_fine_ones_that_there_are(size, kind):
    x = torch.randn(1, 1, *size)
    found = make_down(kind, 1, make_norm("batch", len(size)))(x)
    for place in [tuple(t.tolist()) for t in torch.ones(found.shape[2:]).nonzero()]:
        window = x[(0, 0, *(slice(2 * i, 2 * i + 2) for i in place))]
        expected = window.max() if kind == "max" else window.mean()
        torch.testing.assert_close(found[(0, 0, *place)], expected)


@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("down", DOWNS)
@torch.no_grad()
def test_a_part_of_a_map_gives_the_part_of_the_result(up, down):
    """What is cut off at an even place changes only what it touches: tiles agree with the whole."""
    torch.manual_seed(0)
    norm = make_norm("none")
    branch = DownAndUp(make_down(down, 2, norm), nn.Identity(), make_up(up, 2, 2, norm)).double()
    x = torch.randn(1, 2, 13, 17).double()
    whole, part = branch(x), branch(x[:, :, 4:, 6:])
    torch.testing.assert_close(part[:, :, 4:, 4:], whole[:, :, 8:, 10:])


@torch.no_grad()
def test_interpolation_and_its_convolution_commute():
    torch.manual_seed(0)
    up = make_up("interpolate", 3, 2, make_norm("batch")).double()
    x = torch.randn(1, 3, 5, 6).double()
    large = nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(up(x), up.conv(large))


@given(have=st.integers(1, 9), want=st.integers(1, 9))
def test_fit_cuts_or_repeats_at_the_far_side(have, want):
    found = fit(torch.arange(float(have)).view(1, 1, have), [want])
    assert found.flatten().tolist() == [float(min(k, have - 1)) for k in range(want)]


@pytest.mark.parametrize("make", [make_down, lambda kind, c, norm: make_up(kind, c, c, norm)])
def test_an_unknown_kind_is_refused_with_those_there_are(make):
    with pytest.raises(ValueError, match="'none' is unknown: expected one of"):
        make("none", 2, make_norm("batch"))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "name", ["batch", "ghost(2)", "renorm", "sync", "layer", "position", "group"]
)
def test_norms_are_of_any_dimensions(name, dims):
    norm = make_norm(name, dims)
    x = torch.randn(4, 6, *[5, 4, 3][:dims])
    y = norm.layer(6)(norm.conv(6, 6, 3)(x))
    assert y.shape == x.shape
    assert type(norm.conv(6, 6, 3)) is (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    if name == "batch":
        flat = y.movedim(1, 0).flatten(1)
        torch.testing.assert_close(flat.mean(1), torch.zeros(6), atol=1e-5, rtol=0)
        torch.testing.assert_close(flat.var(1, correction=0), torch.ones(6), atol=1e-2, rtol=0)


def test_dimensions_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="maps of 4 dimensions: expected 1, 2 or 3"):
        make_norm("batch", 4)
    with pytest.raises(ValueError, match="standardised convolutions are 2-D only"):
        make_norm("group+standardised", 3)
    with pytest.raises(ValueError, match="only volumes have slices"):
        make_norm("batch").slicewise()
