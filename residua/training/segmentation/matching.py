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
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components
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
    pairs = coo_array(overlaps(predicted, truth, ignored))
    return Found(
        pairs.shape[0],
        pairs.shape[1],
        tuple(pairs.data[_chosen(pairs, threshold)] for threshold in THRESHOLDS),
        pairs.data[pairs.data > 0.5],
    )


def overlaps(predicted: Labels, truth: Labels, ignored: npt.NDArray[np.bool_] | None = None) -> Any:
    """Return the IoU of true and predicted objects that touch, a sparse array (true, predicted)."""
    if predicted.shape != truth.shape:
        raise ValueError(f"expected objects {truth.shape}, not {predicted.shape}")
    if ignored is not None:
        predicted, truth = predicted[~ignored], truth[~ignored]
    true = relabel_sequential(truth.reshape(-1))[0].astype(np.int64)
    said = relabel_sequential(predicted.reshape(-1))[0].astype(np.int64)
    of_true, of_said = np.bincount(true, minlength=1), np.bincount(said, minlength=1)
    cells, both = np.unique(true * len(of_said) + said, return_counts=True)
    rows, columns = np.divmod(cells, len(of_said))
    objects = (rows > 0) & (columns > 0)
    rows, columns, both = rows[objects], columns[objects], both[objects]
    iou = both / (of_true[rows] + of_said[columns] - both)
    return csr_array((iou, (rows - 1, columns - 1)), shape=(len(of_true) - 1, len(of_said) - 1))


def matched(iou: Any, threshold: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the true and the predicted objects of most pairs of at least the threshold, above 0.

    iou: (true, predicted), sparse or an array.
    """
    pairs = coo_array(iou)
    kept = _chosen(pairs, threshold)
    return pairs.row[kept], pairs.col[kept]


def _chosen(pairs: Any, threshold: float) -> npt.NDArray[np.int64]:
    """Return the places, in order, of the pairs to choose among those of at least the threshold."""
    good = np.flatnonzero(pairs.data >= threshold)
    rows, columns, values = pairs.row[good], pairs.col[good], pairs.data[good]
    nodes = sum(pairs.shape)
    graph = coo_array((np.ones(len(good)), (rows, pairs.shape[0] + columns)), shape=(nodes, nodes))
    # Pairs that share no object, even by way of others, are chosen without regard to one another.
    group = connected_components(graph, directed=False)[1][rows] if nodes else rows
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    chosen = [p if len(p) < 2 else p[_best(rows[p], columns[p], values[p])] for p in parts]
    return good[np.sort(np.concatenate(chosen))]


def _best(
    rows: npt.NDArray[Any], columns: npt.NDArray[Any], iou: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Return which pairs of a few objects to choose: the most, and of those the largest IoU."""
    row, column = (np.unique(side, return_inverse=True)[1] for side in (rows, columns))
    value = np.zeros((row.max() + 1, column.max() + 1))
    # An IoU is 1 at most, so that all of them together weigh less than one pair more.
    value[row, column] = 1.0 + iou / (2 * max(value.shape))
    partner = np.full(len(value), -1)
    first, second = linear_sum_assignment(value, maximize=True)
    partner[first] = second
    best: npt.NDArray[np.bool_] = partner[row] == column
    return best


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
