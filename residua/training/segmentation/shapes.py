"""Scores of shapes: boundaries, objects and segments of whole pictures, when a training has ended.

    boundaries  of each class but the first: boundary F1, surface Dice, mean and 95 % distance (`surfaces`),
                in the unit of the voxels' spacing where it is known, else in pixels; within REACH pixels
                (of the narrowest spacing) a surface counts as found
    objects     the connected parts of a class, by faces, of each class but the first and the border
                (`objects`): AP, F1 at IoU 0.5, the mean IoU of pairs and PQ (`matching`)
    rand        of two classes in 2-D: the foreground-restricted Rand score of the second (`rand`)

Means are first over the pictures that have a score, then over classes. Pictures above LARGEST pixels are left
out, and how many there were is said: distances take 20 bytes a pixel.

Shapes: classes (*S), whole numbers; spacing one length an axis of S.
"""

# mypy: allow-untyped-calls
# (scikit-image has no types)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt
from skimage.measure import label

from residua.data.masks import IGNORED
from residua.data.pairs import Pairs
from residua.errors import BadInput
from residua.training.segmentation.matching import Found, found, scores_of
from residua.training.segmentation.objects import Apart
from residua.training.segmentation.rand import foreground_rand
from residua.training.segmentation.scores import mean
from residua.training.segmentation.surfaces import surface_scores

REACH = 2.0  # pixels
LARGEST = 2**26  # pixels of a picture
DISTANCES = ("boundary_f1", "surface_dice", "mean_distance", "hd95")

Classes = npt.NDArray[Any]


@dataclass(frozen=True)
class Shapes:
    """What is counted of one picture; left_out: nothing, for it is too large."""

    surfaces: list[dict[str, Any]] = field(default_factory=list)
    objects: dict[str, Found] = field(default_factory=dict)  # by class
    rand: dict[str, float | None] | None = None
    left_out: bool = False


@dataclass
class ShapeScores:
    """Adds up the shapes of pictures.

    spacing: the usual one, for pictures that record none; None: distances are in pixels. unit: of it.
    """

    classes: tuple[str, ...]
    spacing: tuple[float, ...] | None = None
    unit: str = ""
    pictures: dict[int, Shapes] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """The distance within which a surface counts as found."""
        return REACH * (1.0 if self.spacing is None else min(self.spacing))

    def add(
        self,
        key: int,
        predicted: Classes,
        truth: Classes,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Count a picture; ValueError for shapes that differ."""
        if truth.size > LARGEST:
            self.pictures[key] = Shapes(left_out=True)
            return
        lengths = None if self.spacing is None else spacing or self.spacing
        surfaces = surface_scores(
            predicted, truth, len(self.classes), tolerance=self.tolerance, spacing=lengths
        )
        self.pictures[key] = Shapes(
            surfaces, self._objects(predicted, truth), self._rand(predicted, truth)
        )

    def merge(self, other: ShapeScores) -> None:
        """Take over the pictures of another rank; one that is known already does not count twice."""
        for key, one in other.pictures.items():
            self.pictures.setdefault(key, one)

    def result(self) -> dict[str, Any]:
        """Return {"boundary", "objects", "rand"}, each with its scores; None for what there is none of."""
        seen = [one for one in self.pictures.values() if not one.left_out]
        counted = {"pictures": len(seen), "left_out": len(self.pictures) - len(seen)}
        return {
            "boundary": self._boundary(seen) | counted if seen else None,
            "objects": self._found(seen) | counted if seen and seen[0].objects else None,
            "rand": _rands(seen) | counted if seen and seen[0].rand else None,
        }

    def _objects(self, predicted: Classes, truth: Classes) -> dict[str, Found]:
        try:
            apart = Apart.by(self.classes)
        except BadInput:
            return {}
        ignored = truth == IGNORED
        return {
            self.classes[k]: found(
                label(predicted == k, connectivity=1), label(truth == k, connectivity=1), ignored
            )
            for k in apart.of
        }

    def _rand(self, predicted: Classes, truth: Classes) -> dict[str, float | None] | None:
        if len(self.classes) != 2 or truth.ndim != 2:
            return None
        return foreground_rand(truth == 1, predicted == 1)

    def _boundary(self, seen: list[Shapes]) -> dict[str, Any]:
        rows = []
        for k, name in enumerate(self.classes[1:]):
            each = [one.surfaces[k] for one in seen]
            row: dict[str, Any] = {key: mean([one[key] for one in each]) for key in DISTANCES}
            rows.append({"name": name} | row | {"missed": sum(one["missed"] for one in each)})
        return {
            **{key: mean([row[key] for row in rows]) for key in DISTANCES},
            "missed": sum(row["missed"] for row in rows),
            "tolerance": self.tolerance,
            "unit": "pixels" if self.spacing is None else self.unit,
            "per_class": rows,
        }

    def _found(self, seen: list[Shapes]) -> dict[str, Any]:
        rows = [
            {"name": name} | scores_of([one.objects[name] for one in seen])
            for name in seen[0].objects
        ]
        every = [found for one in seen for found in one.objects.values()]
        return scores_of(every) | {"per_class": rows}


def _rands(seen: list[Shapes]) -> dict[str, Any]:
    rows = [one.rand for one in seen if one.rand is not None]
    return {key: mean([row[key] for row in rows]) for key in ("rand", "split", "merge")}


def shapes_of(pairs: Pairs) -> ShapeScores:
    """Return the scores for pictures of a set: in the unit of its spacing where files record one."""
    spacing: tuple[float, ...] | None = pairs.spacing
    if spacing is not None and pairs.dims == 2:
        planes = any(item.plane for part in pairs.splits.values() for item in part.items)
        drop = pairs.axis if planes else 0
        spacing = tuple(s for axis, s in enumerate(spacing) if axis != drop)
    return ShapeScores(pairs.classes, spacing, pairs.unit or "units of the spacing")


def shape_words(measures: dict[str, Any]) -> list[str]:
    """Return what a person is told of the shapes, a text a score."""
    boundary, objects, rand = (measures.get(key) or {} for key in ("boundary", "objects", "rand"))
    words = []
    if boundary.get("boundary_f1") is not None:
        within = f"{boundary['tolerance']:.3g} {boundary['unit']}"
        words.append(f"boundary F1 {boundary['boundary_f1']:.2%} within {within}")
    if objects.get("f1") is not None:
        words.append(f"objects F1 {objects['f1']:.2%}, PQ {objects['pq']:.2%}")
    if rand.get("rand") is not None:
        words.append(f"Rand {rand['rand']:.2%}")
    return words
