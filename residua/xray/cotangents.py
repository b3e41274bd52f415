"""The gradients of one fixed mixture of a network's outputs, for each sample apart, and their cosines.

    s = sum_i v . f(x_i),   g_i = ds / dx_i,   cosine_ij = g_i . g_j / (|g_i| |g_j|)

The same Gaussian v for every sample: a loss pulls each sample's output another way, and then gradients
differ for that reason, too.
"""

from __future__ import annotations

from typing import Any

import torch

from residua.errors import BadInput
from residua.xray.subject import tensors_in


def mixture(output: Any, samples: int, seed: int) -> torch.Tensor:
    """Return s of outputs (N, ...); BadInput where no output has one entry a sample."""
    generator = torch.Generator().manual_seed(seed)
    found = [t for t in tensors_in(output) if t.dim() and len(t) == samples and t.requires_grad]
    if not found:
        raise BadInput("the model gives nothing that has one entry a sample and a gradient")
    total = found[0].new_zeros((), dtype=torch.promote_types(found[0].dtype, torch.float32))
    for tensor in found:
        weights = torch.randn(tensor.shape[1:], generator=generator).to(tensor)
        total = total + (tensor * weights).sum(dtype=total.dtype)
    return total


def rows(gradient: torch.Tensor) -> torch.Tensor:
    """Return each sample's gradient as a unit vector (N, D); zeros stay zeros."""
    flat = gradient.detach().flatten(1)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
    largest = flat.abs().amax(1, keepdim=True)  # first, so that squares do not underflow
    flat = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
    return torch.nn.functional.normalize(flat, dim=1)


def cosines(gradient: torch.Tensor) -> torch.Tensor:
    """Return the cosines (N, N) between the samples' gradients (N, ...); 0 with a zero one, also itself."""
    unit = rows(gradient)
    return unit @ unit.T
