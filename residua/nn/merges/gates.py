"""Gates: a learned sigmoid decides, position by position, how much of either side passes.

    g = sigmoid(w * s + b)                          w: a convolution, b: its bias, all b at first
    exclusive gate   y = act(g f + (1 - g) s)       He et al. 2016b, section 3.1; 1x1, b = -6
    highway          y = act(g f + (1 - g) s)       Srivastava et al. 2015, equation 3; 3x3, b = -2
    shortcut gate    y = act(f + (1 - g) s)         He et al. 2016b, section 3.1; 1x1, b = -6

Srivastava's transform gate T is g and his carry gate C = 1 - T, so a negative b carries the input at
first. The gate reads s, which is x wherever a block keeps its shape.

Shapes: s, f (N, C, *S) -> y (N, C, *S). Training and evaluation are the same.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
merge=exclusive_gate 28.5 %, 1.21; merge=shortcut_gate 53.2 %, 1.20; merge=highway 37.8 %, 1.48 (accuracy,
time of a step).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from residua.nn.merges.merge import Merge


class _Gate(_ConvNd):
    """What gates of any number of dimensions have in common."""

    def __init__(self, channels: int, bias: float, kernel: int = 1) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2)  # type: ignore[call-arg, arg-type]
        self.start = float(bias)
        self.reset_bias()

    def reset_bias(self) -> None:
        """Set every bias to its start, as after an initialisation that zeroed it."""
        assert self.bias is not None
        nn.init.constant_(self.bias, self.start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the share of the branch that passes."""
        return torch.sigmoid(super().forward(x))


class Gate(_Gate, nn.Conv2d):
    """g(s) = sigmoid(w * s + b): (N, C, H, W) -> (N, C, H, W) in (0, 1)."""


class Gate1d(_Gate, nn.Conv1d):
    """The same for lines, (N, C, L)."""


class Gate3d(_Gate, nn.Conv3d):
    """The same for volumes, (N, C, D, H, W)."""


GATES: dict[int, type[_Gate]] = {1: Gate1d, 2: Gate, 3: Gate3d}


class GatedAdd(Merge):
    """y = activation(g f + (1 - g) s): the exclusive gate and, with kernel 3, the highway."""

    def __init__(
        self,
        channels: int,
        bias: float,
        kernel: int = 1,
        activation: nn.Module | None = None,
        dims: int = 2,
    ) -> None:
        super().__init__(activation)
        self.gate = GATES[dims](channels, bias, kernel)

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Mix the two; shapes must be equal."""
        y: torch.Tensor = self.activation(torch.lerp(shortcut, branch, self.gate(shortcut)))
        return y


class ShortcutGate(Merge):
    """y = activation(f + (1 - g) s): the branch always passes whole."""

    def __init__(
        self, channels: int, bias: float, activation: nn.Module | None = None, dims: int = 2
    ) -> None:
        super().__init__(activation)
        self.gate = GATES[dims](channels, bias)

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add the gated shortcut; shapes must be equal."""
        kept = 1.0 - self.gate(shortcut)
        y: torch.Tensor = self.activation(torch.addcmul(branch, kept, shortcut))
        return y
