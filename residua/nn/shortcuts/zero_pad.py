"""Option A: the identity where shapes change, without parameters.

    s(x) = [x[:, :, ::r, ::r], 0]      every r-th pixel, new channels filled with zeros

He, Zhang, Ren, Sun 2015, section 3.3.
Shapes: x (N, C, H, W) -> (N, C', ceil(H / r), ceil(W / r)). Training and evaluation are the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class ZeroPad(nn.Module):
    """Subsample by `stride`, fill the new channels with zeros. Gradient flows through x."""

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
