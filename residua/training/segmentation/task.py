"""Segmentation as a task of training: a class for every pixel, from pictures beside masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data import pairs
from residua.data.drawn.named import SEGMENTED
from residua.training.cards import SegmentationCard
from residua.training.folder import RunFolder
from residua.training.segmentation import materials
from residua.training.segmentation.evaluation import evaluate_all
from residua.training.segmentation.finish import finish
from residua.training.segmentation.materials import Material
from residua.training.segmentation.objective import Segmentation
from residua.training.segmentation.run import SegmentationRun
from residua.training.state import Watcher
from residua.training.task import Task


class SegmentationTask(Task[Material, SegmentationCard]):
    """A class for every pixel; weights are best by the mean IoU over all classes."""

    name = "segmentation"
    score = "iou"
    repeats = True

    gather = staticmethod(materials.gather)
    decide = staticmethod(materials.decide)
    training_batches = staticmethod(materials.training_batches)
    finish = staticmethod(finish)

    def recognises(self, source: str | Path) -> bool:
        """Return whether pictures stand beside masks there, or are drawn so."""
        return str(source) in SEGMENTED or (
            Path(source).is_dir() and pairs.recognises(Path(source))
        )

    def prepare(self, material: Material, card: SegmentationCard, watcher: Watcher) -> None:
        """Make the pictures ready to be read."""
        material.patch = tuple(n - 2 * m for n, m in zip(card.patch, card.margin, strict=True))
        material.open_stores()

    def objective(
        self, material: Material, card: SegmentationCard, seed: int, device: torch.device
    ) -> Segmentation:
        """Return the recipe's loss."""
        mean, std = (t.to(device) for t in card.normalisation.tensors())
        weights = materials.balance(material, device)
        return Segmentation(material.recipe.loss, mean, std, weights)

    def evaluator(
        self, material: Material, card: SegmentationCard, fabric: Fabric
    ) -> Callable[[nn.Module], dict[str, Any]]:
        """Return what measures IoU and loss on the validation pictures, without mirroring."""

        def evaluate(result: nn.Module) -> dict[str, Any]:
            return evaluate_all(fabric, result, card, material.stores["val"], flips=()).measures()

        return evaluate

    def run(self, folder: RunFolder, device: str) -> SegmentationRun:
        """Return the run in a folder."""
        return SegmentationRun(folder, device)
