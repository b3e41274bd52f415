"""The builder behind the plain, v1 and v2 (pre-activation) families.

    v1   conv7x7/2 norm relu maxpool3x3/2, four stages at 64..512 (x4 in bottlenecks), average, fc
    v2   conv7x7/2 maxpool3x3/2, four stages in pre-activation order, norm relu, average, fc

For 32-pixel pictures (2015, section 4.2): conv3x3, three stages of n blocks at 16, 32, 64 channels,
average, fc; depth 6n + 2 with basic blocks, 9n + 2 with bottlenecks.

Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1; the 224-pixel maps are floor((H - 1) / 32) + 1 high.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from residua.models.network import Head, Network
from residua.nn.blocks import BasicBlock, BlockOptions, BottleneckBlock, Preactivation
from residua.nn.init import initialise, zero_last
from residua.nn.norms import NormFactory, norm_factory
from residua.nn.regularisers import linear_decay

HE2015 = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition"
HE2016B = "He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks"

Block = type[BasicBlock] | type[BottleneckBlock]


def residual_network(
    *,
    block: Block,
    depths: Sequence[int],
    widths: Sequence[int],
    small: bool,
    preactivation: bool,
    plain: bool,
    num_classes: int,
    in_channels: int,
    shortcut: str = "B",
    norm: str = "batch",
    stride_on: str = "3x3",
    stochastic_depth: float = 0.0,
    zero_init_last: bool = False,
    init: str = "he",
    features_only: bool = False,
) -> Network:
    """Build a residual or plain network.

    Args:
        block: basic or bottleneck. depths: blocks a stage. widths: of the inner convolutions.
        small: the 32-pixel stem (no downsampling) rather than the 224-pixel one (by 4).
        preactivation: v2 order. plain: the same without shortcuts.
        shortcut: where shapes change "A" zero-pads, "B" projects; "C" projects on every block.
        norm: one of `residua.nn.NORMS`, in stem, branches, projections and tail alike.
        stride_on: the bottleneck convolution that strides, "3x3" or (as in the paper) "1x1".
        stochastic_depth: probability of dropping the last block; linear from 0 at the first.
        zero_init_last: start every block as its shortcut. init: "he" or "glorot".
        features_only: no head; return one map a stage.
    """
    if not 0.0 <= stochastic_depth < 1.0:
        raise ValueError(f"stochastic_depth {stochastic_depth} is not in [0, 1)")
    make_norm = norm_factory(norm)
    options = BlockOptions(make_norm, None if plain else shortcut, preactivation, stride_on)
    if plain and (stochastic_depth > 0 or zero_init_last):
        raise ValueError(
            "a plain network has no shortcut: stochastic_depth and zero_init_last kill it"
        )
    stem = _stem(in_channels, widths[0], small, make_norm, preactivation)
    stages = []
    channels, done = widths[0], 0
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks = []
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            done += 1
            survival = linear_decay(stochastic_depth, done, sum(depths))
            blocks.append(block(channels, width, stride, options, survival))
            channels = width * block.expansion
        stages.append(nn.Sequential(*blocks))
    network = Network(
        stem,
        stages,
        Preactivation(channels, make_norm) if preactivation else None,
        None if features_only else Head(channels, num_classes),
        [width * block.expansion for width in widths],
    )
    initialise(network, init)
    if zero_init_last:
        zero_last(network)
    return network


def _stem(
    in_channels: int, width: int, small: bool, norm: NormFactory | None, preactivation: bool
) -> nn.Sequential:
    """Return the first layers; in v2 the first block's activation takes the place of norm and ReLU."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    kernel, stride = (3, 1) if small else (7, 2)
    parts["conv"] = nn.Conv2d(
        in_channels, width, kernel, stride, padding=kernel // 2, bias=norm is None
    )
    if not preactivation:
        if norm is not None:
            parts["norm"] = norm(width)
        parts["act"] = nn.ReLU(inplace=True)
    if not small:
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(parts)
