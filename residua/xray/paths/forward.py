"""One forward pass of one sample, or of a few together, that keeps the values where gradients are wanted.

The gradient's graph begins at the trunk's input: parameters and the stem take no part in it.
Each sample is run alone, so that its gradient is that of its own loss; batch statistics are those that the
whole batch has (`FrozenNorms`), except where the gradient is to flow through them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, is_dataclass, replace
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from residua.errors import BadInput, ResiduaError
from residua.xray.anatomy import Anatomy
from residua.xray.frozen import FrozenNorms
from residua.xray.objective import cast
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject, tensors_in
from residua.xray.trace import Graph, Node, Reach, interpose
from residua.xray.units import Unit

Change = Callable[[torch.Tensor], torch.Tensor]
Handler = Callable[[Unit, torch.Tensor], torch.Tensor]


@dataclass
class Handlers:
    """What acts on the values of units: on the branch's and the gate's where they are made, and on the
    shortcut's where it is merged, for merges with one value a side.

    The network's operations are counted while it runs (`residua.xray.trace`): a handler hides its own.
    """

    branch: Handler
    gate: Handler | None = None
    shortcut: Handler | None = None


@dataclass
class Kept:
    """The scalar of one pass, and the values of some nodes by their index."""

    scalar: torch.Tensor
    values: dict[int, torch.Tensor] = field(default_factory=dict)


class Samples:
    """The subject's samples, one after the other or the first few together.

    Use inside `subject.running(statistics)`, which puts the parameters back.
    """

    def __init__(self, subject: Subject, statistics: Statistics, samples: int) -> None:
        self.subject, self.anatomy = subject, subject.anatomy
        model = subject.model
        first = next((p for p in model.parameters() if p.is_floating_point()), None)
        if first is not None and first.dtype in (torch.float16, torch.bfloat16):
            model.float()  # a gradient's parts are too small for half precision
            self.subject = replace(
                subject,
                inputs=cast(subject.inputs, torch.float32),
                targets=cast(subject.targets, torch.float32),
            )
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        together = statistics == "batch"
        count = min(samples, subject.samples)
        self.groups = [slice(0, count)] if together else [slice(i, i + 1) for i in range(count)]
        self.norms: FrozenNorms | None = None
        if statistics == "detached":
            self.norms = FrozenNorms()
            with torch.no_grad(), self.norms.note():
                self.subject.forward()

    @contextmanager
    def forward(
        self, samples: slice, start: int, nodes: Sequence[int], handlers: Handlers
    ) -> Iterator[Kept]:
        """Run these samples; inside, gradients of `scalar` by `values` can be had.

        start: the node at which the graph begins. nodes: more nodes whose values are wanted; those that
        do not depend on the start are not kept.
        """
        graph = self.anatomy.graph
        assert graph is not None
        values: dict[int, torch.Tensor] = {}
        alone = self._part(graph, samples, start, values)
        with ExitStack() as stack:
            if self.norms is not None:
                stack.enter_context(self.norms.use())
            stack.enter_context(torch.enable_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused one knows no stacks
            # entered after the norms, so that a norm counts as one operation
            reaches = [*_on_units(self.anatomy, handlers), *_keep(graph, start, nodes, values)]
            stack.enter_context(interpose(self.subject.model, graph, reaches))
            scalar = alone.scalar(alone.forward(alone.inputs))
            if not bool(scalar.isfinite()):
                loss = float(scalar.detach())
                raise ResiduaError(f"the loss is {loss:g}: it has no gradient to follow")
            if start not in values or not scalar.requires_grad:
                raise BadInput("the loss does not depend on the input of the first unit")
            yield Kept(scalar, values)

    def _part(
        self, graph: Graph, samples: slice, start: int, values: dict[int, torch.Tensor]
    ) -> Subject:
        """Return the subject with these samples alone; where the start is an input, keep that."""
        number = self.subject.samples

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            whole = tensor.dim() == 0 or len(tensor) != number
            return (tensor if whole else tensor[samples]).clone()  # the network may write to it

        inputs = each(self.subject.inputs, cut)
        if graph.nodes[start].op == "input":
            wanted = tensors_in(inputs)[start]
            if not wanted.is_floating_point():
                raise BadInput("the first unit reads whole numbers: there is no gradient by them")
            values[start] = leaf = wanted.detach().clone().requires_grad_()
            inputs = each(inputs, lambda t: leaf.clone() if t is wanted else t)
        return replace(self.subject, inputs=inputs, targets=each(self.subject.targets, cut))


def _on_units(anatomy: Anatomy, handlers: Handlers) -> Iterator[Reach]:
    graph = anatomy.graph
    assert graph is not None
    for unit in anatomy.units:
        sites = unit.sites
        assert sites.branch is not None and sites.merge is not None
        yield from _acting(graph, sites.branch, partial(handlers.branch, unit))
        if handlers.gate is not None and sites.gate is not None:
            yield from _acting(graph, sites.gate, partial(handlers.gate, unit))
        if handlers.shortcut is not None:
            change = partial(handlers.shortcut, unit)
            yield Reach(sites.merge, given=partial(_changed, sites.shortcut[0], change))


def _changed(at: int, change: Change, values: list[torch.Tensor]) -> list[torch.Tensor]:
    return [change(v) if i == at else v for i, v in enumerate(values)]


def _keep(
    graph: Graph, start: int, nodes: Sequence[int], values: dict[int, torch.Tensor]
) -> Iterator[Reach]:
    """Yield what keeps the values of nodes where they are made; the graph begins at `start`."""

    def keep(index: int, value: torch.Tensor) -> torch.Tensor:
        with torch._C.DisableTorchFunction():
            kept = value.detach().clone().requires_grad_() if index == start else value.clone()
            if kept.requires_grad:
                values[index] = kept
            return kept.clone()  # what the network may write to

    for index in dict.fromkeys([start, *nodes]):
        if graph.nodes[index].op != "input":
            yield from _acting(graph, graph.nodes[index], partial(keep, index))


def _acting(graph: Graph, node: Node, change: Change) -> Iterator[Reach]:
    """Yield what changes a node's value for all that read it.

    An operation in place may have been written as a statement, and then its readers get the old tensor:
    there it is exchanged.
    """
    new: list[torch.Tensor] = []

    def made(value: torch.Tensor) -> torch.Tensor:
        new[:] = [change(value)]
        return new[0]

    def read(inputs: list[int | None], values: list[torch.Tensor]) -> list[torch.Tensor]:
        for i, source in enumerate(inputs):
            if source == node.index and values[i] is not new[0]:
                if values[i].shape != new[0].shape:
                    raise BadInput(f"a part of a tensor is written in place at {node.source}")
                values[i] = new[0]
        return values

    yield Reach(node, result=made)
    for reader in graph.consumers[node.index] if node.in_place else ():
        if reader.key[2] >= 0:  # an operation that a later pass can reach
            yield Reach(reader, given=partial(read, reader.inputs))


def each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Return a nest of tuples, lists, mappings and dataclasses with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: each(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(each(item, change) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(each(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{k: each(v, change) for k, v in vars(value).items()})
    return value


def dominates(graph: Graph, start: int, end: int) -> bool:
    """Say whether all that the model returns depends on node `start` through node `end` alone."""
    todo, seen = list(graph.results), {end}
    while todo:
        index = todo.pop()
        if index == start:
            return False
        if index not in seen and index > start:
            seen.add(index)
            todo += graph.nodes[index].live_inputs
    return True
