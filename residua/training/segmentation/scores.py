"""Segmentation: scores of classes from counts of pixels, over all pictures and for each of them.

With TP, FP, FN the pixels of a class that were found, made up and missed:

    IoU = TP / (TP + FP + FN)          Dice = 2 TP / (2 TP + FP + FN)
    precision = TP / (TP + FP)         recall = TP / (TP + FN)
    pixel accuracy = pixels of the right class / pixels; pixel error = 1 - pixel accuracy

Counts are added up over all pictures first (so a large object weighs more than a small one); the rows of
single pictures have their own. A class that is absent, both from the truth and from the prediction, has no
score: None, neither 0 nor 1, and no mean counts it. One that is predicted and not there has IoU and Dice 0,
and recall None. Class 0 is the background; foreground means leave it out. Pixels that the truth ignores count
for nothing, whatever is predicted there.

Shapes: predicted and true classes (*S), whole numbers; confusion (K, K), rows the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from residua.data.masks import IGNORED

Classes = torch.Tensor | npt.NDArray[Any]
Key = int | str


@dataclass
class Scores:
    """Adds up the pixels of pictures; each picture is known by its index or name."""

    classes: tuple[str, ...]
    # Of each picture the cells of its confusion that are not 0, and their pixels: of 61 x 61 few are.
    pictures: dict[Key, tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = field(
        default_factory=dict
    )

    def add(self, key: Key, predicted: Classes, truth: Classes) -> None:
        """Count a picture once; ValueError for shapes or classes that do not agree."""
        self.pictures[key] = _cells(confusion(predicted, truth, len(self.classes)))

    def add_part(self, key: Key, predicted: Classes, truth: Classes) -> None:
        """Count a further part of a picture that comes in pieces, such as slices of a volume."""
        counts = confusion(predicted, truth, len(self.classes))
        if key in self.pictures:
            cells, pixels = self.pictures[key]
            counts.reshape(-1)[cells] += pixels
        self.pictures[key] = _cells(counts)

    def merge(self, other: Scores) -> None:
        """Take over the pictures of another rank; one that is known already does not count twice."""
        if other.classes != self.classes:
            raise ValueError(f"expected scores of {self.classes}, not of {other.classes}")
        for key, counted in other.pictures.items():
            self.pictures.setdefault(key, counted)

    def confusion(self) -> npt.NDArray[np.int64]:
        """Return the pixels by class, int64 (K, K), rows the truth, over all pictures."""
        total = np.zeros(len(self.classes) ** 2, np.int64)
        for cells, pixels in self.pictures.values():
            total[cells] += pixels
        return total.reshape(len(self.classes), -1)

    def result(self) -> dict[str, Any]:
        """Return the scores over all pictures, those of each class, and the confusion."""
        counts = self.confusion()
        per_class = [
            {"name": name} | row for name, row in zip(self.classes, by_class(counts), strict=True)
        ]
        return means(counts) | {
            "pictures": len(self.pictures),
            "per_class": per_class,
            "confusion": counts.tolist(),
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the means of each picture, the worst mean IoU first, those with none last."""
        size = len(self.classes)
        rows = []
        for key, (cells, pixels) in self.pictures.items():
            counts = np.zeros(size * size, np.int64)
            counts[cells] = pixels
            rows.append({"key": key} | means(counts.reshape(size, size)))
        return sorted(rows, key=lambda row: _last(row["mean_iou"]))


def confusion(predicted: Classes, truth: Classes, classes: int) -> npt.NDArray[np.int64]:
    """Return the pixels by class, int64 (K, K), rows the truth, columns the prediction."""
    said, true = torch.as_tensor(predicted), torch.as_tensor(truth)
    if said.shape != true.shape:
        raise ValueError(f"expected classes {tuple(true.shape)}, not {tuple(said.shape)}")
    said, true = said.reshape(-1).to(torch.int64), true.reshape(-1).to(said.device, torch.int64)
    counted = true != IGNORED
    said, true = said[counted], true[counted]
    for what, found in (("predicted", said), ("true", true)):
        if found.numel() and (found.min() < 0 or found.max() >= classes):
            raise ValueError(
                f"expected {what} classes 0 to {classes - 1}, not {int(found.min())} to"
                f" {int(found.max())}"
            )
    cells = torch.bincount(true * classes + said, minlength=classes * classes)
    counts: npt.NDArray[np.int64] = cells.reshape(classes, classes).cpu().numpy()
    return counts


def _cells(
    counts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    cells = np.flatnonzero(counts)
    return cells, counts.reshape(-1)[cells]


def by_class(counts: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the scores of each class of a confusion (K, K); support and predicted in pixels."""
    hit, true, said = counts.diagonal(), counts.sum(1), counts.sum(0)
    return [
        {
            "iou": _share(tp, t + s - tp),
            "dice": _share(2 * tp, t + s),
            "precision": _share(tp, s),
            "recall": _share(tp, t),
            "support": t,
            "predicted": s,
        }
        for tp, t, s in zip(hit.tolist(), true.tolist(), said.tolist(), strict=True)
    ]


def means(counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return the means over the classes that are present, and the shares of pixels."""
    rows = by_class(counts)
    pixels = int(counts.sum())
    accuracy = _share(int(counts.trace()), pixels)
    return {
        "mean_iou": mean([row["iou"] for row in rows]),
        "mean_dice": mean([row["dice"] for row in rows]),
        "foreground_iou": mean([row["iou"] for row in rows[1:]]),
        "foreground_dice": mean([row["dice"] for row in rows[1:]]),
        "pixel_accuracy": accuracy,
        "pixel_error": None if accuracy is None else 1.0 - accuracy,
        "pixels": pixels,
    }


def mean(values: list[float | None]) -> float | None:
    """Return the mean of the values that are there, None where none is.

    >>> mean([0.5, None, 1.0])
    0.75
    """
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _last(value: float | None) -> float:
    return 2.0 if value is None else value
