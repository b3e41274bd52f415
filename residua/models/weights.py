"""Weights in and out: ours, torchvision's and timm's checkpoints <-> our models.

`load_weights` checks every name and shape before it copies the first tensor: a checkpoint that does
not fit leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from residua.errors import BadInput
from residua.models.layouts import (
    OURS,
    TIMM,
    TORCHVISION,
    Anatomy,
    anatomy_of,
    from_ours,
    layout_of,
    to_ours,
)
from residua.models.network import Network
from residua.models.reading import read_weights, strip_prefixes
from residua.models.registry import records
from residua.nn.blocks import BottleneckBlock
from residua.nn.shortcuts import Projection
from residua.nn.skip import Skip

__all__ = [
    "LoadReport",
    "load_weights",
    "read_weights",
    "timm_state_dict",
    "torchvision_state_dict",
]

SHOWN = 5  # differences that an error lists
HEAD = "head."
STEM = "stem.conv.weight"
COUNTER = ".num_batches_tracked"  # absent before torch 0.4.1, and of no use in evaluation


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did: whose layout, which tensors (our names), what stayed fresh."""

    path: Path
    layout: str
    loaded: tuple[str, ...]
    fresh: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"loaded {len(self.loaded)} tensors in {self.layout}'s layout from {self.path}"
        if self.fresh:
            text += f"; fresh: {', '.join(self.fresh)}"
        return "; ".join([text, *self.notes])


def load_weights(
    model: nn.Module, path: str | Path, *, head: Literal["keep", "new"] = "keep"
) -> LoadReport:
    """Copy a checkpoint's weights into `model`, in place.

    Args:
        model: one of ours. path: a checkpoint in our, torchvision's or timm's layout, recognised by
            its contents. head: "keep" takes the checkpoint's head, "new" leaves the model's own.

    Raises:
        BadInput: the file cannot be read, is of another model, or differs in a name or a shape. The
            model is then unchanged.
    """
    if head not in ("keep", "new"):
        raise BadInput(f"head {head!r} is unknown: expected keep or new")
    path = Path(path)
    file = read_weights(path)
    layout = layout_of(file)
    if layout is None:
        raise BadInput(
            f"{path} has names of no layout known here (such as {next(iter(file))!r}):"
            " expected a ResNet of residua, torchvision or timm"
        )
    if layout == TIMM:
        _check_timm(path, file)
    theirs = {ours: name for name, ours in to_ours(file, layout).items()}
    source = {ours: _as_linear(ours, file[name]) for ours, name in theirs.items()}
    target = strip_prefixes(model.state_dict())

    _check_same_model(path, source, target)
    fresh = _drop_head(source, target, new=head == "new")
    _check_channels(path, source, target)
    _check_head(path, source, target)
    _check_all(path, source, target, theirs)
    loaded = [name for name in target if name in source]
    with torch.no_grad():
        for name in loaded:
            target[name].copy_(source[name])
    return LoadReport(path, layout, tuple(loaded), tuple(fresh), tuple(_notes(model, layout)))


def _as_linear(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Flatten a head that is stored as a 1x1 convolution, as timm's v2 networks have it."""
    return tensor.flatten(1) if name == "head.fc.weight" and tensor.dim() == 4 else tensor


def _check_timm(path: Path, file: Mapping[str, torch.Tensor]) -> None:
    """Refuse BiT: the same names and shapes as ours with group norm, but another network."""
    if not any(name.endswith("running_mean") for name in file):
        raise BadInput(
            f"{path} is a BiT network of timm's (group norm and standardised weights),"
            " which residua does not have: expected resnetv2 with batch norm"
        )


def _check_same_model(
    path: Path, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> None:
    """Say which model the file is of, when it is of another depth or kind than ours."""
    theirs = anatomy_of({name: tensor.shape for name, tensor in source.items()})
    ours = anatomy_of({name: tensor.shape for name, tensor in target.items()})
    if theirs is not None and theirs != ours:
        instead = f", not {_called(ours, target)}" if ours else ""
        raise BadInput(
            f"{path} is of another model: it looks like {_called(theirs, source)}{instead}"
        )


def _called(anatomy: Anatomy, names: Iterable[str]) -> str:
    """Name the registered models of that anatomy; plain ones have no projections."""
    projects = any(".skip.shortcut." in name for name in names)
    found = []
    for name, record in records().items():
        preset = {"order": "original", **record.preset, **record.defaults}
        if (
            "depths" in preset
            and not (projects and preset["plain"])
            and anatomy
            == Anatomy(
                depths=tuple(preset["depths"]),
                widths=tuple(preset["widths"]),
                bottleneck=preset["block"] is BottleneckBlock,
                preactivation=preset["order"] == "preactivation",
                small=preset["stem"] == "3x3",
            )
        ):
            found.append(name)
    return f"{' or '.join(found)} ({anatomy})" if found else f"a network of {anatomy}"


def _drop_head(
    source: dict[str, torch.Tensor], target: dict[str, torch.Tensor], new: bool
) -> list[str]:
    """Leave the head out of the comparison where it is not wanted; return what stays fresh."""
    mine = [name for name in target if name.startswith(HEAD)]
    if new or not mine:  # without a head of its own (features only), the model needs none
        for name in [name for name in source if name.startswith(HEAD)]:
            del source[name]
        for name in mine:
            del target[name]
        return mine
    return []


def _check_channels(
    path: Path, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> None:
    if STEM not in source or STEM not in target:
        return
    theirs, ours = source[STEM].shape, target[STEM].shape
    if len(theirs) == 4 and theirs[1] != ours[1] and theirs[0] == ours[0]:
        raise BadInput(
            f"{path} is for pictures of {theirs[1]} channels, the model takes {ours[1]}"
            f" ({STEM} is {tuple(theirs)} in the file, {tuple(ours)} in the model):"
            f" build the model with in_channels={theirs[1]}"
        )


def _check_head(
    path: Path, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> None:
    for name in (name for name in target if name.startswith(HEAD)):
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


def _notes(model: nn.Module, layout: str) -> list[str]:
    if layout != OURS and _strides_on_1x1(model):
        return [
            f"{layout}'s own networks stride on the 3x3 convolution, this model on the 1x1:"
            " right for weights that came from Caffe, wrong for others"
        ]
    return []


def torchvision_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a v1 ResNet (18..200) under torchvision's names.

    `torchvision.models.resnet50().load_state_dict(...)` takes the result and computes the same.
    Tensors are shared with the model, as in `state_dict()`. Raises BadInput for a model that
    torchvision's ResNet class cannot be.
    """
    return _export(model, TORCHVISION, preactivation=False)


def timm_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a v2 ResNet (resnetv2_18..200) under timm's names.

    The head becomes a 1x1 convolution, as there. Raises BadInput for a model that timm's ResNetV2
    class cannot be; timm's v1 networks have torchvision's layout.
    """
    state = _export(model, TIMM, preactivation=True)
    if "head.fc.weight" in state:
        state["head.fc.weight"] = state["head.fc.weight"][:, :, None, None]
    return state


def _export(model: nn.Module, layout: str, preactivation: bool) -> dict[str, torch.Tensor]:
    state = strip_prefixes(model.state_dict())
    reason = _no_layout(model, state, preactivation)
    if reason is None:
        theirs = from_ours(state, layout)
        if all(theirs.values()):
            return {str(theirs[name]): tensor for name, tensor in state.items()}
        reason = f"{next(name for name in theirs if theirs[name] is None)} has no name there"
    raise BadInput(f"the model has no layout of {layout}'s: {reason}")


def _no_layout(
    model: nn.Module, state: Mapping[str, torch.Tensor], preactivation: bool
) -> str | None:
    """Return why a peer's ResNet class could not hold this model, None if it could."""
    anatomy = anatomy_of({name: tensor.shape for name, tensor in state.items()})
    network = getattr(model, "_orig_mod", model)
    if anatomy is None or not isinstance(network, Network):
        return "it is not built of residual blocks"
    if anatomy.preactivation and not preactivation:
        return "it is a pre-activation network (timm_state_dict writes timm's layout)"
    if preactivation and not anatomy.preactivation:
        return "it is not a pre-activation network (torchvision_state_dict writes v1 networks)"
    if anatomy.small or len(anatomy.depths) != 4:
        return "it is a network for 32-pixel pictures"
    if not any(name.endswith("running_mean") for name in state):
        return "it does not use batch norm"
    if _strides_on_1x1(model):
        return "it strides on the 1x1 convolution, and theirs would stride on the 3x3"
    for stage in network.stages:
        for j, block in enumerate(stage.children()):
            skip = block.skip
            assert isinstance(skip, Skip)
            first = next(m for m in skip.branch.modules() if isinstance(m, nn.Conv2d))
            last = [m for m in skip.branch.modules() if isinstance(m, nn.Conv2d)][-1]
            changes = j == 0 and (first.in_channels != last.out_channels)
            if isinstance(skip.shortcut, Projection) != changes:
                return "its shortcuts are not those of option B (a projection where shapes change)"
    return None


def _strides_on_1x1(model: nn.Module) -> bool:
    convolutions = [
        m
        for s in model.modules()
        if isinstance(s, Skip)
        for m in s.branch.modules()
        if isinstance(m, nn.Conv2d)
    ]
    return any(c.kernel_size == (1, 1) and c.stride != (1, 1) for c in convolutions)
