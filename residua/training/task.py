"""A task: everything that a training does differently for classes, masks or joints.

    gather (data) -> decide (size, model) -> objective, batches -> evaluator -> finish (model, report)

`Session` and `Loop` are the same for all; `residua.training.tasks` finds the task from the data.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.training.cards import Card
from residua.training.folder import RunFolder
from residua.training.objective import Objective
from residua.training.plan import Plan
from residua.training.recipe import Recipe
from residua.training.request import Request
from residua.training.run import Run
from residua.training.state import State, Watcher


class Material(Protocol):
    """Data that was opened and checked, and the recipe with what depends on it settled."""

    recipe: Recipe

    @property
    def split_record(self) -> dict[str, Any]:
        """Which item is in which split, by name."""

    @property
    def names(self) -> list[str]:
        """Names of the training items, by index."""

    @property
    def looks(self) -> dict[str, int]:
        """How many inputs of the training size an evaluation of each split takes, about."""


M = TypeVar("M", bound=Material)
C = TypeVar("C", bound=Card)


class Task(ABC, Generic[M, C]):
    """One task; `score` names the measure by which weights are best, in 0 .. 1, larger is better."""

    name: ClassVar[str]
    score: ClassVar[str]
    repeats: ClassVar[bool] = (
        False  # whether a batch may show an item more than once, as patches of it
    )

    def recognises(self, source: str | Path) -> bool:
        """Return whether a source of data is for this task, by a glance; none is, unless overridden."""
        return False

    @abstractmethod
    def gather(self, request: Request, split_record: dict[str, Any] | None, watcher: Watcher) -> M:
        """Open and check the data; BadInput for an error in it."""

    @abstractmethod
    def decide(self, material: M, request: Request, device: torch.device, watcher: Watcher) -> C:
        """Choose size and model, and measure what the network is to be fed."""

    @abstractmethod
    def prepare(self, material: M, card: C, watcher: Watcher) -> None:
        """Make data ready for a card that was decided before; `decide` has done it for its own."""

    @abstractmethod
    def training_batches(
        self, material: M, card: C, request: Request, device: torch.device, rank: int, world: int
    ) -> Any:
        """Return the training batches of one rank, as `residua.data.batches.Batches` are."""

    @abstractmethod
    def objective(self, material: M, card: C, seed: int, device: torch.device) -> Objective:
        """Return the loss."""

    @abstractmethod
    def evaluator(
        self, material: M, card: C, fabric: Fabric
    ) -> Callable[[nn.Module], dict[str, Any]]:
        """Return what measures a network on the validation split: "loss", `score` and more."""

    @abstractmethod
    def run(self, folder: RunFolder, device: str) -> Run[C]:
        """Return the run in a folder, to evaluate it and predict with it."""

    @abstractmethod
    def finish(
        self,
        folder: RunFolder,
        config: dict[str, Any],
        material: M,
        state: State,
        plan: Plan,
        run: Any,
        watcher: Watcher,
    ) -> dict[str, Any]:
        """Keep the best weights as the model, measure them, write the report; return the measures."""
