"""Batch normalisation from scratch, in plain NumPy: each node of its graph, forward and backward.

    f1 = E[z]           f2_i = z_i - f1       f3_i = f2_i^2         f4 = E[f3]
    f5 = sqrt(f4 + eps) f6 = 1 / f5           f7_i = f2_i f6        y_i = gamma f7_i + delta

Prince, Understanding Deep Learning, problem 11.7; E is the mean over the batch. Backward, from dy to dz,
each derivative is the sum over the nodes that the value went into: f2 went into f3 and f7, z into f1 and
f2. Training only: evaluation would hold f1 and f5 fixed. Shapes: z (I, ...), gamma and delta (...), each
column a batch of its own; (N, C, H, W) becomes (N H W, C).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
EPS = 1e-5


class Nodes(NamedTuple):
    """Every value on the way from z to y (forward), or its derivative (backward)."""

    z: Array  # (I, ...)
    f1: Array  # (...)
    f2: Array  # (I, ...)
    f3: Array  # (I, ...)
    f4: Array  # (...)
    f5: Array  # (...)
    f6: Array  # (...)
    f7: Array  # (I, ...)
    gamma: Array  # (...)
    delta: Array  # (...)


def forward(z: Array, gamma: Array, delta: Array, eps: float = EPS) -> tuple[Array, Nodes]:
    """Return y and every node: z (I, ...) -> (I, ...)."""
    f1 = z.mean(0)
    f2 = z - f1
    f3 = f2**2
    f4 = f3.mean(0)
    f5 = np.sqrt(f4 + eps)
    f6 = 1 / f5
    f7 = f2 * f6
    return gamma * f7 + delta, Nodes(z, f1, f2, f3, f4, f5, f6, f7, gamma, delta)


def backward(dy: Array, f: Nodes) -> Nodes:
    """Return the derivative of the loss by every node, from that by y (I, ...)."""
    count = len(dy)
    gamma, delta = (dy * f.f7).sum(0), dy.sum(0)
    f7 = dy * f.gamma
    f6 = (f7 * f.f2).sum(0)  # one f6 for the whole batch: its derivatives add up
    f5 = -f6 / f.f5**2
    f4 = f5 / (2 * f.f5)  # f5 = sqrt(f4 + eps)
    f3 = np.broadcast_to(f4 / count, dy.shape)
    f2 = f7 * f.f6 + f3 * 2 * f.f2
    f1 = -f2.sum(0)
    z = f2 + f1 / count
    return Nodes(z, f1, f2, f3, f4, f5, f6, f7, gamma, delta)
