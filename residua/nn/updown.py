"""Halving maps of any size, and bringing them back to exactly the size they had.

    down    s -> ceil(s / 2)     the coarse pixel i is made of the fine pixels 2i and 2i + 1
    up      t -> 2 t             the fine pixels 2i and 2i + 1 are made of the coarse pixel i (and, where
                                 interpolated, its neighbours); then what is too many at the far side is
                                 cut off, and what is too few there is repeated

Ronneberger, Fischer, Brox 2015, figure 1: max pooling and up-convolution, both 2 x 2 with stride 2. A side
of one pixel stays one. Because sizes are rounded up and cut at the far side alone, a pixel of the result
depends on what surrounds it, never on the size of the picture: tiles agree with the whole.

Shapes: (N, C, *S), S of one to three dimensions; where slices of volumes are left apart (`Norm.slicewise`)
the first dimension keeps its size. Training and evaluation differ as the norm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from residua.nn.names import unknown
from residua.nn.norms import Norm

DOWNS = ("max", "mean", "stride")
UPS = ("transpose", "interpolate")

MAX: dict[int, Callable[..., nn.Module]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN: dict[int, Callable[..., torch.Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
TRANSPOSED: dict[int, Callable[..., nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def make_down(kind: str, channels: int, norm: Norm, partial: bool = True) -> nn.Module:
    """Return what halves maps: (N, C, *S) -> (N, C, *ceil(S / 2)).

    partial: False leaves the last pixel of an odd side out, where convolutions are valid as well.

    kind: "max" or "mean" pooling, of the pixels that there are; "stride": a 3x3 convolution of stride 2,
    norm and ReLU. ValueError for any other.
    """
    if kind not in DOWNS:
        raise ValueError(unknown("down", kind, DOWNS))
    if kind == "stride":
        parts: OrderedDict[str, nn.Module] = OrderedDict(conv=norm.conv(channels, channels, 3, 2))
        if norm.layer is not None:
            parts["norm"] = norm.layer(channels)
        parts["act"] = norm.act()
        return nn.Sequential(parts)
    window = norm.each(2)
    if kind == "max":
        return MAX[norm.dims](window, window, ceil_mode=partial)
    return Mean(window, partial)


class Mean(nn.Module):
    """Mean of the pixels that there are in each window: (N, C, *S) -> (N, C, *ceil(S / window)).

    torch's own refuses volumes of one voxel a side.
    """

    def __init__(self, window: tuple[int, ...], partial: bool = True) -> None:
        super().__init__()
        self.window = window
        self.partial = partial

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average."""
        window = tuple(min(w, side) for w, side in zip(self.window, x.shape[2:], strict=True))
        pool = MEAN[len(window)]
        return pool(x, window, window, ceil_mode=self.partial, count_include_pad=False)


class Interpolated(nn.Module):
    """A 1x1 convolution, then linear interpolation to twice the size: (N, C, *S) -> (N, C', *2 S).

    The two commute, and the convolution is cheaper on the coarse map.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, bias: bool = True) -> None:
        super().__init__()
        self.conv = norm.conv(in_channels, out_channels, 1, bias=bias)
        self.scale = tuple(map(float, norm.each(2)))
        self.mode = LINEAR[norm.dims]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve, enlarge."""
        return functional.interpolate(self.conv(x), scale_factor=self.scale, mode=self.mode)


def make_up(
    kind: str, in_channels: int, out_channels: int, norm: Norm, bias: bool = True
) -> nn.Module:
    """Return what doubles maps: (N, C, *S) -> (N, C', *2 S).

    kind: "transpose", the paper's up-convolution; "interpolate": see `Interpolated`; ValueError else.
    """
    if kind not in UPS:
        raise ValueError(unknown("up", kind, UPS))
    if kind == "interpolate":
        return Interpolated(in_channels, out_channels, norm, bias)
    window = norm.each(2)
    return TRANSPOSED[norm.dims](in_channels, out_channels, window, window, bias=bias)


def fit(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return a map of exactly this size: cut at the far side, or its last pixels repeated there.

    >>> fit(torch.arange(4.0).view(1, 1, 4), [3]).tolist(), fit(torch.ones(1, 1, 2), [3]).shape
    ([[[0.0, 1.0, 2.0]]], torch.Size([1, 1, 3]))
    """
    missing: list[int] = []
    for dimension, want in enumerate(size, start=2):
        have = x.shape[dimension]
        if have > want:
            x = x.narrow(dimension, 0, want)
        missing[:0] = (0, max(want - have, 0))
    return functional.pad(x, missing, mode="replicate") if any(missing) else x


class DownAndUp(nn.Module):
    """up(inner(down(x))), of the size of x unless the convolutions inside lose their borders.

    The branch of a U-Net's skip: (N, C, *S) -> (N, C', *S).
    """

    def __init__(self, down: nn.Module, inner: nn.Module, up: nn.Module, resize: bool = True):
        super().__init__()
        self.down = down
        self.inner = inner
        self.up = up
        self.resize = resize

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Go down, through the inner level, and up."""
        y: torch.Tensor = self.up(self.inner(self.down(x)))
        return fit(y, x.shape[2:]) if self.resize else y
