"""The loss of a batch of labelled pictures, mixed with one another where the recipe asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from residua.data.augmentation import mix
from residua.data.batches import Batch, to_input
from residua.training.classification.measures import classification_loss
from residua.training.objective import Network, Objective
from residua.training.recipe import Recipe


@dataclass(frozen=True)
class Classification(Objective):
    """mean and std are of the channels (C,), on the device."""

    recipe: Recipe
    mean: torch.Tensor
    std: torch.Tensor
    classes: int
    seed: int = 0

    def inputs(self, batch: Batch) -> torch.Tensor:
        """Return normalised pictures (B, C, H, W)."""
        return to_input(batch.pictures, self.mean, self.std)

    def loss(self, network: Network, batch: Batch, counter: int) -> torch.Tensor:
        """Return the recipe's loss; pictures are mixed as (seed, counter) decide."""
        x, targets = self._mixed(self.inputs(batch), batch.labels, counter)
        return classification_loss(
            self.recipe.loss,
            network(x),
            targets,
            self.recipe.label_smoothing,
            self.recipe.target_threshold,
        )

    def _mixed(
        self, x: torch.Tensor, labels: torch.Tensor, counter: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        section = self.recipe.augmentation
        if not (section.mixup or section.cutmix):
            return x, labels
        return mix(
            x,
            labels,
            self.classes,
            mixup=section.mixup,
            cutmix=section.cutmix,
            smoothing=self.recipe.label_smoothing,
            seed=self.seed,
            step=counter,
        )
