"""What the schemes need to know of layers: fans, gains, and which layer a branch ends in.

    fan_in    how many inputs an output sums        C_in k^d / groups   (transposed: / stride^d as well)
    fan_out   how many outputs an input reaches     C_out k^d / groups  (stride left out, as He has it)

He, Zhang, Ren, Sun 2015 (rectifiers), section 2.2, where the two are n_l and its backward twin.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
init=he_uniform 50.2 %, 1.02; init=glorot 52.8 %, 0.98; init=glorot_uniform 52.8 %, 1.00; fan=fan_in 53.0 %,
1.06 (accuracy, time of a step).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from residua.nn.attention import ATTENTIONS
from residua.nn.norms import is_norm
from residua.nn.norms.standardised import StandardisedConv2d

Convolution = _ConvNd  # every kind: 1, 2 and 3 dimensions, transposed or not
_ATTENTION = tuple(ATTENTIONS.values())


@runtime_checkable
class HasGain(Protocol):
    """A layer that normalises its weight: its scale is in `gain`, a weight's own length is not seen.

    `reset_gain` sets the gain to what belongs to the weight: it follows every draw of the weight.
    """

    gain: nn.Parameter

    def reset_gain(self) -> None:
        """Set the gain from the weight, or to its start."""


@runtime_checkable
class HasStartingBias(Protocol):
    """A layer whose biases start at another number than zero."""

    def reset_bias(self) -> None:
        """Set the biases to their start."""


def fans(conv: Convolution) -> tuple[float, float]:
    """Return (fan_in, fan_out) of a convolution of any kind, per group.

    >>> fans(nn.Conv2d(8, 16, 3, groups=4)), fans(nn.ConvTranspose2d(8, 4, 2, stride=2))
    ((18.0, 36.0), (8.0, 16.0))
    """
    taps = math.prod(conv.kernel_size)
    summed = taps / math.prod(conv.stride) if isinstance(conv, _ConvTransposeNd) else float(taps)
    return conv.in_channels // conv.groups * summed, float(conv.out_channels // conv.groups * taps)


def kernel(conv: Convolution) -> torch.Tensor:
    """Return a view of the weight as (groups, out a group, in a group, *kernel)."""
    weight = conv.weight.detach()
    into, out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    if isinstance(conv, _ConvTransposeNd):  # stored as (in, out a group, *kernel)
        return weight.view(conv.groups, into, out, *conv.kernel_size).transpose(1, 2)
    return weight.view(conv.groups, out, into, *conv.kernel_size)


def weight_layers(branch: nn.Module) -> Iterator[nn.Module]:
    """Yield the convolutions and linear layers of a branch in order, those of attention left out."""
    if isinstance(branch, Convolution | nn.Linear):
        yield branch
    elif not isinstance(branch, _ATTENTION):
        for child in branch.children():
            yield from weight_layers(child)


def last_layers(branch: nn.Module) -> list[nn.Module]:
    """Return the last norm, convolution or linear layer of a branch; of each path of a ModuleList.

    Attention, dropout and what else only scales the branch come after it and do not count.
    """
    if isinstance(branch, Convolution | nn.Linear) or is_norm(branch):
        return [branch]
    if isinstance(branch, _ATTENTION):
        return []
    paths = [last_layers(child) for child in branch.children()]
    if isinstance(branch, nn.ModuleList):
        return [layer for path in paths for layer in path]
    return next((path for path in reversed(paths) if path), [])


def scale_of(layer: nn.Module) -> nn.Parameter:
    """Return the parameter that holds a layer's scale: its gain if it has one, else its weight.

    Raises ValueError where a weight is standardised and has no gain: it has no scale to change.
    """
    if isinstance(layer, HasGain):
        return layer.gain
    if isinstance(layer, StandardisedConv2d):
        raise ValueError(
            "a standardised convolution has no scale to set: use scaled_standardised, or merge skip_init"
        )
    assert isinstance(layer.weight, nn.Parameter)
    return layer.weight


def zero(layer: nn.Module) -> None:
    """Make a layer's output zero: its scale and, with everything else it adds, its bias.

    Raises ValueError where it has no scale, see `scale_of`.
    """
    nn.init.zeros_(scale_of(layer))
    for name, parameter in layer.named_parameters(recurse=False):
        if name not in ("weight", "eps"):  # filter response norm learns its eps, which adds nothing
            nn.init.zeros_(parameter)
