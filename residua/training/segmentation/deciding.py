"""What several networks settle on: classes by a vote, how unsure they are, their mean probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from residua.training.cards import SegmentationCard
from residua.training.segmentation.ensemble import Ensemble

VOTES = ("mean", "majority", "unanimity")
BYTES_A_CLASS = 17  # of a pixel, at the most crowded moment: sum, votes, mean twice, its entropies

Member = tuple[nn.Module, SegmentationCard]


@dataclass(frozen=True)
class Decided:
    """Classes (*S); where they are wanted, how unsure 0 .. 1 and the mean probabilities (K, *S)."""

    classes: NDArray[np.uint8]
    unsure: NDArray[np.float32] | None
    mean: NDArray[np.float32] | None


def decided_by(heard: Ensemble, vote: str, *, unsure: bool, mean: bool = False) -> Decided:
    """Return what networks that were heard settle on by a vote."""
    average = heard.mean()
    if vote == "mean":
        classes = average.argmax(0)
    else:
        classes = heard.majority() if vote == "majority" else heard.unanimous()
    entropy = heard.entropy().numpy() / np.log(len(average)) if unsure else None
    return Decided(classes.numpy().astype(np.uint8), entropy, average.numpy() if mean else None)
