"""Which earlier value everything on the way to a later one comes from: immediate dominators of a graph.

    idom(n) = the last node that every path from the input to n goes through

Cooper, Harvey, Kennedy 2001, A simple, fast dominance algorithm: on an acyclic graph in the order in which
it ran, one pass; idom(n) is the lowest common ancestor of the nodes that n reads, in the tree so far.
"""

from __future__ import annotations

from collections.abc import Iterable

from residua.xray.trace import Graph

ROOT = -1  # stands before all inputs


class Dominators:
    """The tree of immediate dominators of the nodes that depend on the input."""

    def __init__(self, graph: Graph) -> None:
        self.idom: dict[int, int] = {}
        self.depth: dict[int, int] = {ROOT: 0}
        for node in graph.nodes:
            if not node.live:
                continue
            behind = [other.index for other in graph.live(node)]
            parent = self.common(behind) if behind else ROOT
            self.idom[node.index] = parent
            self.depth[node.index] = self.depth[parent] + 1

    def common(self, nodes: Iterable[int]) -> int:
        """Return the last node that dominates all of `nodes`, itself one of them perhaps."""
        found: int | None = None
        for node in nodes:
            if found is None:
                found = node
                continue
            while found != node:
                if self.depth[found] >= self.depth[node]:
                    found = self.idom[found]
                else:
                    node = self.idom[node]
        if found is None:
            raise ValueError("nothing has no dominator")
        return found
