"""Multiply by one number on the way forward and by another on the way back.

    y = a x,   dL/dx := b dL/dy

What Shake-Shake and ShakeDrop have in common: a gradient that is wrong on purpose. Both numbers are
drawn before the forward pass ends, so recomputing it under the same random state repeats them both.

Shapes: x (N, C, H, W) -> y (N, C, H, W); a, b broadcast against x.
"""

from __future__ import annotations

from typing import Any

import torch


class _TwoWays(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(b)
        return x * a

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (b,) = ctx.saved_tensors
        return gradients[0] * b, None, None


def two_ways(x: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a x, through which the gradient comes back multiplied by b instead of a."""
    y: torch.Tensor = _TwoWays.apply(x, a.to(x.dtype), b.to(x.dtype))  # type: ignore[no-untyped-call]
    return y


def uniform(shape: tuple[int, ...], low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    """Draw from U(low, high) on the device of `like`; in float32, so all precisions draw the same."""
    return torch.empty(shape, dtype=torch.float32, device=like.device).uniform_(low, high)
