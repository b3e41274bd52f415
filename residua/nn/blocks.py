"""Residual blocks, as branches of a `Skip`: basic and bottleneck, in any order, with any merge.

    y = merge(s(x), branch(x))

    basic        3x3, 3x3 convolutions                        He et al. 2015, fig. 5 left
    bottleneck   1x1, 3x3, 1x1; four times as wide outside    fig. 5 right
                 over int(width * base_width / 64) * groups inner channels: groups and base_width make it
                 ResNeXt's (Xie et al. 2017, fig. 3c) or the wide one (Zagoruyko, Komodakis 2016)
    depthwise    the same, as wide inside as outside, every channel of the 3x3 by itself
    edge         3x3, 1x1                                     timm's resnet61q has both (Wightman 2021)

The bottleneck's stride sits on the 3x3 by default ("ResNet v1.5", as torchvision and timm have it) or on
the first 1x1, as in He's paper: the same parameter count, another network.

In one or three dimensions, as the norm has them, 3x3 is 3 or 3x3x3.
Shapes: (N, C, *S) -> (N, C', *ceil(S / stride)), S = (H, W).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from torch import nn

from residua.nn.antialias import make_antialias
from residua.nn.attention import make_attention
from residua.nn.convolutions import EXPANSION, basic_convolutions, bottleneck_convolutions
from residua.nn.merges import KeepBranch, Place, make_merge
from residua.nn.names import unknown
from residua.nn.norms import Convolution, Norm, make_norm
from residua.nn.orders import ORDERS
from residua.nn.regularisers import make_drop
from residua.nn.shortcuts import NoShortcut, make_shortcut, with_dropout
from residua.nn.skip import Skip

STRIDE_ON = ("3x3", "1x1")
ATTENTION_AT = ("end", "inside")
BASE_WIDTH = 64


@dataclass(frozen=True)
class Drop:
    """What is dropped in training: see `residua.nn.regularisers.make_drop`."""

    rate: float = 0.0
    kind: str = "stochastic_depth"
    decay: str = "linear"
    per: str = "sample"


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a network share.

    norm: for norms and convolutions. order: one of `ORDERS`. merge: one of `MERGES`.
    shortcut: one of `SHORTCUTS`, or None for a plain network. shortcut_dropout: its probability.
    stride_on: where a bottleneck strides, "3x3" or "1x1". groups, base_width: of its 3x3 convolution;
    group_size: channels a group there, in the place of groups. spatial: how many 3x3 convolutions it has.
    attention: None or "se". attention_at: "end" of the branch, or "inside", before its last convolution.
    antialias: None, or how a branch that would stride pools in its stead, before its last convolution: see
    `residua.nn.antialias`. dropout: before the branch's last 3x3 convolution. drop: whole branches.
    """

    norm: Norm = field(default_factory=lambda: make_norm("batch"))
    order: str = "original"
    shortcut: str | None = "B"
    merge: str = "add"
    stride_on: str = "3x3"
    groups: int = 1
    base_width: int = BASE_WIDTH
    group_size: int | None = None
    spatial: int = 1
    attention: str | None = None
    attention_at: str = "end"
    antialias: str | None = None
    dropout: float = 0.0
    shortcut_dropout: float = 0.0
    drop: Drop = Drop()

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(unknown("order", self.order, ORDERS))
        if self.stride_on not in STRIDE_ON:
            raise ValueError(f"stride_on {self.stride_on!r} is unknown: expected 3x3 or 1x1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")
        if self.attention_at not in ATTENTION_AT:
            raise ValueError(unknown("attention_at", self.attention_at, ATTENTION_AT))
        for name in ("groups", "base_width", "group_size", "spatial"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name} {number} is not at least 1")
        if self.group_size is not None and self.groups != 1:
            raise ValueError("groups and group_size say the same thing: give one of them")
        if not ORDERS[self.order].norms and self.norm.layer is not None:
            raise ValueError(
                f"order {self.order!r} is there to train without norm layers: norm {self.norm.name!r}"
                " does not go with it; expected none, weight or standardised"
            )
        self._check_antialias()
        self._check_plain()

    def _check_antialias(self) -> None:
        if self.antialias is None:
            return
        make_antialias(self.antialias)  # an unknown name shows here
        if self.stride_on != "3x3" or self.norm.dims != 2:
            raise ValueError(
                "antialias pools what the 3x3 convolution made, in two dimensions: it goes with"
                f" stride_on 3x3 and maps of 2-D, not {self.stride_on} and {self.norm.dims}-D"
            )

    def _check_plain(self) -> None:
        if self.shortcut is not None:
            return
        given = {
            "merge": self.merge != "add",
            "shortcut_dropout": self.shortcut_dropout > 0,
            "stochastic_depth": self.drop.rate > 0,
        }
        for option, has in given.items():
            if has:
                raise ValueError(f"a plain network has no shortcut: {option} does not go with it")


class _Block(nn.Sequential, ABC):
    """Common to both blocks: the branch from its convolutions, the shortcut, the merge.

    A block holds one `skip`; one that changes shape may hold `fork` before it, what branch and shortcut
    share: in v2 the activation.
    """

    expansion: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        options: BlockOptions,
        block: int = 1,
        blocks: int = 1,
    ) -> None:
        """Take the shape, and which of the network's blocks this is, counted from 1."""
        super().__init__()
        norm, order = options.norm, ORDERS[options.order]
        out_channels = width * self.expansion
        shortcut: nn.Module = NoShortcut()
        if options.shortcut is not None:
            normalise = order.norms and order.fork is None
            shortcut = make_shortcut(
                options.shortcut, in_channels, out_channels, stride, norm, normalise
            )
        changes = not isinstance(shortcut, nn.Identity | NoShortcut)
        if order.fork is not None and changes:
            self.fork = order.fork(in_channels, norm)
        pooled = options.antialias is not None and stride > 1
        convolutions = self.convolutions(in_channels, width, 1 if pooled else stride, options)
        branch = order.branch(convolutions, norm, hasattr(self, "fork"))
        if options.antialias is not None and pooled:
            branch = _with(branch, "pool", make_antialias(options.antialias), kernel=1)
        if options.dropout > 0:
            branch = _with(branch, "dropout", nn.Dropout(options.dropout), kernel=3)
        if options.attention is not None and options.attention_at == "inside":
            inside = convolutions[-1].in_channels
            attention = make_attention(options.attention, inside, norm.dims)
            branch = _with(branch, "attention", attention, kernel=1)
        elif options.attention is not None:
            branch["attention"] = make_attention(options.attention, out_channels, norm.dims)
        drop = options.drop
        padded = in_channels if options.shortcut == "A" else None
        dropped = make_drop(drop.kind, drop.rate, block, blocks, drop.decay, drop.per, padded)
        if dropped is not None:
            branch["drop"] = dropped
        activation = order.after(out_channels, norm)
        if options.shortcut is None:
            merge: nn.Module = KeepBranch(activation)
        else:
            merge = make_merge(
                options.merge, Place(out_channels, block, blocks, norm.dims), activation
            )
            shortcut = with_dropout(shortcut, options.shortcut_dropout)
        self.skip = Skip(nn.Sequential(branch), shortcut, merge)

    @staticmethod
    @abstractmethod
    def convolutions(
        in_channels: int, width: int, stride: int, options: BlockOptions
    ) -> list[Convolution]:
        """Return the branch's convolutions in order."""


def _with(
    branch: OrderedDict[str, nn.Module], name: str, part: nn.Module, kernel: int
) -> OrderedDict[str, nn.Module]:
    """Return the branch with a part before its last convolution of that kernel or a larger one."""
    convolutions = [key for key, layer in branch.items() if isinstance(layer, Convolution)]
    last = [key for key in convolutions if max(_kernel(branch[key])) >= kernel][-1]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for key, layer in branch.items():
        if key == last:
            parts[name] = part
        parts[key] = layer
    return parts


def _kernel(layer: nn.Module) -> tuple[int, ...]:
    assert isinstance(layer, Convolution)
    return layer.kernel_size


def _bias(options: BlockOptions) -> bool:
    return options.norm.layer is None and ORDERS[options.order].biases


class BasicBlock(_Block):
    """Two 3x3 convolutions (He et al. 2015, fig. 5 left)."""

    expansion = 1

    @staticmethod
    def convolutions(
        in_channels: int, width: int, stride: int, options: BlockOptions
    ) -> list[Convolution]:
        """Return the two; ValueError if they should have groups, a base width or more of them."""
        given = (options.groups, options.base_width, options.group_size, options.spatial)
        if given != (1, BASE_WIDTH, None, 1):
            raise ValueError(
                "groups, group_size, base_width and spatial are of bottleneck blocks, not of basic ones"
            )
        return basic_convolutions(options.norm, in_channels, width, stride, _bias(options))


class BottleneckBlock(_Block):
    """1x1, 3x3, 1x1 convolutions; four times as wide outside (He et al. 2015, fig. 5 right)."""

    expansion = EXPANSION

    @staticmethod
    def convolutions(
        in_channels: int, width: int, stride: int, options: BlockOptions
    ) -> list[Convolution]:
        """Return them; ValueError if groups of that size do not divide the inner channels."""
        inner = int(width * options.base_width / BASE_WIDTH) * options.groups
        return _bottleneck(in_channels, width, stride, options, inner, options.group_size)


class DepthwiseBlock(_Block):
    """1x1, 3x3, 1x1 convolutions, as wide inside as outside, the 3x3 in groups of one channel."""

    expansion = EXPANSION

    @staticmethod
    def convolutions(
        in_channels: int, width: int, stride: int, options: BlockOptions
    ) -> list[Convolution]:
        """Return them; groups, base_width and group_size are those of bottlenecks."""
        return _bottleneck(in_channels, width, stride, options, EXPANSION * width, 1)


class EdgeBlock(_Block):
    """A 3x3 and a 1x1 convolution, four times as wide as a stage's width: in front of bottlenecks."""

    expansion = EXPANSION

    @staticmethod
    def convolutions(
        in_channels: int, width: int, stride: int, options: BlockOptions
    ) -> list[Convolution]:
        """Return the two; groups, base_width, group_size and spatial are those of bottlenecks."""
        norm, bias, wide = options.norm, _bias(options), EXPANSION * width
        return [
            norm.conv(in_channels, wide, 3, stride, bias=bias),
            norm.conv(wide, wide, 1, bias=bias),
        ]


def _bottleneck(
    in_channels: int,
    width: int,
    stride: int,
    options: BlockOptions,
    inner: int,
    group_size: int | None,
) -> list[Convolution]:
    if group_size is not None and inner % group_size:
        raise ValueError(f"groups of {group_size} channels do not divide {inner}")
    return bottleneck_convolutions(
        options.norm,
        in_channels,
        width,
        stride,
        _bias(options),
        inner=inner,
        groups=options.groups if group_size is None else inner // group_size,
        stride_on=options.stride_on,
        spatial=options.spatial,
    )
