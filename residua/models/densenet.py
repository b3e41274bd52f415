"""DenseNet: every layer reads the maps of all layers before it and adds k maps of its own.

    y = [x, f(x)]            f = norm relu conv1x1 (4 k) norm relu conv3x3 (k)    bottleneck layers ("B")
                             f = norm relu conv3x3 (k)                            basic layers

Huang, Liu, van der Maaten, Weinberger 2017, equation 2 and table 1: a concatenation is a skip connection
whose shortcut is the identity. Between stages norm relu conv1x1 halves the channels ("C", compression)
and average pooling the size; basic networks keep the channels.

    224 pixels   conv7x7/2 norm relu maxpool3x3/2 (2 k channels), four stages, norm relu, average, fc
    32 pixels    conv3x3 (2 k channels; basic networks 16), three equal stages, norm relu, average, fc

densenet264d and densenetblur121d are timm's: the deep stem of `models.stem`, k, k and 2 k channels wide, in
the latter with its pooling blurred (see `residua.nn.antialias`).

A transition is the start of the stage that it leads to, so a stage's map is that of its dense block:
`stage_channels` of densenet121 are 256, 512, 1024, 1024. Transitions floor odd sizes, as the paper's do.
In training, dropout follows each convolution but the first (the paper: 0.2 where pictures are few).

`memory_efficient` keeps each layer's own maps only and computes concatenation, first norm, ReLU and first
convolution again in the backward pass: memory linear in depth, not quadratic, with the same gradients
(Pleiss et al. 2017, Memory-Efficient Implementation of DenseNets). Hooks on the layers' `Skip` do not
see such a training step.

Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1: a side of one pixel is no longer halved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from residua.models.network import Head, Network
from residua.models.registry import register
from residua.models.stem import make_stem
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.merges.concatenate import Concatenate
from residua.nn.norms import Norm, make_norm
from residua.nn.orders import ORDERS, Preactivation
from residua.nn.pooling import Halve
from residua.nn.recompute import recompute, recomputing
from residua.nn.skip import Skip

PAPER = "Huang, Liu, van der Maaten, Weinberger 2017, Densely Connected Convolutional Networks"

BOTTLENECK = 4  # section 3: a bottleneck layer's 1x1 convolution makes 4 k maps
BASIC_STEM = 16  # section 4.2: channels before the first block of a basic network


class _First(nn.Module):
    """The first activation and convolution of a layer on the concatenation of maps."""

    def __init__(self, branch: nn.Sequential, maps: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.pre, self.conv = branch[0], branch[1]
        self.maps = tuple(maps)
        self.training = branch.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Concatenate the maps and x, activate, convolve."""
        y: torch.Tensor = self.conv(self.pre(torch.cat((*self.maps, x), 1)))
        return y


class DenseStage(nn.Sequential):
    """A transition (where there is one) and a dense block: (N, C, H, W) -> (N, C', H', W')."""

    def __init__(
        self, transition: nn.Module | None, layers: Sequence[Skip], memory_efficient: bool
    ) -> None:
        super().__init__()
        if transition is not None:
            self.transition = transition
        for i, layer in enumerate(layers):
            self.add_module(str(i), layer)
        self.memory_efficient = memory_efficient

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the block with the maps of all its layers, concatenated."""
        if self.memory_efficient and self.training and recomputing():
            return self._recomputed(x)
        for module in self:
            x = module(x)
        return x

    def _recomputed(self, x: torch.Tensor) -> torch.Tensor:
        maps: list[torch.Tensor] = []
        for module in self:
            if isinstance(module, Skip):
                branch = module.branch
                assert isinstance(branch, nn.Sequential)
                first = recompute(_First(branch, maps), x)
                maps.append(x)
                x = branch[2:](first)  # this layer's own maps
            else:
                x = module(x)
        return torch.cat((*maps, x), 1)


def _layer(channels: int, growth: int, bottleneck: bool, norm: Norm, dropout: float) -> Skip:
    """Return one dense layer: (N, C, H, W) -> (N, C + growth, H, W)."""
    inner = BOTTLENECK * growth
    shapes = [(channels, inner, 1), (inner, growth, 3)] if bottleneck else [(channels, growth, 3)]
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (cin, cout, kernel) in enumerate(shapes, start=1):
        parts[f"pre{i}"] = Preactivation(cin, norm)
        parts[f"conv{i}"] = norm.conv(cin, cout, kernel)
        if dropout:
            parts[f"drop{i}"] = nn.Dropout(dropout)
    return Skip(nn.Sequential(parts), nn.Identity(), Concatenate())


def _transition(cin: int, cout: int, norm: Norm, dropout: float) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["pre"] = Preactivation(cin, norm)
    parts["conv"] = norm.conv(cin, cout, 1)
    if dropout:
        parts["drop"] = nn.Dropout(dropout)
    parts["pool"] = Halve("mean")
    return nn.Sequential(parts)


def _stem(
    kind: str, in_channels: int, channels: int, norm: Norm, antialias: str | None
) -> nn.Sequential:
    if kind == "3x3":  # alone: the first layer activates before it convolves
        if antialias is not None:
            raise ValueError("a stem for 32 pixels has no pooling: antialias does not go with it")
        return nn.Sequential(OrderedDict(conv=norm.conv(in_channels, channels, 3)))
    return make_stem(kind, in_channels, channels, norm, ORDERS["original"], antialias)


def densenet(
    *,
    depths: Sequence[int],
    growth: int,
    bottleneck: bool,
    small: bool,
    num_classes: int,
    in_channels: int,
    stem: str = "7x7",
    antialias: str | None = None,
    norm: str = "batch",
    dropout: float = 0.0,
    init: str = "he",
    fan: Fan = "fan_out",
    memory_efficient: bool = False,
    features_only: bool = False,
) -> Network:
    """Build a DenseNet.

    Args:
        depths: layers of each dense block. growth: maps that each adds, the paper's k.
        bottleneck: DenseNet-BC (bottleneck layers, transitions that halve the channels) or basic.
        small: the 32-pixel stem (no downsampling) rather than one for 224 pixels (by 4): then stem is its
            kind and antialias how it pools, see `make_stem`.
        norm: one of `residua.nn.NORMS`, everywhere. dropout: probability after each convolution.
        init, fan: see `residua.nn.initialise`. memory_efficient: recompute in the backward pass.
        features_only: no head; return one map a stage.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout {dropout} is not in [0, 1)")
    norms = make_norm(norm)
    channels = 2 * growth if bottleneck else BASIC_STEM
    first = _stem("3x3" if small else stem, in_channels, channels, norms, antialias)
    stages, widths = [], []
    for i, depth in enumerate(depths):
        transition = None
        if i:
            before, channels = channels, channels // 2 if bottleneck else channels
            transition = _transition(before, channels, norms, dropout)
        layers = []
        for _ in range(depth):
            layers.append(_layer(channels, growth, bottleneck, norms, dropout))
            channels += growth
        stages.append(DenseStage(transition, layers, memory_efficient))
        widths.append(channels)
    head = None if features_only else Head(channels, num_classes)
    network = Network(first, stages, Preactivation(channels, norms), head, widths)
    initialise(network, init, fan)
    return network


# name: (layers of each block, growth, parameters, multiply-adds). Table 1's blocks of densenet264 make 265
# layers with weights, the other names are exact.
IMAGENET = {
    "densenet121": ((6, 12, 24, 16), 32, 7_978_856, 2_834_161_664),
    "densenet161": ((6, 12, 36, 24), 48, 28_681_000, 7_727_907_072),
    "densenet169": ((6, 12, 32, 32), 32, 14_149_480, 3_359_843_328),
    "densenet201": ((6, 12, 48, 32), 32, 20_013_928, 4_291_365_888),
    "densenet264": ((6, 12, 64, 48), 32, 33_337_704, 5_751_653_376),
    "densenet264d": ((6, 12, 64, 48), 48, 72_736_216, 13_470_266_880),
    "densenetblur121d": ((6, 12, 24, 16), 32, 7_998_088, 3_073_802_240),
}
# what else makes one of these
VARIANTS: dict[str, dict[str, Any]] = {
    "densenet264d": {"stem": "deep"},
    "densenetblur121d": {"stem": "deep", "antialias": "blur"},
}

# name: (depth, growth, parameters, multiply-adds); depth 3 n + 4 with n basic layers a block, 6 n + 4 with
# bottlenecks. The shallow and wide ones are from the authors' repository, which recommends them for speed.
CIFAR = {
    "densenet40_12_cifar": (40, 12, 1_019_722, 264_812_928),
    "densenet100_12_cifar": (100, 12, 6_979_642, 1_769_516_448),
    "densenet100_24_cifar": (100, 24, 27_249_082, 6_889_347_744),
    "densenet_bc100_12_cifar": (100, 12, 769_162, 287_929_692),
    "densenet_bc190_40_cifar": (190, 40, 25_624_430, 9_301_945_740),
    "densenet_bc250_24_cifar": (250, 24, 15_324_406, 5_418_785_724),
    "densenet_bc40_36_cifar": (40, 36, 1_542_682, 647_298_936),
    "densenet_bc40_48_cifar": (40, 48, 2_733_130, 1_149_867_168),
    "densenet_bc40_60_cifar": (40, 60, 4_261_690, 1_795_836_360),
}


def _register(
    name: str, depths: Sequence[int], growth: int, small: bool, counts: tuple[int, int]
) -> None:
    register(
        name,
        densenet,
        family="densenet",
        paper=PAPER,
        parameters=counts[0],
        multiply_adds=counts[1],
        input_size=32 if small else 224,
        num_classes=10 if small else 1000,
        preset={
            "depths": depths,
            "growth": growth,
            "bottleneck": not small or "_bc" in name,
            "small": small,
            "stem": "7x7",
        }
        | VARIANTS.get(name, {}),
    )


for name, (depths, growth, *counts) in IMAGENET.items():
    _register(name, depths, growth, False, (counts[0], counts[1]))
for name, (depth, growth, *counts) in CIFAR.items():
    layers = (depth - 4) // (6 if "_bc" in name else 3)
    _register(name, (layers,) * 3, growth, True, (counts[0], counts[1]))
