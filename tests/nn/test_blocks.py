"""Blocks: the order of their layers, where they stride, and that nothing overwrites the trunk."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn import (
    MERGES,
    ORDERS,
    SHORTCUTS,
    BasicBlock,
    BlockOptions,
    BottleneckBlock,
    Drop,
    make_norm,
)

BLOCKS = [BasicBlock, BottleneckBlock]


def options(norm="batch", **changed):
    return BlockOptions(norm=make_norm(norm), **changed)


def order(module):
    """The kinds of leaf layers, in the order in which they are registered."""
    return [type(m).__name__.rstrip("2d") for m in module.modules() if not list(m.children())]


def test_v1_normalises_and_activates_after_each_convolution():
    branch = BottleneckBlock(16, 4, 1, options()).skip.branch
    assert order(branch) == ["Conv", "BatchNorm", "ReLU"] * 2 + ["Conv", "BatchNorm"]


def test_v2_normalises_and_activates_before_each_convolution():
    branch = BottleneckBlock(16, 4, 1, options(order="preactivation")).skip.branch
    assert order(branch) == ["BatchNorm", "ReLU", "Conv"] * 3


def test_v2_activates_before_the_fork_where_the_shape_changes():
    block = BasicBlock(4, 8, 2, options(order="preactivation"))
    assert order(block.fork) == ["BatchNorm", "ReLU"]
    assert order(block.skip.branch) == ["Conv", "BatchNorm", "ReLU", "Conv"]
    assert order(block.skip.shortcut) == ["Conv"]  # no norm of its own
    assert not hasattr(BasicBlock(4, 4, 1, options(order="preactivation")), "fork")


def test_v1_rectifies_after_the_addition_and_v2_does_not():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 5)
    assert (BasicBlock(8, 8, 1, options())(x) >= 0).all()
    assert (BasicBlock(8, 8, 1, options(order="preactivation"))(x) < 0).any()


@pytest.mark.parametrize("on, strides", [("3x3", [1, 2, 1]), ("1x1", [2, 1, 1])])
def test_a_bottleneck_strides_where_it_is_told_to(on, strides):
    block = BottleneckBlock(16, 8, 2, options(stride_on=on))
    convolutions = [m for m in block.skip.branch.modules() if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convolutions] == strides
    assert block(torch.randn(2, 16, 7, 7)).shape == (2, 32, 4, 4)


def test_convolutions_have_biases_only_where_no_norm_follows():
    for norm, biased in (("batch", False), ("none", True)):
        branch = BasicBlock(8, 8, 1, options(norm=norm)).skip.branch
        assert all((m.bias is not None) == biased for m in branch if isinstance(m, nn.Conv2d))


def test_an_unknown_place_for_the_stride_is_named():
    with pytest.raises(ValueError, match="stride_on '5x5' is unknown: expected 3x3 or 1x1"):
        options(stride_on="5x5")


@settings(max_examples=60, deadline=None)
@given(
    block=st.sampled_from(BLOCKS),
    norm=st.sampled_from(["batch", "none"]),
    order=st.sampled_from(list(ORDERS)),
    shortcut=st.sampled_from([*SHORTCUTS, None]),
    merge=st.sampled_from([*MERGES, "skip_init(0.5)", "layer_scale(1)", "constant(1, 0.3)"]),
    attention=st.sampled_from([None, "se"]),
    stride=st.integers(1, 2),
    widen=st.booleans(),
    rate=st.sampled_from([0.0, 0.5]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_in_place_activations_overwrite_neither_the_trunk_nor_what_gradients_need(
    block, norm, order, shortcut, merge, attention, stride, widen, rate, size
):
    torch.manual_seed(0)
    channels = 4 * block.expansion // (2 if widen else 1)
    if shortcut is None:
        merge, rate = "add", 0.0
    kind = options(
        norm="none" if order == "fixup" else norm,
        order=order,
        shortcut=shortcut,
        merge=merge,
        attention=attention,
        drop=Drop(rate),
    )
    fast = nn.Sequential(
        block(channels, 4, stride, kind, 1, 2), block(4 * block.expansion, 4, 1, kind, 2, 2)
    ).eval()
    if norm == "none" or order == "fixup":  # one pixel of one picture has no batch statistics
        fast.train()
    safe = copy.deepcopy(fast)
    for layer in safe.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    x = torch.randn(2, channels, *size)
    results = []
    for model in (fast, safe):
        torch.manual_seed(1)
        leaf = x.clone().requires_grad_()
        y = model(leaf)
        y.square().sum().backward()
        assert torch.equal(leaf, x)  # the input is as it was
        assert all(p.grad is not None for p in model.parameters())
        results.append([y, leaf.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert results[0][0].shape[2:] == tuple((side - 1) // stride + 1 for side in size)
