"""Remedies: the same network with one thing changed, ours or anybody's.

    healthier = residua.prescribe(model, "skip_init", example)

Where a network is made of our own `Skip`s, its parts are exchanged. Elsewhere the change acts at places of
the recorded graph (`Rewired`): it trains, saves and loads as any module does, but cannot be exported.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from residua.errors import BadInput
from residua.nn.names import lookup
from residua.xray.prescribe.fixup import fixup
from residua.xray.prescribe.merges import scaled_merges
from residua.xray.prescribe.norms import ghost_norm, group_norm
from residua.xray.prescribe.preactivation import preactivation
from residua.xray.prescribe.rewired import Rewired
from residua.xray.prescribe.weights import reinitialise, zero_last
from residua.xray.subject import unwrap

Remedy = Callable[..., nn.Module]

# name: (what it does in one line, the function: (model, example, numbers in brackets) -> model)
REMEDIES: dict[str, tuple[str, Remedy]] = {
    "sqrt_half": ("y = (s + f) / sqrt 2 at every addition", scaled_merges("sqrt_half")),
    "skip_init": ("y = s + a f, a learned, 0 at first", scaled_merges("skip_init")),
    "stable": ("y = s + f / sqrt K over K additions", scaled_merges("stable")),
    "fixup": ("no norms; branches scaled down and their last layers zero", fixup),
    "zero_last": ("the last layer of every branch is zero", zero_last),
    "reinitialise": ("He's weights everywhere, norms as new", reinitialise),
    "group_norm": ("group norm in the place of batch norm", group_norm),
    "ghost_norm": ("ghost batch norm in the place of batch norm", ghost_norm),
    "preactivation": (
        "norm and activation before the weights, nothing after addition",
        preactivation,
    ),
}

__all__ = ["REMEDIES", "Rewired", "prescribe"]


def prescribe(model: nn.Module, remedy: str, example: Any = None) -> nn.Module:
    """Return a changed copy of a model; the model itself stays as it is.

    Args:
        model: any module.
        remedy: one of `REMEDIES`; numbers in brackets: "skip_init(0.1)", "group_norm(8)".
        example: an input of the model, by which its residual units are found; networks made of our
            own parts need none.

    Raises:
        BadInput: an unknown remedy, one that this network has no place for, or an example is needed.
    """
    try:
        (_, change), numbers = lookup("remedy", _spelled(remedy), REMEDIES)
        arguments = inspect.signature(change).bind(copy.deepcopy(unwrap(model)), example, *numbers)
    except TypeError as error:
        raise BadInput(f"remedy {remedy!r} does not take these numbers") from error
    except ValueError as error:
        raise BadInput(str(error)) from error
    try:
        return change(*arguments.args)
    except BadInput:
        raise
    except ValueError as error:
        raise BadInput(str(error)) from error


def _spelled(remedy: str) -> str:
    """Return the remedy's name with its underscores, also where it was written without them.

    >>> _spelled("skipinit(0.1)")
    'skip_init(0.1)'
    """
    name, bracket, numbers = remedy.partition("(")
    known = {key.replace("_", ""): key for key in REMEDIES}
    return known.get(name.strip().replace("_", ""), name) + bracket + numbers
