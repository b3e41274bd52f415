"""SkipInit: a learned scalar on the branch, which starts at zero.

    y = act(s + a f),   a one number, 0 at first

De, Smith 2020, Batch normalization biases residual blocks towards the identity function in deep
networks, section 4: every block starts as its shortcut, so depth costs nothing at initialisation; any
start up to 1 / sqrt K trains. The branch gets no gradient in the first step, the scalar does.

Shapes: s, f (N, C, *S) -> y (N, C, *S). Training and evaluation are the same.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
merge=skip_init 48.4 %, 1.08; norm=none, merge=skip_init 29.9 %, 0.94 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.merges.merge import Merge


class SkipInit(Merge):
    """y = activation(shortcut + scale * branch) with a scalar parameter `scale`."""

    def __init__(self, start: float = 0.0, activation: nn.Module | None = None) -> None:
        super().__init__(activation)
        self.scale = nn.Parameter(torch.full((), float(start)))

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add the branch, scaled; shapes must be equal."""
        y: torch.Tensor = self.activation(shortcut + self.scale * branch)
        return y
