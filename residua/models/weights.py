"""Weights in and out: ours, torchvision's and timm's checkpoints <-> our models.

`load_weights` checks every name and shape before it copies the first tensor: a checkpoint that does
not fit leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from residua.errors import BadInput
from residua.models.heads import HEAD, is_last, last_layers, names_of_head
from residua.models.layouts import (
    OURS,
    RESNETV2,
    TIMM,
    TORCHVISION,
    Layout,
    layout_for,
    layout_of,
)
from residua.models.reading import read_weights, strip_prefixes
from residua.models.recognise import (
    BATCH_NORM,
    FC,
    STEM,
    Difference,
    body,
    differences,
    registered_as,
    shapes_of,
)
from residua.models.registry import record
from residua.nn.norms.standardised import StandardisedConv2d

__all__ = [
    "LoadReport",
    "load_weights",
    "read_weights",
    "timm_state_dict",
    "torchvision_state_dict",
]

SHOWN = 5  # differences that an error lists, tensors that a report does
COUNTER = ".num_batches_tracked"  # absent before torch 0.4.1, and of no use in evaluation


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: whose layout, which tensors (our names), what stayed fresh.

    into: the part of the model that the weights are of, where they are of a part.
    """

    path: Path
    layout: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    into: str = ""

    def __str__(self) -> str:
        text = f"loaded {len(self.loaded)} tensors in {self.layout}'s layout from {self.path}"
        if self.into:
            text += f" into the {self.into}"
        if self.fresh:
            text += f"; fresh: {self._fresh()}"
        return "; ".join([text, *self.notes])

    def _fresh(self) -> str:
        if len(self.fresh) <= SHOWN:
            return ", ".join(self.fresh)
        parts = dict.fromkeys(name.partition(".")[0] for name in self.fresh)
        return f"{len(self.fresh)} tensors of {', '.join(parts)}"


def load_weights(
    model: nn.Module, path: str | Path, *, head: Literal["keep", "new"] = "keep"
) -> LoadReport:
    """Copy a checkpoint's weights into `model`, in place.

    Args:
        model: one of ours. path: a checkpoint in our, torchvision's or timm's layout, recognised by
            its contents. head: "keep" takes the checkpoint's last layers, "new" leaves the model's own;
            which those are the model says by `last_layers`.

    Raises:
        BadInput: the file cannot be read, is of another model, or differs in a name or a shape. The
            model is then unchanged.
    """
    if head not in ("keep", "new"):
        raise BadInput(f"head {head!r} is unknown: expected keep or new")
    return load_tensors(model, Path(path), read_weights(path), new=head == "new")


def load_tensors(
    model: nn.Module, path: Path, file: Mapping[str, torch.Tensor], *, new: bool
) -> LoadReport:
    """Copy the tensors of a file into `model`, as `load_weights`; new: whether the head stays fresh."""
    layout, theirs = names_in(path, file)
    _check_bit(path, layout, file, model)
    source = {ours: _as_linear(ours, file[name]) for ours, name in theirs.items()}
    target = strip_prefixes(model.state_dict())
    network = _unwrapped(model)

    _check_same_model(path, source, target)
    fresh = _drop_head(network, source, target, new)
    _check_channels(path, source, target)
    _check_head(path, network, source, target)
    _check_all(path, source, target, theirs)
    loaded = [name for name in target if name in source]
    with torch.no_grad():
        for name in loaded:
            target[name].copy_(source[name])
    notes = _notes(model, layout, batch=_has_running_statistics(file))
    return LoadReport(path, layout.name, tuple(loaded), tuple(fresh), tuple(notes))


def names_in(path: Path, file: Mapping[str, torch.Tensor]) -> tuple[Layout, dict[str, str]]:
    """Return the layout of a file, and its name of each tensor by ours; BadInput for an unknown layout."""
    layout = layout_of(file)
    if layout is None:
        raise BadInput(
            f"{path} has names of no layout known here (such as {next(iter(file))!r}):"
            " expected a network of residua, torchvision or timm"
        )
    return layout, {ours: name for name, ours in layout.to_ours(file).items()}


def _as_linear(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Flatten a head that is stored as a 1x1 convolution, as timm's v2 networks have it."""
    return tensor.flatten(1) if name == FC and tensor.dim() == 4 else tensor


def _check_bit(
    path: Path, layout: Layout, file: Mapping[str, torch.Tensor], model: nn.Module
) -> None:
    """Refuse BiT for a model that is not: it has the names and shapes of group norm's, no more."""
    bit = layout is RESNETV2 and STEM in file and not _has_running_statistics(file)
    if bit and not any(isinstance(module, StandardisedConv2d) for module in model.modules()):
        raise BadInput(
            f"{path} is a BiT network of timm's (group norm over standardised weights), the model is"
            " not: expected one such as resnetv2_50x1_bit, or a file with batch norm"
        )


def _has_running_statistics(file: Mapping[str, torch.Tensor]) -> bool:
    return any(name.endswith("running_mean") for name in file)


def _check_same_model(
    path: Path, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> None:
    """Say which model the file is of, when it is of another one that is known."""
    theirs, ours = (
        {name: tensor.shape for name, tensor in state.items()} for state in (source, target)
    )
    if body(theirs) == body(ours):
        return
    if found := registered_as(theirs):
        instead = registered_as(ours)
        but = f", not {' or '.join(instead)}" if instead else ""
        raise BadInput(f"{path} is of another model: it looks like {' or '.join(found)}{but}")


def _drop_head(
    model: nn.Module, source: dict[str, torch.Tensor], target: dict[str, torch.Tensor], new: bool
) -> list[str]:
    """Leave the last layers out of the comparison where they are not wanted; return what stays fresh.

    Hidden layers of a head (AlexNet's, VGG's, an FPN's) are wanted, unless one side has no head at all.
    """
    mine, theirs = (any(name.startswith(HEAD) for name in state) for state in (target, source))
    if not new and (mine or not theirs):
        return []
    patterns = last_layers(model) if mine == theirs else (f"{HEAD}*",)
    fresh = [name for name in target if is_last(name, patterns)]
    for state in (source, target):
        for name in [name for name in state if is_last(name, patterns)]:
            del state[name]
    return fresh


def first_convolution(state: Mapping[str, torch.Tensor]) -> str:
    """Return the name of the weights that see the picture, which come first in all of our networks."""
    return next((name for name, tensor in state.items() if tensor.dim() > 2), STEM)


def _check_channels(
    path: Path, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> None:
    first = first_convolution(target)
    if first not in source or first not in target:
        return
    theirs, ours = source[first].shape, target[first].shape
    if theirs[1:2] != ours[1:2] and (theirs[:1], theirs[2:]) == (ours[:1], ours[2:]):
        raise BadInput(
            f"{path} is for pictures of {theirs[1]} channels, the model takes {ours[1]}"
            f" ({first} is {tuple(theirs)} in the file, {tuple(ours)} in the model):"
            f" build the model with in_channels={theirs[1]}"
        )


def _check_head(
    path: Path,
    model: nn.Module,
    source: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
) -> None:
    for name in names_of_head(model, target):
        if name not in source:
            raise BadInput(
                f"{path} has no {name}: it was saved without a head;"
                ' keep the model\'s fresh one with head="new" (--head new)'
            )
        theirs, ours = source[name].shape, target[name].shape
        if theirs != ours:
            raise BadInput(
                f"{path} has another head: {name} is {tuple(theirs)} in the file,"
                f" {tuple(ours)} in the model ({theirs[0]} classes, not {ours[0]});"
                ' keep the model\'s fresh head with head="new" (--head new)'
            )


def _check_all(
    path: Path,
    source: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
    theirs: Mapping[str, str],
) -> None:
    """Raise BadInput with the first few differences in names, shapes and kinds of number."""
    found = []
    for name, tensor in target.items():
        if name not in source:
            if not name.endswith(COUNTER):
                found.append(f"{name} {tuple(tensor.shape)} is missing")
            continue
        called = name if theirs[name] == name else f"{name} ({theirs[name]})"
        if source[name].shape != tensor.shape:
            shapes = f"{tuple(source[name].shape)} in the file, {tuple(tensor.shape)} in the model"
            found.append(f"{called} is {shapes}")
        elif (
            source[name].is_floating_point() != tensor.is_floating_point()
            and not name.endswith(COUNTER)  # averaged weights have averaged counters
        ):
            found.append(f"{called} is {source[name].dtype} in the file, {tensor.dtype} here")
    for name in source:
        if name not in target and not name.endswith(COUNTER):
            shape = tuple(source[name].shape)
            found.append(f"{theirs[name]} {shape} in the file has no place in the model")
    if found:
        more = f"; and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        count = f"{len(found)} difference{'s' if len(found) > 1 else ''}"
        raise BadInput(f"{path} does not fit the model, {count}: {'; '.join(found[:SHOWN])}{more}")


def _notes(model: nn.Module, layout: Layout, batch: bool) -> list[str]:
    """Say where the model computes something else, with the same tensors, than the file's network.

    batch: whether the file has batch norm; if not its norms are of another kind than the registered
    model's, and the names have told that the model's are too.
    """
    if layout is OURS:
        return []
    closest = _closest(_unwrapped(model), layout.holds)
    if closest is None:
        return []
    name, found = closest
    found = [d for d in found if batch or not d.registered.startswith(BATCH_NORM)]
    return [f"the model is not {layout.name}'s {name}: {_shown(found)}"] if found else []


def _shown(found: Sequence[object]) -> str:
    return f"{found[0]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


def _closest(
    model: nn.Module, wanted: Callable[[str], bool]
) -> tuple[str, list[Difference]] | None:
    """Return which of the wanted registered models the model is nearest to, and the differences."""
    names = [name for name in registered_as(shapes_of(model)) if wanted(name)]
    pairs = [(name, differences(model, name)) for name in names]
    return min(pairs, key=lambda pair: len(pair[1]), default=None)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside of torch.compile's and DistributedDataParallel's wrappers."""
    while (inner := getattr(model, "_orig_mod", getattr(model, "module", None))) is not None:
        model = inner
    return model


def torchvision_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a model that torchvision has too under torchvision's names.

    Those are resnet18 to 200, resnext*, wide_resnet*, densenet*, alexnet, vgg* and vgg*_bn:
    `torchvision.models.resnet50().load_state_dict(...)` takes the result and computes the same.
    Tensors are shared with the model, as in `state_dict()`. Raises BadInput, with the reason, for a
    model that is another network in evaluation.
    """
    return _export(model, TORCHVISION)


def timm_state_dict(model: nn.Module, name: str | None = None) -> dict[str, torch.Tensor]:
    """Return the weights of a model that timm has too under timm's names.

    Those are all of timm's resnet*, resnetv2_* with BiT's, resnext*, seresnet*, seresnext*, wide_resnet* and
    densenet*. The head of resnetv2_* becomes a 1x1 convolution, as there. name: which of them, where several
    have the same tensors and layers: resnetaa50d and resnet50_clip_gap do; None takes the shortest name.
    Otherwise as `torchvision_state_dict`.
    """
    return _export(model, TIMM, name)


def _export(model: nn.Module, peer: str, wanted: str | None = None) -> dict[str, torch.Tensor]:
    network = _unwrapped(model)
    if wanted is not None:
        record(wanted)  # an unknown name shows here
    closest = _closest(
        network, lambda name: layout_for(name, peer) is not None and wanted in (None, name)
    )
    if closest is None:
        raise BadInput(f"the model has no layout of {peer}'s: {_absent(network, peer)}")
    name, found = closest
    layout = layout_for(name, peer)
    if found or layout is None:
        raise BadInput(
            f"the model has no layout of {peer}'s: it is not {peer}'s {name}, {_shown(found)}"
        )
    state = network.state_dict()
    theirs = {}
    for ours, called in layout.from_ours(state).items():
        assert called is not None, f"{ours} has no name in the layout of {name}"
        theirs[called] = state[ours]
    if layout.conv_head and FC in state:
        theirs[FC] = state[FC][:, :, None, None]
    return theirs


def _absent(model: nn.Module, peer: str) -> str:
    closest = _closest(model, lambda name: True)
    if closest is None or closest[1]:
        return f"{peer} has no network of these tensors and layers"
    other = [p for p in (TORCHVISION, TIMM) if layout_for(closest[0], p)]
    hint = f" ({other[0]}_state_dict writes {other[0]}'s layout)" if other else ""
    return f"{peer} has no {closest[0]}{hint}"
