"""Shake-Shake networks for 32-pixel pictures: two branches a block, mixed at random in training.

    y = s(x) + alpha f1(x) + (1 - alpha) f2(x)      f(x) = norm(conv3x3(relu(norm(conv3x3(relu(x))))))

conv3x3 of 16 channels, norm; three stages of four blocks at w, 2w, 4w channels, the second and third
halving the size; relu, average, fc: 26 layers, "26 2xwd". Gastaldi 2017, Shake-Shake regularization,
and the author's code. Where shapes change, the shortcut is two paths that read the rectified input: every
r-th pixel through one 1x1 convolution, and those one pixel up and left of them through another, side by
side, then a norm. The first block of all has it too, with stride 1.

Training draws alpha, and beta for the backward pass; evaluation has 1/2 for both: see
`residua.nn.regularisers.ShakeShake`. Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import nn

from residua.models.network import Head, Network
from residua.models.registry import register
from residua.nn.init import initialise, zero_last
from residua.nn.init.scheme import Fan
from residua.nn.merges import Add
from residua.nn.norms import Norm, make_norm
from residua.nn.regularisers import ShakeShake
from residua.nn.skip import Skip

STEM = 16
BLOCKS = 4  # a stage


class TwoPaths(nn.Module):
    """The shortcut where shapes change: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        halves = (out_channels // 2, out_channels - out_channels // 2)
        self.conv1, self.conv2 = (norm.conv(in_channels, half, 1) for half in halves)
        if norm.layer is not None:
            self.norm = norm.layer(out_channels)
        self.normalises = norm.layer is not None
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the two paths side by side, normalised."""
        x, r = F.relu(x), self.stride
        shifted = F.pad(x, (1, -1, 1, -1))  # one pixel right and down, zeros come in
        y = torch.cat([self.conv1(x[:, :, ::r, ::r]), self.conv2(shifted[:, :, ::r, ::r])], 1)
        z: torch.Tensor = self.norm(y) if self.normalises else y
        return z


def _path(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Sequential:
    """relu conv3x3 norm relu conv3x3 norm; the first ReLU leaves its input to the shortcut."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(act1=nn.ReLU())
    for i, (cin, r) in enumerate(((in_channels, stride), (out_channels, 1)), start=1):
        parts[f"conv{i}"] = norm.conv(cin, out_channels, 3, r)
        if norm.layer is not None:
            parts[f"norm{i}"] = norm.layer(out_channels)
        if i == 1:
            parts["act2"] = nn.ReLU(inplace=True)
    return nn.Sequential(parts)


def shake_shake(
    *,
    width: int,
    num_classes: int,
    in_channels: int,
    forward: str = "shake",
    backward: str = "shake",
    level: str = "image",
    norm: str = "batch",
    zero_init_last: bool = False,
    init: str = "he",
    fan: Fan = "fan_out",
    features_only: bool = False,
) -> Network:
    """Build Shake-Shake 26 2x`width`d.

    Args:
        forward: "shake" or "even". backward: "shake", "even" or "keep". level: "image" or "batch"; the
            rows of the paper's table 1. Its best is the default, "S-S-I".
        norm: one of `residua.nn.NORMS`, in stem, branches and shortcuts alike.
        zero_init_last: start every block as its shortcut. init, fan: see `residua.nn.initialise`.
        features_only: no head; return one map a stage.
    """
    how = make_norm(norm)
    stem: OrderedDict[str, nn.Module] = OrderedDict(conv=how.conv(in_channels, STEM, 3))
    if how.layer is not None:
        stem["norm"] = how.layer(STEM)

    def block(cin: int, cout: int, stride: int) -> Skip:
        first, second = (_path(cin, cout, stride, how) for _ in range(2))
        shortcut = nn.Identity() if cin == cout else TwoPaths(cin, cout, stride, how)
        return Skip(ShakeShake(first, second, forward, backward, level), shortcut, Add())

    widths = [width, 2 * width, 4 * width]
    stages = []
    for i, (before, w) in enumerate(zip([STEM, *widths], widths, strict=False)):
        first = block(before, w, 1 if i == 0 else 2)
        stages.append(nn.Sequential(first, *(block(w, w, 1) for _ in range(BLOCKS - 1))))
    head = None if features_only else Head(widths[-1], num_classes)
    network = Network(nn.Sequential(stem), stages, nn.ReLU(inplace=True), head, widths)
    initialise(network, init, fan)
    if zero_init_last:
        zero_last(network)
    return network


# width: (parameters, multiply-adds) at 10 classes and 32 pixels
COUNTS = {
    32: (2_923_162, 426_689_792),
    64: (11_653_978, 1_685_506_560),
    96: (26_192_922, 3_776_892_672),
}

for _width, (_parameters, _multiply_adds) in COUNTS.items():
    register(
        f"shake_shake26_2x{_width}d_cifar",
        shake_shake,
        family="shake_shake",
        paper="Gastaldi 2017, Shake-Shake regularization",
        parameters=_parameters,
        multiply_adds=_multiply_adds,
        input_size=32,
        num_classes=10,
        preset={"width": _width},
    )
