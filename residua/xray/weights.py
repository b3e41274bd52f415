"""The weights of every layer of any network in one layout, and the scales of its norms.

    (groups, units, inputs, taps): a unit reads `inputs` channels of its group through `taps` weights each

A linear layer has one group and one tap; a convolution one tap for each position of its kernel; a transposed
convolution is turned round. Weights under a parametrisation are those in use. Layers of other classes count
where their parameter's name says weight and it has two axes or more; look-up tables do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList


@dataclass(frozen=True)
class Layer:
    """One layer: name (module path and parameter), weight (G, n, m, taps), bias (G, n) or None.

    eps: the relative spacing of the numbers that the weights are kept in.
    """

    name: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float


@dataclass(frozen=True)
class Scale:
    """The factors (n,) by which a norm multiplies its channels."""

    name: str
    weight: torch.Tensor
    eps: float


def layers_of(model: nn.Module) -> list[Layer]:
    """Return the layers in the order of registration, each shared one once."""
    seen: set[int] = set()
    found: list[Layer] = []
    for path, module in model.named_modules():
        for name, weight in _weights(module):
            if id(weight) in seen or not _usable(weight):
                continue
            seen.add(id(weight))
            bias = getattr(module, "bias", None) if name == "weight" else None
            full = ".".join(part for part in (path, name) if part)
            found.append(_layer(full.removesuffix(".weight"), module, weight.detach(), bias))
    return found


def scales_of(model: nn.Module) -> list[Scale]:
    """Return the learned factors of all norms."""
    return [
        Scale(path, _comparable(weight.detach()).reshape(-1), torch.finfo(weight.dtype).eps)
        for path, module in model.named_modules()
        if is_norm(module)
        and isinstance(weight := getattr(module, "weight", None), torch.Tensor)
        and _usable(weight)
    ]


def is_norm(module: nn.Module) -> bool:
    """Say whether a module is a normalisation, by its class's name."""
    return "norm" in type(module).__name__.lower()


def _weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag, ParametrizationList)):
        return
    if isinstance(module, (_ConvNd, nn.Linear)):
        yield "weight", module.weight
    elif not is_norm(module):
        for name, value in module.named_parameters(recurse=False):
            if "weight" in name and value.dim() >= 2:
                yield name, value


def _usable(weight: torch.Tensor) -> bool:
    return not is_lazy(weight) and weight.is_floating_point() and weight.numel() > 0


def _layer(name: str, module: nn.Module, weight: torch.Tensor, bias: object) -> Layer:
    groups = module.groups if isinstance(module, _ConvNd) else 1
    if isinstance(module, _ConvNd) and module.transposed:
        inputs, units = weight.shape[:2]
        shaped = weight.reshape(groups, inputs // groups, units, -1).transpose(1, 2)
    else:
        units, inputs = weight.shape[:2]
        shaped = weight.reshape(groups, units // groups, inputs, -1)
    offset = None
    if isinstance(bias, torch.Tensor) and bias.numel() == shaped.shape[0] * shaped.shape[1]:
        offset = _comparable(bias.detach()).reshape(shaped.shape[:2])
    return Layer(name, _comparable(shaped), offset, torch.finfo(weight.dtype).eps)


def _comparable(weight: torch.Tensor) -> torch.Tensor:
    """Return weights in single precision, where double can be had: not on Apple's GPUs."""
    return (weight.cpu() if weight.device.type == "mps" else weight).float()
