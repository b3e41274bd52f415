"""The size of every unit's values forward and of their gradients backward, as numbers only.

    second moment   m = mean over samples and coordinates of v^2
    batch variance  s = mean over coordinates of the variance of v over the samples (with n - 1)

m counts what all samples share, s does not: s = m (1 - c) where two samples correlate by c, not centred. The
gradient at a value is measured in the same two ways. Networks without units: the output of every weight
layer, before the norm and the activation that follow.

Prince, Understanding Deep Learning, section 11.4; He et al. 2015b ("Delving deep into rectifiers").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from residua.xray.anatomy import Anatomy
from residua.xray.kinds import weight_kind
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject
from residua.xray.trace import Graph, Node, Reach, interpose
from residua.xray.units import Unit

Side = Literal["trunk", "branch"]
Pair = tuple[float, float]  # second moment, batch variance
NOT_MEASURED: Pair = (math.nan, math.nan)


@dataclass
class Place:
    """Where values are measured: a unit, or a weight layer of a network without units.

    after: the index of the place in whose stage this one goes on, by one block or layer; None where
    a stage begins: at a projection, a change of shape, a fork.
    """

    index: int
    name: str
    stage: int
    source: str
    shape: tuple[int, ...]
    unit: Unit | None = None
    node: Node | None = None
    after: int | None = None


@dataclass
class Sizes:
    """What one forward and backward pass measured: (second moment, batch variance) by place."""

    forward: dict[tuple[int, Side], Pair] = field(default_factory=dict)
    gradient: dict[tuple[int, Side], Pair] = field(default_factory=dict)

    def curve(self, way: str, side: Side, which: int, places: int) -> list[float]:
        """Return one number (0: second moment, 1: batch variance) at each place, NaN where there is none."""
        found = self.forward if way == "forward" else self.gradient
        return [found.get((i, side), NOT_MEASURED)[which] for i in range(places)]


def moments(values: torch.Tensor) -> Pair:
    """Return second moment and batch variance of values (N, ...); the latter is NaN for one sample.

    >>> tuple(round(number, 5) for number in moments(torch.tensor([[1.0, 3.0], [1.0, 1.0]])))
    (3.0, 1.0)
    """
    v = values.detach()
    if v.is_complex():
        v = torch.view_as_real(v)
    if v.dtype not in (torch.float32, torch.float64):
        v = v.float()
    found = _moments(v)
    if v.dtype == torch.float32 and not (math.isfinite(found[0]) and found[0] > 1e-30):
        found = _moments(
            v.double()
        )  # a square leaves the range of floats long before its root does
    if math.isnan(found[0]) and bool(v.isinf().any()):
        return math.inf, math.inf
    return found


def _moments(v: torch.Tensor) -> Pair:
    if v.dim() == 0 or len(v) < 2:
        return float(v.square().mean()), math.nan
    mean = v.mean(0)
    off = torch.linalg.vector_norm(
        v - mean
    )  # many times faster than torch.var over the first dimension
    root, square = torch.stack((off, torch.linalg.vector_norm(mean))).double().tolist()
    spread = root**2 / v.numel()
    return spread + square**2 / mean.numel(), spread * len(v) / (len(v) - 1)


def places_of(anatomy: Anatomy) -> list[Place]:
    """Return the units in forward order; without units, the weight layers."""
    if anatomy.graph is None:
        return []
    if anatomy.units:
        return _unit_places(anatomy, anatomy.graph)
    return _layer_places(anatomy.graph)


def _unit_places(anatomy: Anatomy, graph: Graph) -> list[Place]:
    places = [
        Place(i, unit.name, unit.stage, unit.source, unit.shape, unit=unit)
        for i, unit in enumerate(anatomy.units)
    ]
    trunk = [place for place in places if place.unit is not None and place.unit.parent is None]
    at = {p.unit.sites.merge.index: p for p in trunk if p.unit and p.unit.sites.merge}
    for place in trunk:
        assert place.unit is not None
        before = _last(graph, place.unit.sites.fork, set(at))
        same = (
            before is not None
            and (
                at[before].shape == place.shape
                # a concatenation adds channels with every unit
                or (place.unit.merge == "concatenate" and at[before].shape[2:] == place.shape[2:])
            )
        )
        if same and before is not None and place.unit.shortcut in ("identity", "scaled", "dropout"):
            place.after = at[before].index
    return places


def _layer_places(graph: Graph) -> list[Place]:
    layers = [n for n in graph.nodes if n.live and n.shape and weight_kind(n)]
    places = []
    stage, size = -1, None
    for i, node in enumerate(layers):
        if node.shape[2:] != size:
            stage, size = stage + 1, node.shape[2:]
        place = Place(i, node.module or node.op, stage, node.source, node.shape, node=node)
        places.append(place)
    at = {node.index: place for node, place in zip(layers, places, strict=True)}
    for node, place in zip(layers, places, strict=True):
        live = graph.live(node)
        before = _last(graph, live[0].index, set(at)) if len(live) == 1 else None
        # The first layer reads the input, whose statistics are nobody's law.
        if before is not None and at[before].index > 0 and at[before].shape == place.shape:
            place.after = at[before].index
    return places


def _last(graph: Graph, index: int, stops: set[int]) -> int | None:
    """Walk back over norms and activations to the nearest of these nodes."""
    while index not in stops:
        node = graph.nodes[index]
        live = graph.live(node)
        if len(live) != 1 or weight_kind(node):
            return None
        index = live[0].index
    return index


def measure(
    subject: Subject,
    anatomy: Anatomy,
    places: Sequence[Place],
    statistics: Statistics = "batch",
    *,
    backward: bool = True,
) -> Sizes:
    """Run the subject forward, and backward, once; return numbers only.

    anatomy: of the subject's network or of a twin's. The gradient of the values needs none of the weights',
    and so neither time nor memory for them.
    """
    sizes = Sizes()
    with subject.running(statistics) as model, torch.set_grad_enabled(backward):
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        starts: list[torch.Tensor] = []
        with _reading(replace(anatomy, model=model), places, sizes, starts):
            output = subject.forward()
        if starts:
            total = subject.scalar(output)
            if total.requires_grad:
                torch.autograd.grad(total, starts, allow_unused=True)
    return sizes


@contextmanager
def _reading(
    anatomy: Anatomy, places: Sequence[Place], sizes: Sizes, starts: list[torch.Tensor]
) -> Iterator[None]:
    """Note the sizes of the values of the forward pass inside, and of their gradients when they come.

    starts: is filled with the first values on every path, where the backward pass may end.
    """

    def note(key: tuple[int, Side], value: torch.Tensor) -> torch.Tensor:
        found = sizes.forward[key] = moments(value)
        if not torch.is_grad_enabled() or not value.is_floating_point():
            return value
        if not value.requires_grad:
            starts.append(value.detach().requires_grad_())
            value = starts[-1].clone()  # what follows may write to it

        def back(gradient: torch.Tensor) -> None:
            if sizes.forward[key] is found:  # else it was written to and noted again
                sizes.gradient[key] = moments(gradient)

        value.register_hook(back)  # type: ignore[no-untyped-call]
        return value

    if anatomy.units:
        index = {id(place.unit): place.index for place in places}
        with anatomy.interpose(
            branch=lambda unit, value: note((index[id(unit)], "branch"), value),
            merged=lambda unit, value: note((index[id(unit)], "trunk"), value),
        ):
            yield
        return
    assert anatomy.graph is not None

    def at(place: Place) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda value: note((place.index, "trunk"), value)

    reaches = [Reach(p.node, result=at(p)) for p in places if p.node is not None]
    with interpose(anatomy.model, anatomy.graph, reaches):
        yield
