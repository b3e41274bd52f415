"""The frame that the classification families share: stem, stages, tail, head.

    y = head(tail(stage_n(... stage_1(stem(x)))))

Shapes: (N, C, H, W) -> (N, classes), or with `features_only` the list of the stages' maps, finest
first; the last one after the tail, which in a pre-activation network is its final norm and ReLU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn


class Head(nn.Module):
    """Global average pooling and one linear layer: (N, C, H, W) -> (N, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average over all positions, then classify."""
        y: torch.Tensor = self.fc(x.mean((2, 3)))
        return y


class Network(nn.Module):
    """stem -> stages -> tail -> head; every stage's map is to be had by name."""

    def __init__(
        self,
        stem: nn.Module,
        stages: Iterable[nn.Module],
        tail: nn.Module | None,
        head: nn.Module | None,
        channels: Iterable[int],
    ) -> None:
        """Take the parts; `head` None makes a network that returns features only.

        channels: of each stage's output, finest first.
        """
        super().__init__()
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.tail = tail if tail is not None else nn.Identity()
        self.head = head
        self.stage_channels = tuple(channels)

    def forward_stages(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the maps by name: stem, stages.0, stages.1, ... (the last one before the tail)."""
        x = self.stem(x)
        maps = {"stem": x}
        for name, stage in self.stages.named_children():
            x = stage(x)
            maps[f"stages.{name}"] = x
        return maps

    def forward(self, x: torch.Tensor) -> Any:
        """Return class scores (N, classes), or the list of maps with `features_only`."""
        if self.head is not None:
            return self.head(self.tail(self.stages(self.stem(x))))
        maps = list(self.forward_stages(x).values())[1:]
        return [*maps[:-1], self.tail(maps[-1])]
