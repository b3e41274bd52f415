"""Predicted second moments: E[y^2] of the output of every layer of a network, before it has seen data.

    second_moments(network, (3, 32, 32))["stages.0.1"]  ->  E[y^2] over weights, pictures and positions

What is carried from layer to layer, at every position p of the map, is

    mean    E[x(p)]          second   E[x(p)^2]
    shared  E[x(p) x(p')]    averaged over the other positions p' of a channel, in this picture or another

and each kind of layer has a rule for the three, a kind a file here, which states what it takes for granted.
All take for granted that layers are wide and weights are drawn independently of each other and of the input;
what comes out of a convolution is then Gaussian. A position's neighbour is as unlike as a far one: with
independent weights, overlapping patches alone correlate nothing. Weights and biases themselves are read from
the layers, so an initialisation of any kind, also a zero, is seen.

The method is mean-field theory: Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli 2016; for convolutions
Xiao et al. 2018, equation 2; for residual networks Yang, Schoenholz 2017. The mode of the module counts:
batch norm takes the batch's statistics in training and its running ones, untrained, in evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn


@dataclass(frozen=True)
class Moments:
    """Moments of a map: three tensors (1, 1, H, W), or (1, 1, 1, 1) of an endless map.

    channels: how many, None if unknown. before: where the map is relu(z), z's moments.
    """

    mean: torch.Tensor
    second: torch.Tensor
    shared: torch.Tensor
    channels: int | None = None
    endless: bool = False
    before: Moments | None = None

    @property
    def variance(self) -> torch.Tensor:
        """E[x^2] - E[x]^2, over everything."""
        return (self.second - self.mean**2).clamp(min=0)

    @property
    def covariance(self) -> torch.Tensor:
        """E[x(p) x(p')] - E[x]^2."""
        return self.shared - self.mean**2

    def but(
        self, mean: torch.Tensor, second: torch.Tensor, shared: torch.Tensor, **others: Any
    ) -> Moments:
        """Return a map of the same kind with other moments; what it was before a ReLU is forgotten."""
        kept = {"channels": self.channels, "endless": self.endless, **others}
        return Moments(mean, second, shared, **kept)

    def scaled(self, first: float, square: float) -> Moments:
        """Return the moments of g x with g independent of x, E[g] = first, E[g^2] = square."""
        return self.but(first * self.mean, square * self.second, square * self.shared)

    def affine(self, a: torch.Tensor, b: torch.Tensor) -> Moments:
        """Return the moments of a x + b; a and b are numbers, or have one number a channel."""
        a, b = a.detach().double(), b.detach().double()
        if bool((a == 1).all()) and not b.any():
            return self
        aa, ab, bb = (a * a).mean(), (a * b).mean(), (b * b).mean()
        first = 2 * ab * self.mean + bb
        return self.but(
            a.mean() * self.mean + b.mean(), aa * self.second + first, aa * self.shared + first
        )


Map = torch.Tensor  # of moments: (1, 1, H, W), float64

Rule = Callable[[Any, Moments, "Walk"], Moments | None]
Ruled = TypeVar("Ruled", bound=Rule)

# type of module: its rule, (module, moments of its input, walk for its children) -> of its output
RULES: dict[type[nn.Module], Rule] = {}


def rule(*kinds: type[nn.Module]) -> Callable[[Ruled], Ruled]:
    """Register the decorated function as the rule of these types of module."""

    def register(function: Ruled) -> Ruled:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


class Walk:
    """Where a rule is in the network: `walk("branch", module, x)` applies the rule of a child."""

    def __init__(self, found: dict[str, float], at: str = "") -> None:
        self.found = found
        self.at = at

    def __call__(self, name: str, module: nn.Module, x: Moments) -> Moments | None:
        """Return the moments of the child's output for an input `x`, and note its second moment."""
        at = f"{self.at}.{name}" if self.at and name else self.at or name
        y = rule_of(module, at)(module, x, Walk(self.found, at))
        if y is not None:
            Walk(self.found, at).note("", y)
        return y

    def note(self, name: str, y: Moments) -> None:
        """Note the second moment of a child's output, or with "" of this module's own."""
        at = f"{self.at}.{name}" if self.at and name else self.at or name
        self.found[at] = y.second.mean().item()

    def through(self, name: str, module: nn.Module, x: Moments) -> Moments:
        """Apply the rule of a child that must have an output."""
        y = self(name, module, x)
        if y is None:
            raise ValueError(f"{name} of {self.at or 'the module'} has no output to go on with")
        return y


def rule_of(module: nn.Module, at: str = "") -> Rule:
    """Return the rule for a module's type, or for an ancestor that computes the same forward pass.

    Raises ValueError where there is none, naming the type.
    """
    for kind in type(module).__mro__:
        if kind in RULES and type(module).forward is kind.forward:
            return RULES[kind]
    where = f" at {at}" if at else ""
    raise ValueError(
        f"no rule says what {type(module).__name__}{where} does to a second moment:"
        " register one with residua.nn.init.moments.rule"
    )


def second_moments(
    module: nn.Module,
    shape: tuple[int, ...] | None = None,
    input_moment: float = 1.0,
    input_mean: float = 0.0,
    input_shared: float | None = None,
) -> dict[str, float]:
    """Predict E[y^2] of every layer of `module` at initialisation.

    Args:
        module: a network made of parts that have a rule.
        shape: of the input, (C, H, W) or (C,). With it, borders count exactly (zero padding takes from
            the moment) and a global average is over that many positions. Without it the map is endless:
            no borders, and a global average keeps what positions share.
        input_moment, input_mean, input_shared: E[x^2], E[x], E[x(p) x(p')] of the input; the last is
            E[x]^2 where it is not given: pixels are independent.

    Returns:
        E[y^2] of the output of each module by its name, in order of execution; a container's is its last
        layer's, "" is the whole. The average is over draws of weights and inputs, channels, positions.

    Raises:
        ValueError: a module's type has no rule (the message names it), or needs `shape` and has none.
    """
    channels, *size = shape if shape is not None else (None, 1, 1)
    size = size or [1, 1]
    if len(size) != 2:
        raise ValueError(f"shape {shape} is neither (C, H, W) nor (C,)")

    def full(value: float) -> torch.Tensor:
        return torch.full((1, 1, *size), value, dtype=torch.float64)

    x = Moments(
        full(input_mean),
        full(input_moment),
        full(input_mean**2 if input_shared is None else input_shared),
        channels,
        endless=shape is None,
    )
    found: dict[str, float] = {}
    with torch.no_grad():
        Walk(found)("", module, x)
    return found
