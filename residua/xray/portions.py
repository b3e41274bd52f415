"""The network in portions, each operation in one: the residual units, and what lies outside them.

A unit's portion is what ran after its fork, up to its merge and the norm and activation that follow it. An
operation inside nested units is the innermost's. What lies outside goes by its place in the tree of modules.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass, field

from residua.xray.anatomy import Anatomy
from residua.xray.kinds import kind
from residua.xray.trace import Graph, Node
from residua.xray.trace.calls import Key
from residua.xray.units import Unit


@dataclass
class Portion:
    """A unit, or operations outside all units under one name; nodes in their order."""

    name: str
    unit: Unit | None = None
    nodes: list[Node] = field(default_factory=list)


def portions(anatomy: Anatomy) -> list[Portion]:
    """Return the portions in the order in which they begin."""
    graph = anatomy.graph
    assert graph is not None
    spans: list[tuple[int, int, Unit]] = []
    for unit in anatomy.units:
        assert unit.sites.merge is not None
        spans.append((unit.sites.fork, _end(unit.sites.merge, graph), unit))
    spans.sort(key=lambda span: span[1] - span[0])
    found: dict[object, Portion] = {}
    deep = 1 if spans else 2
    for node in graph.nodes:
        if node.op == "input":
            continue
        around = [u for begin, end, u in spans if begin < node.index <= end]
        inner = around[0] if around else None
        outside = ".".join(node.module.split(".")[:deep]) or "the model"
        key = outside if inner is None else inner.index
        name = outside if inner is None else inner.name or f"unit {inner.index}"
        found.setdefault(key, Portion(name, inner)).nodes.append(node)
    return list(found.values())


def _end(merge: Node, graph: Graph) -> int:
    """Return the last operation of the norm and activation that follow a merge."""
    at = merge
    while True:
        readers = graph.consumers[at.index]
        if len(readers) != 1 or kind(readers) not in ("norm", "relu", "activation"):
            return at.index
        at = readers[0]


class Places:
    """Which portion an operation belongs to, also one that did not run when the graph was recorded.

    Training does a few operations more than evaluation; they go where their module's neighbours are.
    """

    def __init__(self, graph: Graph, parts: list[Portion]) -> None:
        self.calls = graph.calls
        self.by_call: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for i, part in enumerate(parts):
            for node in part.nodes:
                path, call, operation = node.key
                self.by_call.setdefault((path, call), []).append((operation, i))
        for entries in self.by_call.values():
            entries.sort()

    def at(self, key: Key) -> int | None:
        """Return the portion's number; None for a module that ran no operation then."""
        path, call, operation = key
        entries = self.by_call.get((path, call % self.calls.get(path, 1)))
        if entries is None:
            return None
        return entries[max(0, bisect_right(entries, (operation, sys.maxsize)) - 1)][1]
