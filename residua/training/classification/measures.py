"""Classification: the loss and the measures of a batch of scores.

    cross_entropy          L = -sum_k t_k log softmax(z)_k
    binary_cross_entropy   L = -mean_k [t_k log s_k + (1 - t_k) log(1 - s_k)], s = sigmoid(z)
                           (Wightman et al. 2021, section 3.1; mean over classes and samples)

Shapes: scores z (B, K), targets t (B, K) soft or (B,) class numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
CALIBRATION_BINS = 15  # Guo et al. 2017
TOP = 5


def classification_loss(
    kind: str,
    scores: torch.Tensor,
    targets: torch.Tensor,
    smoothing: float = 0.0,
    threshold: float | None = None,
) -> torch.Tensor:
    """Return the mean loss over a batch; smoothing applies to class numbers only.

    threshold: in binary cross-entropy, a soft target above it counts as 1 and any other as 0, so
    that a mixed picture shows both of its classes (Wightman et al. 2021).
    """
    if kind == "cross_entropy":
        hard = not targets.is_floating_point()
        return F.cross_entropy(scores, targets, label_smoothing=smoothing if hard else 0.0)
    if not targets.is_floating_point():
        classes = scores.shape[1]
        targets = F.one_hot(targets, classes).to(scores.dtype)
        targets = targets * (1.0 - smoothing) + smoothing / classes
    elif threshold is not None:
        targets = (targets > threshold).to(scores.dtype)
    return F.binary_cross_entropy_with_logits(scores, targets)


@dataclass
class Predictions:
    """What a network said of each picture of a split; arrays of equal length n."""

    index: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]  # of the predicted class
    truth_confidence: npt.NDArray[np.float32]
    loss: npt.NDArray[np.float32]  # cross-entropy, -log truth_confidence
    in_top5: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, scores: torch.Tensor, labels: torch.Tensor, index: Any) -> Predictions:
        """Read the predictions off scores (B, K)."""
        log_p = scores.float().log_softmax(1)
        best, predicted = log_p.max(1)
        truth = log_p.gather(1, labels[:, None])[:, 0]
        # Counted against the truth's own score, so that it holds for any number of classes.
        better = (log_p > truth[:, None]).sum(1)
        return cls(
            np.asarray(index, np.int64),
            labels.cpu().numpy(),
            predicted.cpu().numpy(),
            best.exp().cpu().numpy(),
            truth.exp().cpu().numpy(),
            (-truth).cpu().numpy(),
            (better < TOP).cpu().numpy(),
        )

    @classmethod
    def joined(cls, parts: list[Predictions]) -> Predictions:
        """Join parts and put them in the order of their index."""
        columns = [
            np.concatenate([getattr(p, name) for p in parts]) for name in cls.__annotations__
        ]
        order = np.argsort(columns[0], kind="stable")
        return cls(*(column[order] for column in columns))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each picture was recognised."""
        same: npt.NDArray[np.bool_] = self.predicted == self.label
        return same


def summary(predictions: Predictions, classes: int) -> dict[str, Any]:
    """Return accuracy (with Wilson's 95 % interval), top-5 accuracy, loss and n."""
    n = len(predictions.label)
    hits = int(predictions.correct.sum())
    return {
        "accuracy": hits / n,
        "interval": wilson(hits, n),
        "top5": float(predictions.in_top5.mean()) if classes > TOP else None,
        "loss": float(predictions.loss.mean(dtype=np.float64)),
        "n": n,
    }


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927).

    >>> [round(bound, 4) for bound in wilson(9, 10)]
    [0.5958, 0.9821]
    """
    p, z2 = hits / n, Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * (p * (1 - p) / n + z2 / (4 * n * n)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)


def scores_by_class(predictions: Predictions, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the confusion matrix (rows are the truth), and precision, recall, F1, support.

    A class that is never predicted has precision 0; one with no pictures has recall 0, support 0.
    """
    predicted = torch.from_numpy(predictions.predicted)
    label = torch.from_numpy(predictions.label)
    k = len(classes)
    confusion = multiclass_confusion_matrix(predicted, label, k)
    columns = {
        "precision": multiclass_precision(predicted, label, k, average="none"),
        "recall": multiclass_recall(predicted, label, k, average="none"),
        "f1": multiclass_f1_score(predicted, label, k, average="none"),
        "support": confusion.sum(1),
    }
    rows = [
        {"name": name} | {key: values[i].item() for key, values in columns.items()}
        for i, name in enumerate(classes)
    ]
    return {"confusion": confusion.tolist(), "per_class": rows}


def calibration(predictions: Predictions) -> dict[str, Any]:
    """Return the expected calibration error of the top label, and its bins (Guo et al. 2017)."""
    confidence, correct = predictions.confidence, predictions.correct
    error = binary_calibration_error(
        torch.from_numpy(confidence.clip(0.0, 1.0)),
        torch.from_numpy(correct.astype(np.int64)),
        n_bins=CALIBRATION_BINS,
    )
    where = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = [
        {
            "confidence": float(confidence[where == b].mean()),
            "accuracy": float(correct[where == b].mean()),
            "count": int((where == b).sum()),
        }
        for b in range(CALIBRATION_BINS)
        if (where == b).any()
    ]
    return {"ece": float(error), "bins": bins}
