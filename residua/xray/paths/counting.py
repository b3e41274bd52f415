"""How many paths there are of each length: polynomials in t, the coefficient of t^k counts those of length k.

    unit: s(t) + t b(t)      units in a row: the product      (Veit, Wilber & Belongie 2016, section 3)

A path's length is the number of branches that it takes. s and b are those of the units inside shortcut and
branch, 1 where there are none, so K plain units in a row make (1 + t)^K: C(K, k) paths of length k, 2^K in
all. A gate belongs to its branch. The integers are exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

from residua.xray.anatomy import Anatomy
from residua.xray.trace import Graph
from residua.xray.units import Unit

Polynomial = list[int]


@dataclass
class Nesting:
    """Which units are on the shortcut and in the branch of which; `trunk`: those that are in no other."""

    trunk: list[Unit]
    on_shortcut: dict[int, list[Unit]]
    in_branch: dict[int, list[Unit]]

    def paths(self, units: Sequence[Unit], cut: Collection[int] = ()) -> Polynomial:
        """Return the polynomial of units in a row; `cut`: indices of units whose branch is deleted."""
        total = [1]
        for unit in units:
            one = self.paths(self.on_shortcut.get(unit.index, ()), cut)
            if unit.index not in cut:
                branch = self.paths(self.in_branch.get(unit.index, ()), cut)
                one = added(one, [0, *branch])
            total = multiplied(total, one)
        return total

    def family(self, units: Sequence[Unit]) -> list[Unit]:
        """Return units with all that is inside them."""
        found = []
        for unit in units:
            inside = self.on_shortcut.get(unit.index, []) + self.in_branch.get(unit.index, [])
            found += [unit, *self.family(inside)]
        return found

    def share_left(self, cut: Collection[int]) -> Fraction:
        """Return the share of all paths that is left when these units' branches are deleted.

        Of K units in a row, deleting d leaves 2^-d.
        """
        return Fraction(self.number(self.trunk, cut), self.number(self.trunk))

    def number(self, units: Sequence[Unit], cut: Collection[int] = ()) -> int:
        """Return the number of paths of any length: the polynomial at t = 1."""
        total = 1
        for unit in units:
            one = self.number(self.on_shortcut.get(unit.index, ()), cut)
            if unit.index not in cut:
                one += self.number(self.in_branch.get(unit.index, ()), cut)
            total *= one
        return total

    @property
    def in_a_row(self) -> bool:
        """Whether no unit lies in another."""
        return not self.on_shortcut and not self.in_branch


def nesting(anatomy: Anatomy) -> Nesting:
    """Return which of the units hold which: for each the smallest side that its merge lies in."""
    found = Nesting([], {}, {})
    graph = anatomy.graph
    if graph is None:
        return found
    merges = {u.sites.merge.index: u for u in anatomy.units if u.sites.merge is not None}
    smallest: dict[int, tuple[int, int, dict[int, list[Unit]]]] = {}
    for holder in anatomy.units:
        sides = (
            (_shortcut_nodes(graph, holder), found.on_shortcut),
            (holder.sites.inside, found.in_branch),
        )
        for nodes, members in sides:
            for index in nodes & merges.keys():
                known = smallest.get(index)
                if merges[index] is not holder and (known is None or len(nodes) < known[0]):
                    smallest[index] = len(nodes), holder.index, members
    for index, unit in merges.items():
        if index in smallest:
            _, holder_index, members = smallest[index]
            members.setdefault(holder_index, []).append(unit)
        else:
            found.trunk.append(unit)
    return found


def _shortcut_nodes(graph: Graph, unit: Unit) -> frozenset[int]:
    """Return the nodes between the fork and the merge that are the shortcut's alone."""
    merge = unit.sites.merge
    assert merge is not None
    todo = [merge.inputs[a] for a in unit.sites.shortcut]
    found: set[int] = set()
    while todo:
        index = todo.pop()
        if index is not None and index > unit.sites.fork and index not in found:
            found.add(index)
            todo += graph.nodes[index].inputs
    return frozenset(found) - unit.sites.inside


def added(left: Polynomial, right: Polynomial) -> Polynomial:
    """Return the sum of two polynomials.

    >>> added([1], [0, 2, 3])
    [1, 2, 3]
    """
    longer, shorter = (left, right) if len(left) > len(right) else (right, left)
    return [a + b for a, b in zip(longer, shorter, strict=False)] + longer[len(shorter) :]


def multiplied(left: Polynomial, right: Polynomial) -> Polynomial:
    """Return the product of two polynomials.

    >>> multiplied([1, 2, 1], [1, 1])
    [1, 3, 3, 1]
    """
    total = [0] * (len(left) + len(right) - 1)
    for shift, factor in enumerate(right):
        for power, value in enumerate(left):
            total[shift + power] += factor * value
    return total


def per_path(value: float, paths: int) -> float:
    """Return value / paths, also where the number of paths is beyond what floats hold.

    >>> per_path(8.0, 4), per_path(0.0, 10**400)
    (2.0, 0.0)
    """
    return float(Fraction(value) / paths)


def times_paths(value: float, paths: int) -> float:
    """Return value * paths, infinite where floats end."""
    try:
        return float(Fraction(value) * paths)
    except OverflowError:
        return math.inf


def share_between(paths: Polynomial, shortest: int, longest: int) -> float:
    """Return the share of the paths whose length is from `shortest` to `longest`.

    Veit et al. 2016: of the paths through 54 blocks, those of 5 to 17 are 0.45 %.

    >>> f"{share_between([math.comb(54, k) for k in range(55)], 5, 17):.5%}"
    '0.45367%'
    """
    return sum(paths[shortest : longest + 1]) / sum(paths)
