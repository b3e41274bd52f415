"""Merges: how a shortcut s and a branch f become one output.

    Add          y = act(s + f)     He et al. 2015, eq. 1; v1 puts a ReLU after it, v2 (2016b) nothing
    KeepBranch   y = act(f)         a plain network: the same block without its shortcut

Shapes: s, f (N, C, H, W) -> y (N, C, H, W).
"""

from __future__ import annotations

import torch
from torch import nn


class Merge(nn.Module):
    """A merge, with the activation that follows it (None: nothing follows)."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = activation if activation is not None else nn.Identity()


class Add(Merge):
    """y = activation(shortcut + branch)."""

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add the two; shapes must be equal."""
        y: torch.Tensor = self.activation(shortcut + branch)
        return y


class KeepBranch(Merge):
    """y = activation(branch): the shortcut is left out."""

    def forward(self, shortcut: torch.Tensor | None, branch: torch.Tensor) -> torch.Tensor:
        """Return the branch alone."""
        y: torch.Tensor = self.activation(branch)
        return y
