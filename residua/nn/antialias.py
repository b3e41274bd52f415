"""Pooling in place of a stride: a map is convolved at every pixel, then smoothed as it is halved.

    mean   the average of 2x2 pixels, at an odd edge of those that are there
    blur   k * x at every second pixel, k = [1 2 1]^T [1 2 1] / 16, the border mirrored

A stride keeps one value in four and so what lies between them, which shifts with the picture. Zhang, R. 2019,
Making Convolutional Networks Shift-Invariant Again, section 3.2; the mean is that of timm's networks, which
leave out the last row and column of an odd map. k is the average of 2x2 pixels twice: it needs no weights.

Shapes: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)). Training and evaluation are the same.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
mean 54.7 %, a step taking 1.16 times as long, with blur 53.5 % and 1.21 times (one seed; seeds differ by 2).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from residua.nn.names import unknown


class Blur(nn.Module):
    """Smooth by [1 2 1] / 4 in both directions and keep every second pixel; a side of one pixel stays."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Blur: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""
        for size, border in ((x.shape[2], (0, 0, 1, 1)), (x.shape[3], (1, 1, 0, 0))):
            x = functional.pad(x, border, mode="reflect" if size > 1 else "replicate")
        return functional.avg_pool2d(functional.avg_pool2d(x, 2, 1), 2)


def _mean() -> nn.Module:
    return nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)


ANTIALIASES: dict[str, Callable[[], nn.Module]] = {"mean": _mean, "blur": Blur}


def make_antialias(name: str) -> nn.Module:
    """Return the pooling of that name; ValueError lists the names there are."""
    if name not in ANTIALIASES:
        raise ValueError(unknown("antialias", name, ANTIALIASES))
    return ANTIALIASES[name]()


def antialiased_max_pool(name: str) -> nn.Module:
    """Return what stands for the stem's 3x3 max pooling of stride 2: the mean alone, or max then blur."""
    pool = make_antialias(name)
    return nn.Sequential(nn.MaxPool2d(3, 1, padding=1), pool) if isinstance(pool, Blur) else pool
