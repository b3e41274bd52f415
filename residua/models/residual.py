"""The builder behind every family made of basic or bottleneck blocks.

    v1   conv7x7/2 norm relu maxpool3x3/2, four stages at 64..512 (x4 in bottlenecks), average, fc
    v2   conv7x7/2 maxpool3x3/2, four stages in pre-activation order, norm relu, average, fc

For 32-pixel pictures (2015, section 4.2): conv3x3, three stages of n blocks at 16, 32, 64 channels,
average, fc; depth 6n + 2 with basic blocks, 9n + 2 with bottlenecks. Other stems are in `models.stem`.

Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1; the 224-pixel maps are floor((H - 1) / 32) + 1 high.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from residua.models.classifiers import make_classifier
from residua.models.network import Network
from residua.models.stem import make_stem
from residua.nn.blocks import (
    BASE_WIDTH,
    BasicBlock,
    BlockOptions,
    BottleneckBlock,
    DepthwiseBlock,
    Drop,
    EdgeBlock,
)
from residua.nn.init import fixup, initialise, zero_last
from residua.nn.init.scheme import Fan
from residua.nn.names import split
from residua.nn.norms import make_norm
from residua.nn.orders import ORDERS
from residua.nn.recompute import Recomputed

HE2015 = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition"
HE2016B = "He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks"

FIXUP = "fixup"  # the initialisation that is of whole networks, not of one layer after the other

Block = type[BasicBlock] | type[BottleneckBlock] | type[DepthwiseBlock] | type[EdgeBlock]


def residual_network(
    *,
    block: Block | Sequence[Block],
    depths: Sequence[int],
    widths: Sequence[int],
    stem: str,
    num_classes: int,
    in_channels: int,
    stem_width: int | None = None,
    plain: bool = False,
    order: str = "original",
    shortcut: str = "B",
    merge: str = "add",
    norm: str = "batch",
    activation: str = "relu",
    stride_on: str = "3x3",
    groups: int = 1,
    base_width: int = BASE_WIDTH,
    group_size: int | None = None,
    spatial: int = 1,
    attention: str | None = None,
    attention_at: str = "end",
    antialias: str | None = None,
    dropout: float = 0.0,
    shortcut_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    drop: str = "stochastic_depth",
    drop_decay: str = "linear",
    drop_per: str = "sample",
    zero_init_last: bool = False,
    init: str = "he",
    fan: Fan = "fan_out",
    recompute: bool | int = False,
    classifier: str = "mean",
    features_only: bool = False,
) -> Network:
    """Build a residual or plain network.

    Args:
        block: of every stage, or of each. depths: blocks a stage. widths: of each stage, before expansion.
        stem: "3x3" (32 pixels, no downsampling) or one for 224 pixels (by 4): see `make_stem`.
        stem_width: its channels; None: those of the first stage, before expansion.
        plain: the same without shortcuts. order: one of `residua.nn.ORDERS`.
        shortcut: one of `residua.nn.SHORTCUTS`; where shapes change "A" zero-pads, "B" projects, "D"
            pools and projects; "C" projects on every block.
        merge: one of `residua.nn.MERGES`. norm: `residua.nn.NORMS`, everywhere alike. activation: one of
            `residua.nn.ACTIVATIONS`, in the place of every ReLU.
        stride_on: the bottleneck convolution that strides, "3x3" or (as in the paper) "1x1".
        groups, base_width: of the bottleneck's 3x3 convolution. group_size: channels a group there, in the
            place of groups. spatial: how many 3x3 convolutions a bottleneck has.
        attention: "se" or none. attention_at: "end" of each branch, or "inside" before its last convolution.
        antialias: pool by "mean" or "blur" where a branch or the stem would stride; None strides.
        dropout: inside each branch. shortcut_dropout: on each shortcut.
        stochastic_depth: probability of dropping the last block; from 0 at the first by drop_decay
            "linear", or the same everywhere by "constant"; drop and drop_per: what and how, see
            `residua.nn.regularisers.make_drop`.
        zero_init_last: start every block as its shortcut. init, fan: see `residua.nn.initialise`; init
            "fixup" is `residua.nn.init.fixup`.
        recompute: keep the activations of every n-th block only (True: of about a square root of them).
        classifier: what follows the last map, one of `residua.models.classifiers.CLASSIFIERS`.
        features_only: no head; return one map a stage.
    """
    if plain and zero_init_last:
        raise ValueError("a plain network has no shortcut: zero_init_last kills it")
    if zero_init_last or init == FIXUP:
        _check_zero_start(order, merge)
    stem_width = widths[0] if stem_width is None else stem_width
    how = make_norm(norm, activation=activation)
    options = BlockOptions(
        norm=how,
        order=order,
        shortcut=None if plain else shortcut,
        merge=merge,
        stride_on=stride_on,
        groups=groups,
        base_width=base_width,
        group_size=group_size,
        spatial=spatial,
        attention=attention,
        attention_at=attention_at,
        antialias=antialias,
        dropout=dropout,
        shortcut_dropout=shortcut_dropout,
        drop=Drop(stochastic_depth, drop, drop_decay, drop_per),
    )
    channels, done = stem_width, 0
    stages, outer = [], []
    kinds = block if isinstance(block, Sequence) else [block] * len(depths)
    for i, (kind, depth, width) in enumerate(zip(kinds, depths, widths, strict=True)):
        blocks = []
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            done += 1
            blocks.append(kind(channels, width, stride, options, done, sum(depths)))
            channels = width * kind.expansion
        stages.append(_stage(blocks, recompute))
        outer.append(channels)
    network = Network(
        make_stem(stem, in_channels, stem_width, how, ORDERS[order], antialias),
        stages,
        ORDERS[order].tail(channels, how),
        None if features_only else make_classifier(classifier, channels, num_classes, how),
        outer,
    )
    if init == FIXUP:
        fixup(network)
    else:
        initialise(network, init, fan)
    if zero_init_last:
        zero_last(network)
    return network


def _check_zero_start(order: str, merge: str) -> None:
    """Refuse branches that start at zero where something else then keeps them there for ever."""
    name, numbers = split(merge)
    if order == "relu_before_addition":
        raise ValueError(
            f"in order {order!r} a ReLU ends the branch: one that starts at zero"
            " (zero_init_last, fixup) gets no gradient"
        )
    if name == "skip_init" and not any(numbers):
        raise ValueError(
            "a branch that starts at zero (zero_init_last, fixup) gets no gradient through a scalar that"
            " starts at zero, nor does the scalar: use one of them, or merge skip_init(0.1)"
        )


def _stage(blocks: Sequence[nn.Module], recompute: bool | int) -> nn.Sequential:
    if recompute is False:
        return nn.Sequential(*blocks)
    return Recomputed(*blocks, every=None if recompute is True else recompute)
