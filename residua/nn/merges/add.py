"""Addition: what makes a network residual.

    y = act(s + f)

He, Zhang, Ren, Sun 2015, equation 1; v1 puts a ReLU after it, v2 (2016b) nothing.
Shapes: s, f (N, C, *S) -> y (N, C, *S). Training and evaluation are the same.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
norm=none, merge=add 10.0 %, 0.87 (accuracy, time of a step).
"""

from __future__ import annotations

import torch

from residua.nn.merges.merge import Merge


class Add(Merge):
    """y = activation(shortcut + branch)."""

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add the two; shapes must be equal."""
        y: torch.Tensor = self.activation(shortcut + branch)
        return y
