"""Find the residual units of any module: from the graph of what it did, not from names of classes.

    y = merge(shortcut(x), branch(x))      (He et al. 2015, equation 1, with its three parts named)

A merge is an addition, a concatenation or a gated sum of two values that come from one fork, one side of
which has fewer weight layers: that is the shortcut. Our own `Skip` modules and anybody's functional
additions are found in the same way and come out as the same `Unit`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.xray.kinds import kind, leaf_modules, tokens
from residua.xray.names import name_units
from residua.xray.orders import WEIGHTS, name_orders
from residua.xray.sides import Merge, find_merges
from residua.xray.trace import Graph, Node, Reach, interpose, record
from residua.xray.units import ShortcutKind, Sites, Unit

if TYPE_CHECKING:
    from residua.xray.subject import Subject

Handler = Callable[[Unit, torch.Tensor], torch.Tensor]


@dataclass
class Anatomy:
    """The residual units of a module, in the order of its forward pass.

    reason: why there are no units, or what could not be seen; else "". graph: None where none could
    be had, and then `reason` says why.
    """

    model: nn.Module
    units: list[Unit] = field(default_factory=list)
    graph: Graph | None = None
    reason: str = ""

    @property
    def trunk(self) -> list[Unit]:
        """The units that lie in no other unit's branch."""
        return [unit for unit in self.units if unit.parent is None]

    @property
    def stages(self) -> list[list[Unit]]:
        """The trunk's units by stage."""
        numbers = sorted({unit.stage for unit in self.trunk})
        return [[unit for unit in self.trunk if unit.stage == n] for n in numbers]

    @contextmanager
    def interpose(
        self,
        branch: Handler | None = None,
        shortcut: Handler | None = None,
        merged: Handler | None = None,
        gate: Handler | None = None,
        units: Sequence[Unit] | None = None,
    ) -> Iterator[None]:
        """Read or replace what the units compute, in the forward passes that happen inside.

        Each handler gets the unit and a value and returns the value to go on with: `branch` the
        branch's value where it is made, `shortcut` the shortcut's at the merge, `merged` the sum,
        before an activation that follows it, `gate` the learned factor of a gated shortcut.
        Autograd functions in a handler act on the backward pass alone.
        """
        if self.graph is None:
            raise BadInput(f"the network's units cannot be reached: {self.reason}")
        reaches = []
        for unit in self.units if units is None else units:
            reaches += _reaches(unit, branch, shortcut, merged, gate)
        with interpose(self.model, self.graph, reaches):
            yield

    @contextmanager
    def cut(self, units: Sequence[Unit]) -> Iterator[None]:
        """Run without the branches of these units: y = shortcut(x), as Veit et al. 2016 delete them."""

        def opened(unit: Unit, value: torch.Tensor) -> torch.Tensor:
            return torch.full_like(value, unit.sites.open_gate)

        with self.interpose(
            branch=lambda _, value: torch.zeros_like(value), gate=opened, units=units
        ):
            yield


def _reaches(
    unit: Unit,
    branch: Handler | None,
    shortcut: Handler | None,
    merged: Handler | None,
    gate: Handler | None,
) -> list[Reach]:
    """Return where a unit's handlers act."""
    sites = unit.sites
    assert sites.merge is not None and sites.branch is not None
    found: list[Reach] = []
    if branch is not None:
        found += _at(sites.branch, sites.merge, sites.branch_argument, unit, branch)
    if gate is not None and sites.gate is not None:
        found.append(Reach(sites.gate, result=lambda value: gate(unit, value)))
    if shortcut is not None:
        found.append(Reach(sites.merge, given=_shortcut_at(sites.shortcut, unit, shortcut)))
    if merged is not None:
        found.append(Reach(sites.merge, result=lambda value: merged(unit, value)))
    return found


def _at(node: Node, merge: Node, argument: int, unit: Unit, handler: Handler) -> Iterator[Reach]:
    """Act where a value is made, so that whoever reads it reads the new one.

    An operation in place may have been written as a statement, and then the old tensor is what
    arrives at the merge: the handler acts there.
    """
    new: list[torch.Tensor] = []

    def made(value: torch.Tensor) -> torch.Tensor:
        new[:] = [handler(unit, value)]
        return new[0]

    def arrived(values: list[torch.Tensor]) -> list[torch.Tensor]:
        if new and values[argument] is not new[0]:
            values[argument] = handler(unit, values[argument])
        return values

    yield Reach(node, result=made)
    if node.in_place:
        yield Reach(merge, given=arrived)


def _shortcut_at(
    arguments: tuple[int, ...], unit: Unit, handler: Handler
) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
    """Return what hands the shortcut's value over; several tensors of a list are handed over as one."""

    def given(values: list[torch.Tensor]) -> list[torch.Tensor]:
        if len(arguments) == 1:
            values[arguments[0]] = handler(unit, values[arguments[0]])
            return values
        parts = [values[a] for a in arguments]
        if unit.merge == "concatenate":
            whole = handler(unit, torch.cat(parts, 1))
            new = torch.split(whole, [p.shape[1] for p in parts], 1)
            for a, part in zip(arguments, new, strict=True):
                values[a] = part
            return values
        product = handler(unit, parts[0] * parts[1])  # of an addcmul
        values[arguments[0]] = product
        values[arguments[1]] = torch.ones_like(parts[1])
        return values

    return given


def find_anatomy(subject: Subject) -> Anatomy:
    """Run the subject once, in evaluation, and return its residual units.

    Raises BadInput with one line where the model cannot be run on the batch.
    """
    from residua.xray.subject import copied, tensors_in

    model = subject.model
    with subject.running("running"):
        try:
            inputs = copied(subject.inputs)
            graph = record(model, lambda: subject.forward(inputs), tensors_in(inputs))
        except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
            line = " ".join(str(error).split())
            raise BadInput(
                f"the model cannot be run on this batch: {type(error).__name__}: {line}"
            ) from error
    units = units_of(graph)
    hidden = f"torch does not show the operations of {', '.join(graph.hidden)}"
    if units:
        return Anatomy(model, units, graph, hidden if graph.hidden else "")
    none = "no addition or concatenation joins an earlier value with a later one"
    return Anatomy(model, [], graph, f"{none}; {hidden}" if graph.hidden else none)


def units_of(graph: Graph) -> list[Unit]:
    """Return the residual units of a recorded forward pass."""
    leaves = leaf_modules(graph)
    merges = find_merges(graph)
    forks = {merge.fork for merge in merges}
    joins = {merge.node.index for merge in merges}
    units = [_unit(i, m, graph, leaves, forks, joins) for i, m in enumerate(merges)]
    name_units(units, merges, graph, leaves)
    _nest(units)
    _number_stages(units)
    name_orders(units)
    return units


def _unit(
    index: int, merge: Merge, graph: Graph, leaves: set[str], forks: set[int], joins: set[int]
) -> Unit:
    branch = graph.nodes[merge.branch.end]
    inside = merge.branch.inside - merge.shortcut.inside
    names = (name for i in sorted(inside) for name in graph.nodes[i].parameters)
    shortcut = tokens(merge.passed.path, leaves)
    words = tokens(merge.branch.path, leaves)
    gate = None if merge.gate is None else graph.nodes[merge.gate.end]
    return Unit(
        index=index,
        name="",
        source=merge.node.source,
        merge="concatenate" if merge.node.op == "cat" else "gate" if gate else "add",
        shortcut=_shortcut_kind(shortcut, merge, graph),
        branch=tuple(words),
        before=tuple(_run_before(merge.fork, graph, leaves)),
        after=tuple(_run_after(merge.node, graph, leaves, forks | joins)),
        shape=merge.node.shape,
        scaled=bool(words) and words[-1] == "scale",
        parameters=tuple(dict.fromkeys(names)),
        sites=Sites(
            fork=merge.fork,
            merge=merge.node,
            shortcut=merge.shortcut.arguments,
            branch=branch,
            branch_argument=merge.branch.arguments[0],
            gate=gate,
            gate_argument=0 if merge.gate is None else merge.gate.arguments[0],
            open_gate=merge.open_gate,
            inside=inside,
        ),
    )


def _shortcut_kind(words: list[str], merge: Merge, graph: Graph) -> ShortcutKind:
    weights = sum(word in WEIGHTS for word in words)
    if weights:
        return "projection" if weights == 1 else "block"
    before, after = graph.nodes[merge.fork].shape, graph.nodes[merge.passed.end].shape
    if any(_repeats(node) for node in merge.passed.path):
        return "copied"
    if "pad" in words or (len(before) > 1 and len(after) > 1 and after[1] > before[1]):
        return "zero_pad"
    for word, found in (("pool", "pooled"), ("scale", "scaled"), ("dropout", "dropout")):
        if word in words:
            return found  # type: ignore[return-value]
    return "identity"


def _repeats(node: Node) -> bool:
    """Say whether an operation gives its argument several times."""
    if node.op == "cat":
        return len([i for i in node.inputs if i is not None]) > len(node.live_inputs)
    return node.op in ("repeat", "tile", "repeat_interleave")


def _run_before(fork: int, graph: Graph, leaves: set[str]) -> list[str]:
    """Return the norm and activation that end at a fork."""
    path = []
    at = graph.nodes[fork]
    while at.op != "input" and not _ends(at):
        behind = graph.live(at)
        path.append(at)
        if len(behind) != 1:
            break
        at = behind[0]
    words = tokens(path[::-1], leaves)
    return [word for word in words if word in ("norm", "relu", "activation")]


def _run_after(merge: Node, graph: Graph, leaves: set[str], stops: set[int]) -> list[str]:
    """Return the norm and activation that follow a merge, up to where the value forks again."""
    path: list[Node] = []
    at = merge
    while True:
        readers = [n for n in graph.consumers[at.index] if n.live]
        if (at is not merge and at.index in stops) or len(readers) != 1:
            break
        at = readers[0]
        if _ends(at) or (at.index in stops and at.op in ("add", "cat", "lerp", "addcmul")):
            break
        path.append(at)
    words = tokens(path, leaves)
    return [word for word in words if word in ("norm", "relu", "activation")]


def _ends(node: Node) -> bool:
    return kind([node]) in WEIGHTS or node.op in ("add", "cat", "lerp", "addcmul", "sub")


def _nest(units: list[Unit]) -> None:
    """Find for each unit the smallest other unit whose branch holds its merge."""
    at = {unit.sites.merge.index: unit for unit in units if unit.sites.merge is not None}
    smallest: dict[int, int] = {}
    for other in units:
        size = len(other.sites.inside)
        for index in other.sites.inside & at.keys():
            unit = at[index]
            if unit is not other and size < smallest.get(index, size + 1):
                smallest[index], unit.parent = size, other.index


def _number_stages(units: list[Unit]) -> None:
    """Count a new stage wherever resolution and number of values change.

    Resolution alone changes with a view (windows of a transformer), numbers alone with added maps.
    """
    stage, last = -1, None
    for unit in units:
        here = unit.shape[2:], prod(unit.shape)
        if last is None or (here[0] != last[0] and here[1] != last[1]):
            stage += 1
        last = here
        unit.stage = stage


def anatomy(model: nn.Module, example: Any) -> Anatomy:
    """Return the residual units of any module.

    Args:
        model: any nn.Module; it comes back untouched.
        example: what its forward takes: a tensor (N, ...), a tuple of arguments, or keywords.

    Raises:
        BadInput: the model cannot be run on the example.
    """
    from residua.xray.subject import Subject

    return Subject(model, example).anatomy
