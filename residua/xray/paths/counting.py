"""How many paths there are of each length: polynomials in t, the coefficient of t^k counts those of length k.

    unit: s(t) + t b(t)      units in a row: the product      (Veit, Wilber & Belongie 2016, section 3)

A path's length is the number of branches that it takes. s and b are those of the units inside shortcut and
branch, 1 where there are none, so K plain units in a row make (1 + t)^K: C(K, k) paths of length k, 2^K in
all; of members side by side, as in an ensemble, the paths add. A gate belongs to its branch. The integers are
exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from residua.errors import BadInput
from residua.xray.anatomy import Anatomy
from residua.xray.dominators import ROOT, Dominators
from residua.xray.trace import Graph
from residua.xray.units import Unit

Polynomial = list[int]


@dataclass
class Nesting:
    """Which units are on the shortcut and in the branch of which; `trunk`: those that are in no other."""

    graph: Graph
    trunk: list[Unit]
    on_shortcut: dict[int, list[Unit]]
    in_branch: dict[int, list[Unit]]
    tree: Dominators = field(repr=False)
    merges: dict[int, Unit] = field(repr=False)  # by the node that merges

    def paths(self, units: Sequence[Unit], cut: Collection[int] = ()) -> Polynomial:
        """Return the polynomial of some of the trunk's units with what is inside them.

        Branches of other units, and of those in `cut` (indices), count as deleted.
        """
        # one integer holds all coefficients, each in as many bits as their sum has: t = 2^bits
        bits = self.number(units, cut).bit_length() + 1
        value, found = self._evaluated(1 << bits, units, cut), []
        while value:
            found.append(value & ((1 << bits) - 1))
            value >>= bits
        return found

    def number(self, units: Sequence[Unit], cut: Collection[int] = ()) -> int:
        """Return the number of paths of any length: the polynomial at t = 1."""
        return self._evaluated(1, units, cut)

    def share_left(self, cut: Collection[int]) -> Fraction:
        """Return the share of all paths that is left when these units' branches are deleted.

        Of K units in a row, deleting d leaves 2^-d.
        """
        return Fraction(self.number(self.trunk, cut), self.number(self.trunk))

    def family(self, units: Sequence[Unit]) -> list[Unit]:
        """Return units with all that is inside them."""
        found = []
        for unit in units:
            inside = self.on_shortcut.get(unit.index, []) + self.in_branch.get(unit.index, [])
            found += [unit, *self.family(inside)]
        return found

    def start(self, units: Sequence[Unit]) -> int:
        """Return the node that all that these units read comes from: of units in a row, the first one's fork.

        A shortcut that is a list of maps may be read from further back than its fork.
        """
        read = [unit.sites.fork for unit in units]
        for unit in units:
            read += [i for i in self._shortcut(unit) if self.graph.nodes[i].live]
        found = self.tree.common(read)
        return min(read) if found == ROOT else found

    @property
    def in_a_row(self) -> bool:
        """Whether no unit lies in another, or beside it."""
        if self.on_shortcut or self.in_branch:
            return False
        merges = [unit.sites.merge.index for unit in self.trunk if unit.sites.merge is not None]
        pairs = zip(merges, self.trunk[1:], strict=False)
        return all(self.tree.common([merge, unit.sites.fork]) == merge for merge, unit in pairs)

    def _evaluated(self, t: int, units: Sequence[Unit], cut: Collection[int]) -> int:
        counted = {unit.index for unit in self.family(units)} - set(cut)
        ends = [i for i in self.graph.results if self.graph.nodes[i].live]
        return self._joined(ends, self.start(units), t, counted)

    def _joined(self, ends: Sequence[int], start: int, t: int, counted: Collection[int]) -> int:
        """Return the number of paths from `start` to any of these nodes.

        Ways without a unit are one path: squeeze-and-excitation does not double the paths.
        """
        top = self.tree.common(ends)
        parts = [self._row(end, top, t, counted) for end in set(ends)]
        several = [part for part in parts if part > 1]
        total = sum(several) + (1 if len(several) < len(parts) else 0)
        return total * self._row(top, start, t, counted)

    def _row(self, end: int, start: int, t: int, counted: Collection[int]) -> int:
        """Return the number of paths between two nodes, the first of which all of the second comes from."""
        total = 1
        while end > start:
            unit = self.merges.get(end)
            if unit is None:
                behind = [node.index for node in self.graph.live(self.graph.nodes[end])]
                above = self.tree.idom[end]
                total *= self._joined(behind, above, t, counted) if len(behind) > 1 else 1
                end = above
                continue
            fork, branch = unit.sites.fork, unit.sites.branch
            # maps that are older than the fork are those that it has in its list
            kept = [index for index in self._shortcut(unit) if index >= fork]
            one = self._joined(kept, fork, t, counted) if kept else 1
            if unit.index in counted and branch is not None:
                one += t * self._joined([branch.index], fork, t, counted)
            total *= one
            end = fork
        return total

    def _shortcut(self, unit: Unit) -> list[int]:
        merge = unit.sites.merge
        assert merge is not None
        kept = [merge.inputs[a] for a in unit.sites.shortcut]
        return [index for index in kept if index is not None]


def nesting(anatomy: Anatomy) -> Nesting:
    """Return which of the units hold which: for each the smallest side that its merge lies in."""
    graph = anatomy.graph
    if graph is None:
        raise BadInput(f"the network's units cannot be reached: {anatomy.reason}")
    merges = {u.sites.merge.index: u for u in anatomy.units if u.sites.merge is not None}
    found = Nesting(graph, [], {}, {}, Dominators(graph), merges)
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
