"""Scaled additions: (s + f) / sqrt 2, SkipInit's s + a f, Stable ResNet's s + f / sqrt K.

The equations and their sources are those of residua.nn.merges.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.nn.merges import Add, KeepBranch, ScaledAdd, SkipInit, make_merge
from residua.nn.merges.merge import Place
from residua.nn.skip import Skip
from residua.xray.anatomy import Anatomy, anatomy
from residua.xray.prescribe.rewired import Rewired, Step, need_example
from residua.xray.units import Unit


class Scale(nn.Module):
    """a x with one number, learned or not."""

    def __init__(self, start: float, learned: bool = False) -> None:
        super().__init__()
        factor = torch.full((), float(start))
        if learned:
            self.factor = nn.Parameter(factor)
        else:
            self.register_buffer("factor", factor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a x: any shape -> the same."""
        return x * self.factor


def scaled_merges(name: str) -> Callable[..., nn.Module]:
    """Return the remedy that makes every addition the merge of that name."""

    def remedy(model: nn.Module, example: Any, *numbers: float) -> nn.Module:
        if numbers and name != "skip_init":
            raise ValueError(f"{name} takes no number")
        skips = [
            m
            for m in model.modules()
            if isinstance(m, Skip) and not isinstance(m.merge, KeepBranch)
        ]
        if skips and all(isinstance(skip.merge, (Add, ScaledAdd, SkipInit)) for skip in skips):
            text = f"{name}({numbers[0]})" if numbers else name
            like = next(model.parameters())
            for k, skip in enumerate(skips, 1):
                old = skip.merge
                place = Place(channels=1, block=k, blocks=len(skips))
                skip.merge = make_merge(text, place, old.activation).to(like)  # type: ignore[arg-type]
                skip.merge.train(old.training)
            return model
        need_example(example, name)
        found = anatomy(model, example)
        units = additions(found, name)
        steps = [step for unit in units for step in _steps(name, unit, len(units), numbers)]
        assert found.graph is not None
        return verified(Rewired(model, found.graph, steps), example, len(units), name)

    return remedy


def _steps(name: str, unit: Unit, units: int, numbers: tuple[float, ...]) -> list[Step]:
    merge = unit.sites.merge
    assert merge is not None
    factor = {"sqrt_half": 1.0, "stable": units**-0.5, "skip_init": (*numbers, 0.0)[0]}[name]
    at = unit.sites.branch_argument
    steps = [Step(merge, "given", Scale(factor, learned=name == "skip_init"), at)]
    if name == "sqrt_half":
        steps = [Step(merge, "given", Scale(math.sqrt(0.5)), a) for a in (at, *unit.sites.shortcut)]
    return steps


def additions(found: Anatomy, remedy: str) -> list[Unit]:
    """Return the units that add; BadInput where there are none."""
    units = [unit for unit in found.units if unit.merge == "add" and len(unit.sites.shortcut) == 1]
    if not units:
        why = found.reason or "its units concatenate or gate"
        raise BadInput(f"{remedy} acts where a shortcut and a branch are added: {why}")
    return units


def verified(model: Rewired, example: Any, units: int, remedy: str) -> Rewired:
    """Return the model, if what was added acts at every unit; BadInput where it does not.

    A sum written in place, as a statement whose value is not used, cannot be reached.
    """
    like = next(model.model.parameters(), None)
    if like is not None:
        model.added.to(like.device, like.dtype)
    model.added.train(model.model.training)
    reached = sum(unit.scaled for unit in anatomy(model, example).units)
    if reached < units:
        raise BadInput(f"{remedy} reaches only {reached} of {units} additions of this network")
    return model
