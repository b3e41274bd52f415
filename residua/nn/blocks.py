"""Residual blocks, as branches of a `Skip`: basic and bottleneck, post- and pre-activation.

    post-activation (v1)   y = relu(s(x) + [conv norm relu conv norm](x))       He et al. 2015, fig. 5
    pre-activation (v2)    y = s(x) + [norm relu conv norm relu conv](x)        He et al. 2016b, eq. 3
    where v2 changes shape y = s(a) + [conv norm relu conv](a), a = relu(norm(x))

The bottleneck has convolutions 1x1, 3x3, 1x1 over width, width, 4 * width channels. Its stride sits on
the 3x3 by default ("ResNet v1.5", as torchvision and timm have it) or on the first 1x1, as in the paper:
the same parameter count, another network. A plain block is the same branch with no shortcut.

Shapes: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from residua.nn.merges import Add, KeepBranch
from residua.nn.norms import NormFactory
from residua.nn.regularisers import StochasticDepth
from residua.nn.shortcuts import NoShortcut, make_shortcut
from residua.nn.skip import Skip

STRIDE_ON = ("3x3", "1x1")


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network share.

    norm: maker of norm layers, None for none (convolutions then have biases).
    shortcut: "A", "B", "C", or None for a plain network.
    preactivation: v2 order. stride_on: where a bottleneck strides, "3x3" or "1x1".
    """

    norm: NormFactory | None
    shortcut: str | None = "B"
    preactivation: bool = False
    stride_on: str = "3x3"

    def __post_init__(self) -> None:
        if self.stride_on not in STRIDE_ON:
            raise ValueError(f"stride_on {self.stride_on!r} is unknown: expected 3x3 or 1x1")


def _convolution(cin: int, cout: int, kernel: int, stride: int, bias: bool) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=bias)


class Preactivation(nn.Sequential):
    """relu(norm(x)): the activation that v2 puts before a fork or a convolution."""

    def __init__(self, channels: int, norm: NormFactory | None) -> None:
        super().__init__()
        if norm is not None:
            self.norm = norm(channels)
        # Without a norm the input is the trunk itself, which an in-place ReLU would overwrite.
        self.act = nn.ReLU(inplace=norm is not None)


class _Block(nn.Sequential):
    """Common to both blocks: the branch from its convolutions, the shortcut, the merge.

    A v1 block holds one `skip`; a v2 block that changes shape holds `fork`, the shared activation,
    before it.
    """

    def __init__(
        self,
        convolutions: list[nn.Conv2d],
        in_channels: int,
        stride: int,
        options: BlockOptions,
        survival: float,
    ) -> None:
        super().__init__()
        out_channels = convolutions[-1].out_channels
        pre = options.preactivation
        shortcut: nn.Module = NoShortcut()
        if options.shortcut is not None:
            norm = None if pre else options.norm
            shortcut = make_shortcut(options.shortcut, in_channels, out_channels, stride, norm)
        fork = pre and not isinstance(shortcut, nn.Identity | NoShortcut)
        if fork:
            self.fork = Preactivation(in_channels, options.norm)
        branch = _branch(convolutions, options.norm, pre, skip_first=fork)
        if survival < 1.0:
            branch.add_module("drop", StochasticDepth(survival))
        activation = None if pre else nn.ReLU(inplace=True)
        merge = KeepBranch(activation) if options.shortcut is None else Add(activation)
        self.skip = Skip(branch, shortcut, merge)


def _branch(
    convolutions: list[nn.Conv2d], norm: NormFactory | None, preactivation: bool, skip_first: bool
) -> nn.Sequential:
    """Interleave convolutions with norms and ReLUs in v1 or v2 order, numbered from 1."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        if preactivation:
            if not (i == 1 and skip_first):
                parts[f"pre{i}"] = Preactivation(conv.in_channels, norm)
            parts[f"conv{i}"] = conv
        else:
            parts[f"conv{i}"] = conv
            if norm is not None:
                parts[f"norm{i}"] = norm(conv.out_channels)
            if i < len(convolutions):
                parts[f"act{i}"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


class BasicBlock(_Block):
    """Two 3x3 convolutions (He et al. 2015, fig. 5 left)."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        options: BlockOptions,
        survival: float = 1.0,
    ) -> None:
        bias = options.norm is None
        convolutions = [
            _convolution(in_channels, width, 3, stride, bias),
            _convolution(width, width, 3, 1, bias),
        ]
        super().__init__(convolutions, in_channels, stride, options, survival)


class BottleneckBlock(_Block):
    """1x1, 3x3, 1x1 convolutions; four times as wide outside (He et al. 2015, fig. 5 right)."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        options: BlockOptions,
        survival: float = 1.0,
    ) -> None:
        bias = options.norm is None
        first, second = (1, stride) if options.stride_on == "3x3" else (stride, 1)
        convolutions = [
            _convolution(in_channels, width, 1, first, bias),
            _convolution(width, width, 3, second, bias),
            _convolution(width, self.expansion * width, 1, 1, bias),
        ]
        super().__init__(convolutions, in_channels, stride, options, survival)
