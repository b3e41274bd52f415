"""Inputs on a line: x + t (x' - x), or x + t d with a random d as long as two samples are apart.

Whatever the model takes (a tensor, a tuple, keywords), every floating tensor in it moves together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from residua.xray.subject import tensors_in

Map = Callable[[torch.Tensor], torch.Tensor]


def mapped(inputs: Any, change: Map) -> Any:
    """Return the inputs with every floating tensor changed."""
    if isinstance(inputs, torch.Tensor):
        return change(inputs) if inputs.is_floating_point() else inputs
    if isinstance(inputs, Mapping):
        return {key: mapped(value, change) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return type(inputs)(mapped(value, change) for value in inputs)
    return inputs


def why_no_line(inputs: Any) -> str:
    """Say why these inputs cannot be moved, or nothing."""
    if not isinstance(inputs, (torch.Tensor, Mapping, tuple, list)):
        return f"inputs of type {type(inputs).__name__} cannot be moved"
    tensors = tensors_in(inputs)
    if not all(t.is_floating_point() for t in tensors):
        return "the inputs are whole numbers, between which there is nothing"
    if any(t.dim() == 0 or len(t) != len(tensors[0]) for t in tensors):
        return "the inputs do not all have one entry a sample"
    return ""


def between(inputs: Any, start: torch.Tensor, end: torch.Tensor, t: torch.Tensor) -> Any:
    """Return x[start] + t (x[end] - x[start]); start, end: indices (n,), t: (n,)."""

    def move(x: torch.Tensor) -> torch.Tensor:
        share = t.to(x).reshape(-1, *[1] * (x.dim() - 1))
        return x[start] + share * (x[end] - x[start])

    return mapped(inputs, move)


def random_line(inputs: Any, start: int, t: torch.Tensor, seed: int) -> Any:
    """Return x[start] + t d with a Gaussian d as long as the samples of the batch are apart (n, ...).

    Of a batch of one sample, d is as long as the sample.
    """
    generator = torch.Generator().manual_seed(seed)

    def move(x: torch.Tensor) -> torch.Tensor:
        d = torch.randn(x[:1].shape, generator=generator).to(x)
        apart = (x - x.mean(0)).norm() * (2 / max(len(x) - 1, 1)) ** 0.5
        length = apart if len(x) > 1 else x.norm()
        share = t.to(x).reshape(-1, *[1] * (x.dim() - 1))
        moved: torch.Tensor = x[start : start + 1] + share * d * (length / d.norm())
        return moved

    return mapped(inputs, move)
