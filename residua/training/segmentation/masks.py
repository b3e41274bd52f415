"""The mask of one picture, decided by one network or several, and what is written beside it.

    NAME                   the class of every pixel, in the values of the training's masks
    NAME-uncertainty.tif   the entropy of the mean probabilities over log K, 0 .. 1
    NAME-instances         objects, numbered 1 .. N, 16 bits or more: .png for a picture, else as the mask

A picture whose probabilities do not fit in the memory that may be used goes by way of the disk (`streaming`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from residua.data.cache import free_memory
from residua.data.volumes import ending, stem, write_mask, write_volume
from residua.data.voxels import Volume
from residua.errors import BadInput
from residua.tiles.plan import DEFAULT_MB, MB
from residua.training.segmentation.deciding import (
    BYTES_A_CLASS,
    VOTES,
    Decided,
    Member,
    decided_by,
)
from residua.training.segmentation.ensemble import Ensemble
from residua.training.segmentation.objects import Apart
from residua.training.segmentation.predicting import probabilities
from residua.training.segmentation.reading import picture_for
from residua.training.segmentation.streaming import Stream, Tell, question, scratch_of

PNG_NUMBERS = 2**16 - 1  # objects that a PNG can number
FREE_SHARE = 0.5  # of the memory that is free, where none is named
BYTES = 40  # a pixel, beside those of each class: classes, their counts, objects


@dataclass(frozen=True)
class Wanted:
    """How several networks decide, and what is written beside the mask; see `SegmentationRun.predict`."""

    vote: str = "mean"
    uncertainty: bool = False
    instances: bool = False
    min_size: int = 0
    memory_mb: float | None = None

    def __post_init__(self) -> None:
        if self.vote not in VOTES:
            raise BadInput(f"vote {self.vote!r}: expected {', '.join(VOTES)}")
        if self.min_size < 0:
            raise BadInput(f"min_size is {self.min_size}; expected 0 pixels or more")
        if self.memory_mb is not None and not self.memory_mb > 0:
            raise BadInput(f"memory_mb is {self.memory_mb}; expected MB above 0")


class MaskWriter:
    """Writes masks; the first of the networks says how pictures are read. tell: see `Stream`."""

    def __init__(
        self,
        members: Sequence[Member],
        device: torch.device,
        wanted: Wanted,
        tell: Tell | None = None,
    ) -> None:
        self.members, self.device, self.wanted, self.tell = list(members), device, wanted, tell
        self.card = self.members[0][1]
        self.apart = Apart.by(self.card.classes) if wanted.instances else None

    def row(self, path: Path, target: Path) -> dict[str, Any]:
        """Write what is wanted of a picture; return {path, mask, shares, ...} as `predict` does."""
        picture = picture_for(self.card, path)
        axis = (self.card.axis or 0) if picture.dims > self.card.dims else None
        parts = picture.array[None] if axis is None else np.moveaxis(picture.array, axis, 0)
        memory = self.wanted.memory_mb or free_memory() * FREE_SHARE / MB
        needed = self._needed(parts.shape[:-1])
        scratch = scratch_of(target)
        if needed > memory or (scratch.exists() and self.apart is None):
            stream = self._stream(path, scratch, memory)
            if needed > memory and self.apart is not None:
                raise BadInput(
                    f"{path}: its objects need about {needed:,.0f} MB at once, and {memory:,.0f} may be"
                    " used: name more by --memory, or leave --instances out"
                )
            if needed > memory or stream.waits:
                return self._streamed(stream, parts, path, target, axis)
            stream.clear()
        return self._whole(picture, parts, path, target, axis, memory)

    def _whole(
        self,
        picture: Volume,
        parts: NDArray[Any],
        path: Path,
        target: Path,
        axis: int | None,
        memory: float,
    ) -> dict[str, Any]:
        """Write the mask of a picture that memory holds, and what is wanted beside it."""
        decided = [self._decided(part, memory) for part in parts]
        classes = _joined([one.classes for one in decided], axis)
        write_mask(target, classes, self.card.values, like=path)
        counts = np.bincount(classes.ravel(), minlength=len(self.card.classes))
        row = self._row(path, target, counts)
        if self.wanted.uncertainty:
            unsure = [one.unsure for one in decided if one.unsure is not None]
            self._write_unsure(row, _joined(unsure, axis), path, target)
        if self.apart is not None:
            mean = _joined([one.mean for one in decided if one.mean is not None], axis, 1)
            spacing = picture.spacing if classes.ndim == 3 else None
            found, row["objects"] = self.apart.objects(
                classes, mean, min_size=self.wanted.min_size, spacing=spacing
            )
            row["instances"] = str(_write_objects(target, found, path))
            row["apart"] = self.apart.how
        return row

    def _streamed(
        self, stream: Stream, parts: NDArray[Any], path: Path, target: Path, axis: int | None
    ) -> dict[str, Any]:
        """Write the mask of a picture by way of the disk."""
        try:
            row = self._row(path, target, stream.fill(parts, path.name))
        except BadInput:
            stream.clear()
            raise
        write_volume(target, _turned(stream.mask, axis), like=path, channels=False)
        if self.wanted.uncertainty:
            self._write_unsure(row, _turned(stream.unsure, axis), path, target)
        stream.clear()
        return row

    def _stream(self, path: Path, scratch: Path, memory: float) -> Stream:
        asked = question(
            path,
            self.members,
            vote=self.wanted.vote,
            uncertainty=self.wanted.uncertainty,
            memory=self.wanted.memory_mb,
        )
        return Stream(
            scratch,
            asked,
            self.members,
            self.device,
            self.wanted.vote,
            self.wanted.uncertainty,
            memory,
            self.tell,
        )

    def _row(self, path: Path, target: Path, counts: NDArray[np.int64]) -> dict[str, Any]:
        shares = (counts / counts.sum()).tolist()
        return {
            "path": str(path),
            "mask": str(target),
            "shares": dict(zip(self.card.classes, shares, strict=True)),
        }

    def _write_unsure(
        self, row: dict[str, Any], unsure: NDArray[np.float32], path: Path, target: Path
    ) -> None:
        beside = target.with_name(f"{stem(target)}-uncertainty.tif")
        write_volume(beside, unsure, like=path, channels=False)
        row["uncertainty"] = str(beside)

    def _needed(self, shape: tuple[int, ...]) -> float:
        """Return the MB that parts (N, *S) take where all is kept in memory."""
        pixels, classes = int(np.prod(shape, dtype=np.int64)), len(self.card.classes)
        kept = BYTES + 4 * classes * (self.apart is not None)
        return (pixels // shape[0] * BYTES_A_CLASS * classes + pixels * kept) / MB

    def _decided(self, picture: NDArray[Any], memory: float) -> Decided:
        """Return the classes on which the networks settle, and how unsure they are: 0 .. 1."""
        result = 4 * len(self.card.classes) * picture[..., 0].size / MB
        heard = Ensemble.of(
            probabilities(
                model.to(self.device),
                card,
                picture,
                self.device,
                flips=card.flips,
                memory_mb=min(memory, DEFAULT_MB + 2 * result),
            )
            for model, card in self.members
        )
        return decided_by(
            heard, self.wanted.vote, unsure=self.wanted.uncertainty, mean=self.apart is not None
        )


def _joined(parts: list[NDArray[Any]], axis: int | None, leading: int = 0) -> NDArray[Any]:
    """Return planes as one stack along an axis, after leading ones; what is one part as it is."""
    return parts[0] if axis is None else np.stack(parts, leading + axis)


def _turned(parts: NDArray[Any], axis: int | None) -> NDArray[Any]:
    """Return parts (N, *S) as the picture has them: planes along their axis, one part alone."""
    return parts[0] if axis is None else np.moveaxis(parts, 0, axis)


def _write_objects(mask: Path, found: NDArray[np.int32], like: Path) -> Path:
    """Write numbered objects beside their mask; return where."""
    kind, many = ending(mask), int(found.max(initial=0)) > PNG_NUMBERS
    beside = mask.with_name(f"{stem(mask)}-instances{'.tif' if many and kind == '.png' else kind}")
    # 32 bits with a sign: NIfTI and TIFF readers know them everywhere
    write_mask(beside, found if many else found.astype(np.uint16), like=like)
    return beside
