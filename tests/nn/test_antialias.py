"""Pooling in place of strides: the binomial kernel, the border, and where in a block it stands."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.nn import ANTIALIASES, BasicBlock, BlockOptions, Blur, BottleneckBlock, make_antialias


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(height=st.integers(2, 12), width=st.integers(2, 12))
@settings(max_examples=30, deadline=None)
def test_a_blur_is_the_binomial_kernel_at_every_second_pixel_of_the_mirrored_map(height, width):
    x = pictures(2, 3, height, width)
    row = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64) / 4
    kernel = torch.outer(row, row).expand(3, 1, 3, 3)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=3)
    torch.testing.assert_close(Blur()(x), expected)


@given(height=st.integers(1, 12), width=st.integers(1, 12), name=st.sampled_from([*ANTIALIASES]))
@settings(max_examples=40, deadline=None)
def test_every_size_is_halved_upward_and_a_constant_stays(height, width, name):
    y = make_antialias(name)(torch.full((1, 2, height, width), 3.0))
    assert y.shape == (1, 2, (height + 1) // 2, (width + 1) // 2)
    torch.testing.assert_close(y, torch.full_like(y, 3.0))


def test_the_highest_frequency_vanishes_where_a_stride_would_make_it_a_constant():
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
    assert stripes[..., ::2, ::2].unique().tolist() == [1.0]
    for name in ANTIALIASES:
        assert not make_antialias(name)(stripes).any()


@pytest.mark.parametrize("block, last", [(BasicBlock, "conv2"), (BottleneckBlock, "conv3")])
@pytest.mark.parametrize("order", ["original", "preactivation"])
def test_the_pooling_is_all_that_halves_a_branch_and_stands_before_its_last_convolution(
    block, last, order
):
    options = BlockOptions(antialias="blur", order=order)
    branch = block(8, 4, 2, options).skip.branch
    names = list(dict(branch.named_children()))
    assert names[names.index("pool") + 1] == last
    assert type(branch.pool) is Blur
    assert {m.stride for m in branch if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert not hasattr(block(8, 4, 1, options).skip.branch, "pool")


@torch.no_grad()
def test_a_block_computes_its_equation():
    torch.manual_seed(0)
    block = BottleneckBlock(8, 4, 2, BlockOptions(antialias="mean")).double().eval().skip
    x, f = pictures(2, 8, 6, 10), block.branch
    y = F.relu(f.norm1(F.conv2d(x, f.conv1.weight)))
    y = F.avg_pool2d(F.relu(f.norm2(F.conv2d(y, f.conv2.weight, padding=1))), 2)
    y = f.norm3(F.conv2d(y, f.conv3.weight))
    s = block.shortcut.norm(F.conv2d(x, block.shortcut.conv.weight, stride=2))
    torch.testing.assert_close(block(x), F.relu(s + y))


@torch.no_grad()
def test_the_stem_pools_by_the_mean_alone_or_blurs_the_maximum():
    x = pictures(1, 64, 12, 12)
    mean, blur = (create_model(name).stem.pool for name in ("resnetaa50", "resnetblur50"))
    torch.testing.assert_close(mean(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(blur(x), Blur()(F.max_pool2d(x, 3, 1, 1)))


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("resnet18", {"antialias": "sinc"}, "antialias 'sinc' is unknown: expected one of mean"),
        ("resnet50", {"antialias": "blur", "stride_on": "1x1"}, "it goes with stride_on 3x3"),
        ("resnetrs50", {"antialias": "blur"}, "a stem 'strided' has a pooling of its own"),
        ("resnetv2_50x1_bit", {"antialias": "mean"}, "a stem '7x7_fixed' has a pooling of its own"),
        ("densenet40_12_cifar", {"antialias": "blur"}, "a stem for 32 pixels has no pooling"),
        ("resnet50t", {"stem_width": 2}, "stem_width 2 leaves a convolution of 'tiered' without"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(name, options, says):
    with torch.device("meta"), pytest.raises(BadInput) as raised:
        create_model(name, **options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
