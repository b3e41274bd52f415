"""Norms by name, and what a norm is."""

import pytest
import torch
from torch import nn

from residua.nn import is_norm
from residua.nn.norms import (
    CONVOLUTIONS,
    LAYERS,
    NORMS,
    make_norm,
    running_norms,
    tracks_statistics,
)


def test_every_name_of_the_field_is_there():
    batch = {"batch", "ghost", "renorm", "sync"}
    sample = {"layer", "position", "group", "instance", "filter_response"}
    sample |= {"filter_response_tlu", "evonorm"}
    weights = {"weight", "scaled_standardised", "group+standardised"}
    assert set(NORMS) == batch | sample | weights | {"none"}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("convolution", CONVOLUTIONS)
def test_any_layer_goes_with_any_convolution_in_either_order(layer, convolution):
    for name in (f"{layer}+{convolution}", f"{convolution}+{layer}"):
        norm = make_norm(name)
        assert norm.convolution is CONVOLUTIONS[convolution]
        assert type(norm.layer(4)) is type(make_norm(layer).layer(4))


@pytest.mark.parametrize("name", NORMS)
def test_a_convolution_has_a_bias_where_no_layer_follows_and_same_padding(name):
    norm = make_norm(name)
    conv = norm.conv(4, 8, 3, stride=2)
    assert (conv.bias is None) == (norm.layer is not None)
    assert conv(torch.randn(1, 4, 7, 10)).shape == (1, 8, 4, 5)
    assert norm.conv(4, 8, 1, groups=2, bias=False).bias is None


def test_numbers_in_brackets_reach_the_layer():
    assert make_norm("ghost(8)").layer(4).samples == 8
    assert make_norm("ghost").layer(4).samples == 32
    assert make_norm("group(2)").layer(8).num_groups == 2
    renorm = make_norm("renorm(2, 4, 10, 30, 20)").layer(4)
    assert (renorm.r_max, renorm.d_max, renorm.start, renorm.r_end, renorm.d_end) == (
        2,
        4,
        10,
        30,
        20,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bach", "norm 'bach' is unknown: expected one of batch, ghost, renorm"),
        ("batch+bach", "'batch\\+bach' is unknown"),
        ("none+batch", "unknown"),
        ("standardised(3)", "unknown"),
        ("", "not a name"),
        ("batch+group", "names two layers"),
        ("standardised", "needs a layer after it, as in 'group\\+standardised'"),
        ("weight+standardised", "names two kinds of convolution"),
        ("ghost(0)", "ghost batch of 0 samples"),
        ("ghost(2.5)", "ghost batch of 2.5 samples"),
        ("group(0)", "0 groups"),
        ("group(1.5)", "1.5 groups"),
        ("batch(0.5)", "does not take the numbers"),
        ("position(1)", "does not take the numbers"),
        ("renorm(0.5)", "r_max >= 1"),
        ("renorm(3, 5, 100, 50)", "start <= r_end"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(name, message):
    with pytest.raises(ValueError, match=message):
        make_norm(name)


def test_none_is_no_layer_and_a_plain_convolution():
    assert make_norm("none").layer is None
    assert make_norm("none").convolution is nn.Conv2d


def test_a_norm_is_known_as_one_and_a_convolution_is_not():
    made = [make_norm(name).layer(8) for name in LAYERS]
    foreign = [nn.BatchNorm1d(8), nn.SyncBatchNorm(8), nn.LayerNorm(8), nn.InstanceNorm2d(8)]
    assert all(is_norm(layer) for layer in made + foreign)
    assert not any(is_norm(kind(8, 8, 3)) for kind in (nn.Conv2d, *CONVOLUTIONS.values()))
    assert not is_norm(nn.ReLU())


def test_norms_with_running_statistics_are_known():
    named = {name: make_norm(name).layer(8) for name in LAYERS}
    named["fixed"] = nn.BatchNorm2d(8, track_running_stats=False)
    named["1d"] = nn.BatchNorm1d(8)
    known = {name for name, layer in named.items() if tracks_statistics(layer)}
    assert known == {"batch", "ghost", "renorm", "sync", "1d"}
    twice = nn.Sequential(named["batch"], nn.Sequential(named["ghost"], named["batch"]), nn.ReLU())
    assert running_norms(twice) == {"0": named["batch"], "1.0": named["ghost"]}
