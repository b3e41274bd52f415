"""The mask of one picture, decided by one network or several, and what is written beside it.

NAME                   the class of every pixel, in the values of the training's masks
NAME-uncertainty.tif   the entropy of the mean probabilities over log K, 0 .. 1
NAME-instances         objects, numbered 1 .. N, 16 bits or more: .png for a picture, else as the mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from residua.data.volumes import ending, stem, write_mask, write_volume
from residua.errors import BadInput
from residua.training.cards import SegmentationCard
from residua.training.segmentation.ensemble import Ensemble
from residua.training.segmentation.objects import Apart
from residua.training.segmentation.predicting import probabilities
from residua.training.segmentation.reading import picture_for

VOTES = ("mean", "majority", "unanimity")
PNG_NUMBERS = 2**16 - 1  # objects that a PNG can number

Member = tuple[nn.Module, SegmentationCard]


@dataclass(frozen=True)
class Wanted:
    """How several networks decide, and what is written beside the mask; see `SegmentationRun.predict`."""

    vote: str = "mean"
    uncertainty: bool = False
    instances: bool = False
    min_size: int = 0

    def __post_init__(self) -> None:
        if self.vote not in VOTES:
            raise BadInput(f"vote {self.vote!r}: expected {', '.join(VOTES)}")
        if self.min_size < 0:
            raise BadInput(f"min_size is {self.min_size}; expected 0 pixels or more")


@dataclass(frozen=True)
class Decided:
    """Of a part (a picture, a volume, a plane of one): classes (*S), how unsure, mean probabilities."""

    classes: NDArray[np.uint8]
    unsure: NDArray[np.float32]
    mean: NDArray[np.float32]


class MaskWriter:
    """Writes masks; the first of the networks says how pictures are read."""

    def __init__(self, members: Sequence[Member], device: torch.device, wanted: Wanted) -> None:
        self.members, self.device, self.wanted = list(members), device, wanted
        self.card = self.members[0][1]
        self.apart = Apart.by(self.card.classes) if wanted.instances else None

    def row(self, path: Path, target: Path) -> dict[str, Any]:
        """Write what is wanted of a picture; return {path, mask, shares, ...} as `predict` does."""
        picture = picture_for(self.card, path)
        planes = picture.dims > self.card.dims
        parts = picture.array if planes else picture.array[None]
        decided = [self._decided(part) for part in parts]
        classes = _joined([one.classes for one in decided], 0, planes)
        write_mask(target, classes, self.card.values, like=path)
        counts = np.bincount(classes.ravel(), minlength=len(self.card.classes))
        shares = (counts / counts.sum()).tolist()
        row: dict[str, Any] = {
            "path": str(path),
            "mask": str(target),
            "shares": dict(zip(self.card.classes, shares, strict=True)),
        }
        if self.wanted.uncertainty:
            beside = target.with_name(f"{stem(target)}-uncertainty.tif")
            unsure = _joined([one.unsure for one in decided], 0, planes)
            write_volume(beside, unsure, like=path, channels=False)
            row["uncertainty"] = str(beside)
        if self.apart is not None:
            mean = _joined([one.mean for one in decided], 1, planes)
            spacing = picture.spacing if classes.ndim == 3 else None
            found, row["objects"] = self.apart.objects(
                classes, mean, min_size=self.wanted.min_size, spacing=spacing
            )
            row["instances"] = str(_write_objects(target, found, path))
            row["apart"] = self.apart.how
        return row

    def _decided(self, picture: NDArray[Any]) -> Decided:
        """Return the classes on which the networks settle, and how unsure they are: 0 .. 1."""
        heard = Ensemble.of(
            probabilities(model.to(self.device), card, picture, self.device, flips=card.flips)
            for model, card in self.members
        )
        return decided_by(heard, self.wanted.vote)


def decided_by(heard: Ensemble, vote: str) -> Decided:
    """Return what networks that were heard settle on by a vote."""
    mean = heard.mean()
    if vote == "mean":
        classes = mean.argmax(0)
    else:
        classes = heard.majority() if vote == "majority" else heard.unanimous()
    unsure = heard.entropy() / np.log(len(mean))
    return Decided(classes.numpy().astype(np.uint8), unsure.numpy(), mean.numpy())


def _joined(parts: list[NDArray[Any]], axis: int, planes: bool) -> NDArray[Any]:
    """Return the planes of a stack as one array; what is one part already as it is."""
    return np.stack(parts, axis) if planes else parts[0]


def _write_objects(mask: Path, found: NDArray[np.int32], like: Path) -> Path:
    """Write numbered objects beside their mask; return where."""
    kind, many = ending(mask), int(found.max(initial=0)) > PNG_NUMBERS
    beside = mask.with_name(f"{stem(mask)}-instances{'.tif' if many and kind == '.png' else kind}")
    # 32 bits with a sign: NIfTI and TIFF readers know them everywhere
    write_mask(beside, found if many else found.astype(np.uint16), like=like)
    return beside
