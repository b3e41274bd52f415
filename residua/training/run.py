"""A run that is there: its network, what it was trained on, what it reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data.decode import EXTENSIONS
from residua.data.volumes import stem
from residua.errors import BadInput, ResiduaError
from residua.training.cards import Card
from residua.training.devices import choose_device, make_fabric
from residua.training.folder import RunFolder, read_model

C = TypeVar("C", bound=Card)


@dataclass
class Run(ABC, Generic[C]):
    """A trained network in its folder; each task has its own kind."""

    kind: ClassVar[type[Card]]  # of card

    folder: RunFolder
    device: str = "auto"
    measures: dict[str, Any] = field(default_factory=dict)  # of the end of training

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def report(self) -> Path:
        """The report, an HTML file."""
        return self.folder.report

    @cached_property
    def _read(self) -> tuple[nn.Module, C, dict[str, Any]]:
        for path in (self.folder.model, self.folder.best):
            if path.exists():
                return self.opened(path)
        if self.folder.path.suffix == ".safetensors" and self.folder.path.is_file():
            return self.opened(self.folder.path)
        raise BadInput(f"{self.folder.path}: no trained model there ({self.folder.model.name})")

    def opened(self, path: Path) -> tuple[nn.Module, C, dict[str, Any]]:
        """Return the network (evaluation mode, CPU), card and facts of a model file of this task."""
        model, card, facts = read_model(path)
        if not isinstance(card, self.kind):
            raise BadInput(f"{path}: is a model for {card.task}, not for {self.kind.task}")
        return model, card, facts  # type: ignore[return-value]

    @property
    def model(self) -> nn.Module:
        """The network, in evaluation mode."""
        return self._read[0]

    @property
    def card(self) -> C:
        """How the network is built and fed."""
        return self._read[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the scores."""
        return self.card.classes

    @cached_property
    def fabric(self) -> Fabric:
        """The device that the run is used on."""
        return make_fabric(choose_device(self.device), "32-true")

    @abstractmethod
    def sentence(self, measures: dict[str, Any]) -> str:
        """Say what the measures of a split come to."""

    @abstractmethod
    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        split: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Measure the network on a split of its own data, or on other data."""

    @abstractmethod
    def sample(
        self, n: int, data: str | Path | None = None, *, split: str | None = None, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return up to n inputs as the network sees them in evaluation, and their targets."""

    @abstractmethod
    def predict(self, *what: Any, **options: Any) -> list[dict[str, Any]]:
        """Return a row for each picture; what is in it depends on the task."""


def places_for(paths: Sequence[Path], folder: Path, name: Callable[[Path], str]) -> list[Path]:
    """Return where in a folder what is made of each file goes; the folder is made if it is not there.

    Where two files would have one name the later ones are numbered: a.png, a-2.png. Raises BadInput where
    one of the files themselves would be replaced, ResiduaError where the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResiduaError(f"{folder}: cannot be written ({error.strerror})") from None
    given = {path.resolve() for path in paths}
    places: dict[Path, None] = {}
    for path in paths:
        whole, number = name(path), 1
        place = folder / whole
        while place in places:
            number += 1
            place = folder / f"{stem(whole)}-{number}{whole.removeprefix(stem(whole))}"
        if place.resolve() in given:
            raise BadInput(
                f"{place}: is one of the pictures, and would be replaced: name another folder by --out"
            )
        places[place] = None
    return list(places)


def files_of(path: Path, endings: Collection[str] = EXTENSIONS) -> list[Path]:
    """Return a file as it is, a folder as the pictures under it in order of name."""
    if path.is_dir():
        found = [p for p in sorted(path.rglob("*")) if p.name.lower().endswith(tuple(endings))]
        if not found:
            raise BadInput(f"{path}: no pictures in this folder")
        return found
    if not path.exists():
        raise BadInput(f"{path}: there is no such file")
    return [path]
