"""Probabilities of the classes for a whole picture, normalised as in training, in tiles where large."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from residua.tiles import predict
from residua.training.cards import SegmentationCard


def probabilities(
    model: nn.Module,
    card: SegmentationCard,
    picture: NDArray[Any],
    device: torch.device,
    *,
    flips: Sequence[int] = (),
    memory_mb: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Return probabilities float32 (K, *S), on the CPU, of a picture uint8 or float32 (*S, C).

    flips: axes along which the mirrored picture is looked at, too. memory_mb: as in `tiles.predict`.
    progress is told of tiles.
    """
    found = predict(
        model,
        np.moveaxis(picture, -1, 0),
        classes=len(card.classes),
        device=device,
        flips=flips,
        prepare=prepared(card),
        memory_mb=memory_mb,
        progress=progress,
    )
    return torch.from_numpy(found)


def prepared(card: SegmentationCard) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """Return what makes the pixels (C, *S) of a file the network's: (x - mean) / std."""
    axes = (-1,) + (1,) * card.dims
    mean = np.asarray(card.normalisation.mean, np.float32).reshape(axes)
    std = np.asarray(card.normalisation.std, np.float32).reshape(axes)

    def prepare(pixels: NDArray[Any]) -> NDArray[np.float32]:
        unit = np.float32(255 if pixels.dtype == np.uint8 else 1)
        normal: NDArray[np.float32] = (pixels.astype(np.float32) / unit - mean) / std
        return normal

    return prepare
