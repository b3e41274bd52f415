"""Shortcuts: the path around a branch, when shapes change and when they do not.

    identity   s(x) = x                                             where shapes stay
    A          s(x) = [x[:, :, ::r, ::r], 0]                        zero-padded channels, no parameters
    B          s(x) = norm(W x) with a 1x1 convolution of stride r  only where shapes change
    C          the same projection                                  on every block

He, Zhang, Ren, Sun 2015, section 3.3 and table 3. In a pre-activation network (He 2016b) the
projection has no norm of its own: its input is already normalised.

Shapes: x (N, C, H, W) -> (N, C', ceil(H / r), ceil(W / r)).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from residua.nn.norms import NormFactory

SHORTCUTS = ("A", "B", "C")


class NoShortcut(nn.Module):
    """No path around the branch: what a plain network has."""

    def forward(self, x: torch.Tensor) -> None:
        """Return nothing."""
        return


class ZeroPad(nn.Module):
    """Option A: subsample by `stride`, fill the new channels with zeros. Gradient flows through x."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(
                f"a zero-padded shortcut cannot go from {in_channels} to fewer channels"
                f" ({out_channels}); use shortcut B"
            )
        self.extra = out_channels - in_channels
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x subsampled and padded: (N, C, H, W) -> (N, C', H / r, W / r)."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Describe the padding."""
        return f"extra={self.extra}, stride={self.stride}"


class Projection(nn.Sequential):
    """Options B and C: a 1x1 convolution with stride, then a norm unless the order is pre-activation."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm: NormFactory | None
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        if norm is not None:
            self.norm = norm(out_channels)


def make_shortcut(
    kind: str, in_channels: int, out_channels: int, stride: int, norm: NormFactory | None
) -> nn.Module:
    """Return the shortcut of kind "A", "B" or "C" for a block of the given shape change."""
    if kind not in SHORTCUTS:
        raise ValueError(f"shortcut {kind!r} is unknown: expected one of {', '.join(SHORTCUTS)}")
    if kind != "C" and stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "A":
        return ZeroPad(in_channels, out_channels, stride)
    return Projection(in_channels, out_channels, stride, norm)
