"""Which sizes are followed along the depth of a network, in which direction, and which laws they may obey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from residua.xray.growth import TRUNK_MEMORY, Growth, growth
from residua.xray.laws.explosion import norm_gradient_growth
from residua.xray.moments import Place, Sizes
from residua.xray.subject import Subject

# name -> (way, which of second moment and batch variance)
QUANTITIES = {
    "second_moment": ("forward", 0),
    "batch_variance": ("forward", 1),
    "gradient_second_moment": ("backward", 0),
    "gradient_batch_variance": ("backward", 1),
}


@dataclass(frozen=True)
class Followed:
    """One quantity along the depth, its chains in the order in which it is followed, and its laws."""

    curve: list[float]
    chains: list[list[int]]
    laws: dict[str, float]
    growth: Growth


def follow(subject: Subject, places: Sequence[Place], sizes: Sizes) -> dict[str, Followed]:
    """Fit every quantity of the main pass."""
    units = bool(subject.anatomy.units)
    chains = chains_of(places)
    memory = TRUNK_MEMORY if units else 0.0
    found = {}
    for name, (way, which) in QUANTITIES.items():
        back = way == "backward"
        laws = {"constant": 1.0} | ({"doubling": 2.0} if units else {})
        if back and not units and has_batch_norm(subject):
            laws["explosion"] = norm_gradient_growth(_norm_samples(places)) ** 2
        along = [chain[::-1] for chain in chains[::-1]] if back else chains
        curve = sizes.curve("forward" if not back else "gradient", "trunk", which, len(places))
        shares = _shares(places, sizes, which) if back and units else None
        found[name] = Followed(curve, along, laws, growth(curve, along, laws, shares, memory))
    return found


def _shares(places: Sequence[Place], sizes: Sizes, which: int) -> list[float]:
    """Return each branch's size as a share of the trunk's before it, NaN where a stage begins."""
    trunk = sizes.curve("forward", "trunk", which, len(places))
    branch = sizes.curve("forward", "branch", which, len(places))
    return [
        branch[p.index] / trunk[p.after]
        if p.after is not None and p.unit and p.unit.merge == "add" and trunk[p.after]
        else math.nan
        for p in places
    ]


def chains_of(places: Sequence[Place]) -> list[list[int]]:
    """Return the runs of places that follow one another in a stage."""
    chains: list[list[int]] = []
    at: dict[int, list[int]] = {}
    for place in places:
        if place.after is not None and place.after in at and at[place.after][-1] == place.after:
            at[place.index] = at[place.after]
            at[place.index].append(place.index)
        else:
            at[place.index] = [place.index]
            chains.append(at[place.index])
    return [chain for chain in chains if len(chain) > 1]


def has_batch_norm(subject: Subject) -> bool:
    """Say whether the network normalises over the batch."""
    graph = subject.anatomy.graph
    return graph is not None and any(node.op == "batch_norm" for node in graph.nodes)


def _norm_samples(places: Sequence[Place]) -> int | None:
    """Return over how many numbers a batch norm averages at the least; None where too few for the law."""
    sizes = [
        math.prod(p.shape) // p.shape[1] for p in places if len(p.shape) > 1 and p.after is not None
    ]
    return min(sizes) if sizes and min(sizes) >= 4 else None


def normed(subject: Subject) -> bool:
    """Say whether a norm stands anywhere between the values that are measured."""
    anatomy = subject.anatomy
    if anatomy.units:
        return any("norm" in (*u.before, *u.branch, *u.after) for u in anatomy.units)
    graph = anatomy.graph
    return graph is not None and any(node.op.endswith("_norm") for node in graph.nodes)
