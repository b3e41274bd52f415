"""Batch normalisation: torch's own.

    y = gamma (x - mean) / sqrt(var + eps) + beta       mean, var over (N, H, W) of the batch

Ioffe, Szegedy 2015, algorithm 1. Training: statistics of the batch, which also move running averages
(see statistics.py). Evaluation: those averages. Shapes: (N, C, H, W) -> (N, C, H, W).

A batch of one picture trains as long as its map has two pixels or more; at one pixel torch raises
ValueError, for there is no variance. The ghost, renorm and sync schemes go on (see statistics.py).
"""

from __future__ import annotations

from torch import nn


def batch_norm(channels: int) -> nn.Module:
    """Return a batch norm with running averages, gamma = 1 and beta = 0."""
    return nn.BatchNorm2d(channels)
