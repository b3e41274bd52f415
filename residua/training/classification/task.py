"""Classification as a task of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.training.cards import ModelCard
from residua.training.classification import inputs, materials
from residua.training.classification.evaluation import predict_all
from residua.training.classification.finish import finish
from residua.training.classification.materials import Material
from residua.training.classification.measures import summary
from residua.training.classification.objective import Classification
from residua.training.classification.run import ClassificationRun
from residua.training.folder import RunFolder
from residua.training.state import Watcher
from residua.training.task import Task


class ClassificationTask(Task[Material, ModelCard]):
    """One class for a whole picture, from class folders, tables and named sets."""

    name = "classification"
    score = "accuracy"

    gather = staticmethod(materials.gather)
    decide = staticmethod(materials.decide)
    training_batches = staticmethod(materials.training_batches)
    finish = staticmethod(finish)

    def prepare(self, material: Material, card: ModelCard, watcher: Watcher) -> None:
        """Decode the pictures."""
        material.decode(card.shape, watcher)

    def objective(
        self, material: Material, card: ModelCard, seed: int, device: torch.device
    ) -> Classification:
        """Return the recipe's loss over pictures that the card normalises."""
        mean, std = (t.to(device) for t in card.normalisation.tensors())
        return Classification(material.recipe, mean, std, len(card.classes), seed)

    def evaluator(
        self, material: Material, card: ModelCard, fabric: Fabric
    ) -> Callable[[nn.Module], dict[str, Any]]:
        """Return what measures accuracy and loss on the validation pictures."""
        recipe = material.recipe
        mean, std = (t.to(fabric.device) for t in card.normalisation.tensors())
        validation = inputs.evaluation_batches(
            material.stores["val"],
            material.pictures.splits["val"].labels,
            card.shape,
            recipe.evaluation.batch_size or recipe.batch,
            fabric.device,
            fabric.global_rank,
            fabric.world_size,
        )

        def evaluate(result: nn.Module) -> dict[str, Any]:
            found = predict_all(fabric, result, validation, mean, std, flip=card.flip)
            return summary(found, len(card.classes))

        return evaluate

    def run(self, folder: RunFolder, device: str) -> ClassificationRun:
        """Return the run in a folder."""
        return ClassificationRun(folder, device)
