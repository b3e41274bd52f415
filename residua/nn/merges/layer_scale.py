"""LayerScale: a learned gain for each channel of the branch, which starts small.

    y = act(s + diag(gamma) f),   gamma (C,) = 0.1 up to 18 blocks, 1e-5 up to 24, 1e-6 beyond, at first

Touvron, Cord, Sablayrolles, Synnaeve, Jegou 2021, Going deeper with image transformers, equation 5 and
the starts below it.

Shapes: s, f (N, C, *S) -> y (N, C, *S). Training and evaluation are the same.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
merge=layer_scale 40.5 %, 1.00; norm=none, merge=layer_scale 30.0 %, 0.97 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.merges.merge import Merge


def start_for(blocks: int) -> float:
    """Return the paper's first gain for a network of that many blocks."""
    return 0.1 if blocks <= 18 else 1e-5 if blocks <= 24 else 1e-6


class LayerScale(Merge):
    """y = activation(shortcut + gamma * branch) with gamma (C,)."""

    def __init__(self, channels: int, start: float, activation: nn.Module | None = None) -> None:
        super().__init__(activation)
        self.gamma = nn.Parameter(torch.full((channels,), float(start)))

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add the branch, each channel scaled; shapes must be equal."""
        gamma = self.gamma.view(-1, *(1,) * (branch.dim() - 2))
        y: torch.Tensor = self.activation(shortcut + gamma * branch)
        return y
