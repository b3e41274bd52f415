"""Recognise a network: which registered models have these tensors, and where a module differs from one.

Two networks with the same tensors need not compute the same: a ResNet and a plain network without
projections, a stride on another convolution, another merge. So tensors are compared by name and shape,
and modules by kind and options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import nn

from residua.models.heads import HEAD
from residua.models.registry import Record, create_model, records
from residua.nn.regularisers import StochasticDepth

Shapes = Mapping[str, torch.Size]

FC = "head.fc.weight"
STEM = "stem.conv.weight"
CHANNELS = 3  # of the pictures that records count parameters for
BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")
BATCH_NORM = "BatchNorm2d"
# Identity in evaluation, so a network may be without.
NEUTRAL = (nn.Sequential, nn.Identity, nn.Dropout)


def shapes_of(model: nn.Module) -> dict[str, torch.Size]:
    """Return the shapes of a model's tensors by name."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def body(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the parameters that tell one model from another: no head, no channels of the pictures."""
    found = {
        name: tuple(shape)
        for name, shape in shapes.items()
        if not (name.startswith(HEAD) or name.endswith(BUFFERS))
    }
    if STEM in found:
        found[STEM] = (found[STEM][0], *found[STEM][2:])
    return found


def registered_as(shapes: Shapes) -> list[str]:
    """Return the names of the registered models with this body, the shortest first, for whatever classes.

    Channels of the pictures are of no matter either. Only models with the right number of parameters are
    built, on torch's meta device.
    """
    found = []
    for name, record in records().items():
        of_scores = record.task == "classification"
        if of_scores and record.parameters == _parameters(shapes, record):
            model = _on_meta(name, *_classes_and_channels(shapes))
            if body(shapes_of(model)) == body(shapes):
                found.append(name)
    return sorted(found, key=len)


def _parameters(shapes: Shapes, record: Record) -> int:
    """Count the parameters that the tensors would have with the record's classes and channels."""
    kept = {name: shape for name, shape in shapes.items() if not name.endswith(BUFFERS)}
    count = sum(prod(shape) for shape in kept.values())
    if (stem := kept.get(STEM)) is not None and len(stem) == 4:
        count += prod(stem) // max(stem[1], 1) * (CHANNELS - stem[1])
    classes, features = 0, list(kept.values())[-1][:1] if kept else ()  # channels of the last map
    if FC in kept:
        classes, features = kept[FC][0], kept[FC][1:2]
    return count + (record.num_classes - classes) * (sum(features) + 1)


def _classes_and_channels(shapes: Shapes) -> tuple[int | None, int]:
    """Read off what a model with these tensors was built with; None: it has no head."""
    stem = shapes.get(STEM)
    channels = stem[1] if stem is not None and len(stem) == 4 else CHANNELS
    return shapes[FC][0] if FC in shapes else None, max(channels, 1)


@lru_cache(maxsize=8)
def _on_meta(name: str, num_classes: int | None, in_channels: int) -> nn.Module:
    with torch.device("meta"):
        return create_model(name, num_classes, in_channels)


@dataclass(frozen=True)
class Difference:
    """Where a network is not the registered one: the module's name, and what either has there."""

    where: str
    registered: str
    given: str

    def __str__(self) -> str:
        return f"at {self.where} it has {self.given}, not {self.registered}"


def differences(model: nn.Module, name: str) -> list[Difference]:
    """Return where the model would compute something else, in evaluation, than the registered one."""
    shapes = shapes_of(model)
    expected = dict(_on_meta(name, *_classes_and_channels(shapes)).named_modules())
    given = dict(model.named_modules())
    found = []
    for where in dict.fromkeys([*given, *expected]):
        registered, here = _kind(expected.get(where)), _kind(given.get(where))
        of_head = f"{where}.".startswith(HEAD)
        if registered != here and not (of_head and FC not in shapes):
            found.append(Difference(where, registered, here))
    return found


def _kind(module: nn.Module | None) -> str:
    """Say what a module computes in evaluation, by its type and options, not by its weights."""
    if module is None or isinstance(module, NEUTRAL) or type(module) is StochasticDepth:
        return "nothing"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):  # all alike in evaluation
        return f"{BATCH_NORM}({module.num_features}, eps={module.eps:g})"
    options = re.sub(r"(, )?inplace=(True|False)", "", module.extra_repr())
    return f"{type(module).__name__}({options})"
