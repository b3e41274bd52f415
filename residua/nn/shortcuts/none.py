"""No shortcut: what a plain network has around its branch.

    s(x) is nothing, and the merge keeps the branch

He, Zhang, Ren, Sun 2015, figure 3 (middle). Training and evaluation are the same.
"""

from __future__ import annotations

import torch
from torch import nn


class NoShortcut(nn.Module):
    """No path around the branch."""

    def forward(self, x: torch.Tensor) -> None:
        """Return nothing."""
        return
