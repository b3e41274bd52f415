"""The two sides of a merge: which operations lie between the fork and each of the merged values.

    fork = the last common dominator of the merged values
    shortcut = the side with fewer weight layers: by its lightest path first, so that a gate on an
    identity is no convolution, then by its heaviest

A merge whose sides weigh the same is no skip connection: Inception's and Shake-Shake's branches. Nor is one
to which even the lighter side comes through two weight layers or more on every path: a shortcut keeps x, or a
linear map of it (He et al. 2015, equations 1 and 2), on one path at the least. So the levels that a semantic
head adds up (Kirillov et al. 2019, figure 3) are branches. A concatenation keeps x itself on one path: a
U-Net's level, or the row of maps that a node of a U-Net++ reads (Zhou et al. 2018, equation 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from residua.xray.dominators import ROOT, Dominators
from residua.xray.kinds import SQUASHES, weight_kind
from residua.xray.trace import Graph, Node

LINEAR = 1  # weight layers of the heaviest shortcut's lightest path: a projection


@dataclass
class Side:
    """From the fork to one merged value.

    arguments: which of the merge's tensor arguments it is (two: it is their product).
    lightest, heaviest: weight layers on the path with fewest, most of them. path: the heaviest, in
    order, past squeeze-and-excitation. inside: all its nodes.
    """

    arguments: tuple[int, ...]
    end: int
    lightest: int
    heaviest: int
    path: list[Node]
    inside: frozenset[int]

    @property
    def weight(self) -> tuple[int, int]:
        """What sides are compared by: the lighter one is the shortcut."""
        return self.lightest, self.heaviest


@dataclass
class Merge:
    """A node that joins two sides of a fork.

    gate: a learned factor on the shortcut; passed: what it lets pass, `shortcut` where there is none.
    """

    node: Node
    fork: int
    shortcut: Side
    branch: Side
    passed: Side
    gate: Side | None = None
    open_gate: float = 1.0


def find_merges(graph: Graph) -> list[Merge]:
    """Return the skip connections of a graph, in the order of their merges."""
    tree = Dominators(graph)
    joined: dict[tuple[int | None, ...], Node] = {}  # arguments of concatenations so far
    found = []
    for node in graph.nodes:
        if not node.live or len(graph.live(node)) < 2:
            if node.op == "cat":
                joined.setdefault(tuple(node.inputs), node)
            continue
        merge = None
        if node.op in ("add", "sub"):
            merge = _two(graph, tree, node, ((0,), (1,)))
        elif node.op == "addcmul":
            merge = _two(graph, tree, node, ((0,), _live_of(graph, node, (1, 2))))
        elif node.op == "lerp":
            merge = _two(graph, tree, node, ((0,), (1,)), gate=2)
        elif node.op == "cat":
            merge = _concatenation(graph, tree, node, joined)
            joined.setdefault(tuple(node.inputs), node)
        if merge is not None:
            found.append(merge)
    return found


def _live_of(graph: Graph, node: Node, arguments: Sequence[int]) -> tuple[int, ...]:
    return tuple(a for a in arguments if a < len(node.inputs) and node.inputs[a] is not None)


def _two(
    graph: Graph,
    tree: Dominators,
    node: Node,
    terms: Sequence[tuple[int, ...]],
    gate: int | None = None,
) -> Merge | None:
    """Return the merge of two terms, if they come from one fork and one of them is lighter."""
    terms = [_live_of(graph, node, term) for term in terms]
    if not all(terms):
        return None
    ends = [[_end(node, a) for a in term] for term in terms]
    fork = tree.common(e for part in ends for e in part)
    if fork == ROOT:
        return None
    sides = [_side(graph, fork, term, node) for term in terms]
    light, heavy = sorted(sides, key=lambda side: side.weight)
    if light.lightest > LINEAR:
        return None
    if light.heaviest >= heavy.heaviest and light.lightest >= heavy.lightest:
        return None
    if gate is not None and node.inputs[gate] is not None:
        above = _side(graph, fork, (gate,), node)
        opened = 1.0 if light.arguments == (1,) else 0.0
        return Merge(node, fork, light, heavy, light, above, opened)
    parts = _gate_of(graph, fork, light, node)
    if parts is None and light.heaviest >= heavy.heaviest:
        return None
    passed, factor = parts or (light, None)
    return Merge(node, fork, light, heavy, passed, factor)


def _end(node: Node, argument: int) -> int:
    end = node.inputs[argument]
    assert end is not None
    return end


def _gate_of(graph: Graph, fork: int, light: Side, merge: Node) -> tuple[Side, Side] | None:
    """Return the two factors of a gated shortcut: what passes, and the heavier one, the gate."""
    if len(light.arguments) == 2:
        parts = [_side(graph, fork, (a,), merge) for a in light.arguments]
    elif light.end != fork and graph.nodes[light.end].op == "mul":
        product = graph.nodes[light.end]
        live = _live_of(graph, product, (0, 1))
        if len(live) < 2:
            return None
        parts = [_side(graph, fork, (a,), product) for a in live]
    else:
        return None
    passed, factor = sorted(parts, key=lambda side: side.weight)
    return (passed, factor) if factor.heaviest > passed.heaviest else None


def _concatenation(
    graph: Graph, tree: Dominators, node: Node, joined: dict[tuple[int | None, ...], Node]
) -> Merge | None:
    """Return the merge of a concatenation that keeps an earlier value beside a new one.

    Where all but the last argument were concatenated before, that earlier concatenation is the
    shortcut: a DenseNet that keeps its maps in a list.
    """
    *kept, last = range(len(node.inputs))
    if not kept or node.inputs[last] is None:
        return None
    earlier = joined.get(tuple(node.inputs[:-1]))
    if earlier is not None and len(kept) > 0:
        fork = earlier.index
        branch = _side(graph, fork, (last,), node)
        if branch.heaviest > 0 and branch.lightest >= 0:
            shortcut = Side(tuple(kept), fork, 0, 0, [], frozenset())
            return Merge(node, fork, shortcut, branch, shortcut)
    live = [a for a in range(len(node.inputs)) if node.inputs[a] is not None]
    fork = tree.common(_end(node, a) for a in live)
    if fork == ROOT:
        return None
    sides = sorted((_side(graph, fork, (a,), node) for a in live), key=lambda side: side.weight)
    light, heavy = sides[0], sides[-1]
    if len(sides) > 2 or light.lightest > 0 or light.heaviest >= heavy.heaviest:
        return None
    return Merge(node, fork, light, heavy, light)


def _carries(graph: Graph, node: Node, argument: int) -> tuple[bool, int]:
    """Rank the factors of a product, so that a path goes past attention: a squashed one is a gate."""
    if node.op != "mul":
        return True, 0
    factor = graph.nodes[argument]
    return factor.op not in SQUASHES, prod(factor.shape)


def _side(graph: Graph, fork: int, arguments: tuple[int, ...], merge: Node) -> Side:
    """Walk from a merged value back to the fork and weigh the paths between."""
    ends = [_end(merge, a) for a in arguments]
    region: set[int] = set()
    todo = [e for e in ends if e != fork]
    while todo:
        index = todo.pop()
        if index in region or index < fork:
            continue
        region.add(index)
        todo.extend(n.index for n in graph.live(graph.nodes[index]) if n.index != fork)
    lightest, heaviest, behind = {fork: 0}, {fork: (0, 0)}, {}
    for index in sorted(region):
        node = graph.nodes[index]
        own = 1 if weight_kind(node) else 0
        known = [n.index for n in graph.live(node) if n.index in lightest]
        if not known:  # reads only what ran before the fork
            continue
        lightest[index] = own + min(lightest[i] for i in known)
        most = max(heaviest[i] for i in known)
        heaviest[index] = (own + most[0], 1 + most[1])
        behind[index] = max(known, key=lambda i: (*_carries(graph, node, i), heaviest[i]))
    end = max((e for e in ends if e in heaviest), key=lambda e: heaviest[e], default=fork)
    path = []
    at = end
    while at != fork:
        path.append(graph.nodes[at])
        at = behind[at]
    light = min((lightest[e] for e in ends if e in lightest), default=0)
    return Side(arguments, end, light, heaviest[end][0], path[::-1], frozenset(region))
