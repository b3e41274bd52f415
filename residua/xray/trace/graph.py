"""The graph of one forward pass: a node an operation, an edge a tensor."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from residua.xray.trace.calls import Key


@dataclass
class Node:
    """One operation of the forward pass.

    op: its name, spelled alike for function, method, operator and in-place form: "conv2d", "add",
        "relu", "cat"; "input"; "opaque" for a module whose operations torch does not show.
    module: path of the innermost module that ran. source: "file.py:12", the user's line.
    inputs: the nodes of its tensor arguments, in their order; None for one that is no activation.
    parameters, buffers: names of those that it reads, also through operations on them.
    live: whether it depends on the network's input. shape, dtype: of its (first) output.
    factors: Python numbers among its arguments, such as the factor of a multiplication.
    settings: {argument: value} of what moves or covers positions, see settings.py.
    given: the shapes of its tensor arguments, in the order of `inputs`.
    """

    index: int
    op: str
    module: str
    source: str
    key: Key
    inputs: list[int | None]
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    live: bool
    shape: tuple[int, ...] = ()
    dtype: str = ""
    outputs: int = 1
    factors: tuple[float, ...] = ()
    in_place: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    given: tuple[tuple[int, ...], ...] = ()

    @property
    def live_inputs(self) -> list[int]:
        """The distinct nodes that it reads, in their order."""
        return list(dict.fromkeys(i for i in self.inputs if i is not None))


@dataclass
class Graph:
    """Nodes in the order in which they ran; the first are the inputs.

    calls: how often each module was called. hidden: what torch did not show, in words. results: the nodes
    that the model returned. givers: of a node's value the modules inside the model that returned it, the
    innermost first.
    """

    nodes: list[Node]
    calls: dict[str, int] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    givers: dict[int, list[str]] = field(default_factory=dict)

    def live(self, node: Node) -> list[Node]:
        """Return the nodes that `node` reads and that depend on the network's input."""
        return [self.nodes[i] for i in node.live_inputs if self.nodes[i].live]

    @cached_property
    def consumers(self) -> dict[int, list[Node]]:
        """The nodes that read each node."""
        found: dict[int, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for i in node.live_inputs:
                found[i].append(node)
        return found

    @cached_property
    def by_key(self) -> dict[Key, Node]:
        """The node of each key."""
        return {node.key: node for node in self.nodes}
