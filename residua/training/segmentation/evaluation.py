"""Looking at every picture of a split once, whole: classes, scores, loss.

loss = -sum log p(truth) / pixels that count        the cross-entropy, in nats a pixel
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch import nn

from residua.data.decoded import PairStore
from residua.data.masks import IGNORED
from residua.training.cards import SegmentationCard
from residua.training.segmentation.predicting import probabilities
from residua.training.segmentation.scores import Scores
from residua.training.segmentation.shapes import ShapeScores

Classes = NDArray[np.uint8]
_LEAST = 1e-12  # probability that a logarithm is taken of


@dataclass
class Evaluation:
    """Scores and loss of some pictures; `merge` those of other ranks."""

    scores: Scores
    loss: float = 0.0  # summed over pixels
    pixels: int = 0
    losses: dict[int, float] = field(default_factory=dict)  # a pixel, picture by picture
    shapes: ShapeScores | None = None  # where they are asked for

    def add(
        self,
        index: int,
        p: torch.Tensor,
        truth: Classes,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Count a picture: probabilities (K, *S), classes (*S)."""
        true = torch.from_numpy(truth)
        counted = true != IGNORED
        chosen = true.masked_fill(~counted, 0).long()
        nats = -p.gather(0, chosen[None])[0].clamp_min(_LEAST).log()[counted]
        loss, pixels = float(nats.sum(dtype=torch.float64)), int(counted.sum())
        self.loss += loss
        self.pixels += pixels
        self.losses[index] = loss / pixels if pixels else 0.0
        said = p.argmax(0)
        self.scores.add(index, said, true)
        if self.shapes is not None:
            self.shapes.add(index, said.numpy(), truth, spacing)

    def merge(self, other: Evaluation) -> None:
        """Take over what another rank has counted."""
        self.scores.merge(other.scores)
        self.loss += other.loss
        self.pixels += other.pixels
        self.losses |= other.losses
        if self.shapes is not None and other.shapes is not None:
            self.shapes.merge(other.shapes)

    def measures(self) -> dict[str, Any]:
        """Return the scores, and as `iou` and `dice` the means over classes, 0 where there is none."""
        found = self.scores.result()
        shapes = {} if self.shapes is None else self.shapes.result()
        return {
            "iou": found["mean_iou"] or 0.0,
            "dice": found["mean_dice"] or 0.0,
            "loss": self.loss / self.pixels if self.pixels else math.nan,
            "n": found["pictures"],
        } | (found | shapes)


def evaluate_all(
    fabric: Fabric,
    model: nn.Module,
    card: SegmentationCard,
    store: PairStore,
    *,
    flips: Sequence[int] = (),
    shapes: ShapeScores | None = None,
    spacing: Callable[[int], Sequence[float] | None] = lambda _: None,
    see: Callable[[int, torch.Tensor, Classes], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Return the evaluation of every picture of a store; over several ranks each looks at its share.

    shapes: where given, those of the pictures are scored, too. spacing: of each picture. see: is shown
    index, probabilities and truth of each picture of this rank. The mode of every module is given back
    as it was.
    """
    found = Evaluation(Scores(card.classes), shapes=shapes)
    mine = range(fabric.global_rank, len(store), fabric.world_size)
    for done, i in enumerate(mine, start=1):
        picture, truth = store[i]
        p = probabilities(model, card, picture, fabric.device, flips=flips)
        found.add(i, p, truth, spacing(i))
        if see is not None:
            see(i, p, truth)
        if progress is not None:
            progress(done, len(mine))
    if fabric.world_size > 1:
        gathered: list[Evaluation | None] = [None] * fabric.world_size
        torch.distributed.all_gather_object(gathered, found)
        for rank, other in enumerate(gathered):
            if rank != fabric.global_rank and other is not None:
                found.merge(other)
    return found
