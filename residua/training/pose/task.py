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
from residua.training.plan import Plan
from residua.training.pose import materials
from residua.training.pose.batches import PoseBatches
from residua.training.pose.evaluation import find_all, measures
from residua.training.pose.finish import finish
from residua.training.pose.materials import Material
from residua.training.pose.objective import Pose
from residua.training.pose.run import PoseRun
from residua.training.request import Request
from residua.training.state import State, Watcher
from residua.training.task import Task


class PoseTask(Task[Material, PoseCard]):
    """The joints of one person a crop; weights are best by PCK at 0.2 of the torso."""

    name = "pose"
    score = "pck"

    def recognises(self, source: str | Path) -> bool:
        """Return whether keypoints are annotated there, or are drawn so."""
        return str(source) in POSED or keypoints.recognises(source)

    def gather(
        self, request: Request, split_record: dict[str, Any] | None, watcher: Watcher
    ) -> Material:
        """Open and check people and joints."""
        return materials.gather(request, split_record, watcher)

    def decide(
        self, material: Material, request: Request, device: torch.device, watcher: Watcher
    ) -> PoseCard:
        """Choose the network and its crops."""
        return materials.decide(material, request, device, watcher)

    def prepare(self, material: Material, card: PoseCard, watcher: Watcher) -> None:
        """Make the pictures ready to be read."""
        material.open_stores()

    def training_batches(
        self,
        material: Material,
        card: PoseCard,
        request: Request,
        device: torch.device,
        rank: int,
        world: int,
    ) -> PoseBatches:
        """Return the training crops of one rank."""
        return materials.training_batches(material, card, request, device, rank, world)

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

    def finish(
        self,
        folder: RunFolder,
        config: dict[str, Any],
        material: Material,
        state: State,
        plan: Plan,
        run: PoseRun,
        watcher: Watcher,
    ) -> dict[str, Any]:
        """Keep the best weights as the model, measure them, write the report."""
        return finish(folder, config, material, state, plan, run, watcher)
