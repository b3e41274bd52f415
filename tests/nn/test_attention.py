"""Squeeze and excitation: its equation, its width, its place in a branch."""

import pytest
import torch
from torch import nn

from residua.nn import BasicBlock, BlockOptions, BottleneckBlock, SqueezeExcitation, make_attention


@torch.no_grad()
def test_each_channel_is_scaled_by_a_gate_that_sees_all_means():
    torch.manual_seed(0)
    layer = SqueezeExcitation(32, 2).double()
    x = torch.randn(3, 32, 4, 5, dtype=torch.float64)
    z = x.sum((2, 3)) / 20  # equation 2
    w1, w2 = layer.fc1.weight[:, :, 0, 0], layer.fc2.weight[:, :, 0, 0]
    assert (w1.shape, w2.shape) == ((16, 32), (32, 16))
    hidden = torch.clamp(z @ w1.T + layer.fc1.bias, min=0)
    gain = 1 / (1 + torch.exp(-(hidden @ w2.T + layer.fc2.bias)))  # equation 3
    torch.testing.assert_close(layer(x), x * gain[:, :, None, None])  # equation 4


@pytest.mark.parametrize(
    "channels, inner",
    [(64, 8), (128, 8), (256, 16), (512, 32), (2048, 128), (16, 8), (184, 8), (192, 16)],
)
def test_a_sixteenth_of_the_channels_is_squeezed_to_in_multiples_of_8(channels, inner):
    assert SqueezeExcitation(channels).fc1.out_channels == inner


def test_a_number_in_brackets_is_the_reduction():
    assert make_attention("se", 256).fc1.out_channels == 16
    assert make_attention("se(4)", 256).fc1.out_channels == 64


@torch.no_grad()
def test_training_and_evaluation_are_the_same_at_any_size():
    layer = SqueezeExcitation(16)
    for size in ((1, 1), (7, 2)):
        x = torch.randn(2, 16, *size)
        assert torch.equal(layer.train()(x), layer.eval()(x))
        assert layer(x).shape == x.shape


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
@pytest.mark.parametrize("order", ["original", "preactivation"])
def test_it_ends_the_branch_and_leaves_the_shortcut_alone(block, order):
    made = block(16, 16, 2, BlockOptions(attention="se", order=order))
    assert list(made.skip.branch._modules)[-1] == "attention"
    assert not any(isinstance(m, SqueezeExcitation) for m in made.skip.shortcut.modules())
    assert isinstance(made.skip.branch.attention.act, nn.ReLU)


@pytest.mark.parametrize(
    "name, says",
    [
        ("cbam", "attention 'cbam' is unknown: expected one of se"),
        ("se(1, 2)", "attention 'se(1, 2)' does not take the numbers (1, 2)"),
        ("se[4]", "'se[4]' is not a name or name(number, ...)"),
    ],
)
def test_a_wrong_name_or_number_is_one_line(name, says):
    with pytest.raises(ValueError) as raised:
        make_attention(name, 16)
    assert str(raised.value) == says
