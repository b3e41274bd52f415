"""V-Net: a U-Net of residual stages, strided convolutions and PReLUs, for volumes.

    stage(x) = prelu(x + convs(x))       down = prelu(conv 2x2x2 / 2)       up = prelu(up-convolution 2x2x2)
    level(x) = stage([e, up(level'(down(e)))])      e = stage(x)

Milletari, Navab, Ahmadi 2016, V-Net: fully convolutional neural networks for volumetric medical image
segmentation, figure 2 and, for the number of convolutions of 5x5x5 a stage, table 1: 1, 2, 3, 3, 3 down and
3, 3, 2, 1 up, with PReLUs in between. No norm, as published. The first stage adds the input to each of its
channels: copies of it, as many as there is room for.

Shapes: (N, C, *S) -> (N, classes, *S), any S from one voxel on: a side is halved upward, an odd one with a
zero at the far side. Training: the norm's own difference, and with deep supervision a list of score maps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from residua.models.levels import Level, UNet
from residua.models.registry import register
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.merges import Add
from residua.nn.merges.decode import Decode
from residua.nn.norms import Norm, make_norm
from residua.nn.skip import Skip
from residua.nn.updown import DownAndUp, make_up

PAPER = "Milletari, Navab, Ahmadi 2016, V-Net"
KERNEL = 5


class Copies(nn.Module):
    """The input again and again, up to that many channels: (N, C, *S) -> (N, channels, *S)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat the channels; the last copy may be cut short."""
        times = -(-self.channels // x.shape[1])
        return torch.cat([x] * times, 1)[:, : self.channels]


class Upward(nn.Module):
    """Zeros at the far side of odd maps, so that halving rounds up: (N, C, *S) -> (N, C, *even)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pad each odd side by one."""
        missing = [part for side in reversed(x.shape[2:]) for part in (0, side % 2)]
        return functional.pad(x, missing) if any(missing) else x


def _convolved(conv: nn.Module, channels: int, norm: Norm, activate: bool) -> nn.Sequential:
    """Return the convolution, the norm if there is one, and a PReLU."""
    parts = OrderedDict[str, nn.Module](conv=conv)
    if norm.layer is not None:
        parts["norm"] = norm.layer(channels)
    if activate:
        parts["act"] = nn.PReLU(channels)
    return nn.Sequential(parts)


def _stage(count: int, channels: int, shortcut: nn.Module, norm: Norm, given: int) -> Skip:
    """Return prelu(shortcut(x) + convs(x)): (N, given, *S) -> (N, channels, *S)."""
    convolutions = []
    for i in range(count):
        conv = norm.conv(given if i == 0 else channels, channels, KERNEL)
        convolutions.append(_convolved(conv, channels, norm, activate=i < count - 1))
    return Skip(nn.Sequential(*convolutions), shortcut, Add(nn.PReLU(channels)))


def vnet(
    *,
    dims: int,
    num_classes: int,
    in_channels: int,
    width: int = 16,
    convolutions: Sequence[int] = (1, 2, 3, 3, 3),
    norm: str = "none",
    deep_supervision: bool = False,
    recompute: bool = False,
    init: str = "he",
    fan: Fan = "fan_in",
) -> UNet:
    """Build a V-Net.

    Args:
        dims: 1, 2 or 3 spatial dimensions. width: channels of the first stage; they double with each.
        convolutions: of each stage on the way down, the bottom one last; the same on the way up.
        norm: one of `residua.nn.NORMS`, after each convolution of a stage and each that halves.
        deep_supervision: in training every stage on the way up gives scores.
        recompute: keep no activations inside of stages. init, fan: see `residua.nn.initialise`.
    """
    if width < 1 or not convolutions or min(convolutions) < 1:
        raise ValueError(f"width {width} and convolutions {convolutions} must be at least 1")
    how = make_norm(norm, dims)

    def level(i: int) -> Level:
        channels, count = width * 2**i, convolutions[i]
        shortcut = Copies(channels) if i == 0 else nn.Identity()
        encode = _stage(count, channels, shortcut, how, in_channels if i == 0 else channels)
        if i == len(convolutions) - 1:
            return Level(encode, None, recompute)
        halve = how.conv(channels, 2 * channels, 2, 2, padding=0)
        deeper = (
            2 * channels * (1 if i == len(convolutions) - 2 else 2)
        )  # a stage up keeps what it joined
        branch = DownAndUp(
            nn.Sequential(Upward(), *_convolved(halve, 2 * channels, how, activate=True)),
            level(i + 1),
            nn.Sequential(make_up("transpose", deeper, channels, how), nn.PReLU(channels)),
        )
        joined = 2 * channels
        decode = nn.Sequential(_stage(count, joined, nn.Identity(), how, joined))
        return Level(
            encode, Skip(branch, nn.Identity(), Decode(decode, again=recompute)), recompute
        )

    def head(channels: int) -> nn.Sequential:
        return nn.Sequential(OrderedDict(conv=how.conv(channels, num_classes, 1, bias=True)))

    depth = len(convolutions)
    sides = [head(2 * width * 2**i) for i in range(depth - 2, 0, -1)] if deep_supervision else []
    last = head(width if depth == 1 else 2 * width)
    network = UNet(nn.Identity(), level(0), last, nn.ModuleList(sides), dims, 0, 1)
    initialise(network, init, fan)
    return network


register(
    "vnet",
    vnet,
    family="vnet",
    paper=PAPER,
    parameters=65_179_314,
    multiply_adds=126_584_094_720,
    input_size=64,
    num_classes=2,
    preset={"dims": 3},
    task="segmentation",
    dims=3,
)
