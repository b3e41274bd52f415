"""What all merges have in common: the activation that follows them.

    y = activation(merge(s, f))     v1 networks rectify after the addition, v2 networks do nothing

Shapes: shortcut s and branch f (N, C, *S) -> y (N, C, *S). Training and evaluation are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Place:
    """Where a merge sits: its channels, and which of the network's blocks, counted from 1, it is in.

    dims: spatial dimensions of the maps.
    """

    channels: int
    block: int = 1
    blocks: int = 1
    dims: int = 2


class Merge(nn.Module):
    """A merge, with the activation that follows it (None: nothing follows)."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.activation = activation if activation is not None else nn.Identity()
