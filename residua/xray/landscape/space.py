"""The weights that a landscape moves: perturbed in place, and never the user's own memory.

    w = w0 + a d1 + b d2

A move along directions is written into copies that the parameters point to while `attached` lasts, without
allocating anything. The user's tensors are not written to at all, so that nothing, not even a kill, can
leave the model perturbed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from residua.errors import BadInput
from residua.nn.norms import is_norm
from residua.xray.untouched import untouched

Direction = Mapping[str, torch.Tensor]  # what is not named does not move


def filters(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights that random directions move, each shared one once.

    Biases and the parameters of norms are left alone (Li et al. 2018, section 4): every tensor of fewer than
    two dimensions, and everything that belongs to a normalisation layer.
    """
    norms = [module for module in model.modules() if is_norm(module)]
    left_alone = {id(p) for norm in norms for p in norm.parameters(recurse=False)}
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and id(parameter) not in left_alone and parameter.is_floating_point()
    }


def movable(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return every tensor that can move: parameters, and buffers that are averages (running statistics)."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}


class Space:
    """A model's weights at the centre, and the way to any point around it."""

    def __init__(self, model: nn.Module, directions: Sequence[Direction]) -> None:
        """Take the directions that will be moved along; BadInput where one does not fit the model."""
        known = movable(model)
        self.model = model
        self.directions = list(directions)
        self.moving: dict[str, torch.Tensor] = {}
        for direction in directions:
            for name, step in direction.items():
                if name not in known or known[name].shape != step.shape:
                    raise BadInput(f"a direction does not fit the network: {name}")
                self.moving[name] = known[name]
        self.centre: dict[str, torch.Tensor] = {}

    @contextmanager
    def attached(self) -> Iterator[Space]:
        """Let the parameters point to copies that may be moved; the model comes back untouched."""
        with untouched(self.model), torch.no_grad():
            for tensor in movable(self.model).values():
                tensor.data = tensor.data.clone()
            self.centre = {name: tensor.data.clone() for name, tensor in self.moving.items()}
            self.directions = [
                {name: step.to(self.moving[name]) for name, step in direction.items()}
                for direction in self.directions
            ]
            yield self

    @torch.no_grad()
    def move(self, coordinates: Sequence[float]) -> None:
        """Put the weights at centre + sum_k coordinates[k] directions[k]; a variance stays positive."""
        for name, tensor in self.moving.items():
            tensor.data.copy_(self.centre[name])
            for length, direction in zip(coordinates, self.directions, strict=True):
                if name in direction and length:
                    tensor.data.add_(direction[name], alpha=length)
            if name.rpartition(".")[2] == "running_var":
                tensor.data.clamp_(min=0)
