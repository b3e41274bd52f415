"""Merges by name: make_merge("skip_init", place, activation); numbers stand in brackets."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from residua.nn.merges.add import Add
from residua.nn.merges.gates import GatedAdd, ShortcutGate
from residua.nn.merges.layer_scale import LayerScale, start_for
from residua.nn.merges.merge import Merge, Place
from residua.nn.merges.scaled_add import constant, sqrt_half, stable, stable_decreasing
from residua.nn.merges.skip_init import SkipInit
from residua.nn.names import lookup, with_numbers

Activation = nn.Module | None


def _add(place: Place, activation: Activation) -> Merge:
    return Add(activation)


def _skip_init(place: Place, activation: Activation, start: float = 0.0) -> Merge:
    return SkipInit(start, activation)


def _layer_scale(place: Place, activation: Activation, start: float | None = None) -> Merge:
    start = start_for(place.blocks) if start is None else start
    return LayerScale(place.channels, start, activation)


def _exclusive_gate(place: Place, activation: Activation, bias: float = -6.0) -> Merge:
    return GatedAdd(place.channels, bias, 1, activation, place.dims)


def _highway(place: Place, activation: Activation, bias: float = -2.0) -> Merge:
    return GatedAdd(place.channels, bias, 3, activation, place.dims)


def _shortcut_gate(place: Place, activation: Activation, bias: float = -6.0) -> Merge:
    return ShortcutGate(place.channels, bias, activation, place.dims)


MERGES: dict[str, Callable[..., Merge]] = {
    "add": _add,
    "constant": constant,
    "sqrt_half": sqrt_half,
    "stable": stable,
    "stable_decreasing": stable_decreasing,
    "skip_init": _skip_init,
    "layer_scale": _layer_scale,
    "exclusive_gate": _exclusive_gate,
    "shortcut_gate": _shortcut_gate,
    "highway": _highway,
}


def make_merge(name: str, place: Place, activation: nn.Module | None) -> Merge:
    """Return the merge of that name for a block at `place`; ValueError if it is unknown."""
    make, _ = lookup("merge", name, MERGES)
    return with_numbers("merge", name, make, place, activation)
