"""How many activations lie on the paths through a network: its depth, for laws that count ReLUs.

The fewest count is the depth of the way through the shortcuts; the most, of the way through every branch.
A max pool is a choice, too: two unrelated inputs choose the same one of r positions with probability 1/r,
and only then does their gradient go the same way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from residua.xray.kinds import kind
from residua.xray.trace import Graph, Node

ACTIVATIONS = ("relu", "activation")  # what `kinds` calls them


@dataclass(frozen=True)
class Depths:
    """What lies on the paths from a node's value to the network's result.

    fewest, most: activations. chosen: the product of 1/r over max pools, of the path with the largest.
    """

    fewest: int = 0
    most: int = 0
    chosen: float = 1.0


def depths_after(graph: Graph) -> dict[int, Depths]:
    """Return, for every node from which a result is reached, what comes after it."""
    found = {i: Depths() for i in graph.results}
    for node in reversed(graph.nodes):
        ways = [
            _through(graph, reader, found[reader.index])
            for reader in graph.consumers[node.index]
            if reader.index in found
        ]
        if node.index in found:
            ways.append(found[node.index])
        if ways:
            found[node.index] = Depths(
                min(way.fewest for way in ways),
                max(way.most for way in ways),
                max(way.chosen for way in ways),
            )
    return found


def _through(graph: Graph, node: Node, after: Depths) -> Depths:
    """Add an operation in front of what comes after it."""
    step = int(kind([node]) in ACTIVATIONS)
    chosen = after.chosen
    if "max_pool" in node.op and node.live_inputs:
        positions = math.prod(graph.nodes[node.live_inputs[0]].shape)
        chosen *= min(1.0, math.prod(node.shape) / max(positions, 1))
    return Depths(after.fewest + step, after.most + step, chosen)
