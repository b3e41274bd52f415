"""The branch alone: a plain network is the same blocks without their shortcuts.

    y = act(f)

He, Zhang, Ren, Sun 2015, figure 3 (middle). Shapes: f (N, C, *S) -> y (N, C, *S).
Training and evaluation are the same.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
model=plain20_cifar 40.7 %, 0.98 (accuracy, time of a step).
"""

from __future__ import annotations

import torch

from residua.nn.merges.merge import Merge


class KeepBranch(Merge):
    """y = activation(branch): the shortcut is left out."""

    def forward(self, shortcut: torch.Tensor | None, branch: torch.Tensor) -> torch.Tensor:
        """Return the branch alone."""
        y: torch.Tensor = self.activation(branch)
        return y
