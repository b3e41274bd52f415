"""The three forms of ResNeXt's branch, which compute one function.

    (a) separate    f(x) = sum_i W3_i a2(W2_i a1(W1_i x))           C paths of d channels, outputs summed
    (b) early       f(x) = W3 [a2(W2_1 a1(W1_1 x)), ...]            the paths concatenated, one last 1x1
    (c) grouped     f(x) = W3 a2(W2 * a1(W1 x))                     W2 a convolution of C groups

with a = relu(norm(.)). Xie, Girshick, Dollar, Tu, He 2017, figure 3. The last norm follows the sum; those
inside are each path's own, and equal (c)'s because a batch norm (or none) treats channels one by one.

(c) is what `BottleneckBlock` with groups is, and the fastest; the others are made from its weights to show
that they are the same. Shapes: (N, C_in, H, W) -> (N, C_out, H', W'), as the block they come from.
Training and evaluation differ as the norm.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from residua.nn.activations import ACTIVATIONS
from residua.nn.blocks import BottleneckBlock

Parts = OrderedDict[str, nn.Module]

FIRST = ("conv1", "norm1", "act1", "conv2", "norm2", "act2")  # what every path has of its own
LAST = "conv3"
AFTER = "conv4"  # a bottleneck of several 3x3 convolutions has it


class SeparatePaths(nn.Module):
    """Form (a): the sum of paths that end in a 1x1 convolution each; one bias, if any, for the sum."""

    def __init__(self, paths: list[nn.Sequential], bias: torch.Tensor | None) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Add up the paths: (N, C_in, H, W) -> (N, C_out, H', W')."""
        y = torch.stack([path(x) for path in self.paths]).sum(0)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)


class EarlyConcatenation(nn.Module):
    """Form (b): paths that end before the last convolution, concatenated, then that convolution."""

    def __init__(self, paths: list[nn.Sequential], last: nn.Conv2d) -> None:
        super().__init__()
        self.paths = nn.ModuleList(paths)
        self.conv = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Concatenate the paths, convolve: (N, C_in, H, W) -> (N, C_out, H', W')."""
        y: torch.Tensor = self.conv(torch.cat([path(x) for path in self.paths], 1))
        return y


def separate_paths(block: BottleneckBlock) -> BottleneckBlock:
    """Return a copy of a grouped block in form (a); ValueError if it is none."""

    def join(paths: list[Parts], last: nn.Conv2d) -> nn.Module:
        width = last.in_channels // len(paths)
        for i, path in enumerate(paths):
            path[LAST] = _convolution(last, slice(None), _range(i, width), None)
        return SeparatePaths([nn.Sequential(path) for path in paths], last.bias)

    return _rebuilt(block, join)


def early_concatenation(block: BottleneckBlock) -> BottleneckBlock:
    """Return a copy of a grouped block in form (b); ValueError if it is none."""

    def join(paths: list[Parts], last: nn.Conv2d) -> nn.Module:
        return EarlyConcatenation([nn.Sequential(path) for path in paths], copy.deepcopy(last))

    return _rebuilt(block, join)


def _rebuilt(
    block: BottleneckBlock, join: Callable[[list[Parts], nn.Conv2d], nn.Module]
) -> BottleneckBlock:
    """Copy a block, with its branch as paths that `join` puts together, and what follows them."""
    block = copy.deepcopy(block)
    parts: Parts = OrderedDict(block.skip.branch.named_children())
    inside = list(parts)[: list(parts).index(LAST)] if LAST in parts else list(parts)
    if LAST not in parts or not set(inside) <= set(FIRST) or AFTER in parts:
        raise ValueError(
            f"the three forms are of bottlenecks of {', '.join(FIRST)}, {LAST}; this branch has"
            f" {', '.join(parts)}"
        )
    count = _plain(parts["conv2"]).groups
    paths = [
        OrderedDict((name, _share(parts[name], i, count)) for name in inside) for i in range(count)
    ]
    branch: Parts = OrderedDict(aggregated=join(paths, _plain(parts[LAST])))
    branch.update((name, part) for name, part in parts.items() if name not in {*inside, LAST})
    block.skip.branch = nn.Sequential(branch)
    return block


def _share(part: nn.Module, i: int, count: int) -> nn.Module:
    """Return what path i of `count` has of a layer: its output channels."""
    if isinstance(part, tuple(ACTIVATIONS.values())):
        return copy.deepcopy(part)
    if isinstance(part, nn.BatchNorm2d):
        return _norm(part, _range(i, part.num_features // count))
    conv = _plain(part)
    return _convolution(conv, _range(i, conv.out_channels // count), slice(None), conv.bias)


def _plain(part: nn.Module) -> nn.Conv2d:
    if type(part) is not nn.Conv2d:
        raise ValueError(
            f"{type(part).__name__} does not treat paths one by one: the three forms are of plain"
            " convolutions with batch norm, or with none"
        )
    return part


def _range(i: int, width: int) -> slice:
    return slice(i * width, (i + 1) * width)


def _convolution(
    conv: nn.Conv2d, rows: slice, columns: slice, bias: torch.Tensor | None
) -> nn.Conv2d:
    """Return a convolution with a part of another's weight, (rows, columns, k, k), without groups."""
    weight = conv.weight.detach()[rows, columns].clone()
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], conv.kernel_size[0] // 2
    part = nn.Conv2d(weight.shape[1], weight.shape[0], kernel, stride, padding, bias=False)
    part.weight = nn.Parameter(weight)
    part.bias = None if bias is None else nn.Parameter(bias.detach()[rows].clone())
    return part


def _norm(norm: nn.BatchNorm2d, channels: slice) -> nn.BatchNorm2d:
    """Return a batch norm of some of another's channels."""
    state = norm.state_dict()
    part = copy.deepcopy(norm)
    part.num_features = channels.stop - channels.start
    for name, value in state.items():
        if value.dim() == 1:
            chosen = value[channels].clone()
            setattr(part, name, nn.Parameter(chosen) if name in ("weight", "bias") else chosen)
    return part
