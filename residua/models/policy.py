"""A policy network: from a picture, how likely each block of a backbone is to be worth running.

    s = sigmoid(f(x; W)),   pi(u | x) = prod_k s_k^u_k (1 - s_k)^(1 - u_k)

Wu et al. 2018, BlockDrop, section 3.2, equations 1 and 2: a ResNet-8 for 32-pixel pictures, a ResNet-10 at
half the size for 224-pixel ones.

Shapes: (N, C, H, W) -> logits (N, K); the sigmoid is left to whoever asks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from residua.models.network import Head
from residua.models.residual import residual_network
from residua.models.skipping import SkippingNetwork
from residua.nn.blocks import BasicBlock

SMALL_WIDTHS = (16, 32, 64)
LARGE_WIDTHS = (64, 128, 256, 512)


class Policy(nn.Module):
    """A small residual network that looks at the picture, shrunk `shrink` times, once."""

    def __init__(self, network: nn.Module, shrink: int = 1, large: bool = False) -> None:
        super().__init__()
        self.network = network
        self.shrink = shrink
        self.large = large  # of the two kinds that `policy_network` makes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a logit a block; above zero the block is worth running."""
        if self.shrink > 1:
            x = F.avg_pool2d(x, self.shrink, ceil_mode=True)
        logits: torch.Tensor = self.network(x)
        return logits

    def extra_repr(self) -> str:
        """Describe the shrinking."""
        return f"shrink={self.shrink}"


def policy_network(
    blocks: int,
    in_channels: int = 3,
    *,
    large: bool = False,
    shrink: int | None = None,
    start: float = 0.5,
) -> Policy:
    """Return an untrained policy for a backbone of so many blocks.

    large: the stem and widths for 224-pixel pictures, else for 32-pixel ones. shrink: average-pool the
    picture first; None: 2 for large pictures, 1 for small ones, as published. start: about how likely
    a block is to be kept before anything is learnt.
    """
    widths = LARGE_WIDTHS if large else SMALL_WIDTHS
    network = residual_network(
        block=BasicBlock,
        depths=(1,) * len(widths),
        widths=widths,
        stem="7x7" if large else "3x3",
        num_classes=blocks,
        in_channels=in_channels,
        shortcut="B" if large else "A",
    )
    assert isinstance(network.head, Head)
    nn.init.constant_(network.head.fc.bias, math.log(start / (1.0 - start)))
    if shrink is None:
        shrink = 2 if large else 1
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Policy(network, shrink, large)


class BlockDrop(nn.Module):
    """A backbone that runs, for each picture, the blocks that its policy finds worth running."""

    def __init__(self, backbone: SkippingNetwork, policy: Policy) -> None:
        super().__init__()
        self.backbone = backbone
        self.policy = policy

    def keep(self, x: torch.Tensor) -> torch.Tensor:
        """Return which blocks each picture keeps: bool (N, K), those with s > 1/2."""
        chosen: torch.Tensor = self.policy(x) > 0
        return chosen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return class scores (N, classes)."""
        scores: torch.Tensor = self.backbone(x, self.keep(x))
        return scores
