"""The variances of He and Glorot, rotations, and branches that start at zero."""

import math

import pytest
import torch
from torch import nn

from residua.nn import BasicBlock, BottleneckBlock, initialise, make_norm, zero_last
from residua.nn.blocks import BlockOptions
from residua.nn.init import SCHEMES
from residua.nn.init.layers import last_layers, zero
from residua.nn.merges.gates import Gate
from residua.nn.norms.standardised import StandardisedConv2d
from residua.nn.norms.weight import WeightNormConv2d
from residua.nn.regularisers import ShakeShake

CIN, COUT, KERNEL = 96, 160, 3
FANS = {"fan_in": CIN * KERNEL**2, "fan_out": COUT * KERNEL**2}
BOTH = sum(FANS.values())


@pytest.mark.parametrize(
    "scheme, fan, variance",
    [
        ("he", "fan_out", 2 / FANS["fan_out"]),
        ("he", "fan_in", 2 / FANS["fan_in"]),
        ("he_uniform", "fan_in", 2 / FANS["fan_in"]),
        ("glorot", "fan_out", 2 / BOTH),
        ("glorot_uniform", "fan_out", 2 / BOTH),
    ],
)
def test_weights_have_the_variance_of_the_paper(scheme, fan, variance):
    torch.manual_seed(0)
    conv = nn.Conv2d(CIN, COUT, KERNEL)
    initialise(conv, scheme, fan)
    assert not conv.bias.any()
    # 138,240 draws: the standard error of their variance is 0.38 % at most, of their mean 1 / 372.
    assert conv.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=4 / 372 * variance**0.5)
    if "uniform" in scheme:
        assert conv.weight.abs().max().item() == pytest.approx((3 * variance) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("fan", FANS)
@pytest.mark.parametrize(
    "scheme, torchs",
    [
        ("he", nn.init.kaiming_normal_),
        ("he_uniform", nn.init.kaiming_uniform_),
        ("glorot", nn.init.xavier_normal_),
        ("glorot_uniform", nn.init.xavier_uniform_),
    ],
)
def test_the_draws_are_torch_s_own_bit_for_bit(scheme, torchs, fan):
    network = nn.Sequential(nn.Conv2d(3, 8, 7), nn.BatchNorm2d(8), nn.Conv2d(8, 12, (3, 1)))
    torch.manual_seed(0)
    initialise(network, scheme, fan)
    torch.manual_seed(0)
    for conv in (network[0], network[2]):
        expected = torch.empty_like(conv.weight)
        options = {"mode": fan, "nonlinearity": "relu"} if scheme.startswith("he") else {}
        assert torch.equal(conv.weight, torchs(expected, **options))


@pytest.mark.parametrize(
    "conv, fan_in, fan_out",
    [
        (nn.Conv2d(64, 128, 3, groups=4), 16 * 9, 32 * 9),
        (nn.Conv3d(16, 32, 3), 16 * 27, 32 * 27),
        # Stride 2 with a kernel of 2: every output sums one tap.
        (nn.ConvTranspose2d(64, 96, 2, stride=2), 64, 96 * 4),
        (nn.ConvTranspose3d(32, 64, 2, stride=2, groups=2), 16, 32 * 8),
    ],
)
def test_fans_count_what_an_output_sums_and_an_input_reaches(conv, fan_in, fan_out):
    torch.manual_seed(0)
    for fan, count in (("fan_in", fan_in), ("fan_out", fan_out)):
        initialise(conv, "he", fan)
        assert conv.weight.var().item() == pytest.approx(2 / count, rel=0.05)


@pytest.mark.parametrize(
    "conv, axes",
    [
        (nn.Conv2d(64, 64, 3, groups=4, bias=False), (2, 3)),
        (nn.Conv3d(32, 48, 3, padding=1, bias=False), (2, 3, 4)),
        (nn.ConvTranspose2d(64, 32, 2, stride=2, bias=False), (2, 3)),
    ],
)
@torch.no_grad()
def test_he_s_fan_in_doubles_the_second_moment_of_any_convolution(conv, axes):
    torch.manual_seed(0)
    initialise(conv, "he", "fan_in")
    y = conv(torch.randn(2, conv.in_channels, *(12,) * len(axes)))
    inner = y[(..., *(slice(2, -2),) * len(axes))]
    assert inner.square().mean().item() == pytest.approx(2, rel=0.1)


def rows(conv):
    """The weight as a matrix for each group: (groups, out, in k^2)."""
    return conv.weight.detach().double().reshape(conv.groups, -1, conv.weight[0].numel())


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("cin, cout", [(8, 24), (4, 100), (16, 16)])
def test_orthogonal_weights_are_semi_orthogonal_in_each_group(cin, cout, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(cin, cout, 3, groups=groups)
    initialise(conv, "orthogonal")
    for matrix in rows(conv):
        if matrix.shape[0] > matrix.shape[1]:
            matrix = matrix.T
        torch.testing.assert_close(
            matrix @ matrix.T, 2 * torch.eye(len(matrix)).double(), atol=1e-5, rtol=0
        )


@torch.no_grad()
def test_orthonormal_rows_double_the_second_moment_whatever_the_fan():
    torch.manual_seed(0)
    for cin, cout in ((64, 16), (64, 64)):
        conv = nn.Conv2d(cin, cout, 3)
        initialise(conv, "orthogonal")
        y = conv(torch.randn(16, cin, 20, 20))
        assert y.square().mean().item() == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("cin, cout, kernel", [(8, 8, 3), (8, 24, 3), (8, 12, 5), (6, 6, 1)])
@torch.no_grad()
def test_a_delta_orthogonal_convolution_keeps_every_pixel_s_length(cin, cout, kernel, groups):
    torch.manual_seed(0)
    conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, groups=groups, bias=False)
    initialise(conv, "delta_orthogonal")
    x = torch.randn(2, cin, 7, 6)
    lengths = conv(x).square().sum(1)
    torch.testing.assert_close(lengths, 2 * x.square().sum(1), rtol=1e-4, atol=1e-4)
    off_centre = conv.weight.clone()
    off_centre[:, :, kernel // 2, kernel // 2] = 0
    assert not off_centre.any()


@torch.no_grad()
def test_a_delta_orthogonal_convolution_to_fewer_channels_has_orthonormal_rows():
    torch.manual_seed(0)
    conv = nn.Conv2d(24, 8, 3)
    initialise(conv, "delta_orthogonal")
    centre = conv.weight[:, :, 1, 1]
    torch.testing.assert_close(centre @ centre.T, 2 * torch.eye(8), atol=1e-5, rtol=0)


def test_linear_layers_keep_torch_s_weights_and_lose_their_biases():
    torch.manual_seed(0)
    linear = nn.Linear(400, 100)
    before = linear.weight.clone()
    initialise(linear)
    assert torch.equal(linear.weight, before)
    assert not linear.bias.any()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_gate_keeps_its_starting_bias(scheme):
    gate = Gate(4, -6.0)
    initialise(gate, scheme)
    assert (gate.bias == -6).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_convolution_that_normalises_its_weight_starts_as_the_one_that_does_not(scheme):
    x = torch.randn(2, 5, 6, 6)
    outputs = []
    for make in (nn.Conv2d, WeightNormConv2d):
        torch.manual_seed(0)
        conv = make(5, 9, 3)
        torch.manual_seed(1)
        initialise(conv, scheme)
        outputs.append(conv(x))
    torch.testing.assert_close(*outputs)


def test_an_unknown_scheme_or_fan_is_named():
    with pytest.raises(ValueError, match="'xavier' is unknown: expected one of he, he_uniform, gl"):
        initialise(nn.Conv2d(1, 1, 1), "xavier")
    with pytest.raises(ValueError, match="fan 'in' is unknown: expected one of fan_in, fan_out"):
        initialise(nn.Conv2d(1, 1, 1), fan="in")


def test_without_norm_the_second_moment_doubles_with_each_residual_block():
    torch.manual_seed(0)
    options = BlockOptions(make_norm("none"), order="preactivation")
    blocks = nn.Sequential(*(BasicBlock(64, 64, 1, options) for _ in range(5)))
    for conv in blocks.modules():
        if isinstance(conv, nn.Conv2d):  # zeros at the borders would take from the moment
            conv.padding_mode = "circular"
    initialise(blocks, "he", "fan_in")
    x = torch.randn(8, 64, 12, 12)
    moments = [x.square().mean().item()]
    with torch.no_grad():
        for block in blocks:
            x = block(x)
            moments.append(x.square().mean().item())
    growth = (moments[-1] / moments[0]) ** (1 / len(blocks))
    assert growth == pytest.approx(2, rel=0.06)


@pytest.mark.parametrize("attention", [None, "se"])
@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_zeroed_v2_block_is_the_identity_and_a_v1_block_its_rectified_input(
    block, norm, attention
):
    torch.manual_seed(0)
    channels = 8 * block.expansion
    x = torch.randn(2, channels, 5, 5)
    for order, expected in (("preactivation", x), ("original", x.relu())):
        options = BlockOptions(make_norm(norm), order=order, attention=attention)
        unit = block(channels, 8, 1, options)
        assert not torch.equal(unit(x), expected)
        zero_last(unit)
        assert torch.equal(unit(x), expected)
        assert [k for k, p in unit.named_parameters() if "attention" in k and not p.any()] == []


@pytest.mark.parametrize("order", ["preactivation", "original"])
def test_a_zeroed_block_that_changes_shape_is_its_projection(order):
    torch.manual_seed(0)
    unit = BasicBlock(8, 16, 2, BlockOptions(make_norm("batch"), order=order))
    zero_last(unit)
    x = torch.randn(2, 8, 7, 7)
    shortcut = unit.skip.shortcut
    expected = shortcut(unit.fork(x)) if order == "preactivation" else shortcut(x).relu()
    assert expected.any()
    assert torch.equal(unit(x), expected)


def test_zeroing_takes_the_gain_of_a_weight_normalised_convolution_and_both_paths_of_two():
    norm, conv, gained = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), WeightNormConv2d(4, 4, 1)
    assert last_layers(nn.Sequential(conv, norm, nn.ReLU(), nn.Dropout(0.1))) == [norm]
    assert last_layers(ShakeShake(nn.Sequential(conv, norm), nn.Sequential(gained))) == [
        norm,
        gained,
    ]
    zero(gained)
    x = torch.randn(2, 4, 3, 3)
    y = gained(x)
    assert not y.any()
    (y + x).square().sum().backward()
    assert math.isfinite(gained.gain.grad.abs().sum().item()) and gained.gain.grad.any()


def test_a_standardised_convolution_has_no_length_to_take_away():
    with pytest.raises(ValueError, match="no scale to set: use scaled_standardised"):
        zero(StandardisedConv2d(4, 4, 1))
