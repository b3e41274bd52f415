"""What can be taken out of a network: its residual units, or the layers of a plain one that keep the shape.

a unit    y = shortcut(x)                                           (Veit, Wilber & Belongie 2016)
a layer   y = x in place of activation(norm(W x)), where x has the shape of W x: "one layer of VGG"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from residua.errors import BadInput
from residua.xray.anatomy import Anatomy
from residua.xray.kinds import kind, weight_kind
from residua.xray.trace import Graph, Node, Reach, interpose
from residua.xray.units import Unit


@dataclass(frozen=True)
class Part:
    """A unit, or a weight layer with the norm and activation that follow it (first and last node)."""

    name: str
    stage: int
    source: str
    unit: Unit | None = None
    layer: tuple[Node, Node] | None = None


def parts_of(anatomy: Anatomy) -> list[Part]:
    """Return what can be deleted, in forward order: all units, or without units the layers."""
    if anatomy.units:
        return [Part(u.name, u.stage, u.source, unit=u) for u in anatomy.units]
    return [] if anatomy.graph is None else list(_layers(anatomy.graph))


def _layers(graph: Graph) -> Iterator[Part]:
    stage, size = -1, None
    for node in graph.nodes:
        live = graph.live(node)
        if not (node.live and weight_kind(node) and len(live) == 1):
            continue
        if node.shape[2:] != size:
            stage, size = stage + 1, node.shape[2:]
        if live[0].shape == node.shape and len([i for i in node.inputs if i is not None]) == 1:
            yield Part(node.module or node.op, stage, node.source, layer=(node, _end(graph, node)))


def _end(graph: Graph, node: Node) -> Node:
    """Follow the norm and the activation behind a weight layer."""
    end = node
    while True:
        readers = [reader for reader in graph.consumers[end.index] if reader.live]
        if len(readers) != 1 or readers[0].shape != node.shape:
            return end
        if kind(readers) not in ("norm", "relu", "activation"):
            return end
        end = readers[0]


@contextmanager
def deleted(anatomy: Anatomy, parts: Sequence[Part]) -> Iterator[None]:
    """Run without these parts, in the forward passes that happen inside."""
    units = [part.unit for part in parts if part.unit is not None]
    if units:
        with anatomy.cut(units):
            yield
        return
    if anatomy.graph is None:
        raise BadInput(f"the network's layers cannot be reached: {anatomy.reason}")
    reaches = [reach for part in parts if part.layer for reach in _around(*part.layer)]
    with interpose(anatomy.model, anatomy.graph, reaches):
        yield


def _around(first: Node, last: Node) -> Iterator[Reach]:
    """Hand what the first operation reads to whoever reads the last."""
    argument = next(i for i, made in enumerate(first.inputs) if made is not None)
    kept: list[torch.Tensor] = []

    def read(values: list[torch.Tensor]) -> list[torch.Tensor]:
        kept[:] = [values[argument]]
        return values

    yield Reach(first, given=read)
    yield Reach(last, result=lambda _: kept.pop())
