"""The activations of a network, found in its graph, and where each is off, linear or saturated.

    off        the output is the same constant for all x below an edge: ReLU at x <= 0
    linear     the output is x (or x times one slope): ReLU at x > 0
    saturated  the output is a bound: ReLU6 at x >= 6, |tanh| > 0.99

Functions that come only near to these count from where they are within 0.01 of them: GELU is off below
-2.67, tanh saturated beyond 2.65. Written-out forms are found by what they read: `x * (x > 0)`,
`torch.where(x > 0, x, 0)`, `torch.maximum(x, zero)`, `x.clamp(min=0)`, `x * torch.sigmoid(x)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from residua.xray.kinds import weight_kind
from residua.xray.trace import Graph, Node

NEAR = 0.01  # to an asymptote
_INF = math.inf


@dataclass(frozen=True)
class Edges:
    """Regions of x: off at x <= off; linear inside (linear[0], linear[1]); saturated at x <= low, x >= high.

    both: the function is linear on either side of linear[0], with another slope: leaky ReLU.
    """

    off: float | None = None
    linear: tuple[float, float] | None = None
    low: float | None = None
    high: float | None = None
    both: bool = False


_RELU = Edges(off=0.0, linear=(0.0, _INF))
_LEAKY = Edges(linear=(0.0, _INF), both=True)
_SIGMOID = math.log(1 / NEAR - 1)
_ELU = math.log(NEAR)
_SILU, _MISH, _GELU, _SOFTPLUS = (
    6.4710,
    6.4719,
    2.6749,
    4.6002,
)  # roots of |f(x) - asymptote| = NEAR
EDGES = {
    "relu": _RELU,
    "relu6": Edges(off=0.0, linear=(0.0, 6.0), high=6.0),
    **dict.fromkeys(("leaky_relu", "prelu", "rrelu"), _LEAKY),
    **dict.fromkeys(("elu", "celu", "selu"), Edges(linear=(0.0, _INF), low=_ELU)),
    "gelu": Edges(off=-_GELU, linear=(_GELU, _INF)),
    "silu": Edges(off=-_SILU, linear=(_SILU, _INF)),
    "mish": Edges(off=-_MISH, linear=(_MISH, _INF)),
    "hardswish": Edges(off=-3.0, linear=(3.0, _INF)),
    "softplus": Edges(off=-_SOFTPLUS, linear=(_SOFTPLUS, _INF)),
    "tanh": Edges(low=-math.atanh(1 - NEAR), high=math.atanh(1 - NEAR)),
    "sigmoid": Edges(low=-_SIGMOID, high=_SIGMOID),
    "hardsigmoid": Edges(low=-3.0, high=3.0),
    "softsign": Edges(low=1 - 1 / NEAR, high=1 / NEAR - 1),
}
_MOVES = {"permute", "transpose", "movedim", "flatten", "view", "reshape", "unflatten", "matmul"}
_COMPARES = {"gt", "ge"}


@dataclass(frozen=True)
class Activation:
    """One activation of one call.

    argument: which of the node's tensors is the pre-activation x. other: the tensor below which it is off,
    in place of a number. channel: the dimension of x that counts channels. gate: it squashes a factor.
    """

    node: Node
    op: str
    argument: int
    edges: Edges
    channel: int
    other: int | None = None
    gate: bool = False


def find_activations(graph: Graph) -> list[Activation]:
    """Return the activations in the order in which they ran."""
    found: list[Activation] = []
    parts: set[int] = set()  # sigmoids inside a written-out swish
    for node in graph.nodes:
        if not (node.live and node.op != "input"):
            continue
        known = _known(node) or _written_out(node, graph)
        if known is None:
            continue
        op, argument, edges, other, inside = known
        parts.add(inside)
        gate = op in ("sigmoid", "hardsigmoid", "tanh") and _gates(node, graph)
        found.append(
            Activation(node, op, argument, edges, _channel(node, argument, graph), other, gate)
        )
    return [a for a in found if a.node.index not in parts]


_Known = tuple[str, int, Edges, int | None, int]


def _known(node: Node) -> _Known | None:
    """Return an activation that is one operation."""
    s = node.settings
    if node.inputs[:1] == [None]:
        return None
    if node.op in EDGES:
        edges = EDGES[node.op]
        if node.op in ("elu", "celu") and s.get("alpha"):
            alpha = abs(float(s["alpha"]))
            scale = alpha if node.op == "celu" else 1.0
            edges = Edges(linear=(0.0, _INF), low=scale * math.log(NEAR / max(alpha, NEAR)))
        return node.op, 0, edges, None, -1
    if node.op in ("hardtanh", "clamp", "clamp_min", "clamp_max") and len(node.inputs) == 1:
        default = (-1.0, 1.0) if node.op == "hardtanh" else (-_INF, _INF)
        low = float(s.get("min_val", s.get("min", default[0])))
        high = float(s.get("max_val", s.get("max", default[1])))
        return _clamp(low, high)
    if node.op == "threshold" and "threshold" in s:
        at = float(s["threshold"])
        return "threshold", 0, Edges(off=at, linear=(at, _INF)), None, -1
    if node.op in ("maximum", "max") and len(node.inputs) == 2 and node.inputs[1] is None:
        return "relu", 0, Edges(linear=None), 1, -1
    return None


def _clamp(low: float, high: float) -> _Known:
    names = {(0.0, _INF): "relu", (0.0, 6.0): "relu6", (-1.0, 1.0): "hardtanh"}
    top = high if high < _INF else None
    if low == 0.0 or top is None:  # constant below an edge, as ReLU is
        edges = Edges(off=low if low > -_INF else None, linear=(low, high), high=top)
    else:
        edges = Edges(low=low if low > -_INF else None, linear=(low, high), high=top)
    return names.get((low, high), "clamp"), 0, edges, None, -1


def _written_out(node: Node, graph: Graph) -> _Known | None:
    """Return an activation made of a product or a choice."""
    if node.op == "mul" and len(node.live_inputs) == 2 and None not in node.inputs[:2]:
        for argument in (0, 1):
            x, factor = (graph.nodes[node.inputs[i] or 0] for i in (argument, 1 - argument))
            at = _compared(factor, x)
            if at is not None:
                return "relu", argument, Edges(off=at, linear=(at, _INF)), None, -1
            slope = _sigmoid_of(factor, x, graph)
            if slope:
                edge = _SILU / slope
                return "silu", argument, Edges(off=-edge, linear=(edge, _INF)), None, factor.index
    if node.op == "where" and node.inputs[0] is not None and len(node.inputs) > 1:
        condition = graph.nodes[node.inputs[0]]
        x = graph.nodes[node.inputs[1] or 0]
        at = _compared(condition, x)
        if at is not None and len(node.live_inputs) == 2:
            return "relu", 1, Edges(off=at, linear=(at, _INF)), None, -1
        if at is not None and len(node.inputs) == 3:
            scaled = graph.nodes[node.inputs[2] or 0]
            if scaled.op == "mul" and scaled.live_inputs == [x.index]:
                return "leaky_relu", 1, Edges(linear=(at, _INF), both=True), None, -1
    return None


def _compared(condition: Node, x: Node) -> float | None:
    """Return a where the condition is x > a."""
    if condition.op not in _COMPARES or condition.inputs != [x.index]:
        return None
    return condition.factors[0] if condition.factors else None


def _sigmoid_of(factor: Node, x: Node, graph: Graph) -> float:
    """Return k where the factor is sigmoid(k x), else 0."""
    if factor.op != "sigmoid":
        return 0.0
    inner = graph.nodes[factor.live_inputs[0]]
    if inner.index == x.index:
        return 1.0
    constant = inner.op == "mul" and inner.live_inputs == [x.index] and len(inner.factors) == 1
    return inner.factors[0] if constant else 0.0


def _gates(node: Node, graph: Graph) -> bool:
    """Say whether what a node gives multiplies another value, perhaps after views and sums with numbers."""
    at = node
    for _ in range(4):
        readers = graph.consumers[at.index]
        if any(r.op in ("mul", "addcmul", "lerp") and len(r.live_inputs) > 1 for r in readers):
            return True
        if len(readers) != 1 or readers[0].op not in (*_MOVES, "rsub", "expand", "unsqueeze"):
            return False
        at = readers[0]
    return False


def _channel(node: Node, argument: int, graph: Graph) -> int:
    """Return the dimension of channels: 1 after a convolution, the last after a linear layer."""
    index = node.inputs[argument]
    shape = graph.nodes[index].shape if index is not None else node.shape
    last = len(shape) - 1
    while index is not None:
        at = graph.nodes[index]
        weight = weight_kind(at)
        if weight == "conv" or at.op in ("batch_norm", "group_norm", "instance_norm"):
            return min(1, last)
        if weight or at.op in ("layer_norm", "rms_norm"):
            return last
        if at.op in _MOVES or not at.live_inputs:
            break
        index = at.live_inputs[0]
    return last if len(shape) == 3 else min(1, last)


def regions(activation: Activation, tensors: list[torch.Tensor]) -> dict[str, Any]:
    """Return where x (the argument's tensor) is off, linear, saturated; None for what it has not.

    "other": linear on the other side of the edge. "linear" is None, too, where it is whatever is not off.
    """
    x, edges = tensors[activation.argument], activation.edges
    if activation.other is not None:
        below = x <= tensors[activation.other]
        return {"off": below, "linear": None, "saturated": None, "other": None}
    off = None if edges.off is None else x <= edges.off
    linear = beyond = None
    if edges.linear is not None:
        low, high = edges.linear
        if high < _INF:
            linear = (x > low) & (x < high)
        elif low != edges.off:
            linear = x > low
        beyond = x < low if edges.both else None
    saturated = None
    for edge, compare in ((edges.low, torch.le), (edges.high, torch.ge)):
        if edge is not None:
            reached = compare(x, edge)
            saturated = reached if saturated is None else saturated | reached
    return {"off": off, "linear": linear, "saturated": saturated, "other": beyond}
