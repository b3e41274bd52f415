"""Fixup: a residual network without norms that starts as its shortcuts, its branches scaled down.

    classifier and last layer of each branch       0
    every other layer of a branch                  He's weight times L^(-1 / (2m - 2))
    all other layers (stem, projections)           He's weight
    scalar multipliers and biases                  1 and 0

for L branches of m weight layers each: an update of learning rate eta then moves the network's output by
Theta(eta), however deep it is. Zhang, Dauphin, Ma 2019, Fixup initialization, section 3.2. He's fan is
fan_out, as in the authors' code. A branch of one layer has no other layer to scale.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
model=fixup_resnet20_cifar 33.9 %, 0.98 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch import nn

from residua.nn.init.layers import last_layers, scale_of, weight_layers, zero
from residua.nn.init.scheme import initialise
from residua.nn.merges import KeepBranch
from residua.nn.orders import ScalarBias, ScalarScale
from residua.nn.skip import Skip


def fixup(module: nn.Module) -> None:
    """Give `module`, a network made of `Skip`s, Fixup's weights in place.

    The classifier is the last linear layer that is in no branch; a network without one has none.
    Linear layers elsewhere keep their weights. Raises ValueError where there is no branch, or where a
    block has no shortcut: it would start at zero and stay there; or where a weight has no scale, see
    `scale_of`.
    """
    skips = [m for m in module.modules() if isinstance(m, Skip)]
    if not skips:
        raise ValueError("Fixup scales residual branches: there is none")
    if any(isinstance(skip.merge, KeepBranch) for skip in skips):
        raise ValueError("Fixup needs shortcuts: a plain block would start at zero and stay there")
    initialise(module, "he", "fan_out")
    for layer in module.modules():
        if isinstance(layer, ScalarBias | ScalarScale):
            nn.init.zeros_(layer.bias)
        if isinstance(layer, ScalarScale):
            nn.init.ones_(layer.scale)
    inside = set()
    for skip in skips:
        layers = list(weight_layers(skip.branch))
        inside.update(layers)
        if len(layers) > 1:
            scale(layers[:-1], len(skips) ** (-1 / (2 * len(layers) - 2)))
        for layer in last_layers(skip.branch):
            zero(layer)
    heads = [m for m in module.modules() if isinstance(m, nn.Linear) and m not in inside]
    for head in heads[-1:]:
        zero(head)


@torch.no_grad()
def scale(layers: list[nn.Module], factor: float) -> None:
    """Multiply each layer's weight, or its gain where it has one, by `factor`, in place."""
    for layer in layers:
        scale_of(layer).mul_(factor)
