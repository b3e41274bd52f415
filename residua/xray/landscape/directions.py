"""Directions in the space of weights: random and filter by filter, along a trajectory, towards other weights.

    random       d_i <- d_i |w_i| / |d_i| for each filter i, d_i Gaussian; biases and norms do not move
    pca          the first two principal components of w_t - w, t over the trajectory; w itself is (0, 0)
    towards      d = w' - w: coordinate 0 is the network itself, coordinate 1 is the other

Li, Xu, Taylor, Studer, Goldstein 2018, Visualizing the Loss Landscape of Neural Nets, sections 3, 4 and 7;
Goodfellow, Vinyals, Saxe 2015 for the line between two networks. A filter is a slice of the first dimension:
an output channel of a convolution, a row of a linear layer. Principal components have length 1, so that
coordinates are distances. Components and interpolation move norm parameters and running statistics as
well: otherwise their ends would not be the networks that they are named after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from residua.errors import BadInput
from residua.xray.landscape.space import Direction, filters, movable

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Component:
    """A plane of principal components.

    path: (T, 2), where the trajectory's networks lie in it. shares: of the trajectory's variation that
    each direction holds. outside: (T,), how far each network lies from the plane.
    """

    directions: list[Direction]
    path: np.ndarray
    shares: list[float]
    outside: np.ndarray


def random_direction(model: nn.Module, *, seed: int, pair: int, axis: int) -> Direction:
    """Return a Gaussian direction scaled filter by filter to the norm of the weights.

    The draw is a function of (seed, pair, axis) alone: not of other draws, nor of the device.
    Raises BadInput if the model has no weights of two or more dimensions.
    """
    weights = filters(model)
    if not weights:
        raise BadInput(
            "the network has no convolution or linear layer whose weights could be moved"
        )
    key = hashlib.sha256(f"{seed}/{pair}/{axis}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)
    drawn = {name: torch.randn(w.shape, generator=generator) for name, w in weights.items()}
    return {name: filter_normalised(drawn[name], w) for name, w in weights.items()}


def filter_normalised(direction: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Scale each slice of the first dimension to the norm of the weight's: (F, ...) -> (F, ...)."""
    weight = weight.detach().to(direction)
    rows = direction.flatten(1)
    scale = weight.flatten(1).norm(dim=1) / rows.norm(dim=1).clamp(min=1e-30)
    scaled: torch.Tensor = (rows * scale[:, None]).view_as(direction)
    return scaled


def towards(model: nn.Module, other: State) -> Direction:
    """Return the step from the model's weights to those of `other`; BadInput if they do not fit."""
    return {name: theirs - ours for name, ours, theirs in _matched(model, other)}


def _matched(model: nn.Module, other: State) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    found = []
    for name, tensor in movable(model).items():
        if name not in other or other[name].shape != tensor.shape:
            raise BadInput(f"the other network has other weights: {name} does not fit")
        ours = tensor.detach()
        found.append((name, ours, other[name].detach().to(ours)))
    return found


def principal(model: nn.Module, trajectory: Sequence[State]) -> Component:
    """Return the plane through the model's weights that holds most of a trajectory.

    With M the steps w_t - w, the components are those of M M^T (T x T), whose size is that of the
    trajectory and not of the network. Raises BadInput if the steps span less than a plane.
    """
    steps = [towards(model, state) for state in trajectory]
    gram = np.array([[_dot(left, right) for right in steps] for left in steps])
    values, vectors = np.linalg.eigh(gram) if steps else (np.zeros(0), np.zeros((0, 0)))
    values, vectors = values[::-1], vectors[:, ::-1]
    if len(values) < 2 or values[1] <= 1e-10 * values[0]:
        raise BadInput(
            f"{len(steps)} networks of a trajectory do not span a plane around the last one:"
            " expected two or more that differ from it and from each other"
        )
    directions: list[Direction] = []
    for k in range(2):
        weights = vectors[:, k] / np.sqrt(values[k])
        directions.append(_combined(steps, weights.tolist()))
    path = vectors[:, :2] * np.sqrt(values[:2])
    outside = np.sqrt(np.maximum(np.diag(gram) - np.square(path).sum(1), 0.0))
    return Component(directions, path, (values[:2] / values.sum()).tolist(), outside)


def _dot(left: Direction, right: Direction) -> float:
    return sum(float(torch.sum(left[name].double() * right[name].double())) for name in left)


def _combined(steps: Sequence[Direction], weights: Sequence[float]) -> Direction:
    return {
        name: sum(
            (w * step[name] for w, step in zip(weights, steps, strict=True)), torch.tensor(0.0)
        )
        for name in steps[0]
    }


def cosine(left: Direction, right: Direction) -> float:
    """Return the cosine of the angle between two directions; what one does not move is 0 there."""
    both = left.keys() & right.keys()
    dot = _dot({name: left[name] for name in both}, right)
    return float(dot / max((_dot(left, left) * _dot(right, right)) ** 0.5, 1e-300))
