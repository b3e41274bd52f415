"""The order of norm, activation and addition in a residual unit, by name.

    original                 relu(s(x) + [conv norm relu conv norm](x))      He et al. 2015; 2016b, fig. 4a
    norm_after_addition      relu(norm(s(x) + [conv norm relu conv](x)))     fig. 4b
    relu_before_addition     s(x) + [conv norm relu conv norm relu](x)       fig. 4c
    relu_only_preactivation  s(x) + [relu conv norm relu conv norm](x)       fig. 4d
    preactivation            s(x) + [norm relu conv norm relu conv](x)       fig. 4e (v2)
    fixup                    relu(s(x) + a [conv+b relu+b conv](x+b) + b)    Zhang, Dauphin, Ma 2019, fig. 1

He, Zhang, Ren, Sun 2016b, Identity Mappings in Deep Residual Networks. In `preactivation`, a block that
changes shape activates before the fork, s(a) + [conv norm relu conv](a) with a = relu(norm(x)). In
`fixup` a is a scalar multiplier, 1 at first, and each b a scalar bias of its own, 0 at first; a block that
changes shape adds its first bias before the fork, as in the authors' code.

For relu stands the network's activation; a norm that activates (`evonorm`) is norm and relu in one.

An order also says how the stem ends and what follows the last block. Nothing here differs between
training and evaluation but the norms.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
order=norm_after_addition 45.5 %, 1.02; order=relu_before_addition 43.5 %, 1.03;
order=relu_only_preactivation 52.7 %, 1.02; order=preactivation 48.6 %, 1.05 (accuracy, time of a step).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from residua.nn.activations import make_activation
from residua.nn.norms import Convolution, Norm

Parts = OrderedDict[str, nn.Module]


class Preactivation(nn.Sequential):
    """relu(norm(x)): the activation that v2 puts before a fork or a convolution."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        if norm.layer is not None:
            self.norm = norm.layer(channels)
        # Without a norm the input is the trunk itself, which an in-place ReLU would overwrite.
        self.act = norm.act(inplace=norm.layer is not None)


class ScalarBias(nn.Module):
    """x + b with one number b, zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add the bias: any shape -> the same."""
        return x + self.bias


class ScalarScale(nn.Module):
    """a x + b with two numbers, one and zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift: any shape -> the same."""
        return x * self.scale + self.bias


@dataclass(frozen=True)
class Order:
    """One order: makers of the branch, of what follows the merge, of the stem's end and of the tail.

    branch: (convolutions, norm, whether the fork has done its first part already) -> named parts.
    fork: what a block that changes shape does before the fork. biases: whether convolutions have biases
    where no norm follows. norms: whether norm layers have a place in it.
    """

    branch: Callable[[Sequence[Convolution], Norm, bool], Parts]
    after: Callable[[int, Norm], nn.Module | None]
    stem: Callable[[int, Norm], Parts]
    tail: Callable[[int, Norm], nn.Module | None]
    fork: Callable[[int, Norm], nn.Module] | None = None
    biases: bool = True
    norms: bool = True


def _post(
    convolutions: Sequence[Convolution], norm: Norm, norm_last: bool, relu_last: bool
) -> Parts:
    """conv norm relu, conv norm relu, ...: with or without the last norm, the last ReLU."""
    parts: Parts = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        inside = i < len(convolutions)
        parts[f"conv{i}"] = conv
        if norm.layer is not None and (inside or norm_last):
            parts[f"norm{i}"] = norm.layer(conv.out_channels)
        if inside or relu_last:
            parts[f"act{i}"] = norm.act()
    return parts


def _original(convolutions: Sequence[Convolution], norm: Norm, activated: bool) -> Parts:
    return _post(convolutions, norm, norm_last=True, relu_last=False)


def _norm_after(convolutions: Sequence[Convolution], norm: Norm, activated: bool) -> Parts:
    return _post(convolutions, norm, norm_last=False, relu_last=False)


def _relu_before(convolutions: Sequence[Convolution], norm: Norm, activated: bool) -> Parts:
    return _post(convolutions, norm, norm_last=True, relu_last=True)


def _relu_only(convolutions: Sequence[Convolution], norm: Norm, activated: bool) -> Parts:
    parts: Parts = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        # The first one reads the trunk, which no norm has activated.
        parts[f"act{i}"] = norm.act() if i > 1 else make_activation(norm.activation, inplace=False)
        parts[f"conv{i}"] = conv
        if norm.layer is not None:
            parts[f"norm{i}"] = norm.layer(conv.out_channels)
    return parts


def _pre(convolutions: Sequence[Convolution], norm: Norm, activated: bool) -> Parts:
    parts: Parts = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        if not (i == 1 and activated):
            parts[f"pre{i}"] = Preactivation(conv.in_channels, norm)
        parts[f"conv{i}"] = conv
    return parts


def _fixup(convolutions: Sequence[Convolution], norm: Norm, activated: bool) -> Parts:
    parts: Parts = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        if not (i == 1 and activated):
            parts[f"before{i}"] = ScalarBias()
        parts[f"conv{i}"] = conv
        if i < len(convolutions):
            parts[f"after{i}"] = ScalarBias()
            parts[f"act{i}"] = norm.act()
    parts["scale"] = ScalarScale()
    return parts


def _relu(channels: int, norm: Norm) -> nn.Module:
    return make_activation(norm.activation)  # after a sum, whatever the norms do


def _nothing(channels: int, norm: Norm) -> None:
    return None


def _bias(channels: int, norm: Norm) -> nn.Module:
    return ScalarBias()


def _stem(channels: int, norm: Norm) -> Parts:
    parts: Parts = OrderedDict()
    if norm.layer is not None:
        parts["norm"] = norm.layer(channels)
    parts["act"] = norm.act()
    return parts


def _stem_bare(channels: int, norm: Norm) -> Parts:
    return OrderedDict()


def _stem_fixup(channels: int, norm: Norm) -> Parts:
    return OrderedDict(bias=ScalarBias(), act=norm.act())


ORDERS: dict[str, Order] = {
    "original": Order(_original, _relu, _stem, _nothing),
    "norm_after_addition": Order(_norm_after, Preactivation, _stem, _nothing),
    "relu_before_addition": Order(_relu_before, _nothing, _stem, _nothing),
    # The trunk is a plain sum, so the head gets its positive part.
    "relu_only_preactivation": Order(_relu_only, _nothing, _stem, _relu),
    "preactivation": Order(_pre, _nothing, _stem_bare, Preactivation, fork=Preactivation),
    "fixup": Order(_fixup, _relu, _stem_fixup, _bias, fork=_bias, biases=False, norms=False),
}
