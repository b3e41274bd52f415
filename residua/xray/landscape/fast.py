"""The same network with every batch norm that follows a convolution folded into it, for frozen statistics.

    norm(conv(x; w)) = conv(x; s w) + s (c - m) + t,      s = g / sqrt(v + eps)

with g, t the norm's weight and bias, m, v its running mean and variance, c the convolution's bias. The
weights that move are the model's own; the folded ones are computed from them at every point, into buffers
that are there already. Where the graph is not plainly conv -> norm the layers stay as they are, and a network
whose graph torch.fx cannot trace runs as it was written.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from residua.xray.subject import tensors_in

PIXELS = (
    50 * 32 * 32
)  # a pass of so many keeps a CPU's cache warm; fastest of 10 .. 250 CIFAR pictures
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class Fold:
    """A convolution and the norm behind it, and the convolution that does the work of both."""

    convolution: Any  # of torch's Conv1d, Conv2d, Conv3d
    norm: Any  # of torch's batch norms
    folded: Any  # of the convolution's class

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the folded weights from the present ones."""
        conv, norm = self.convolution, self.norm
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        wide = scale.view(-1, *[1] * (conv.weight.dim() - 1))
        torch.mul(conv.weight, wide, out=self.folded.weight.data)
        shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
        torch.mul(shift, scale, out=self.folded.bias.data)
        if norm.bias is not None:
            self.folded.bias.data.add_(norm.bias)


class _Tracer(fx.Tracer):
    """Batch norms of any make are leaves: their evaluation is known, whatever they do in training."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def fold(model: nn.Module) -> tuple[nn.Module, list[Fold]]:
    """Return a module that shares the model's parameters, with norms folded, and its folds.

    The model must be in evaluation mode and is left as it is. Where nothing can be folded, the model itself
    is returned.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception:  # anything may happen in a user's forward when it sees proxies
        return model, []
    modules = dict(model.named_modules())
    calls = Counter(id(modules[str(n.target)]) for n in graph.nodes if n.op == "call_module")
    shared = fx.GraphModule(model, graph)
    folds: list[Fold] = []
    for node in list(graph.nodes):
        pair = _pair(node, modules, calls)
        if pair is None:
            continue
        conv, norm, before = pair
        folded = _folded(conv)
        shared.add_submodule(str(before.target), folded)
        node.replace_all_uses_with(before)
        graph.erase_node(node)
        folds.append(Fold(conv, norm, folded))
    if not folds:
        return model, []
    shared.recompile()
    return shared.eval(), folds


def _pair(node: fx.Node, modules: dict[str, nn.Module], calls: Counter[int]) -> Any:
    """Return (convolution, norm, the convolution's node) if this node is a norm right behind one."""
    norm = modules.get(str(node.target)) if node.op == "call_module" else None
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None or norm.training:
        return None
    before = node.args[0] if len(node.args) == 1 and not node.kwargs else None
    if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
        return None
    conv = modules[str(before.target)]
    plain = type(conv) in CONVOLUTIONS and type(norm).forward in _FORWARDS
    once = calls[id(conv)] == calls[id(norm)] == 1
    hooked = conv._forward_hooks or conv._forward_pre_hooks or norm._forward_hooks
    return (conv, norm, before) if plain and once and not hooked else None


_FORWARDS = {nn.BatchNorm1d.forward, nn.BatchNorm2d.forward, nn.BatchNorm3d.forward}


def _folded(conv: Any) -> nn.Module:
    """Return a convolution of this shape with a bias and weights of its own."""
    folded: nn.Module = copy.copy(conv)
    weight, bias = torch.empty_like(conv.weight), conv.weight.new_empty(conv.out_channels)
    folded._parameters = {"weight": nn.Parameter(weight, False), "bias": nn.Parameter(bias, False)}
    return folded


def channels_last(value: torch.Tensor) -> torch.Tensor:
    """Return pictures (N, C, H, W) with the channels of a pixel side by side; other shapes as they are."""
    if value.dim() != 4:
        return value
    return value.contiguous(memory_format=torch.channels_last)


def passes(
    inputs: torch.Tensor, targets: torch.Tensor
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Split a batch into passes of the size that a CPU's cache likes; on other devices leave it whole."""
    size = len(inputs)
    if inputs.device.type == "cpu" and inputs.dim() > 2:
        size = max(1, PIXELS // int(inputs.shape[-1] * inputs.shape[-2]))
    yield from zip(torch.split(inputs, size), torch.split(targets, size), strict=True)


def agree(model: nn.Module, network: nn.Module, inputs: torch.Tensor, tolerance: float) -> bool:
    """Say whether a network gives two pictures alone the outputs that the model gives them in their batch.

    tolerance: share of the largest output.
    """
    try:
        pairs = zip(tensors_in(network(inputs[:2])), tensors_in(model(inputs)), strict=True)
        return all(
            bool((a - b[:2]).abs().max() <= tolerance * b.abs().max().clamp(min=1.0))
            for a, b in pairs
        )
    except Exception:  # a graph that holds for one size of batch only, say
        return False
