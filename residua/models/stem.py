"""Stems: the first layers of a network, which bring a 224-pixel picture to a quarter of its size.

    7x7         conv7x7/2 norm relu maxpool3x3/2                       He et al. 2015, table 1
    7x7_fixed   the same, padded with zeros before it pools            Kolesnikov et al. 2020, their code
    deep        conv3x3/2 (w/2), conv3x3 (w/2), conv3x3 (w), pool      He, T. et al. 2019, fig. 2b: ResNet-C
    tiered      the same of 3w/8, w/2, w channels                      timm's networks with a t
    strided     deep, with conv3x3/2 norm relu for the pooling         Bello et al. 2021: ResNet-RS
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

STEMS = ("3x3", "7x7", "7x7_fixed", "deep", "tiered", "strided")
SINGLE = {"3x3": (3, 1), "7x7": (7, 2), "7x7_fixed": (7, 2)}  # kernel, stride


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
    least = 3 if kind == "tiered" else 2
    if width < least:
        raise ValueError(f"stem_width {width} is not at least {least}")
    if antialias is not None and kind in ("7x7_fixed", "strided"):
        raise ValueError(f"a stem {kind!r} has a pooling of its own: antialias does not go with it")
    bias = norm.layer is None and order.biases
    if kind in SINGLE:
        kernel, stride = SINGLE[kind]
        parts: Parts = OrderedDict(conv=norm.conv(in_channels, width, kernel, stride, bias=bias))
    else:
        first = 3 * width // 8 if kind == "tiered" else width // 2
        parts = _three(in_channels, first, width, norm, bias)
    if kind == "strided":
        parts |= _activation("3", width, norm)
        parts["conv4"] = norm.conv(width, width, 3, 2, bias=bias)
    parts |= order.stem(width, norm)
    if kind == "7x7_fixed":
        parts["pad"] = nn.ConstantPad2d(1, 0.0)
        parts["pool"] = nn.MaxPool2d(3, stride=2)
    elif kind not in ("3x3", "strided"):
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        parts["pool"] = pool if antialias is None else antialiased_max_pool(antialias)
    return nn.Sequential(parts)


def _three(in_channels: int, first: int, width: int, norm: Norm, bias: bool) -> Parts:
    parts: Parts = OrderedDict(conv=norm.conv(in_channels, first, 3, 2, bias=bias))
    for i, (cin, cout) in enumerate(((first, width // 2), (width // 2, width)), start=1):
        parts |= _activation(str(i), cin, norm)
        parts[f"conv{i + 1}"] = norm.conv(cin, cout, 3, bias=bias)
    return parts


def _activation(number: str, channels: int, norm: Norm) -> Parts:
    parts: Parts = OrderedDict()
    if norm.layer is not None:
        parts[f"norm{number}"] = norm.layer(channels)
    parts[f"act{number}"] = nn.ReLU(inplace=True)
    return parts
