"""Ensembles: residual networks of several depths as one model, whose answer is the mean of theirs.

    y = log( 1/M sum_m softmax(y_m(x)) )

He, Zhang, Ren, Sun 2015, section 4.1 combine six networks of different depths; here three of one family. The
scores are log-probabilities, so cross-entropy on them is minus the log of the members' mean probability of
the true class: training on it trains all members jointly. To train them apart, as the paper does, train each
by its own name and load its weights into `members[m]`.

Shapes: (N, C, H, W) -> (N, classes), or with `features_only` a map a stage: those of the members, in order,
concatenated by channel. Members see the same picture and differ in training and evaluation as they do alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from residua.models.depths import cifar_shortcut, cifar_stages, imagenet_stages
from residua.models.network import Network
from residua.models.registry import register
from residua.models.residual import HE2015, residual_network
from residua.nn.init.scheme import Fan


class Ensemble(nn.Module):
    """The log of the mean of the members' softmax; the members' maps concatenated."""

    def __init__(self, members: Iterable[Network]) -> None:
        """Take networks with as many stages each, all with a head or all without."""
        super().__init__()
        self.members = nn.ModuleList(members)
        channels = [member.stage_channels for member in self._networks()]
        self.stage_channels = tuple(sum(stage) for stage in zip(*channels, strict=True))

    def _networks(self) -> list[Network]:
        return [member for member in self.members if isinstance(member, Network)]

    def forward_stages(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the members' maps by name: stem, stages.0, stages.1, ..., each concatenated."""
        maps = [member.forward_stages(x) for member in self._networks()]
        return {name: torch.cat([found[name] for found in maps], 1) for name in maps[0]}

    def forward(self, x: torch.Tensor) -> Any:
        """Return log-probabilities (N, classes), or the list of maps with `features_only`."""
        answers = [member(x) for member in self.members]
        if isinstance(answers[0], list):
            return [torch.cat(maps, 1) for maps in zip(*answers, strict=True)]
        scores = torch.stack([answer.log_softmax(1) for answer in answers])
        return scores.logsumexp(0) - math.log(len(answers))


def ensemble(
    *,
    depths: Sequence[int],
    large: bool,
    num_classes: int,
    in_channels: int,
    norm: str = "batch",
    stochastic_depth: float = 0.0,
    zero_init_last: bool = False,
    init: str = "he",
    fan: Fan = "fan_out",
    recompute: bool | int = False,
    features_only: bool = False,
) -> Ensemble:
    """Build an ensemble of v1 networks of these depths, for 224 pixels if `large`, else for 32.

    The options are those of `residual_network`, for every member.
    """
    return Ensemble(
        residual_network(
            **(imagenet_stages(depth) if large else cifar_stages(depth)),
            shortcut="B" if large else cifar_shortcut(depth),
            num_classes=num_classes,
            in_channels=in_channels,
            norm=norm,
            stochastic_depth=stochastic_depth,
            zero_init_last=zero_init_last,
            init=init,
            fan=fan,
            recompute=recompute,
            features_only=features_only,
        )
        for depth in depths
    )


# name: (depths, parameters, multiply-adds)
ENSEMBLES = {
    "resnet_ensemble_18_34_50": ((18, 34, 50), 59_044_216, 9_567_019_008),
    "resnet_ensemble_20_32_44_cifar": ((20, 32, 44), 1_392_462, 206_587_776),
}

for _name, (_depths, _parameters, _multiply_adds) in ENSEMBLES.items():
    _large = not _name.endswith("_cifar")
    register(
        _name,
        ensemble,
        family="ensemble",
        paper=HE2015,
        parameters=_parameters,
        multiply_adds=_multiply_adds,
        input_size=224 if _large else 32,
        num_classes=1000 if _large else 10,
        preset={"depths": _depths, "large": _large},
    )
