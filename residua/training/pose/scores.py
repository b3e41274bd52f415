"""How good joints are: PCK, PCKh, the area under their curve, OKS and its average precision.

    PCK@a    share of the labelled joints with |p - g| <= a size        size: the torso (0.2), or the box's
                                                                        long side (Yang, Ramanan 2013)
    PCKh@a   the same with the head's size, a = 0.5                     Andriluka et al. 2014
    AUC      mean of PCK@t over t in 0 .. a, as an integral:  mean of max(0, 1 - |p - g| / (a size))
    OKS      mean over labelled joints of exp(-|p - g|^2 / (2 area (2 sigma_j)^2))      COCO 2017

Joints that are not labelled, and people whose size is not known (NaN), count for nothing. Two means are
named: `mean` over all joints of all people, and `mean_of_joints`, over the rates of the joints, each of
which counts the same. Points are (N, J, 2) and truth (N, J, 3) in pixels of the pictures.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.errors import BadInput
from residua.report.numbers import wilson_interval

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[np.floating]

TORSO_SHARE = 0.2  # of the torso
HEAD_SHARE = 0.5  # of the head
_OKS_NAMES = (
    "ap",
    "ap50",
    "ap75",
    "ap_medium",
    "ap_large",
    "ar",
    "ar50",
    "ar75",
    "ar_medium",
    "ar_large",
)


@dataclass(frozen=True)
class Pck:
    """Shares of correct joints; NaN where nothing was counted.

    interval: Wilson's 95 % range of `mean`, as if every joint had been drawn alone. Joints of one
    person go wrong together, so the truth is wider.
    """

    share: float  # of the size, the `a`
    per_joint: tuple[float, ...]
    counted: tuple[int, ...]  # labelled joints of people with a known size
    mean: float
    mean_of_joints: float
    auc: float
    interval: tuple[float, float]

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Return everything as plain data, with the joints by name; None for NaN."""
        return {
            "share": self.share,
            "mean": _plain(self.mean),
            "mean_of_joints": _plain(self.mean_of_joints),
            "auc": _plain(self.auc),
            "interval": [_plain(bound) for bound in self.interval],
            "counted": sum(self.counted),
            "joints": {n: _plain(v) for n, v in zip(names, self.per_joint, strict=True)},
        }


def pck(points: Array, truth: Array, sizes: Array, share: float = TORSO_SHARE) -> Pck:
    """Return the shares of joints within `share` of each person's size; sizes (N,), NaN unknown."""
    away = relative_errors(points, truth, sizes)  # (N, J), NaN where not counted
    known = ~np.isnan(away)
    hits = np.where(known, away <= share, False)
    near = np.where(known, np.clip(1 - np.nan_to_num(away) / share, 0, None), 0.0)
    counted, correct = known.sum(axis=0), hits.sum(axis=0)
    n, right = int(counted.sum()), int(correct.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        per_joint = correct / counted
    return Pck(
        share=share,
        per_joint=tuple(per_joint.tolist()),
        counted=tuple(counted.tolist()),
        mean=right / n if n else float("nan"),
        mean_of_joints=float(per_joint[counted > 0].mean()) if n else float("nan"),
        auc=float(near.sum() / n) if n else float("nan"),
        interval=wilson_interval(right, n) if n else (float("nan"), float("nan")),
    )


def pckh(points: Array, truth: Array, heads: Array, share: float = HEAD_SHARE) -> Pck:
    """Return PCKh: as `pck`, with the sizes of the heads (N,)."""
    return pck(points, truth, heads, share)


def box_sizes(boxes: Array) -> Floats:
    """Return the long sides (N,) of boxes (N, 4) left, top, right, bottom."""
    sides: Floats = np.asarray(boxes[:, 2:] - boxes[:, :2], np.float64).max(axis=1)
    return sides


def relative_errors(points: Array, truth: Array, sizes: Array) -> Floats:
    """Return |p - g| / size (N, J); NaN where the joint is not labelled or the size not known."""
    away = _distances(points, truth) / np.asarray(sizes, np.float64)[:, None]
    return np.where(truth[:, :, 2] > 0, away, np.nan)


def oks(points: Array, truth: Array, areas: Array, sigmas: Sequence[float]) -> Floats:
    """Return each person's object keypoint similarity (N,) in 0 .. 1; NaN without a labelled joint."""
    tolerance = 2 * np.asarray(sigmas, np.float64)
    spread = 2 * np.asarray(areas, np.float64)[:, None] * tolerance**2
    labelled = truth[:, :, 2] > 0
    alike = np.where(labelled, np.exp(-(_distances(points, truth) ** 2) / spread), 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(alike.sum(axis=1) / labelled.sum(axis=1))


def oks_ap(
    points: Array,
    truth: Array,
    boxes: Array,
    areas: Array,
    sigmas: Sequence[float],
    pictures: Sequence[str],
    confidence: Array,
) -> dict[str, float | None]:
    """Return COCO's average precision and recall over OKS of 0.50 .. 0.95, by pycocotools.

    boxes (N, 4); areas (N,); confidence (N,) ranks the people; those of one name in `pictures` are
    matched within it. Medium is an area of 32^2 to 96^2 pixels, large above. None where there is
    nobody of that size. Raises BadInput without pycocotools.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BadInput(
            f"OKS-AP needs pycocotools, which cannot be imported ({error}); pip install residua[pose]"
        ) from error
    numbers = {name: i + 1 for i, name in enumerate(dict.fromkeys(pictures))}
    true_people, found_people = [], []
    for i, name in enumerate(pictures):
        left, top, right, bottom = np.asarray(boxes[i], np.float64).tolist()
        box = [left + 0.5, top + 0.5, right - left, bottom - top]
        person = {"id": i + 1, "image_id": numbers[name], "category_id": 1}
        labelled = np.where(truth[i, :, 2:] > 0, truth[i], 0.0)
        found = np.concatenate([points[i], np.ones((len(points[i]), 1))], axis=1)
        true_people.append(
            {
                **person,
                "keypoints": labelled.astype(np.float64).ravel().tolist(),
                "num_keypoints": int((truth[i, :, 2] > 0).sum()),
                "bbox": box,
                "area": float(areas[i]),
                "iscrowd": 0,
            }
        )
        found_people.append(
            {**person, "keypoints": found.ravel().tolist(), "score": float(confidence[i])}
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": number} for number in numbers.values()],
            "annotations": true_people,
            "categories": [{"id": 1, "name": "person"}],
        }
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(found_people), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas, np.float64)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = [float(value) for value in evaluation.stats]
    return {k: None if v < 0 else v for k, v in zip(_OKS_NAMES, values, strict=True)}


def _distances(points: Array, truth: Array) -> Floats:
    away = np.asarray(points[:, :, :2], np.float64) - np.asarray(truth[:, :, :2], np.float64)
    return np.asarray(np.linalg.norm(away, axis=2))


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
