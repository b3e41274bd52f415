"""Stacked hourglasses: down to the coarsest map and up again, once or several times, a heatmap a joint.

    hourglass_n(x) = r(x) + up(r(hourglass_(n-1)(r(pool(x)))))      hourglass_0 = r, a residual module
    f_i = relu(norm(conv1x1(hourglass_4(x_i))))                     features of stack i
    y_i = conv1x1(f_i)                                              its heatmaps
    x_(i+1) = x_i + conv1x1(f_i) + conv1x1(y_i)                     what the next stack reads

Newell, Yang, Deng 2016, Stacked Hourglass Networks for Human Pose Estimation, section 3 and figures 3 and 4;
sizes of the stem and of the last layers as in the authors' code, `hg.lua`. An hourglass is a `Skip`: branch
pool, residual, inner, residual, up; shortcut a residual module; merge addition. A residual module is in
pre-activation order, 256 -> 128 -> 128 -> 256; where channels change, a 1x1 convolution of x is its shortcut.

No layer is dead. The last stack has no convolutions that would map its results for a next one, and no
convolution but those of the heatmaps has a bias, as long as there are norms: each way from a bias to the loss
leads through a norm, and batch norm takes it away again. `biases` adds those that the authors' code has.

Shapes: (N, C, H, W) -> heatmaps (N, joints, h, w), h = max(1, ceil(H / 2) // 2), any H, W >= 1: 256 -> 64. A
side of one pixel is no longer halved; up is each pixel twice, and of an odd size the last one once more. In
training the list of all stacks' heatmaps, the last one last; in evaluation the last. Norms differ as they do.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar

import torch
from torch import nn

from residua.models.registry import register
from residua.nn.convolutions import EXPANSION, bottleneck_convolutions
from residua.nn.init import initialise
from residua.nn.init.layers import Convolution
from residua.nn.init.scheme import Fan
from residua.nn.merges import Add
from residua.nn.names import unknown
from residua.nn.norms import Norm, make_norm
from residua.nn.orders import ORDERS
from residua.nn.pooling import Halve
from residua.nn.recompute import recompute
from residua.nn.shortcuts import Projection
from residua.nn.skip import Skip
from residua.nn.updown import DownAndUp

PAPER = "Newell, Yang, Deng 2016, Stacked Hourglass Networks for Human Pose Estimation"

LEVELS = 4  # of the recursion: 64 pixels -> 4
JOINTS = 16  # of MPII, the data set of the paper
# Heatmaps are zero almost everywhere, and start near it, as in the code of Xiao, Wu, Wei 2018.
START = 0.001
# The stem's first convolution has width / 4 channels, its residual modules half as many inside as outside.
MULTIPLE = 2 * EXPANSION

Parts = OrderedDict[str, nn.Module]


class _Modules:
    """What makes the residual modules of one network: its order, its norm, biases or none."""

    def __init__(self, order: str, norm: Norm, biases: bool | None, number: int) -> None:
        self.order, self.norm, self.biases, self.number = ORDERS[order], norm, biases, number

    def one(self, cin: int, cout: int) -> Skip:
        """Return a residual module (N, cin, H, W) -> (N, cout, H, W)."""
        width, inner = cout // EXPANSION, cout // 2
        convolutions = bottleneck_convolutions(self.norm, cin, width, 1, self.biases, inner=inner)
        branch = nn.Sequential(self.order.branch(convolutions, self.norm, False))
        shortcut: nn.Module = nn.Identity()
        if cin != cout and self.order.fork is not None:  # v2: the trunk has no norms
            shortcut = self.norm.conv(cin, cout, 1, bias=self.biases)
        elif cin != cout:
            shortcut = Projection(cin, cout, 1, self.norm)
        return Skip(branch, shortcut, Add(self.order.after(cout, self.norm)))

    def some(self, channels: int) -> nn.Sequential:
        """Return as many as there are at each place of an hourglass."""
        return nn.Sequential(*(self.one(channels, channels) for _ in range(self.number)))

    def hourglass(self, levels: int, channels: int) -> Skip:
        """Return an hourglass (N, C, H, W) -> (N, C, H, W) that halves `levels` times."""
        down: Parts = OrderedDict(pool=Halve("max"), blocks=self.some(channels))
        inner = self.hourglass(levels - 1, channels) if levels > 1 else self.some(channels)
        up: Parts = OrderedDict(blocks=self.some(channels), grow=nn.Upsample(scale_factor=2))
        branch = DownAndUp(nn.Sequential(down), inner, nn.Sequential(up))
        return Skip(branch, self.some(channels), Add())


class Stack(nn.Module):
    """One hourglass and what reads it: (N, C, h, w) -> features (N, C, h, w), heatmaps (N, joints, h, w)."""

    def __init__(
        self, hourglass: nn.Module, features: nn.Module, heatmaps: Convolution, recompute: bool
    ) -> None:
        """Take the parts; recompute: keep no activations up to the features for the backward pass."""
        super().__init__()
        self.hourglass = hourglass
        self.features = features
        self.heatmaps = heatmaps
        self.recompute = recompute

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features and heatmaps."""
        if self.recompute:
            way = nn.Sequential(self.hourglass, self.features)
            way.training = self.training  # of the run alone: a frozen norm in it stays frozen
            features = recompute(way, x)
        else:
            features = self.features(self.hourglass(x))
        return features, self.heatmaps(features)


class Link(nn.Module):
    """What the next stack reads: x + conv1x1(features) + conv1x1(heatmaps)."""

    def __init__(self, features: nn.Module, heatmaps: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.heatmaps = heatmaps

    def forward(
        self, x: torch.Tensor, features: torch.Tensor, heatmaps: torch.Tensor
    ) -> torch.Tensor:
        """Add the results of a stack to its input x (N, C, h, w)."""
        y: torch.Tensor = x + self.features(features) + self.heatmaps(heatmaps)
        return y


class StackedHourglass(nn.Module):
    """stem -> stacks, with a link between each two of them."""

    last_layers: ClassVar[tuple[str, ...]] = ("stacks.*.heatmaps.*", "links.*.heatmaps.*")

    def __init__(self, stem: nn.Module, stacks: list[Stack], links: list[Link]) -> None:
        super().__init__()
        self.stem = stem
        self.stacks = nn.ModuleList(stacks)
        self.links = nn.ModuleList(links)

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return the last heatmaps (N, joints, h, w), or in training the list of all stacks'."""
        x = self.stem(x)
        found: list[torch.Tensor] = []
        for i, stack in enumerate(self.stacks):
            features, heatmaps = stack(x)
            found.append(heatmaps)
            if i < len(self.links):
                x = self.links[i](x, features, heatmaps)
        return found if self.training else found[-1]


def _stem(in_channels: int, width: int, make: _Modules) -> nn.Sequential:
    """conv7x7/2 norm relu, a residual module, 2x2 max pooling, two residual modules."""
    norm = make.norm
    parts: Parts = OrderedDict()
    parts["conv"] = norm.conv(in_channels, width // 4, 7, 2, bias=make.biases)
    if norm.layer is not None:
        parts["norm"] = norm.layer(width // 4)
    parts["act"] = norm.act()
    parts["block1"] = make.one(width // 4, width // 2)
    parts["pool"] = Halve("max")
    parts["block2"] = make.one(width // 2, width // 2)
    parts["block3"] = make.one(width // 2, width)
    return nn.Sequential(parts)


def _features(width: int, make: _Modules) -> nn.Sequential:
    """Return as many 1x1 convolutions, each with norm and ReLU, as there are modules at a place."""
    norm = make.norm
    parts: Parts = OrderedDict()
    for i in range(1, make.number + 1):
        parts[f"conv{i}"] = norm.conv(width, width, 1, bias=make.biases)
        if norm.layer is not None:
            parts[f"norm{i}"] = norm.layer(width)
        parts[f"act{i}"] = norm.act()
    return nn.Sequential(parts)


def hourglass(
    *,
    stacks: int,
    num_classes: int,
    in_channels: int,
    width: int = 256,
    modules: int = 1,
    levels: int = LEVELS,
    order: str = "preactivation",
    norm: str = "batch",
    biases: bool = False,
    init: str = "he",
    fan: Fan = "fan_out",
    recompute: bool = False,
) -> StackedHourglass:
    """Build a stacked hourglass.

    Args:
        stacks: how many hourglasses. num_classes: joints, a heatmap each.
        width: channels of all maps from the hourglasses on, a multiple of 8; the stem has a quarter and
            a half of them. modules: residual modules at each place (the paper's last networks: 1).
        levels: how often an hourglass halves its map.
        order: of norm, activation and addition in a residual module, one of `residua.nn.ORDERS` that has
            norms. norm: one of `residua.nn.NORMS`, everywhere alike.
        biases: on all convolutions, as the authors' code has them, those before a norm included.
        init, fan: see `residua.nn.initialise`; the heatmaps' convolutions start from N(0, 0.001^2).
        recompute: compute each stack's features again in the backward pass rather than keep what led there.

    Raises ValueError for a width, a number or an order that is not as said here.
    """
    if width < 1 or width % MULTIPLE:
        raise ValueError(f"width {width} is not a multiple of {MULTIPLE}")
    for what, number in (("stacks", stacks), ("modules", modules), ("levels", levels)):
        if number < 1:
            raise ValueError(f"{what} {number} is not at least 1")
    orders = [name for name, known in ORDERS.items() if known.norms]
    if order not in orders:
        raise ValueError(unknown("order", order, orders))
    how = make_norm(norm)
    make = _Modules(order, how, biases or None, modules)
    found = [
        Stack(
            make.hourglass(levels, width),
            _features(width, make),
            how.conv(width, num_classes, 1, bias=True),
            recompute,
        )
        for _ in range(stacks)
    ]
    links = [
        Link(
            how.conv(width, width, 1, bias=make.biases),
            how.conv(num_classes, width, 1, bias=make.biases),
        )
        for _ in range(stacks - 1)
    ]
    network = StackedHourglass(_stem(in_channels, width, make), found, links)
    initialise(network, init, fan)
    for stack in found:
        nn.init.normal_(stack.heatmaps.weight, std=START)
    return network


# stacks: (parameters, multiply-adds) at 16 joints and 256 pixels
STACKS = {
    1: (3_203_536, 4_277_927_936),
    2: (6_125_536, 6_589_775_872),
    4: (11_969_536, 11_213_471_744),
    8: (23_657_536, 20_460_863_488),
}

for _stacks, _counts in STACKS.items():
    register(
        f"hourglass{_stacks}",
        hourglass,
        family="hourglass",
        paper=PAPER,
        parameters=_counts[0],
        multiply_adds=_counts[1],
        input_size=256,
        num_classes=JOINTS,
        preset={"stacks": _stacks},
        task="pose",
    )
