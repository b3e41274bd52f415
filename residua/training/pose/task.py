"""Pose as a task of training: where the joints of people are, from keypoints beside pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data import keypoints
from residua.data.drawn.named import POSED
from residua.training.cards import PoseCard
from residua.training.folder import RunFolder
from residua.training.pose import materials
from residua.training.pose.evaluation import find_all, measures
from residua.training.pose.finish import finish
from residua.training.pose.materials import Material
from residua.training.pose.objective import Pose
from residua.training.pose.run import PoseRun
from residua.training.state import Watcher
from residua.training.task import Task


class PoseTask(Task[Material, PoseCard]):
    """The joints of one person a crop; weights are best by PCK at 0.2 of the torso."""

    name = "pose"
    score = "pck"

    gather = staticmethod(materials.gather)
    decide = staticmethod(materials.decide)
    training_batches = staticmethod(materials.training_batches)
    finish = staticmethod(finish)

    def recognises(self, source: str | Path) -> bool:
        """Return whether keypoints are annotated there, or are drawn so."""
        return str(source) in POSED or keypoints.recognises(source)

    def prepare(self, material: Material, card: PoseCard, watcher: Watcher) -> None:
        """Make the pictures ready to be read."""
        material.open_stores()

    def objective(
        self, material: Material, card: PoseCard, seed: int, device: torch.device
    ) -> Pose:
        """Return the loss of heatmaps."""
        mean, std = (t.to(device) for t in card.normalisation.tensors())
        return Pose(mean, std, material.recipe.pose.sigma)

    def evaluator(
        self, material: Material, card: PoseCard, fabric: Fabric
    ) -> Callable[[nn.Module], dict[str, Any]]:
        """Return what measures PCK and loss on the validation people, mirrored where training did."""
        part, store = material.keypoints.splits["val"], material.stores["val"]

        def evaluate(result: nn.Module) -> dict[str, Any]:
            return measures(find_all(fabric, result, card, store, flip=card.flip), part, card)

        return evaluate

    def run(self, folder: RunFolder, device: str) -> PoseRun:
        """Return the run in a folder."""
        return PoseRun(folder, device)
