"""Weights whose length does not matter, found in the graph: all that reads their layer leads to a norm.

    norm(a w x) = norm(w x)             convolution or linear layer, then a norm, with only operations between
                                        that let a positive factor through: views, pads with zeros, pools,
                                        ReLU, linear layers, concatenation before a norm of channels
    conv(a v / |a v|) = conv(v / |v|)   weight-normalised, weight-standardised, spectrally normalised

A sum with anything else ends the search: there length is weight relative to the other summand, as in the
last convolution of a pre-activation unit. A bias is no obstacle, and is itself without effect, where the norm
subtracts each channel's mean and nothing but views lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from residua.xray.kinds import kind, leaf_modules, weight_kind
from residua.xray.trace import Graph, Node

BY_CHANNEL = {"batch_norm", "instance_norm"}  # they subtract each channel's own mean
NORMS = BY_CHANNEL | {"layer_norm", "group_norm", "rms_norm"}
_VIEWS = {
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "movedim", "contiguous"),
    *("getitem", "to", "float", "split", "chunk", "squeeze", "unsqueeze", "clone", "swapaxes"),
    *("dropout", "dropout2d", "feature_dropout", "channel_shuffle", "pixel_shuffle"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d"),
}
_HOMOGENEOUS = {
    *("relu", "leaky_relu", "prelu", "interpolate", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("adaptive_avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool1d", "mean", "sum"),
}
_NORMALISES = {
    *("var_mean", "std_mean", "var", "std", "norm", "linalg_vector_norm", "vector_norm"),
    *("normalize", "weight_norm", "vdot", "batch_norm", "layer_norm"),
}


@dataclass(frozen=True)
class Candidate:
    """A weight that the graph says is scale-free.

    how: "norm" (one follows) or "weights" (they are normalised themselves). norms: modules of the norms.
    """

    name: str
    how: str
    source: str
    norms: tuple[str, ...] = ()


@dataclass
class Roles:
    """What each parameter is: see `roles_of`."""

    candidates: dict[str, Candidate] = field(default_factory=dict)
    idle_biases: dict[str, Candidate] = field(default_factory=dict)  # no effect: a norm follows
    of_norms: set[str] = field(default_factory=set)
    heads: set[str] = field(default_factory=set)


def roles_of(graph: Graph, dimensions: Mapping[str, int]) -> Roles:
    """Return the roles of the parameters with these names; dimensions: of each."""
    search = _Search(graph)
    roles = Roles()
    users: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.parameters:
            users.setdefault(name, []).append(node)
    for name, nodes in users.items():
        if name not in dimensions:
            continue
        live = [n for n in nodes if n.live]
        normalised = any(
            not n.live and n.op in _NORMALISES and n.parameters[0] == name for n in nodes
        )
        if dimensions[name] > 1 and normalised:
            roles.candidates[name] = Candidate(name, "weights", live[-1].source if live else "")
        elif dimensions[name] > 1 and live:
            norms = search.all_of(live)
            if norms is not None:
                roles.candidates[name] = Candidate(name, "norm", live[-1].source, norms)
            elif any(search.is_last(n) for n in live):
                roles.heads.add(name)
        elif live and all(search.is_norm(n) for n in live):
            roles.of_norms.add(name)
        elif live and all(_bias(n) == name for n in live):
            norms = search.all_of(live, idle=True)
            if norms is not None:
                roles.idle_biases[name] = Candidate(name, "norm", live[-1].source, norms)
    return roles


def _bias(node: Node) -> str:
    """Return the name of a layer's bias, or an empty string."""
    has = weight_kind(node) in ("conv", "linear") and len(node.given) > 2
    return node.parameters[-1] if has and len(node.given[-1]) == 1 else ""


class _Search:
    """Follows a layer's output to where its length is lost."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.leaves = leaf_modules(graph)
        self.runs: dict[tuple[str, int], list[Node]] = {}
        for node in graph.nodes:
            self.runs.setdefault(node.key[:2], []).append(node)

    def is_norm(self, node: Node) -> bool:
        """Say whether an operation is a norm, or one of a module that writes a norm out."""
        if node.op in NORMS:
            return True
        return node.module in self.leaves and kind(self.runs[node.key[:2]]) == "norm"

    def is_last(self, node: Node) -> bool:
        """Say whether a layer's output, perhaps reshaped, is the network's."""
        while node.index not in self.graph.results:
            readers = self.graph.consumers[node.index]
            if len(readers) != 1 or readers[0].op not in _VIEWS:
                return False
            node = readers[0]
        return True

    def all_of(self, layers: list[Node], idle: bool = False) -> tuple[str, ...] | None:
        """Return the norms that all of these lead to; None where something else reads one of them.

        idle: for their biases, not their weights.
        """
        found: dict[str, None] = {}
        for layer in layers:
            if weight_kind(layer) not in ("conv", "linear"):
                return None
            norms = self._from(layer, idle or bool(_bias(layer)) or layer.op == "addmm")
            if norms is None:
                return None
            found |= dict.fromkeys(norms)
        return tuple(found)

    def _from(self, layer: Node, biased: bool) -> list[str] | None:
        """Follow one layer's output; biased: only a mean of its own may be subtracted from each channel."""
        norms: list[str] = []
        todo = [(layer, biased, False)]  # with whether other values were joined to it as channels
        seen = {(layer.index, biased, False)}
        while todo:
            at, shifted, joined = todo.pop()
            readers = [n for n in self.graph.consumers[at.index] if n.live]
            if at.index in self.graph.results or not readers:
                return None
            for reader in readers:
                if self.is_norm(reader):
                    if (shifted or joined) and reader.op not in BY_CHANNEL:
                        return None
                    if reader.op in NORMS and reader.inputs[0] != at.index:
                        return None
                    norms.append(reader.module)
                    continue
                lets = reader.op in _VIEWS or reader.op == "cat"
                if not lets and (shifted or not self._homogeneous(reader, at)):
                    return None
                state = (reader, shifted or bool(_bias(reader)), joined or reader.op == "cat")
                if (reader.index, *state[1:]) not in seen:
                    seen.add((reader.index, *state[1:]))
                    todo.append(state)
        return norms

    def _homogeneous(self, node: Node, at: Node) -> bool:
        """Say whether a positive factor on `at` goes through an operation."""
        if node.op == "pad":
            copies = node.settings.get("mode", "constant") != "constant"
            return copies or not node.settings.get("value")
        if node.op in ("mul", "div"):
            return node.inputs[0] == at.index and node.live_inputs == [at.index]
        if weight_kind(node) in ("conv", "linear"):
            return node.op != "addmm" and node.live_inputs == [at.index]
        return node.op in _HOMOGENEOUS
