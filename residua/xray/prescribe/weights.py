"""Other weights in the same network: zero where branches end, or drawn anew.

Goyal et al. 2017, section 5.1 (the last layer of each branch at zero); He et al. 2015 (the variance 2 / fan).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from residua.errors import BadInput
from residua.nn import init
from residua.nn.skip import Skip
from residua.xray.anatomy import Anatomy, anatomy
from residua.xray.kinds import weight_kind
from residua.xray.prescribe.rewired import need_example
from residua.xray.trace import Graph, Node
from residua.xray.units import Unit

_GAINS = ("weight_g", "original0", "gain")  # of weight normalisation, ours and torch's


def zero_last(model: nn.Module, example: Any) -> nn.Module:
    """Zero the last norm, convolution or linear layer of every branch."""
    if any(isinstance(module, Skip) for module in model.modules()):
        init.zero_last(model)
        return model
    need_example(example, "zero_last")
    found = anatomy(model, example)
    if not found.units:
        raise BadInput(f"zero_last acts on branches: {found.reason}")
    zero_branches(model, found)
    return model


@torch.no_grad()
def zero_branches(model: nn.Module, found: Anatomy) -> None:
    """Zero the last layer with parameters of every unit's branch, in place."""
    parameters = dict(model.named_parameters())
    assert found.graph is not None
    for unit in found.units:
        last = last_layer(found.graph, unit)
        if last is None:
            raise BadInput(f"the branch of {unit.name} ends in nothing that has parameters")
        gains = [name for name in last.parameters if name.endswith(_GAINS)]
        biases = [name for name in last.parameters if name.endswith("bias")]
        for name in [*gains, *biases] if gains else last.parameters:
            parameters[name].zero_()


def last_layer(graph: Graph, unit: Unit) -> Node | None:
    """Return the last operation with parameters on the way to a branch's value."""
    node = unit.sites.branch
    while node is not None and node.index in unit.sites.inside:
        if node.parameters:
            return node
        behind = [n for n in graph.live(node) if n.index in unit.sites.inside]
        node = max(behind, key=lambda n: n.index, default=None)
    return None


def reinitialise(model: nn.Module, example: Any = None) -> nn.Module:
    """Draw all weights anew: He's for convolutions, torch's for the rest; norms 1 and 0."""
    free = []
    for prefix, module in model.named_modules():
        reset = getattr(module, "reset_parameters", None)
        own = dict(module.named_parameters(recurse=False))
        if callable(reset):
            reset()
        elif any(p.dim() > 1 for p in own.values()):
            free += [f"{prefix}.{name}".lstrip(".") for name, p in own.items() if p.dim() > 1]
    init.initialise(model)
    if not free:
        return model
    need_example(example, "reinitialise")
    graph = anatomy(model, example).graph
    assert graph is not None
    used = {name for node in graph.nodes if weight_kind(node) for name in node.parameters}
    parameters = dict(model.named_parameters())
    for name in free:
        if name in used:
            nn.init.kaiming_normal_(parameters[name], mode="fan_out", nonlinearity="relu")
    return model
