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
from residua.training.plan import Plan
from residua.training.request import Request
from residua.training.segmentation import materials
from residua.training.segmentation.batches import SizedPatches
from residua.training.segmentation.evaluation import evaluate_all
from residua.training.segmentation.finish import finish
from residua.training.segmentation.materials import Material
from residua.training.segmentation.objective import Segmentation
from residua.training.segmentation.run import SegmentationRun
from residua.training.state import State, Watcher
from residua.training.task import Task


class SegmentationTask(Task[Material, SegmentationCard]):
    """A class for every pixel; weights are best by the mean IoU over all classes."""

    name = "segmentation"
    score = "iou"
    repeats = True

    def recognises(self, source: str | Path) -> bool:
        """Return whether pictures stand beside masks there, or are drawn so."""
        return str(source) in SEGMENTED or (
            Path(source).is_dir() and pairs.recognises(Path(source))
        )

    def gather(
        self, request: Request, split_record: dict[str, Any] | None, watcher: Watcher
    ) -> Material:
        """Open and check pictures and masks."""
        return materials.gather(request, split_record, watcher)

    def decide(
        self, material: Material, request: Request, device: torch.device, watcher: Watcher
    ) -> SegmentationCard:
        """Choose the network and its patches."""
        return materials.decide(material, request, device, watcher)

    def prepare(self, material: Material, card: SegmentationCard, watcher: Watcher) -> None:
        """Make the pictures ready to be read."""
        material.patch = tuple(n - 2 * m for n, m in zip(card.patch, card.margin, strict=True))
        material.open_stores()

    def training_batches(
        self,
        material: Material,
        card: SegmentationCard,
        request: Request,
        device: torch.device,
        rank: int,
        world: int,
    ) -> SizedPatches:
        """Return the training patches of one rank."""
        return materials.training_batches(material, card, request, device, rank, world)

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

    def finish(
        self,
        folder: RunFolder,
        config: dict[str, Any],
        material: Material,
        state: State,
        plan: Plan,
        run: SegmentationRun,
        watcher: Watcher,
    ) -> dict[str, Any]:
        """Keep the best weights as the model, measure them, write the report."""
        return finish(folder, config, material, state, plan, run, watcher)
