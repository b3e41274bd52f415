"""The skip connection, of which every network here is a composition.

    y = merge(shortcut(x), branch(x))

He, Zhang, Ren, Sun 2015, equation 1 (`y = F(x, {W}) + x`), with the three parts named so that other
networks are other parts: U-Net merges by concatenation, Highway by a gate, a plain network not at all.

Shapes: x (N, C, H, W) -> y (N, C', H', W'); the parts must agree on C', H', W'.
"""

from __future__ import annotations

import torch
from torch import nn


class Skip(nn.Module):
    """y = merge(shortcut(x), branch(x)).

    The shortcut runs first and must leave `x` as it is: the branch reads the same tensor.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.merge = merge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return merge(shortcut(x), branch(x))."""
        y: torch.Tensor = self.merge(self.shortcut(x), self.branch(x))
        return y
