"""ResNet-9: a short, wide residual network for small pictures and small budgets of time.

    conv(w) -> [conv(2w) pool, skip] -> [conv(4w) pool] -> [conv(8w) pool, skip] -> max -> fc / 8

where conv is conv3x3-norm-relu, pool is 2x2 max pooling, and skip is x + conv(conv(x)). Page 2018, How to
Train Your ResNet (the DAWNBench entry, part 4); scores are divided by 8 as there.

Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from residua.models.network import Network
from residua.models.registry import register
from residua.nn.init import initialise, zero_last
from residua.nn.merges import Add
from residua.nn.norms import Norm, make_norm
from residua.nn.regularisers import StochasticDepth, linear_decay
from residua.nn.skip import Skip

SCORE_SCALE = 0.125  # Page 2018: keeps early scores, and so gradients, small


class MaxHead(nn.Module):
    """Global max pooling, one linear layer without bias, scaled: (N, C, H, W) -> (N, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take the maximum over all positions, then classify."""
        y: torch.Tensor = self.fc(x.amax((2, 3))) * SCORE_SCALE
        return y


def _conv(cin: int, cout: int, norm: Norm, pool: bool = False) -> nn.Sequential:
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv"] = norm.conv(cin, cout, 3)
    if pool:
        # Before norm and ReLU: the same result for gamma > 0, on a quarter of the positions.
        parts["pool"] = nn.MaxPool2d(2, ceil_mode=True)
    if norm.layer is not None:
        parts["norm"] = norm.layer(cout)
    parts["act"] = norm.act()
    return nn.Sequential(parts)


def resnet9(
    *,
    num_classes: int,
    in_channels: int,
    width: int = 64,
    norm: str = "batch",
    stochastic_depth: float = 0.0,
    zero_init_last: bool = False,
    init: str = "he",
    features_only: bool = False,
) -> Network:
    """Build a ResNet-9 of `width` channels after the stem, up to eight times as many at the end."""
    if not 0.0 <= stochastic_depth < 1.0:
        raise ValueError(f"stochastic_depth {stochastic_depth} is not in [0, 1)")
    if width < 1:
        raise ValueError(f"width {width} is not at least 1")
    how = make_norm(norm)

    def skip(channels: int, index: int) -> Skip:
        branch = nn.Sequential(_conv(channels, channels, how), _conv(channels, channels, how))
        survival = linear_decay(stochastic_depth, index, 2)
        if survival < 1.0:
            branch.append(StochasticDepth(survival))
        return Skip(branch, nn.Identity(), Add())

    widths = [width * 2, width * 4, width * 8]
    stages = [
        nn.Sequential(_conv(width, widths[0], how, pool=True), skip(widths[0], 1)),
        nn.Sequential(_conv(widths[0], widths[1], how, pool=True)),
        nn.Sequential(_conv(widths[1], widths[2], how, pool=True), skip(widths[2], 2)),
    ]
    head = None if features_only else MaxHead(widths[-1], num_classes)
    network = Network(_conv(in_channels, width, how), stages, None, head, widths)
    initialise(network, init)
    if zero_init_last:
        zero_last(network)
    return network


register(
    "resnet9_cifar",
    resnet9,
    family="resnet9",
    paper="Page 2018, How to Train Your ResNet",
    parameters=6_573_120,
    multiply_adds=379_261_952,
    input_size=32,
    num_classes=10,
    preset={},
)
