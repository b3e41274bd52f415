"""Convolutions that normalise their weights, and the law of weights before a norm."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from residua.nn import Add, Skip, initialise, zero_last
from residua.nn.norms import CONVOLUTIONS, is_norm, make_norm, standardised
from residua.nn.norms.standardised import ScaledStandardisedConv2d, StandardisedConv2d
from residua.nn.norms.weight import WeightNormConv2d


def pictures(channels=4, n=3):
    return torch.randn(
        n, channels, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )


# -- weight normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2])
def test_weight_normalisation_is_torchs_with_equal_values(groups):
    torch.manual_seed(0)
    ours = WeightNormConv2d(4, 6, 3, stride=2, padding=1, groups=groups).double()
    theirs = weight_norm(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=groups).double())
    nn.init.uniform_(ours.gain, 0.5, 2)
    length, direction = (
        theirs.parametrizations.weight.original0,
        theirs.parametrizations.weight.original1,
    )
    with torch.no_grad():
        length.copy_(ours.gain.view(-1, 1, 1, 1))
        direction.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)
    x = pictures()
    torch.testing.assert_close(ours(x), theirs(x))
    wanted = torch.autograd.grad(theirs(x).pow(2).sum(), (direction, length, theirs.bias))
    found = torch.autograd.grad(ours(x).pow(2).sum(), (ours.weight, ours.gain, ours.bias))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b.view_as(a))


def test_after_initialisation_it_is_the_plain_convolution_with_the_weights_just_drawn():
    conv, plain = WeightNormConv2d(4, 6, 3).double(), nn.Conv2d(4, 6, 3).double()
    for draw in (lambda m: None, initialise):
        draw(conv)
        plain.load_state_dict({"weight": conv.weight, "bias": conv.bias})
        torch.testing.assert_close(conv(pictures()), plain(pictures()))


def test_a_drawn_weight_changes_the_direction_alone_until_the_gain_is_reset():
    conv = WeightNormConv2d(4, 6, 3)
    before = conv.normalised_weight().flatten(1).norm(dim=1)
    with torch.no_grad():
        conv.weight.copy_(7 * torch.randn_like(conv.weight))
    torch.testing.assert_close(conv.normalised_weight().flatten(1).norm(dim=1), before)
    conv.reset_gain()
    torch.testing.assert_close(conv.normalised_weight(), conv.weight)


# -- weight standardisation -----------------------------------------------------------------------------


def test_standardised_filters_have_mean_0_and_variance_1():
    conv = StandardisedConv2d(4, 6, 3, groups=2).double()
    v = conv.weight.detach()
    w = torch.stack([(f - f.mean()) / math.sqrt(f.var(correction=0) + 1e-10) for f in v])
    torch.testing.assert_close(conv.normalised_weight(), w)
    torch.testing.assert_close(
        conv(pictures()), nn.functional.conv2d(pictures(), w, conv.bias, groups=2)
    )


def test_scaled_filters_have_mean_0_and_length_1_times_the_gain():
    conv = ScaledStandardisedConv2d(4, 6, 3).double()
    nn.init.uniform_(conv.gain, 0.5, 2)
    for w, v, gain in zip(conv.normalised_weight(), conv.weight, conv.gain, strict=True):
        expected = gain * (v - v.mean()) / torch.sqrt(v.var(correction=0) * 36)
        torch.testing.assert_close(w, expected)
        assert w.norm().item() == pytest.approx(gain.item())
        assert w.sum().item() == pytest.approx(0, abs=1e-12)


def test_the_scale_of_a_tiny_filter_is_held_by_the_eps_of_the_authors():
    conv = ScaledStandardisedConv2d(4, 6, 3).double()
    with torch.no_grad():
        conv.weight.mul_(1e-6)
    v = conv.weight - conv.weight.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(conv.normalised_weight(), v / math.sqrt(1e-4))


def test_scaled_standardisation_keeps_the_variance_of_inputs_of_mean_zero():
    torch.manual_seed(0)
    conv = ScaledStandardisedConv2d(64, 64, 3, padding=1, padding_mode="circular", bias=False)
    assert conv(torch.randn(8, 64, 16, 16)).var().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("kind", [StandardisedConv2d, ScaledStandardisedConv2d])
def test_a_filter_of_one_weight_cannot_be_standardised(kind):
    with pytest.raises(ValueError, match="two weights or more"):
        kind(8, 8, 1, groups=8)


# -- what they share ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CONVOLUTIONS.values())
def test_they_are_convolutions_and_no_norms(kind):
    conv = kind(4, 6, 3)
    assert isinstance(conv, nn.Conv2d)
    assert not is_norm(conv)


@pytest.mark.parametrize("kind", [WeightNormConv2d, ScaledStandardisedConv2d])
def test_a_branch_of_gain_zero_starts_at_zero_and_leaves_it(kind):
    conv = kind(4, 4, 3, padding=1).double()
    block = Skip(nn.Sequential(conv), nn.Identity(), Add(nn.Identity()))
    zero_last(block)
    x = pictures()
    assert torch.equal(block(x), x)
    block(x).pow(2).sum().backward()
    assert conv.gain.grad.abs().min() > 0


@pytest.mark.parametrize(
    "name", ["batch", "weight", "group+standardised", "batch+weight", "instance", "group"]
)
@pytest.mark.parametrize("a", [0.25, 8.0])
def test_weights_before_a_norm_are_scale_free_and_their_gradient_falls_by_the_scale(
    name, a, monkeypatch
):
    torch.manual_seed(0)
    norm = make_norm(name)
    conv = norm.conv(4, 6, 3).double()
    network = nn.Sequential(conv, norm.layer(6).double() if norm.layer else nn.Identity())
    monkeypatch.setattr(standardised, "EPS", 0.0)  # the law is exact without eps alone
    for layer in network:
        if hasattr(layer, "eps"):
            layer.eps = 1e-14
    outputs, gradients = [], []
    for scale in (1.0, a):
        with torch.no_grad():
            conv.weight.mul_(scale)
        y = network(pictures())
        outputs.append(y)
        gradients.append(torch.autograd.grad(y.pow(3).sum(), conv.weight)[0])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradients[1] * a, gradients[0], rtol=1e-6, atol=1e-6)
    along = (gradients[0] * conv.weight).sum()
    assert abs(along) < 1e-6 * gradients[0].norm() * conv.weight.norm()
