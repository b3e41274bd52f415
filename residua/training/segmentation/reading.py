"""A picture as a network for masks was trained to see it, or one line that says why it cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from residua.data.pairs.reading import read_picture
from residua.data.voxels import Volume
from residua.errors import BadInput
from residua.training.cards import SegmentationCard

EIGHT_BITS = 255


def picture_for(card: SegmentationCard, path: Path) -> Volume:
    """Return (*S, C) as the network's training had it; a stack (D, H, W, C) for one of slices."""
    found = read_picture(path, card.dims)
    array = found.array
    refuse_depth(card, path, deep=array.dtype != np.uint8)
    if array.shape[-1] == 1 and card.channels == 3:
        array = np.repeat(array, 3, -1)
    if array.shape[-1] != card.channels:
        raise BadInput(f"{path}: has {array.shape[-1]} channels; expected {card.channels}")
    if array.ndim - 1 < card.dims:
        raise BadInput(f"{path}: is one plane; expected a volume")
    return Volume(array.astype(np.float32) if card.deep else array, found.spacing, found.unit)


def refuse_depth(card: SegmentationCard, where: object, *, deep: bool) -> None:
    """Raise BadInput where values of 8 bits, or deeper ones, mean something else than in training."""
    if deep and not card.deep:
        raise BadInput(f"{where}: has more than 8 bits; the network learnt from pictures of 8 bits")
    # Some pictures of a deep set may have 8 bits; not where values vary more than those can.
    if not deep and card.deep and max(card.normalisation.std) > EIGHT_BITS / 2:
        raise BadInput(
            f"{where}: has 8 bits; the network learnt from deeper pictures, whose values vary by"
            f" {max(card.normalisation.std):,.0f}"
        )
