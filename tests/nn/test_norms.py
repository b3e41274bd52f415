"""Norms by name, against their equation."""

import pytest
import torch
from torch import nn

from residua.nn import NORMS, is_norm, norm_factory

# What each norm averages over, of (N, C, H, W) seen as (N, groups, C / groups, H, W).
AXES = {
    "batch": (64, (0, 2, 3, 4)),
    "group": (32, (2, 3, 4)),
    "layer": (1, (2, 3, 4)),
    "instance": (64, (2, 3, 4)),
}


@pytest.mark.parametrize("name", AXES)
def test_a_norm_is_its_equation(name):
    groups, axes = AXES[name]
    torch.manual_seed(0)
    x = 3 + 2 * torch.randn(4, 64, 5, 6, dtype=torch.float64)
    layer = norm_factory(name)(64).double()
    split = x.reshape(4, groups, 64 // groups, 5, 6)
    variance, mean = torch.var_mean(split, axes, correction=0, keepdim=True)
    expected = ((split - mean) / (variance + layer.eps).sqrt()).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 16, 24, 64, 100, 512])
def test_group_norm_has_groups_of_two_channels_or_more_and_at_most_32(channels):
    groups = norm_factory("group")(channels).num_groups
    assert channels % groups == 0
    assert groups <= 32
    assert channels // groups >= min(2, channels)


@pytest.mark.parametrize("name", ["group", "layer", "instance"])
def test_norms_without_running_averages_take_one_pixel_of_one_picture(name):
    for channels in (1, 8):
        layer = norm_factory(name)(channels)
        nn.init.constant_(layer.bias, 2.0)
        y = layer(torch.randn(1, channels, 1, 1))
        assert y.isfinite().all()
        if name == "instance":  # one value a group: nothing is left but beta
            assert y.flatten().tolist() == pytest.approx([2.0] * channels, abs=1e-3)


def test_none_is_no_layer_and_an_unknown_name_lists_what_there_is():
    assert norm_factory("none") is None
    with pytest.raises(ValueError, match="norm 'bach' is unknown: expected one of batch, group"):
        norm_factory("bach")


def test_a_norm_is_known_as_one():
    made = [make(8) for make in NORMS.values() if make is not None]
    foreign = [nn.SyncBatchNorm(8), nn.LayerNorm(8), nn.InstanceNorm2d(8)]
    assert all(is_norm(layer) for layer in made + foreign)
    assert not is_norm(nn.Conv2d(8, 8, 1))
