"""The pictures with the worst scores as the report shows them, kept while all are looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from residua.data.pairs import PairSplit
from residua.training.segmentation.scores import confusion, means

CASES = 12  # pictures in the report, worst first
LARGEST_CASE = (
    1024  # pixels of a side that the report shows; of larger ones every second, third ...
)

Answer = dict[str, NDArray[Any]]


class Worst:
    """Keeps the answers to the worst pictures of one rank: `see` is shown each of them."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.kept: dict[int, tuple[float, Answer]] = {}

    def see(self, index: int, p: torch.Tensor, truth: NDArray[np.uint8]) -> None:
        """Keep the answer to a picture where it is among the worst; one without a score is the last."""
        score = means(confusion(p.argmax(0), truth, self.classes))["mean_iou"]
        worst = math.inf if score is None else float(score)
        if len(self.kept) == CASES:
            best = max(self.kept, key=lambda i: (self.kept[i][0], i))
            if (worst, index) >= (self.kept[best][0], best):
                return
            del self.kept[best]
        self.kept[index] = (worst, answer_of(p))

    def answer(self, index: int) -> Answer | None:
        """Return what was kept of a picture; None where another rank has looked at it."""
        return self.kept[index][1] if index in self.kept else None


def answer_of(p: torch.Tensor) -> Answer:
    """Return the answer that probabilities (K, *S) are, and how undecided it is, as far as it is shown."""
    unsure = torch.special.entr(p).sum(0) / math.log(max(2, len(p)))
    step = step_of(tuple(p.shape[1:]))
    return {
        "prediction": p.argmax(0).numpy().astype(np.uint8)[step],
        "uncertainty": unsure.clamp(0, 1).numpy()[step].copy(),
    }


def case_of(
    part: PairSplit, index: int, answer: Answer, picture: NDArray[Any], truth: NDArray[Any]
) -> dict[str, Any]:
    """Return a picture with its layers as the report takes it, without its score."""
    step = step_of(truth.shape)
    return {
        "name": part.names[index],
        "picture": _shown(picture)[step],
        "truth": truth[step],
    } | answer


def step_of(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return which pixels of a picture the report shows."""
    return tuple(slice(None, None, -(-n // LARGEST_CASE)) for n in shape)


def _shown(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a picture of 8 bits: others from their 0.5th to their 99.5th percentile; 1 or 3 channels."""
    if picture.dtype != np.uint8:
        low, high = np.percentile(picture, (0.5, 99.5))
        scaled = (picture - low) / max(float(high - low), 1e-12)
        picture = (255 * scaled.clip(0, 1)).astype(np.uint8)
    return picture if picture.shape[-1] in (1, 3) else picture[..., :1]
