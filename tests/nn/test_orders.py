"""The five orders of He et al. 2016b, figure 4, and Fixup's, each written out with torch's functions.

Weights, norm parameters and running statistics are drawn; all in float64, in evaluation, where batch norm
is gamma (x - mean) / sqrt(var + eps) + beta.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.nn import ORDERS, BasicBlock, BlockOptions, BottleneckBlock, make_norm

PRECISE = {"rtol": 1e-10, "atol": 1e-10}


def relu(x):
    return torch.clamp(x, min=0)


def norm(layer, x):
    mean, var, gamma, beta = (
        v.view(-1, 1, 1) for v in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return gamma * (x - mean) / torch.sqrt(var + layer.eps) + beta


def conv(layer, x):
    kernel = layer.weight.shape[-1]
    return F.conv2d(x, layer.weight, layer.bias, layer.stride, kernel // 2)


def drawn(block, *shape, **options):
    """A block in float64 with drawn parameters and statistics, and a picture for it."""
    torch.manual_seed(0)
    made = block(*shape, BlockOptions(**options)).double().eval()
    for tensor in [*made.parameters(), *made.buffers()]:
        if tensor.is_floating_point():
            tensor.data.copy_(torch.randn(tensor.shape, dtype=torch.float64) * 0.5)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.exp_()
    return made, torch.randn(2, shape[0], 5, 6, dtype=torch.float64)


# Figure 4: the branch f of a block that keeps its shape, and what becomes of x + f.


def original(b, after, x):
    f = norm(b.norm1, conv(b.conv1, x))
    f = norm(b.norm2, conv(b.conv2, relu(f)))
    return relu(x + f)


def norm_after_addition(b, after, x):
    f = conv(b.conv2, relu(norm(b.norm1, conv(b.conv1, x))))
    return relu(norm(after.norm, x + f))


def relu_before_addition(b, after, x):
    f = relu(norm(b.norm1, conv(b.conv1, x)))
    return x + relu(norm(b.norm2, conv(b.conv2, f)))


def relu_only_preactivation(b, after, x):
    f = norm(b.norm1, conv(b.conv1, relu(x)))
    return x + norm(b.norm2, conv(b.conv2, relu(f)))


def preactivation(b, after, x):
    f = conv(b.conv1, relu(norm(b.pre1.norm, x)))
    return x + conv(b.conv2, relu(norm(b.pre2.norm, f)))


FIGURE_4 = [
    original,
    norm_after_addition,
    relu_before_addition,
    relu_only_preactivation,
    preactivation,
]


def test_figure_4_has_five_orders_and_fixup_is_the_sixth():
    assert list(ORDERS) == [*(equation.__name__ for equation in FIGURE_4), "fixup"]


@pytest.mark.parametrize("equation", FIGURE_4)
@torch.no_grad()
def test_a_block_computes_its_row_of_figure_4(equation):
    block, x = drawn(BasicBlock, 4, 4, 1, order=equation.__name__)
    before = x.clone()
    expected = equation(block.skip.branch, block.skip.merge.activation, x)
    torch.testing.assert_close(block(x), expected, **PRECISE)
    assert torch.equal(x, before)


@torch.no_grad()
def test_a_block_that_changes_shape_activates_before_the_fork_in_full_preactivation_only():
    block, x = drawn(BasicBlock, 4, 8, 2, order="preactivation")
    b = block.skip.branch
    a = relu(norm(block.fork.norm, x))
    f = conv(b.conv2, relu(norm(b.pre2.norm, conv(b.conv1, a))))
    torch.testing.assert_close(block(x), conv(block.skip.shortcut.conv, a) + f, **PRECISE)
    for order in set(ORDERS) - {"preactivation", "fixup"}:
        block, x = drawn(BasicBlock, 4, 8, 2, order=order)
        assert not hasattr(block, "fork")
        projected = norm(block.skip.shortcut.norm, conv(block.skip.shortcut.conv, x))
        torch.testing.assert_close(block.skip.shortcut(x), projected, **PRECISE)


@torch.no_grad()
def test_a_preactivated_bottleneck_is_three_times_norm_relu_convolution():
    block, x = drawn(BottleneckBlock, 16, 4, 1, order="preactivation")
    b, f = block.skip.branch, x
    for pre, layer in ((b.pre1, b.conv1), (b.pre2, b.conv2), (b.pre3, b.conv3)):
        f = conv(layer, relu(norm(pre.norm, f)))
    torch.testing.assert_close(block(x), x + f, **PRECISE)


@torch.no_grad()
def test_fixup_has_a_scalar_bias_before_each_layer_and_a_multiplier_after_the_last():
    block, x = drawn(BasicBlock, 4, 4, 1, order="fixup", norm=make_norm("none"))
    scalars = {k: p.item() for k, p in block.named_parameters() if p.dim() == 0}
    assert len(scalars) == 5  # four biases, one multiplier (2019, figure 1)
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [m.bias for m in convolutions] == [None, None]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in block.modules())
    (scale,) = (v for k, v in scalars.items() if k.endswith("scale"))
    b1a, b1b, b2a, b2b = (v for k, v in scalars.items() if not k.endswith("scale"))
    # In the order of the layers, but for the last bias, which belongs to the multiplier.
    w1, w2 = (m.weight for m in convolutions)
    f = F.conv2d(relu(F.conv2d(x + b1a, w1, padding=1) + b1b) + b2a, w2, padding=1)
    torch.testing.assert_close(block(x), relu(x + scale * f + b2b), **PRECISE)


@pytest.mark.parametrize("order", list(ORDERS))
@torch.no_grad()
def test_training_differs_in_the_norms_alone(order):
    kind = make_norm("none" if order == "fixup" else "batch")
    block, x = drawn(BasicBlock, 4, 4, 1, order=order, norm=kind)
    expected = block(x)
    block.train()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    assert torch.equal(block(x), expected)


def test_an_unknown_order_and_a_norm_in_fixup_are_one_line():
    with pytest.raises(ValueError, match="order 'pre' is unknown: expected one of original, norm_"):
        BlockOptions(order="pre")
    with pytest.raises(ValueError, match="order 'fixup' is there to train without norm layers"):
        BlockOptions(order="fixup", norm=make_norm("batch"))
