"""Orthogonal weights: a linear layer that keeps lengths and angles, as a random rotation does.

    orthogonal         the weight as a matrix (C_out, C_in k^d) has orthonormal rows, or columns where
                       C_out > C_in k^d, times sqrt 2       Saxe, McClelland, Ganguli 2014, section 3
    delta_orthogonal   only the centre of the kernel is not zero; there the matrix (C_out, C_in) has
                       orthonormal columns, or rows where C_out < C_in, times sqrt 2
                                                            Xiao et al. 2018, algorithm 1 (C_out >= C_in)

The gain sqrt 2 makes up for the ReLU's half, as in He's scheme: with it, orthonormal rows keep the second
moment exactly, whatever the fan. A convolution with the first alone is no isometry, because patches
overlap; with the second it is one wherever C_out >= C_in and the stride is 1. Groups are orthogonal each
on their own. A kernel of even size has its centre at k / 2, where "same" padding of k / 2 puts the pixel.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
init=orthogonal 51.1 %, 1.02; init=delta_orthogonal 49.6 %, 0.99 (accuracy, time of a step).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from residua.nn.init.layers import Convolution, kernel

RELU_GAIN = math.sqrt(2.0)


@torch.no_grad()
def orthogonal(conv: Convolution, fan: str, gain: float = RELU_GAIN) -> None:
    """Make each group's weight semi-orthogonal as a matrix, in place; `fan` does not matter."""
    for group in kernel(conv):
        matrix = nn.init.orthogonal_(torch.empty_like(group).flatten(1), gain)
        group.copy_(matrix.view(group.shape))


@torch.no_grad()
def delta_orthogonal(conv: Convolution, fan: str, gain: float = RELU_GAIN) -> None:
    """Make the centre of each group's kernel semi-orthogonal and the rest zero, in place."""
    nn.init.zeros_(conv.weight)
    centre = tuple(size // 2 for size in conv.kernel_size)
    for group in kernel(conv):
        middle = group[(slice(None), slice(None), *centre)]
        middle.copy_(nn.init.orthogonal_(torch.empty_like(middle), gain))
