"""Names -> networks: every family file registers its models here with a record of each.

A family is one file in this folder; it is found by being there, so a new one changes no other file.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from residua.errors import BadInput, nearest


@dataclass(frozen=True)
class Record:
    """What is known of a model; tests and `residua models` read it.

    parameters and multiply_adds hold for three input channels, `num_classes` classes and square
    pictures of `input_size` pixels; a multiply-add counts convolutions and linear layers only.
    smallest is the least side of a picture that the model takes.
    task: what it is for, one of TASKS. dims: spatial dimensions of its input; 3 are volumes.
    """

    name: str
    family: str
    paper: str
    parameters: int
    multiply_adds: int
    input_size: int
    num_classes: int
    builder: Callable[..., nn.Module] = field(repr=False)
    preset: Mapping[str, Any] = field(repr=False)
    defaults: Mapping[str, Any] = field(repr=False)
    smallest: int = 1
    task: str = "classification"
    dims: int = 2

    def options(self) -> list[str]:
        """Return the names of the options that `create_model` takes for this model."""
        names = inspect.signature(self.builder).parameters
        return [name for name in names if name not in self.preset]


# classification (N, classes); segmentation (N, classes, *size); pose (N, joints, H / 4, W / 4)
TASKS = ("classification", "segmentation", "pose")

_RECORDS: dict[str, Record] = {}


def register(
    name: str,
    builder: Callable[..., nn.Module],
    *,
    family: str,
    paper: str,
    parameters: int,
    multiply_adds: int,
    input_size: int,
    num_classes: int,
    preset: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
    smallest: int = 1,
    task: str = "classification",
    dims: int = 2,
) -> None:
    """Add a model, made by `builder(**preset, **options)`.

    preset: what makes it this model, not to be overridden. defaults: options it has its own
    default for.
    """
    _RECORDS[name] = Record(
        name=name,
        family=family,
        paper=paper,
        parameters=parameters,
        multiply_adds=multiply_adds,
        input_size=input_size,
        num_classes=num_classes,
        builder=builder,
        preset=preset,
        defaults=defaults or {},
        smallest=smallest,
        task=task,
        dims=dims,
    )


@functools.cache
def _import_families() -> None:
    """Import every family, once: a long run does not see files of a version that was installed meanwhile."""
    import residua.models as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"residua.models.{module.name}")


def records() -> dict[str, Record]:
    """Return the record of every model, by name; families in the order of the alphabet."""
    _import_families()
    # Families import one another, so the order of registration depends on who was asked first.
    return dict(sorted(_RECORDS.items(), key=lambda item: item[1].family))


def record(name: str) -> Record:
    """Return the record of one model; BadInput with the nearest names if there is none."""
    known = records()
    if name not in known:
        raise BadInput(
            f"unknown model {name!r}.{nearest(name, known)} `residua models` lists all of them."
        )
    return known[name]


def list_models(pattern: str = "*", task: str | None = None) -> list[str]:
    """Return the model names that match a glob pattern, in the order of the families.

    task: only models for this one of TASKS.

    >>> list_models("resnet1[08]")
    ['resnet18']
    """
    if task not in (None, *TASKS):
        raise BadInput(f"no task is called {task!r}: there are {', '.join(TASKS)}")
    return [
        name
        for name, known in records().items()
        if fnmatch.fnmatchcase(name, pattern) and task in (None, known.task)
    ]


def create_model(
    name: str, num_classes: int | None = None, in_channels: int = 3, **options: Any
) -> nn.Module:
    """Build a model by name, with fresh weights drawn from torch's generator.

    Args:
        name: one of `list_models()`.
        num_classes: outputs of the head; None takes the paper's own (10 or 1000).
        in_channels: channels of the pictures, (N, in_channels, H, W).
        options: those of the family, e.g. norm, stochastic_depth, features_only, zero_init_last.

    Returns:
        a module (N, in_channels, H, W) -> (N, num_classes), or -> list of maps, one a stage, with
        features_only=True.

    Raises:
        BadInput: unknown model or option (the message lists what there is), or a value out of range.
    """
    model = record(name)
    known = model.options()
    for key in options:
        if key not in known:
            raise BadInput(
                f"unknown option {key!r} for {name}.{nearest(key, known)}"
                f" It takes {', '.join(known)}."
            )
    classes = model.num_classes if num_classes is None else num_classes
    for what, number in (("num_classes", classes), ("in_channels", in_channels)):
        if number < 1:
            raise BadInput(f"{what} must be at least 1, not {number}")
    options = {**model.defaults, **options}
    try:
        return model.builder(
            num_classes=classes, in_channels=in_channels, **model.preset, **options
        )
    except ValueError as error:
        raise BadInput(f"{name}: {error}") from error
