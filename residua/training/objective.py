"""What a step of training needs to know of its task: a batch as the network's input, and the loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch

Network = Callable[[torch.Tensor], Any]


class Objective(ABC):
    """The loss of a batch; what is drawn for it is a function of `counter` alone."""

    @abstractmethod
    def inputs(self, batch: Any) -> torch.Tensor:
        """Return what the network is fed for a batch: float (B, C, ...)."""

    @abstractmethod
    def loss(self, network: Network, batch: Any, counter: int) -> torch.Tensor:
        """Return the mean loss over the batch."""


def parts_of(batch: Any, parts: int) -> list[Any]:
    """Return the batch in parts that differ by one picture at most.

    Chunks of one size could leave a last part of one picture, too few for a norm.
    """
    if parts == 1:
        return [batch]
    pieces = {
        field.name: value.tensor_split(parts)
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor)
    }
    return [
        replace(batch, **{name: piece[i] for name, piece in pieces.items()}) for i in range(parts)
    ]


def as_float(outputs: Any) -> Any:
    """Return scores, or a list of them, in float32, as Fabric does after autocast."""
    if isinstance(outputs, torch.Tensor):
        return outputs.float()
    return [as_float(output) for output in outputs]
