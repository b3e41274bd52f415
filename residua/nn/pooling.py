"""Halving by 2x2 pooling, for maps of any size.

    y_ij = max or mean of x_(2i..2i+1, 2j..2j+1)

Shapes: (N, C, H, W) -> (N, C, max(1, floor(H / 2)), max(1, floor(W / 2))): the last row or column of an odd
map is left out, as torch's pooling does; torch's own refuses a side of one pixel, which stays here.
Training and evaluation are the same.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Halve(nn.Module):
    """2x2 pooling of stride 2, "max" or "mean"; a side of one pixel is left as it is."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind not in ("max", "mean"):
            raise ValueError(f"pooling {kind!r} is unknown: expected max or mean")
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pool: (N, C, H, W) -> (N, C, max(1, H // 2), max(1, W // 2))."""
        window = (min(2, x.shape[2]), min(2, x.shape[3]))
        if self.kind == "max":
            return functional.max_pool2d(x, window)
        return functional.avg_pool2d(x, window)

    def extra_repr(self) -> str:
        """Describe the pooling."""
        return self.kind
