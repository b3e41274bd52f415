"""Stems: the first layers of a network, which bring a 224-pixel picture to a quarter of its size.

    7x7         conv7x7/2 norm relu maxpool3x3/2                       He et al. 2015, table 1
    7x7_fixed   the same, padded with zeros before it pools            Kolesnikov et al. 2020, their code
    deep        conv3x3/2 (w/2), conv3x3 (w/2), conv3x3 (w), pool      He, T. et al. 2019, fig. 2b: ResNet-C
    tiered      the same of 3w/8, w/2, w channels                      timm's networks with a t
    strided     deep, with conv3x3/2 norm relu for the pooling         Bello et al. 2021: ResNet-RS
    tiered_strided     tiered, where the last one has stride 2, for the pooling     timm's networks with ts
    quad        conv3x3/2 (w/8), conv3x3 (w/4), conv3x3 (w/2), conv3x3/2 (w)        Brock et al. 2021: NFNet
    quad2       the same, with nothing after the first two             timm's resnet51q
    3x3         conv3x3 norm relu, of 32-pixel pictures                He et al. 2015, section 4.2

norm and ReLU follow each convolution; in v2 the first block's activation takes the place of the last ones.
A border whose values are all negative becomes 0 in "7x7_fixed"; a pooling's own padding leaves it as it is.

Shapes: (N, C, H, W) -> (N, w, ceil(ceil(H / 2) / 2), ...), in "3x3" (N, w, H, W).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from residua.nn.antialias import antialiased_max_pool
from residua.nn.names import unknown
from residua.nn.norms import Norm
from residua.nn.orders import Order, Parts

SINGLE = {"3x3": (3, 1), "7x7": (7, 2), "7x7_fixed": (7, 2)}  # kernel, stride

# of each 3x3 convolution: its channels in eighths of the width, and its stride
SEVERAL: dict[str, tuple[tuple[int, int], ...]] = {
    "deep": ((4, 2), (4, 1), (8, 1)),
    "tiered": ((3, 2), (4, 1), (8, 1)),
    "strided": ((4, 2), (4, 1), (8, 1), (8, 2)),
    "tiered_strided": ((3, 2), (4, 1), (8, 2)),
    "quad": ((1, 2), (2, 1), (4, 1), (8, 2)),
    "quad2": ((1, 2), (2, 1), (4, 1), (8, 2)),
}
BARE = {"quad2": 2}  # how many convolutions nothing follows
STEMS = (*SINGLE, *SEVERAL)
POOLED = ("7x7", "deep", "tiered")


def make_stem(
    kind: str,
    in_channels: int,
    width: int,
    norm: Norm,
    order: Order,
    antialias: str | None = None,
) -> nn.Sequential:
    """Return the stem of that kind, of `width` channels.

    antialias: how it pools, see `residua.nn.antialias`; None: by the maximum alone. Raises ValueError for an
    unknown kind, a width that leaves a convolution without channels, and a stem without that pooling.
    """
    if kind not in STEMS:
        raise ValueError(unknown("stem", kind, STEMS))
    if antialias is not None and kind not in (*POOLED, "3x3"):
        raise ValueError(
            f"a stem {kind!r} has a pooling of its own, or none: antialias does not go with it"
        )
    bias = norm.layer is None and order.biases
    if kind in SINGLE:
        kernel, stride = SINGLE[kind]
        parts: Parts = OrderedDict(conv=norm.conv(in_channels, width, kernel, stride, bias=bias))
    else:
        parts = _several(kind, in_channels, width, norm, bias)
    parts |= order.stem(width, norm)
    if kind == "7x7_fixed":
        parts["pad"] = nn.ConstantPad2d(1, 0.0)
        parts["pool"] = nn.MaxPool2d(3, stride=2)
    elif kind in POOLED:
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        parts["pool"] = pool if antialias is None else antialiased_max_pool(antialias)
    return nn.Sequential(parts)


def _several(kind: str, in_channels: int, width: int, norm: Norm, bias: bool) -> Parts:
    """Return the convolutions, and what follows each but the last one."""
    parts: Parts = OrderedDict()
    channels = [in_channels, *(eighths * width // 8 for eighths, _ in SEVERAL[kind])]
    if min(channels) < 1:
        raise ValueError(f"stem_width {width} leaves a convolution of {kind!r} without channels")
    for i, (_, stride) in enumerate(SEVERAL[kind]):
        if i > BARE.get(kind, 0):
            if norm.layer is not None:
                parts[f"norm{i}"] = norm.layer(channels[i])
            parts[f"act{i}"] = norm.act()
        name = f"conv{i + 1}" if i else "conv"
        parts[name] = norm.conv(channels[i], channels[i + 1], 3, stride, bias=bias)
    return parts
