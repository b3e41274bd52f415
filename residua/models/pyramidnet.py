"""PyramidNets for 32-pixel pictures: every block is a little wider than the one before it.

    y = [pool(x), 0] + f(x)     f(x) = norm(conv3x3(relu(norm(conv3x3(norm(x))))))
    D_k = 16 + alpha k / N      channels of block k of N, rounded to the nearest

conv3x3 of 16 channels, norm; three stages of N / 3 blocks, the second and third halving the size; norm,
relu, average, fc: depth 2 N + 2, or 3 N + 2 with bottlenecks (norm 1x1 norm relu 3x3 norm relu 1x1 norm, four
times as wide outside). Han, Kim, Kim 2017, Deep Pyramidal Residual Networks, the additive kind, rounded and
wired as in the authors' code. The shortcut averages 2x2 pixels where the size halves, and fills new channels
with zeros. The authors print 1.7M, 3.8M, 28.3M, 27.0M and 26.0M parameters for what has 1.77M, 3.90M,
28.49M, 27.22M and 26.21M, here and in others' implementations.

`stochastic_depth=0.5` trains them with ShakeDrop (Yamada et al. 2019; survival of the last block 0.5), or by
`drop=` with another of `residua.nn.regularisers.DROPS`. Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from residua.models.network import Head, Network
from residua.models.registry import register
from residua.nn.convolutions import basic_convolutions, bottleneck_convolutions
from residua.nn.init import initialise, zero_last
from residua.nn.init.scheme import Fan
from residua.nn.merges import Add
from residua.nn.norms import Convolution, Norm, make_norm
from residua.nn.orders import Preactivation
from residua.nn.regularisers import make_drop
from residua.nn.shortcuts import ZeroPad
from residua.nn.skip import Skip

STEM = 16
STAGES = 3


def width(alpha: int, block: int, blocks: int) -> int:
    """Return 16 + alpha block / blocks, rounded to the nearest, halves up, as in the authors' code.

    >>> [width(48, block, 54) for block in (1, 2, 54)]
    [17, 18, 64]
    """
    return STEM + (2 * alpha * block + blocks) // (2 * blocks)


def _branch(convolutions: list[Convolution], norm: Norm) -> OrderedDict[str, nn.Module]:
    """A norm at both ends; a ReLU before every convolution but the first."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        if norm.layer is not None:
            parts[f"norm{i}"] = norm.layer(conv.in_channels)
        if i > 1:
            parts[f"act{i}"] = norm.act()
        parts[f"conv{i}"] = conv
    if norm.layer is not None:
        parts[f"norm{len(convolutions) + 1}"] = norm.layer(convolutions[-1].out_channels)
    return parts


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Averages of 2x2, fewer at an odd edge, where the size halves; zeros for the new channels."""
    pad = ZeroPad(in_channels, out_channels, 1)
    if stride == 1:
        return nn.Identity() if in_channels == out_channels else pad
    return nn.Sequential(nn.AvgPool2d(stride, stride, ceil_mode=True), pad)


def pyramidnet(
    *,
    depth: int,
    alpha: int,
    bottleneck: bool,
    num_classes: int,
    in_channels: int,
    norm: str = "batch",
    stochastic_depth: float = 0.0,
    drop: str = "shake_drop",
    drop_decay: str = "linear",
    drop_per: str = "sample",
    zero_init_last: bool = False,
    init: str = "he",
    fan: Fan = "fan_out",
    features_only: bool = False,
) -> Network:
    """Build an additive PyramidNet.

    Args:
        depth: layers, 6n + 2 or, of bottlenecks, 9n + 2. alpha: channels added over all blocks.
        norm: one of `residua.nn.NORMS`, in stem, branches and tail alike.
        stochastic_depth: probability of dropping the last block; from 0 at the first by drop_decay
            "linear", or the same everywhere by "constant"; drop and drop_per: what and how, see
            `residua.nn.regularisers.make_drop`.
        zero_init_last: start every block as its shortcut. init, fan: see `residua.nn.initialise`.
        features_only: no head; return one map a stage.
    """
    how = make_norm(norm)
    stem: OrderedDict[str, nn.Module] = OrderedDict(conv=how.conv(in_channels, STEM, 3))
    if how.layer is not None:
        stem["norm"] = how.layer(STEM)
    a_stage = (depth - 2) // (9 if bottleneck else 6)
    blocks = STAGES * a_stage
    channels, stages, widths = STEM, [], []
    for i in range(STAGES):
        stage: list[nn.Module] = []
        for k in range(i * a_stage + 1, (i + 1) * a_stage + 1):
            stride = 2 if i > 0 and not stage else 1
            convolutions = bottleneck_convolutions if bottleneck else basic_convolutions
            layers = convolutions(how, channels, width(alpha, k, blocks), stride)
            branch = _branch(layers, how)
            dropped = make_drop(
                drop, stochastic_depth, k, blocks, drop_decay, drop_per, shortcut_channels=channels
            )
            if dropped is not None:
                branch["drop"] = dropped
            out = layers[-1].out_channels
            stage.append(Skip(nn.Sequential(branch), _shortcut(channels, out, stride), Add()))
            channels = out
        stages.append(nn.Sequential(*stage))
        widths.append(channels)
    head = None if features_only else Head(channels, num_classes)
    network = Network(nn.Sequential(stem), stages, Preactivation(channels, how), head, widths)
    initialise(network, init, fan)
    if zero_init_last:
        zero_last(network)
    return network


# (depth, alpha, bottleneck): (parameters, multiply-adds) at 10 classes and 32 pixels
COUNTS = {
    (110, 48, False): (1_772_706, 403_813_504),
    (110, 84, False): (3_904_446, 772_168_168),
    (110, 270, False): (28_485_477, 4_717_983_724),
    (164, 270, True): (27_216_021, 4_569_837_040),
    (272, 200, True): (26_210_842, 4_488_778_176),
}

for (_depth, _alpha, _bottleneck), (_parameters, _multiply_adds) in COUNTS.items():
    register(
        f"pyramidnet{_depth}_a{_alpha}_cifar",
        pyramidnet,
        family="pyramidnet",
        paper="Han, Kim, Kim 2017, Deep Pyramidal Residual Networks",
        parameters=_parameters,
        multiply_adds=_multiply_adds,
        input_size=32,
        num_classes=10,
        preset={"depth": _depth, "alpha": _alpha, "bottleneck": _bottleneck},
    )
