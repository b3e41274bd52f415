"""NF-ResNets: residual networks without norms, whose variances are known instead of measured.

    h_(l+1) = s(h_l) + alpha a f(h_l / beta_l)          beta_l^2 = Var(h_l), predicted
    f(z) = conv1x1(act(conv3x3(act(conv1x1(act(z))))))  act(z) = sqrt(2 / (1 - 1/pi)) relu(z)

Every convolution has scaled standardised weights, which with that gain on the ReLU keep variance 1; so a
block adds alpha^2 to the variance of the trunk. A transition, which changes shape, projects act(h / beta),
so the variance there starts again from 1:

    Var(h) = 1 + alpha^2 after the first block of a stage, alpha^2 more after each other block

a is SkipInit's scalar, 0 at first (`skip_init`): blocks then start as their shortcuts, and the law holds for
a = 1. Brock, De, Smith 2021, Characterizing signal propagation to close the performance gap in unnormalized
ResNets, sections 3 and 4; alpha = 0.2, biases on all convolutions but the stem's, and the head's standard
deviation 0.01 as in the authors' code. The 26-layer depth is timm's; for 32-pixel pictures the same rules on
basic blocks (ours).

Training and evaluation are the same but for stochastic depth. Shapes: (N, C, H, W) -> (N, classes), any
H, W >= 1.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from residua.models.depths import CIFAR_WIDTHS, IMAGENET_BLOCKS, IMAGENET_WIDTHS
from residua.models.network import Head, Network
from residua.models.registry import register
from residua.nn.convolutions import basic_convolutions, bottleneck_convolutions
from residua.nn.init import initialise
from residua.nn.init.moments import Moments, Walk, merge_rule, rule
from residua.nn.init.moments.activations import relu
from residua.nn.init.moments.merges import total
from residua.nn.init.scheme import Fan
from residua.nn.merges import Merge
from residua.nn.norms import Convolution, Norm, make_norm
from residua.nn.regularisers import make_drop
from residua.nn.skip import Skip

PAPER = (
    "Brock, De, Smith 2021, Characterizing Signal Propagation to Close the Performance Gap in"
    " Unnormalized ResNets"
)

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))  # 1 / the standard deviation of relu(N(0, 1))
HEAD_STD = 0.01


class ScaledReLU(nn.Module):
    """y = scale * relu(x): any shape -> the same."""

    def __init__(self, scale: float = RELU_GAIN) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rectify and scale; x is left as it is."""
        return torch.relu(x) * self.scale

    def extra_repr(self) -> str:
        """Describe the scale."""
        return f"{self.scale:.4g}"


class NormFreeAdd(Merge):
    """y = shortcut + alpha * gain * branch, with a scalar parameter `gain`."""

    def __init__(self, alpha: float, start: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.gain = nn.Parameter(torch.full((), float(start)))

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Add the branch, scaled; shapes must be equal."""
        return shortcut + self.alpha * self.gain * branch

    def extra_repr(self) -> str:
        """Describe alpha."""
        return f"alpha={self.alpha:.4g}"


@rule(ScaledReLU)
def scaled_relu(module: ScaledReLU, x: Moments, walk: Walk) -> Moments:
    """As the ReLU, scaled."""
    return relu(module, x, walk).scaled(module.scale, module.scale**2)


@merge_rule(NormFreeAdd)
def norm_free_add(merge: NormFreeAdd, s: Moments, f: Moments) -> Moments:
    """The sum, with the gain as it is now."""
    scale = merge.alpha * merge.gain.item()
    return total(s, f.scaled(scale, scale**2))


def expected_std(alpha: float, depths: Sequence[int]) -> list[float]:
    """Return beta of each block: the standard deviation of the trunk before it, if gains were 1.

    >>> [round(beta**2, 2) for beta in expected_std(0.2, (3, 2))]
    [1.0, 1.04, 1.08, 1.12, 1.04]
    """
    betas, variance = [], 1.0
    for depth in depths:
        for j in range(depth):
            betas.append(math.sqrt(variance))
            variance = (1.0 if j == 0 else variance) + alpha**2
    return betas


def nf_resnet(
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    bottleneck: bool,
    small: bool,
    num_classes: int,
    in_channels: int,
    alpha: float = 0.2,
    skip_init: float = 0.0,
    norm: str = "scaled_standardised",
    stochastic_depth: float = 0.0,
    drop: str = "stochastic_depth",
    drop_decay: str = "linear",
    drop_per: str = "sample",
    init: str = "he",
    fan: Fan = "fan_in",
    features_only: bool = False,
) -> Network:
    """Build a norm-free residual network.

    Args:
        depths: blocks a stage. widths: of each stage, before expansion. bottleneck: or basic blocks.
        small: the 32-pixel stem, without downsampling.
        alpha: growth of the standard deviation by a block. skip_init: SkipInit's scalar at first; at 0 no
            gradient reaches the branches in the first step.
        norm: of the convolutions: scaled_standardised, or weight or none, which keep another variance.
        stochastic_depth, drop, drop_decay, drop_per: see `residua.models.residual.residual_network`.
        init, fan: see `residua.nn.initialise`; standardised weights do not see their variance.
        features_only: no head; return one map a stage.
    """
    how = make_norm(norm)
    if how.layer is not None:
        raise ValueError(
            f"norm {norm!r} has a layer: expected scaled_standardised, weight or none in a network without"
        )
    if alpha <= 0:
        raise ValueError(f"alpha {alpha} is not above 0")
    betas, blocks = expected_std(alpha, depths), sum(depths)
    channels, done = widths[0], 0
    stages, out_channels = [], []
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        stage = []
        for j in range(depth):
            stride = 2 if i > 0 and j == 0 else 1
            make = bottleneck_convolutions if bottleneck else basic_convolutions
            convolutions = make(how, channels, width, stride)
            out = convolutions[-1].out_channels
            done += 1
            dropped = make_drop(drop, stochastic_depth, done, blocks, drop_decay, drop_per)
            projection = None  # where the first block keeps its shape, the variance is 1 anyway
            if stride > 1 or channels != out:
                projection = nn.Sequential(OrderedDict(conv=how.conv(channels, out, 1, stride)))
            merge = NormFreeAdd(alpha, skip_init)
            stage.append(_block(convolutions, projection, merge, betas[done - 1], dropped))
            channels = out
        stages.append(nn.Sequential(*stage))
        out_channels.append(channels)
    network = Network(
        _stem(in_channels, widths[0], small, how),
        stages,
        ScaledReLU(),
        None if features_only else Head(channels, num_classes),
        out_channels,
    )
    initialise(network, init, fan)
    if isinstance(network.head, Head):
        nn.init.normal_(network.head.fc.weight, 0.0, HEAD_STD)
    return network


def _block(
    convolutions: list[Convolution],
    projection: nn.Module | None,
    merge: Merge,
    beta: float,
    dropped: nn.Module | None,
) -> nn.Module:
    """Return a block; a transition activates before it forks, as in v2 networks."""
    first = ScaledReLU(RELU_GAIN / beta)  # relu(h) / beta = relu(h / beta)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for i, conv in enumerate(convolutions, start=1):
        if i > 1:
            parts[f"act{i}"] = ScaledReLU()
        elif projection is None:
            parts["act1"] = first
        parts[f"conv{i}"] = conv
    if dropped is not None:
        parts["drop"] = dropped
    branch = nn.Sequential(parts)
    if projection is None:
        return nn.Sequential(OrderedDict(skip=Skip(branch, nn.Identity(), merge)))
    return nn.Sequential(OrderedDict(fork=first, skip=Skip(branch, projection, merge)))


def _stem(in_channels: int, width: int, small: bool, norm: Norm) -> nn.Sequential:
    if small:
        return nn.Sequential(OrderedDict(conv=norm.conv(in_channels, width, 3, bias=False)))
    conv = norm.conv(in_channels, width, 7, 2, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, pool=nn.MaxPool2d(3, stride=2, padding=1)))


# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels; at 10 classes and 32 pixels
IMAGENET = {
    26: (15_995_120, 2_342_256_640),
    50: (25_556_984, 4_089_184_256),
    101: (44_549_129, 7_801_405_440),
    152: (60_192_794, 11_513_626_624),
}
CIFAR = {
    20: (272_467, 40_813_184),
    56: (855_781, 125_747_840),
    110: (1_730_752, 253_149_824),
}

for _depth, (_parameters, _multiply_adds) in IMAGENET.items():
    register(
        f"nf_resnet{_depth}",
        nf_resnet,
        family="nf_resnet",
        paper=PAPER,
        parameters=_parameters,
        multiply_adds=_multiply_adds,
        input_size=224,
        num_classes=1000,
        preset={
            "depths": IMAGENET_BLOCKS[_depth],
            "widths": IMAGENET_WIDTHS,
            "bottleneck": True,
            "small": False,
        },
    )

for _depth, (_parameters, _multiply_adds) in CIFAR.items():
    register(
        f"nf_resnet{_depth}_cifar",
        nf_resnet,
        family="nf_resnet",
        paper=PAPER,
        parameters=_parameters,
        multiply_adds=_multiply_adds,
        input_size=32,
        num_classes=10,
        preset={
            "depths": ((_depth - 2) // 6,) * 3,
            "widths": CIFAR_WIDTHS,
            "bottleneck": False,
            "small": True,
        },
    )
