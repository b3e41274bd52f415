"""Instances: scores of objects that were found, split, joined, missed or made up.

A true and a predicted object match at a threshold t if their IoU is at least t; of all ways to pair them one
to one, that with most pairs counts, and of those the one of largest IoU. With TP pairs, FP predicted objects
and FN true ones without a partner, over all pictures:

    AP(t) = TP / (TP + FP + FN)           at t = 0.5, 0.55, ..., 0.95, and their mean (2018 Data Science Bowl;
                                          Caicedo et al. 2019; Schmidt et al. 2018)
    F1    = 2 TP / (2 TP + FP + FN)       at t = 0.5
    PQ    = sum of IoU over TP / (TP + FP / 2 + FN / 2), pairs of IoU above 0.5; = SQ x RQ, SQ the mean IoU of
            pairs, RQ their F1            (Kirillov et al. 2019, eq. 1)

Pictures without any object, true or predicted, have no score (None) and change no other.

Shapes: true and predicted labels (*S), 1-D to 3-D, 0 the background; pixels that the truth ignores are
told by a mask (*S) and count for nothing.
"""

# mypy: allow-untyped-calls
# (scikit-image has no types)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from skimage.segmentation import relabel_sequential

from residua.training.segmentation.scores import Key

THRESHOLDS = tuple(
    k / 100 for k in range(50, 100, 5)
)  # quotients, as every IoU is: they compare exactly

Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class Found:
    """Objects of one picture: how many, and the IoU of matched pairs at each of THRESHOLDS."""

    true: int
    predicted: int
    pairs: tuple[npt.NDArray[np.float64], ...]
    above_half: npt.NDArray[np.float64]  # of pairs of IoU above 0.5, which are unique


@dataclass
class InstanceScores:
    """Adds up the objects of pictures; each picture is known by its index or name."""

    pictures: dict[Key, Found] = field(default_factory=dict)

    def add(
        self,
        key: Key,
        predicted: Labels,
        truth: Labels,
        ignored: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        """Count the objects of a picture; ValueError for shapes that differ."""
        self.pictures[key] = found(predicted, truth, ignored)

    def merge(self, other: InstanceScores) -> None:
        """Take over the pictures of another rank; one that is known already does not count twice."""
        for key, one in other.pictures.items():
            self.pictures.setdefault(key, one)

    def result(self) -> dict[str, Any]:
        """Return the scores over all pictures."""
        return scores_of(list(self.pictures.values())) | {"pictures": len(self.pictures)}

    def rows(self) -> list[dict[str, Any]]:
        """Return the scores of each picture, the worst mean AP first, those with none last."""
        rows = [{"key": key} | scores_of([one]) for key, one in self.pictures.items()]
        return sorted(rows, key=lambda row: 2.0 if row["mean_ap"] is None else row["mean_ap"])


def found(predicted: Labels, truth: Labels, ignored: npt.NDArray[np.bool_] | None = None) -> Found:
    """Return the objects of one picture, matched."""
    iou = overlaps(predicted, truth, ignored)
    return Found(
        iou.shape[0],
        iou.shape[1],
        tuple(iou[matched(iou, threshold)] for threshold in THRESHOLDS),
        iou[iou > 0.5],
    )


def overlaps(
    predicted: Labels, truth: Labels, ignored: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.float64]:
    """Return the IoU of each true object with each predicted one, (true, predicted)."""
    if predicted.shape != truth.shape:
        raise ValueError(f"expected objects {truth.shape}, not {predicted.shape}")
    if ignored is not None:
        predicted, truth = predicted[~ignored], truth[~ignored]
    true = relabel_sequential(truth.reshape(-1))[0].astype(np.int64)
    said = relabel_sequential(predicted.reshape(-1))[0].astype(np.int64)
    rows, columns = int(true.max(initial=0)) + 1, int(said.max(initial=0)) + 1
    both = np.bincount(true * columns + said, minlength=rows * columns).reshape(rows, columns)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    iou: npt.NDArray[np.float64] = both[1:, 1:] / union[1:, 1:]
    return iou


def matched(
    iou: npt.NDArray[np.float64], threshold: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the true and the predicted objects of most pairs of at least the threshold."""
    good = iou >= threshold
    # An IoU is 1 at most, so that all of them together weigh less than one pair more.
    value = np.where(good, 1.0 + iou / (2 * max(1, *iou.shape)), 0.0)
    rows, columns = linear_sum_assignment(value, maximize=True)
    kept = good[rows, columns]
    return rows[kept], columns[kept]


def scores_of(pictures: list[Found]) -> dict[str, Any]:
    """Return the scores over pictures."""
    true = sum(one.true for one in pictures)
    predicted = sum(one.predicted for one in pictures)
    pairs = [sum(len(one.pairs[i]) for one in pictures) for i in range(len(THRESHOLDS))]
    ap = [_share(tp, true + predicted - tp) for tp in pairs]
    quality = np.concatenate([one.above_half for one in pictures] or [np.zeros(0)])
    return {
        "mean_ap": None if ap[0] is None else sum(a for a in ap if a is not None) / len(ap),
        "ap": dict(zip(THRESHOLDS, ap, strict=True)),
        "f1": _share(2 * pairs[0], true + predicted),
        "precision": _share(pairs[0], predicted),
        "recall": _share(pairs[0], true),
        "pq": _share(2 * float(quality.sum()), true + predicted),
        "sq": _share(float(quality.sum()), len(quality)),
        "rq": _share(2 * len(quality), true + predicted),
        "true": true,
        "predicted": predicted,
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
