"""Weights to begin a training on masks or joints with: a whole network's, or its encoder's.

    a classification network's file  -> the module `encoder` of a U-Net or FPN; what is around it stays fresh
    a file of the whole network      -> the network; its last layers stay fresh where their number is another

A grey picture is a colour one whose channels are alike, so a first convolution over three colours becomes,
summed over them, one over grey with the same result: conv(w, [g, g, g]) = conv(w_1 + w_2 + w_3, g). Any other
number of channels that differs is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from residua.errors import BadInput
from residua.models.heads import is_last, last_layers
from residua.models.reading import read_weights, strip_prefixes
from residua.models.recognise import body, registered_as
from residua.models.registry import Record, create_model, record, records
from residua.models.weights import LoadReport, first_convolution, load_tensors, names_in

CLASSIFIER = ("stages.", "members.")  # what only classification networks have at the top
ENCODER = "encoder"
COLOURS = 3

Tensors = Mapping[str, torch.Tensor]


def start_from(
    model: nn.Module, name: str, path: str | Path, *, head: Literal["keep", "new"] = "keep"
) -> LoadReport:
    """Copy a checkpoint into a network for masks or joints, in place.

    Args:
        model: the registered network of that `name`. path: a file that `load_weights` reads.
        head: of a whole network's file, "keep" takes the last layers where they are of as many classes
            or joints, and leaves the model's own else; "new" leaves the model's own.

    Raises:
        BadInput: as `load_weights`, naming networks that would take a classification network's file. The
            model is then unchanged.
    """
    path = Path(path)
    file = read_weights(path)
    _, theirs = names_in(path, file)
    source = {ours: file[name] for ours, name in theirs.items()}
    if not any(ours.startswith(CLASSIFIER) for ours in source):
        new = head == "new" or _other_number(model, source)
        grey = _summed(model, source, theirs)
        return _said(load_tensors(model, path, {**file, **grey}, new=new), grey)
    found = registered_as(_shapes(source))
    encoder = getattr(model, ENCODER, None)
    if not isinstance(encoder, nn.Module):
        kind = f"is of {' or '.join(found)}, " if found else "is of "
        raise BadInput(
            f"{path} {kind}a classification network, and {name} has no encoder to take it:"
            f" {_instead(record(name), found)}"
        )
    grey = _summed(encoder, source, theirs)
    try:
        report = _said(load_tensors(encoder, path, {**file, **grey}, new=False), grey)
    except BadInput as error:
        if body(_shapes(source)) == body(_shapes(strip_prefixes(encoder.state_dict()))):
            raise
        raise BadInput(f"{error}; {_instead(record(name), found)}") from error
    loaded = tuple(f"{ENCODER}.{ours}" for ours in report.loaded)
    fresh = tuple(n for n in strip_prefixes(model.state_dict()) if not n.startswith(f"{ENCODER}."))
    return replace(report, loaded=loaded, fresh=fresh, into=ENCODER)


def _shapes(state: Tensors) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def _other_number(model: nn.Module, source: Tensors) -> bool:
    """Return whether a last layer has another shape in the file: another number of classes or joints."""
    patterns = last_layers(model)
    return any(
        name in source and source[name].shape != tensor.shape
        for name, tensor in strip_prefixes(model.state_dict()).items()
        if is_last(name, patterns)
    )


def _summed(
    model: nn.Module, source: Tensors, theirs: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Return the file's first convolution for grey pictures, where the model takes those and it colour."""
    target = strip_prefixes(model.state_dict())
    first = first_convolution(target)
    if first not in source or first not in target:
        return {}
    weights, mine = source[first], target[first].shape
    if not weights.is_floating_point() or weights.dim() != len(mine):
        return {}
    if (weights.shape[1], mine[1]) != (COLOURS, 1):
        return {}
    return {theirs[first]: weights.sum(1, keepdim=True)}


def _said(report: LoadReport, grey: Tensors) -> LoadReport:
    """Add to a report what was summed."""
    said = tuple(f"{name} summed over the colours, for grey pictures" for name in grey)
    return replace(report, notes=report.notes + said)


def _instead(wanted: Record, encoders: Sequence[str]) -> str:
    """Say which networks for the same task take one of these encoders, or any where none is known."""
    alike = [r for r in records().values() if (r.task, r.dims) == (wanted.task, wanted.dims)]
    given = [r.name for r in alike if r.preset.get(ENCODER) in encoders or not encoders]
    given = [name for name in given if ENCODER in record(name).preset]
    free = [r.name for r in alike if ENCODER in r.options()]
    ways = [f"--model {' or '.join(given)}"] if given else []
    takers: dict[str, list[str]] = {}  # which encoders each set of networks takes
    for encoder in encoders:
        fits = " or ".join(name for name in free if _takes(name, encoder))
        takers.setdefault(fits, []).append(encoder)
    for fits, found in takers.items():
        if fits:
            ways.append(f"--model {fits} with --set model_options.{ENCODER}={' or '.join(found)}")
    if ways:
        return f"it fits {', or '.join(ways)}"
    return (
        f"no {wanted.dims}-D network for {wanted.task} has one that fits; what fits {wanted.name} is the"
        " weights of a run with it"
    )


def _takes(name: str, encoder: str) -> bool:
    """Return whether a network can be built over that encoder."""
    try:
        with torch.device("meta"):
            create_model(name, encoder=encoder)
    except BadInput:
        return False
    return True
