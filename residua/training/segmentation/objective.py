"""The loss of a batch of patches with masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from residua.data.network_input import to_network
from residua.data.patches import PatchBatch
from residua.training.objective import Network, Objective
from residua.training.segmentation.losses import supervised_loss


@dataclass(frozen=True)
class Segmentation(Objective):
    """mean and std are of the channels (C,), class_weights (K,) or none; all on the device."""

    name: str
    mean: torch.Tensor
    std: torch.Tensor
    class_weights: torch.Tensor | None = None

    def inputs(self, batch: PatchBatch) -> torch.Tensor:
        """Return normalised patches (B, C, *S)."""
        return to_network(batch.pictures, self.mean, self.std)

    def loss(self, network: Network, batch: PatchBatch, counter: int) -> torch.Tensor:
        """Return the loss over all outputs of the network; nothing is drawn."""
        return supervised_loss(
            self.name,
            network(self.inputs(batch)),
            batch.labels,
            class_weights=self.class_weights,
            pixel_weights=batch.weights,
        )
