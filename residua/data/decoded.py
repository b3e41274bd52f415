"""Decoded pictures with their masks, kept in memory as far as they fit; and what their pixels are like.

    kept: the first ones read, until `limit` bytes; the others are decoded whenever they are asked for

Nothing is thrown out again: over an epoch each picture is asked for about as often as any other, and then
to keep a fixed part serves as many requests as that part, in order or not, where throwing out the least
recently used one would serve none of an evaluation in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from residua.errors import BadInput

Array = NDArray[Any]
Pair = tuple[Array, Array]

KEPT_BYTES = 2 << 30
MEASURED = 1000  # pictures that mean and standard deviation are measured on, at most
_AT_ONCE = 1 << 24  # numbers of a volume that are measured together, at most about
_CONSTANT = 1e-6  # a spread below this share of the largest value is rounding


class PairStore(Protocol):
    """Pictures (*S, C), uint8 or float32, with masks uint8 (*S); S of 1 to 3 axes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class _Split(Protocol):
    def __len__(self) -> int: ...

    def read(self, index: int) -> Pair: ...


class Decoded:
    """The pairs of a split, `split.read(i)`; at most `limit` bytes of them are kept in memory.

    Call `fill` before worker processes start, and they share what is kept (where they are forked).
    """

    def __init__(self, split: _Split, limit: int = KEPT_BYTES) -> None:
        self.split, self.limit = split, limit
        self.kept_bytes = 0
        self._kept: dict[int, Pair] = {}

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Pair:
        index = range(len(self))[index]  # as a list: -1 is the last, beyond is an IndexError
        if index in self._kept:
            return self._kept[index]
        picture, mask = self.split.read(index)
        size = picture.nbytes + mask.nbytes
        if self.kept_bytes + size <= self.limit:
            self._kept[index] = picture, mask
            self.kept_bytes += size
        return picture, mask

    def fill(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Decode in order until the limit is reached or all is kept."""
        for index in range(len(self)):
            self[index]
            if progress is not None:
                progress(index + 1, len(self))
            if index not in self._kept:
                return

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}, "kept_bytes": 0}


def measure_pixels(
    store: PairStore, channels: int, seed: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) of each channel over (at most 1,000) pictures, every pixel counted once.

    uint8 in units of 0 .. 1, floats in their own. A channel that never changes has a std of 1, so that
    it is only shifted. Raises BadInput for a picture of other channels or with values that are not finite.
    """
    rows = np.random.default_rng(seed).permutation(len(store))[:MEASURED]
    count, mean, squares = 0, np.zeros(channels), np.zeros(channels)
    largest = np.zeros(channels)
    for i in np.sort(rows):
        picture = store[int(i)][0]
        if picture.shape[-1] != channels:
            raise BadInput(f"picture {i}: {picture.shape[-1]} channels; expected {channels}")
        parts = min(-(-picture.size // _AT_ONCE), len(picture))
        for part in np.array_split(picture, parts):
            pixels = part.reshape(-1, channels).astype(np.float64)
            pixels /= 255 if picture.dtype == np.uint8 else 1
            if not np.isfinite(pixels).all():
                raise BadInput(f"picture {i}: holds values that are not finite; expected numbers")
            here = pixels.mean(0)
            largest = np.maximum(largest, np.abs(pixels).max(0))
            # Chan, Golub, LeVeque 1983: sums of squares about the mean, of two parts put together
            n, apart = len(pixels), here - mean
            squares += np.square(pixels - here).sum(0)
            squares += np.square(apart) * (count * n / (count + n))
            mean += apart * (n / (count + n))
            count += n
    std = np.sqrt(squares / count)
    std = np.where(std <= _CONSTANT * largest, 1.0, std)
    return tuple(map(float, mean)), tuple(map(float, std))
