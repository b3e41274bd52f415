"""The folder of a run, and the model files in it.

config.yaml              what was asked for: source, seed, recipe, command
split.json               which picture is in which split, by name
setup.json               what was decided: plan, model, picture size, normalisation, classes
checkpoint.safetensors   where training is; `--resume` goes on from it
best.safetensors         the weights that did best on the validation split so far
model.safetensors        the finished model
metrics.csv, events.*    the curves; report.html the page for people
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from residua.errors import BadInput
from residua.training.cards import Card, card_of
from residua.training.checkpoint import is_aside, read_tensors, write_tensors, write_text

MODEL_FORMAT = "residua-model-1"


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, by name."""

    path: Path

    @property
    def config(self) -> Path:
        """What was asked for."""
        return self.path / "config.yaml"

    @property
    def split(self) -> Path:
        """Which picture is in which split."""
        return self.path / "split.json"

    @property
    def setup(self) -> Path:
        """What was decided."""
        return self.path / "setup.json"

    @property
    def checkpoint(self) -> Path:
        """Where training is."""
        return self.path / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        """The best weights so far."""
        return self.path / "best.safetensors"

    @property
    def model(self) -> Path:
        """The finished model."""
        return self.path / "model.safetensors"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def holds_others(self) -> bool:
        """Return whether something else than a run is at this path."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(not is_aside(file) for file in self.path.iterdir())

    def clear(self) -> None:
        """Remove the files of a run that was here, and nothing else."""
        if not self.path.is_dir():
            return
        ours = [self.checkpoint, self.best, self.model, self.split, self.setup, self.report]
        ours += [self.path / "metrics.csv", *self.path.glob("events.out.tfevents.*")]
        for file in [*ours, self.config]:  # last, for a folder without it is no run
            file.unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove what writers that were killed left behind."""
        for file in self.path.glob(".*"):
            if is_aside(file):
                file.unlink(missing_ok=True)

    def write_config(self, values: dict[str, Any]) -> None:
        """Write config.yaml."""
        write_text(self.config, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_json(path: Path) -> Any:
    """Return the JSON in a file of ours; BadInput if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({' '.join(str(error).split())})") from None


def write_model(path: Path, model: nn.Module, card: Card, facts: dict[str, Any]) -> None:
    """Write weights and card as one safetensors file; `facts` (accuracy, versions) go with them."""
    metadata = {
        "format": MODEL_FORMAT,
        "card": json.dumps(card.as_dict()),
        "facts": json.dumps(facts),
    }
    write_tensors(path, model.state_dict(), metadata)


def read_model(path: Path) -> tuple[nn.Module, Card, dict[str, Any]]:
    """Return the trained network (evaluation mode, CPU), its card and its facts."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != MODEL_FORMAT:
        raise BadInput(f"{path}: not a model that residua trained ({MODEL_FORMAT})")
    try:
        card = card_of(json.loads(metadata["card"]))
        facts: dict[str, Any] = json.loads(metadata["facts"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: a damaged model file ({error})") from None
    model = card.build()
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    found = {name: tuple(t.shape) for name, t in tensors.items()}
    if wanted != found:
        strange = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise BadInput(f"{path}: the weights are not those of {card.name} ({strange} differs)")
    model.load_state_dict(tensors)
    return model.eval(), card, facts
