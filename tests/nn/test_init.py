"""He's and Glorot's variances, the law of the second moment, and branches that start at zero."""

import pytest
import torch
from torch import nn

from residua.nn import BasicBlock, BottleneckBlock, initialise, zero_last
from residua.nn.blocks import BlockOptions

CIN, COUT, KERNEL = 96, 160, 3


@pytest.mark.parametrize(
    "scheme, fan, variance",
    [
        ("he", "fan_out", 2 / (COUT * KERNEL**2)),
        ("he", "fan_in", 2 / (CIN * KERNEL**2)),
        ("glorot", "fan_out", 2 / ((CIN + COUT) * KERNEL**2)),
    ],
)
def test_weights_have_the_variance_of_the_paper(scheme, fan, variance):
    torch.manual_seed(0)
    conv = nn.Conv2d(CIN, COUT, KERNEL)
    initialise(conv, scheme, fan)
    assert not conv.bias.any()
    # 138,240 normal draws: the standard error of their variance is 0.38 %, of their mean 1 / 372.
    assert conv.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert conv.weight.mean().item() == pytest.approx(0, abs=4 / 372 * variance**0.5)


def test_linear_layers_keep_torch_s_weights_and_lose_their_biases():
    torch.manual_seed(0)
    linear = nn.Linear(400, 100)
    before = linear.weight.clone()
    initialise(linear)
    assert torch.equal(linear.weight, before)
    assert not linear.bias.any()


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match="'xavier' is unknown: expected he or glorot"):
        initialise(nn.Conv2d(1, 1, 1), "xavier")


def test_without_norm_the_second_moment_doubles_with_each_residual_block():
    torch.manual_seed(0)
    blocks = nn.Sequential(
        *(BasicBlock(64, 64, 1, BlockOptions(None, preactivation=True)) for _ in range(5))
    )
    for block in blocks:
        for name in ("conv1", "conv2"):  # zeros at the borders would take from the moment
            around = nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular")
            setattr(block.skip.branch, name, around)
    initialise(blocks, "he", "fan_in")
    x = torch.randn(8, 64, 12, 12)
    moments = [x.square().mean().item()]
    with torch.no_grad():
        for block in blocks:
            x = block(x)
            moments.append(x.square().mean().item())
    growth = (moments[-1] / moments[0]) ** (1 / len(blocks))
    assert growth == pytest.approx(2, rel=0.06)


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, None])
def test_a_zeroed_v2_block_is_the_identity_and_a_v1_block_its_rectified_input(block, norm):
    torch.manual_seed(0)
    channels = 8 * block.expansion
    x = torch.randn(2, channels, 5, 5)
    for preactivation, expected in ((True, x), (False, x.relu())):
        unit = block(channels, 8, 1, BlockOptions(norm, preactivation=preactivation))
        assert not torch.equal(unit(x), expected)
        zero_last(unit)
        assert torch.equal(unit(x), expected)


@pytest.mark.parametrize("preactivation", [True, False])
def test_a_zeroed_block_that_changes_shape_is_its_projection(preactivation):
    torch.manual_seed(0)
    unit = BasicBlock(8, 16, 2, BlockOptions(nn.BatchNorm2d, preactivation=preactivation))
    zero_last(unit)
    x = torch.randn(2, 8, 7, 7)
    shortcut = unit.skip.shortcut
    expected = shortcut(unit.fork(x)) if preactivation else shortcut(x).relu()
    assert expected.any()
    assert torch.equal(unit(x), expected)
