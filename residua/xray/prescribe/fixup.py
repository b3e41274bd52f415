"""Fixup: no norms, scaled-down branches that end in zero, scalar multipliers and biases.

    y = s + a [conv(... relu(conv(x + b) + b) + b ...)] + b

for L branches of m weight layers: last layers and the classifier 0, other layers of a branch He's weights
times L^(-1 / (2m - 2)). Zhang, Dauphin, Ma 2019, Fixup initialization, section 3.2.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from residua.nn import init
from residua.nn.orders import ScalarBias, ScalarScale
from residua.xray.anatomy import anatomy
from residua.xray.kinds import weight_kind
from residua.xray.prescribe.merges import additions
from residua.xray.prescribe.rewired import Rewired, Step, need_example
from residua.xray.trace import Graph, Node
from residua.xray.units import Unit

_NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"}


def fixup(model: nn.Module, example: Any) -> nn.Module:
    """Return the model without norms, with Fixup's weights, multipliers and biases."""
    need_example(example, "fixup")
    found = anatomy(model, example)
    units = additions(found, "fixup")
    graph = found.graph
    assert graph is not None
    init.initialise(model, "he", "fan_out")
    parameters = dict(model.named_parameters())
    steps = [Step(node, "instead", nn.Identity()) for node in graph.nodes if node.op in _NORMS]
    for unit in units:
        layers = weight_nodes(graph, unit)
        _weights(layers, parameters, len(units))
        for layer in layers:
            steps.append(Step(layer, "given", ScalarBias()))
        steps += [Step(layer, "result", ScalarBias()) for layer in layers[:-1]]
        merge = unit.sites.merge
        assert merge is not None
        steps.append(Step(merge, "given", ScalarScale(), unit.sites.branch_argument))
    branches = {index for unit in units for index in unit.sites.inside}
    heads = [n for n in graph.nodes if weight_kind(n) == "linear" and n.index not in branches]
    with torch.no_grad():
        for name in heads[-1].parameters if heads else ():
            parameters[name].zero_()
    like = next(iter(parameters.values()))
    changed = Rewired(model, graph, steps).train(model.training)
    changed.added.to(like.device, like.dtype)
    return changed


def weight_nodes(graph: Graph, unit: Unit) -> list[Node]:
    """Return the layers with weights in a unit's branch, in their order."""
    nodes = (graph.nodes[index] for index in sorted(unit.sites.inside))
    return [node for node in nodes if weight_kind(node) and node.parameters]


@torch.no_grad()
def _weights(layers: list[Node], parameters: dict[str, nn.Parameter], branches: int) -> None:
    """Scale the weights of a branch's layers and zero the last one's."""
    for layer in layers[:-1]:
        factor = branches ** (-1 / (2 * len(layers) - 2))
        for name in layer.parameters:
            if parameters[name].dim() > 1:
                parameters[name].mul_(factor)
    for name in layers[-1].parameters if layers else ():
        parameters[name].zero_()
