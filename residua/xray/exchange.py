"""Units that can take each other's place, and a network with some of them exchanged.

Two units are exchanged by exchanging all numbers that they read: weights, biases, and a norm's averages. This
is the same as exchanging the modules themselves, and reaches units that are no modules. It needs units that
are alike: the same layers, merge and shapes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from random import Random

from residua.xray.anatomy import Anatomy
from residua.xray.trace import Graph
from residua.xray.units import Unit


class Arrangement:
    """The trunk's units in an order that can be changed.

    groups: positions (in the trunk) of units that are alike, two or more each.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        model = anatomy.model
        self.units = anatomy.trunk
        self.tensors = dict(model.named_buffers()) | dict(model.named_parameters())
        self.names = [_numbers_of(anatomy, unit, list(self.tensors)) for unit in self.units]
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for i, (unit, names) in enumerate(zip(self.units, self.names, strict=True)):
            shapes = tuple(self.tensors[name].shape for name in names)
            what = (unit.merge, unit.shortcut, unit.branch, unit.after, unit.shape)
            alike[*what, shapes].append(i)
        self.groups = [group for group in alike.values() if len(group) > 1 and self._apart(group)]
        self._values = [[self.tensors[name].data for name in names] for names in self.names]

    def _apart(self, group: Sequence[int]) -> bool:
        """Say whether the units of a group have numbers, and share none."""
        names = [name for i in group for name in self.names[i]]
        return bool(names) and len(set(names)) == len(names)

    def arrange(self, order: Sequence[int]) -> None:
        """Put unit order[i] at position i. Use inside `subject.running`, which puts all back."""
        for names, source in zip(self.names, order, strict=True):
            for name, value in zip(names, self._values[source], strict=True):
                self.tensors[name].data = value


def _numbers_of(anatomy: Anatomy, unit: Unit, known: Sequence[str]) -> list[str]:
    """Return the names of the parameters and buffers of a unit, in the model's order.

    A unit that is a module has all of the module's; else those that its two sides read.
    """
    assert anatomy.graph is not None
    read = _read(anatomy.graph, unit)
    inside = [name for name in known if name.startswith(f"{unit.name}.")]
    if unit.name and anatomy.graph.calls.get(unit.name, 0) == 1 and read <= set(inside):
        return inside
    return [name for name in known if name in read]


def _read(graph: Graph, unit: Unit) -> set[str]:
    """Return the names of what lies between a unit's fork and its merge."""
    assert unit.sites.merge is not None
    todo, seen = [unit.sites.merge], {unit.sites.fork}
    names: set[str] = set()
    while todo:
        node = todo.pop()
        if node.index in seen or node.index < unit.sites.fork:
            continue
        seen.add(node.index)
        names |= {*node.parameters, *node.buffers}
        todo.extend(graph.live(node))
    return names


def swapped(order: Sequence[int], groups: Sequence[Sequence[int]], draw: Random) -> list[int]:
    """Return an order with two alike units exchanged, every pair being equally likely."""
    pairs = [len(group) * (len(group) - 1) for group in groups]
    a, b = draw.sample(draw.choices(groups, pairs)[0], 2)
    new = list(order)
    new[a], new[b] = new[b], new[a]
    return new
