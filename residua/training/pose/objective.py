"""The loss of a batch of people with joints."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from residua.data.batches import to_input
from residua.training.objective import Network, Objective
from residua.training.pose.batches import PoseBatch
from residua.training.pose.targets import SIGMA, pose_loss


@dataclass(frozen=True)
class Pose(Objective):
    """mean and std are of the channels (C,), on the device; sigma in pixels of the heatmap."""

    mean: torch.Tensor
    std: torch.Tensor
    sigma: float = SIGMA

    def inputs(self, batch: PoseBatch) -> torch.Tensor:
        """Return normalised crops (B, C, H, W)."""
        return to_input(batch.pictures, self.mean, self.std)

    def loss(self, network: Network, batch: PoseBatch, counter: int) -> torch.Tensor:
        """Return the loss summed over the network's stacks; nothing is drawn."""
        return pose_loss(network(self.inputs(batch)), batch.labels, sigma=self.sigma)
