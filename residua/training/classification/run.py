"""A classifier that was trained: evaluate it, predict with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data.batches import to_input
from residua.data.pictures import Pictures, Split, open_pictures
from residua.errors import BadInput
from residua.training.cards import ModelCard
from residua.training.classification import inputs
from residua.training.classification.evaluation import predict_all
from residua.training.classification.measures import (
    Predictions,
    calibration,
    scores_by_class,
    summary,
)
from residua.training.folder import read_json
from residua.training.recipe import read_yaml
from residua.training.run import Run, files_of

EVALUATION_BATCH = 256


@dataclass
class ClassificationRun(Run[ModelCard]):
    """A trained classifier in its folder."""

    kind = ModelCard

    def sentence(self, measures: dict[str, Any]) -> str:
        """Say what the measures of a split come to."""
        low, high = measures["interval"]
        return (
            f"{measures['accuracy']:.2%} right on {measures['n']:,} {measures['split']} pictures"
            f" (95 % interval {low:.2%} to {high:.2%})"
        )

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        split: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Measure the network; return accuracy, loss, per-class scores, calibration, confusion.

        data: another set (its classes are matched by name); None: the run's own set and split.
        split: "train", "val" or "test"; None: test where there is one, else val; all pictures of
        another set that has no splits of its own.
        """
        pictures, own = self._pictures(data)
        name, part = _part(pictures, split, own)
        shape, classes = self.card.shape, self.card.classes
        part.channels = shape.channels
        store = inputs.open_store(part, shape, (shape.stored, shape.stored), None)
        found = predict_with(
            self.fabric, self.model, self.card, store, part.labels, progress=progress
        )
        return (
            {"data": pictures.location, "split": name}
            | summary(found, len(classes))
            | {"calibration": calibration(found)}
            | scores_by_class(found, classes)
        )

    def sample(
        self, n: int, data: str | Path | None = None, *, split: str | None = None, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return up to n pictures, drawn by the seed, as the network sees them in evaluation.

        data, split: as in `evaluate`. Returns inputs (n, C, H, W) and labels (n,), on the run's device.
        """
        pictures, own = self._pictures(data)
        part = _part(pictures, split, own)[1]
        part = part.take(np.sort(np.random.default_rng(seed).permutation(len(part))[:n]))
        shape, device = self.card.shape, self.fabric.device
        part.channels = shape.channels
        store = inputs.DecodedEachTime(part, shape)
        batch = inputs.evaluation_batches(store, part.labels, shape, len(part), device).batch(0)
        mean, std = (t.to(device) for t in self.card.normalisation.tensors())
        return to_input(batch.pictures, mean, std), batch.labels.to(device)

    def _pictures(self, data: str | Path | None) -> tuple[Pictures, bool]:
        if data is not None:
            return open_pictures(data, classes=self.card.classes), False
        config = read_yaml(self.folder.config)
        where = config.get("data")
        return (
            open_pictures(
                config["source"],
                data=None if where is None else Path(where),
                split_record=read_json(self.folder.split),
                classes=self.card.classes,
            ),
            True,
        )

    def predict(
        self,
        what: str | Path | Sequence[str | Path],
        *,
        top: int = 5,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Name what pictures show: files and folders (searched for pictures, names in order).

        Returns a row a picture {path, class, confidence, top: [{class, confidence}]}, or
        {path, error} for one that cannot be read.
        """
        given = [what] if isinstance(what, str | Path) else list(what)
        paths = [path for item in given for path in files_of(Path(item))]
        rows: list[dict[str, Any]] = []
        self.model.to(self.fabric.device)
        for start in range(0, len(paths), EVALUATION_BATCH):
            rows += self._predict_batch(paths[start : start + EVALUATION_BATCH], top)
            if progress is not None:
                progress(len(rows), len(paths))
        return rows

    @torch.no_grad()
    def _predict_batch(self, paths: list[Path], top: int) -> list[dict[str, Any]]:
        files = inputs.picture_files(paths, self.card.shape)
        errors: dict[int, str] = {}
        good: list[np.ndarray[Any, np.dtype[np.uint8]]] = []
        for i in range(len(paths)):
            try:
                good.append(files[i])
            except BadInput as error:
                errors[i] = str(error)
        probabilities = iter(self._probabilities(good))
        rows: list[dict[str, Any]] = []
        for i, path in enumerate(paths):
            if i in errors:
                rows.append({"path": str(path), "error": errors[i]})
                continue
            p = next(probabilities)
            order = p.argsort(descending=True)[: max(1, top)].tolist()
            best = [{"class": self.classes[k], "confidence": float(p[k])} for k in order]
            rows.append({"path": str(path), **best[0], "top": best})
        return rows

    def _probabilities(self, pictures: list[Any]) -> torch.Tensor:
        if not pictures:
            return torch.empty(0, len(self.classes))
        shape, device = self.card.shape, self.fabric.device
        mean, std = (t.to(device) for t in self.card.normalisation.tensors())
        batches = inputs.evaluation_batches(
            inputs.Listed(pictures),
            np.zeros(len(pictures), np.int64),
            shape,
            len(pictures),
            device,
        )
        x = to_input(batches.batch(0).pictures, mean, std)
        p: torch.Tensor = self.model(x).float().softmax(1)
        if self.card.flip:
            p = (p + self.model(x.flip(3)).float().softmax(1)) / 2
        return p.cpu()


def predict_with(
    fabric: Fabric,
    model: nn.Module,
    card: ModelCard,
    store: Any,
    labels: Any,
    progress: Callable[[int, int], None] | None = None,
) -> Predictions:
    """Return a trained network's predictions for every picture of a store."""
    mean, std = (t.to(fabric.device) for t in card.normalisation.tensors())
    batches = inputs.evaluation_batches(
        store,
        labels,
        card.shape,
        EVALUATION_BATCH,
        fabric.device,
        fabric.global_rank,
        fabric.world_size,
    )
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        if progress is not None:
            progress(done, len(labels))

    return predict_all(
        fabric, model.to(fabric.device), batches, mean, std, flip=card.flip, progress=advance
    )


def _part(pictures: Pictures, split: str | None, own: bool) -> tuple[str, Split]:
    """Return the split to evaluate, and its name."""
    if split is not None:
        if split not in pictures.splits:
            raise BadInput(f"split {split!r}: the set has {', '.join(pictures.splits)}")
        return split, pictures.splits[split]
    how = pictures.split_record["how"]
    if not own and "given" not in (how.get("val"), how.get("test")):  # no splits of its own
        parts = list(pictures.splits.values())
        return "all", _joined(parts)
    name = "test" if "test" in pictures.splits else "val"
    return name, pictures.splits[name]


def _joined(parts: list[Split]) -> Split:
    first = parts[0]
    arrays = [p.array for p in parts if p.array is not None]
    return Split(
        np.concatenate([p.labels for p in parts]),
        [name for p in parts for name in p.names],
        first.channels,
        None if first.paths is None else [path for p in parts for path in p.paths or []],
        np.concatenate(arrays) if arrays else None,
    )
