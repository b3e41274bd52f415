"""Gradients of one mixture of a network's outputs, at every unit and at other inputs, sample by sample.

A gradient is compared where it arises, in a hook, and not kept: 1,000 blocks need no more memory than one
backward pass. Shapes: gradients (N, ...), cosines (N, N).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy.typing as npt
import torch

from residua.errors import BadInput
from residua.xray.cotangents import cosines, mixture
from residua.xray.frozen import FrozenNorms
from residua.xray.kinds import kind
from residua.xray.lines import mapped
from residua.xray.nonlinear_depth import ACTIVATIONS
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject, tensors_in
from residua.xray.trace import Reach, interpose

Watch = Callable[[int, torch.Tensor], torch.Tensor]

DRAWS = {"quick": 1, "normal": 2}  # mixtures of the outputs, by depth
MOST_PLACES = 120  # at which gradients are compared


@dataclass(frozen=True)
class Place:
    """Where gradients are compared.

    index: of the graph's node, -1 for the input. least: the least R that units allow from here to
    the output, a unit with m activations in its branch (1 + 2^-m) / 2.
    """

    name: str
    index: int
    units: int
    least: float = 1.0


class Probe:
    """Gradients of a mixture of outputs at the inputs, on statistics that stay those of the batch."""

    def __init__(self, subject: Subject, statistics: Statistics) -> None:
        self.subject = subject
        self.norms = FrozenNorms() if statistics == "detached" else None
        self.places = _places(subject)
        self.lost = ""  # why the places inside could not be reached
        self.first: list[
            torch.Tensor
        ] = []  # of each input tensor, the gradient of the first mixture

    def by_depth(self) -> dict[int, npt.NDArray[Any]]:
        """Return {node's index (-1: the input): cosines (N, N), mean of the mixtures}."""
        subject = self.subject
        sums: dict[int, torch.Tensor] = {}
        counts: dict[int, int] = {}

        def add(index: int, gradient: torch.Tensor) -> None:
            sums[index] = sums.get(index, 0) + cosines(gradient)
            counts[index] = counts.get(index, 0) + 1

        def watch(index: int, value: torch.Tensor) -> torch.Tensor:
            if value.requires_grad and value.dim() and len(value) == subject.samples:
                value.register_hook(partial(add, index))  # type: ignore[no-untyped-call]
            return value

        leaves, output = self._forward(watch)
        weights = [p for p in subject.model.parameters() if p.requires_grad]
        for draw in range(DRAWS[subject.effort]):
            scalar = mixture(output, subject.samples, subject.seed + draw)
            found = torch.autograd.grad(
                scalar, leaves or weights, retain_graph=True, allow_unused=True
            )
            gradients = [g for g in found if g is not None] if leaves else []
            if gradients:
                add(-1, joined(gradients))
            self.first = self.first or gradients
        return {i: (total / counts[i]).double().cpu().numpy() for i, total in sums.items()}

    def at(self, inputs: Any) -> list[torch.Tensor]:
        """Return the gradient of the first mixture at other inputs, with the batch's statistics."""
        samples = len(tensors_in(inputs)[0])
        leaves, inputs = _leaves(inputs)
        with self.norms.use() if self.norms is not None else nullcontext():
            output = self.subject.forward(inputs)
        scalar = mixture(output, samples, self.subject.seed)
        found = torch.autograd.grad(scalar, leaves, allow_unused=True)
        return [g for g in found if g is not None]

    def _forward(self, watch: Watch) -> tuple[list[torch.Tensor], Any]:
        """Run the batch; where the network is not the one that was recorded, without its places."""
        leaves, inputs = _leaves(self.subject.inputs)
        try:
            with self._noted(), self._reached(watch):  # the norms' arithmetic is no operation of it
                return leaves, self.subject.forward(inputs)
        except BadInput as error:
            if len(self.places) < 2:
                raise
            self.lost = str(error)
            del self.places[1:]
            return self._forward(watch)

    def _noted(self) -> AbstractContextManager[None]:
        return self.norms.note() if self.norms is not None else nullcontext()

    @contextmanager
    def _reached(self, watch: Watch) -> Iterator[None]:
        graph = self.subject.anatomy.graph
        if graph is None or len(self.places) < 2:
            yield
            return
        reaches = [
            Reach(graph.nodes[p.index], result=partial(watch, p.index)) for p in self.places[1:]
        ]
        with interpose(self.subject.model, graph, reaches):
            yield


def _leaves(inputs: Any) -> tuple[list[torch.Tensor], Any]:
    """Return tensors to differentiate by, and inputs that are copies: a model may write to them."""
    leaves: list[torch.Tensor] = []

    def leaf(x: torch.Tensor) -> torch.Tensor:
        leaves.append(x.detach().clone().requires_grad_())
        return leaves[-1].clone()

    return leaves, mapped(inputs, leaf)


def joined(gradients: list[torch.Tensor]) -> torch.Tensor:
    """Return the gradients of several inputs as one vector a sample (N, D)."""
    return torch.cat([g.flatten(1) for g in gradients], 1)


def _places(subject: Subject) -> list[Place]:
    """Return the trunk's merges, or a plain network's activations; evenly thinned where there are many."""
    anatomy = subject.anatomy
    if anatomy.graph is None:
        return [Place("input", -1, 0)]
    found: list[Place] = []
    least = 1.0
    for units, unit in enumerate(reversed(anatomy.trunk)):
        if unit.sites.merge is not None:
            found.append(Place(unit.name, unit.sites.merge.index, units, least))
        least *= (1 + 0.5 ** sum(word in ACTIVATIONS for word in unit.branch)) / 2
    if not anatomy.trunk:
        nodes = [n for n in anatomy.graph.nodes if n.live and kind([n]) in ACTIVATIONS]
        found = [Place(node.module or node.op, node.index, 0) for node in reversed(nodes)]
    step = max(1, -(-len(found) // MOST_PLACES))
    return [Place("input", -1, len(anatomy.trunk), least), *reversed(found[::step])]
