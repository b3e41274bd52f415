"""Pre-activation order in the place of the original one.

    y = relu(s(x) + [conv norm relu conv norm](x))   becomes   y = s(x) + [norm relu conv norm relu conv](x)

He et al. 2016b, figure 4e. Where shapes change, norm and relu come before the fork. After the last unit norm
and relu follow, as in the authors' code. The new first norms start at 1 and 0; the old last norms of
branches and those of shortcuts go; all weights stay.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from residua.errors import BadInput
from residua.xray.anatomy import anatomy
from residua.xray.kinds import kind, weight_kind
from residua.xray.prescribe.merges import additions
from residua.xray.prescribe.rewired import Rewired, Step, need_example
from residua.xray.trace import Graph, Node
from residua.xray.units import Unit

_NORMS = {
    1: nn.BatchNorm1d,
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}


def preactivation(model: nn.Module, example: Any) -> nn.Module:
    """Return the model with its v1 units made v2 units."""
    need_example(example, "preactivation")
    found = anatomy(model, example)
    graph = found.graph
    assert graph is not None
    units = additions(found, "preactivation")
    other = next((unit for unit in units if unit.order != "original"), None)
    if other is not None:
        order = other.order or f"of another kind: {other.text}"
        raise BadInput(
            f"preactivation reorders units of the original order: {other.name} is {order}"
        )
    steps: dict[int, Step] = {}
    for unit in units:
        merge, branch = unit.sites.merge, unit.sites.branch
        assert merge is not None and branch is not None
        after = _follows(graph, merge)
        steps[after.index] = Step(after, "instead", nn.Identity())
        for index in unit.sites.inside | _shortcut(graph, unit):
            node = graph.nodes[index]
            if kind([node]) == "norm" and (node is branch or index not in unit.sites.inside):
                steps[index] = Step(node, "instead", nn.Identity())
    for unit in units:
        fork = graph.nodes[unit.sites.fork]
        if unit.shortcut == "identity":
            first = _first(graph, unit)
            steps[first.index] = Step(first, "given", _pre(fork))
        elif fork.index in steps:
            steps[fork.index] = Step(fork, "instead", _pre(fork))
        else:
            steps[fork.index] = Step(fork, "result", _pre(fork))
    last = units[-1].sites.merge
    assert last is not None
    end = _follows(graph, last)
    steps[end.index] = Step(end, "instead", _pre(end))
    like = next(model.parameters())
    changed = Rewired(model, graph, list(steps.values()))
    changed.added.to(like.device, like.dtype)
    return changed.train(model.training)


def _pre(node: Node) -> nn.Module:
    """Return norm and relu for the values of a node, (N, C, ...)."""
    return nn.Sequential(_NORMS[len(node.shape)](node.shape[1]), nn.ReLU())


def _follows(graph: Graph, merge: Node) -> Node:
    """Return the activation that follows a merge."""
    return next(node for node in graph.consumers[merge.index] if node.live)


def _first(graph: Graph, unit: Unit) -> Node:
    """Return the first weight layer of a branch."""
    inside = (graph.nodes[index] for index in sorted(unit.sites.inside))
    return next(node for node in inside if weight_kind(node))


def _shortcut(graph: Graph, unit: Unit) -> set[int]:
    """Return the nodes between fork and merge on the shortcut."""
    merge, found = unit.sites.merge, set[int]()
    assert merge is not None
    todo = [merge.inputs[argument] for argument in unit.sites.shortcut]
    while todo:
        index = todo.pop()
        if index is None or index <= unit.sites.fork or index in found:
            continue
        found.add(index)
        todo += [node.index for node in graph.live(graph.nodes[index])]
    return found
