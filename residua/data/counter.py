"""Random numbers as a pure function of (seed, epoch, index, draw): no state, any order, any device.

    h0 = mix(seed);  h1 = mix(h0 + G (epoch + 1));  h2 = mix(h1 + G (draw + 1))
    bits(index) = mix(h2 + G (index + 1));   uniform = floor(bits / 2^11) / 2^53

`mix` is the finaliser of SplitMix64 and G its golden-ratio increment (Steele, Lea, Flood 2014, figure
15), so each line is the (k+1)-th output of that generator started at the value above it. Whoever asks,
in whatever order, in however many processes, gets the same number: this is what makes the number of
workers, and a resume in mid-epoch, change no bit (rule 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bits = NDArray[np.uint64]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_REPEAT = 1 << 32  # distance in `draw` between the repeats of one picture in one epoch


class Drawn(IntEnum):
    """What each draw decides. A number is never given to something else: runs would change."""

    ORDER = -1  # of an epoch
    CROP_Y = 0
    CROP_X = 1
    FLIP = 2
    CUTOUT_Y = 3
    CUTOUT_X = 4
    RANDAUGMENT = 5
    ERASE = 6
    ERASE_BOX = 100  # and the draws after it: four for each attempt at a box
    RESIZED_CROP = 200  # likewise


def _mix(z: Bits) -> Bits:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _words(value: ArrayLike) -> Bits:
    """Integers as uint64, modulo 2^64; always an array, so that overflow wraps without a warning."""
    if isinstance(value, int):
        value = value % (1 << 64)
    return np.atleast_1d(np.asarray(value)).astype(np.uint64)


def bits(seed: int, epoch: int, index: ArrayLike, draw: ArrayLike) -> Bits:
    """Return 64 random bits for each index: uint64, of the shape that index and draw broadcast to.

    >>> bool((bits(0, 3, [5, 7], 1)[::-1] == bits(0, 3, [7, 5], 1)).all())
    True
    """
    one = np.uint64(1)
    state = _mix(_words(seed))
    state = _mix(state + GOLDEN * (_words(epoch) + one))
    state = _mix(state + GOLDEN * (_words(draw) + one))
    return _mix(state + GOLDEN * (_words(index) + one))


def uniform(seed: int, epoch: int, index: ArrayLike, draw: ArrayLike) -> Floats:
    """Return a float64 in [0, 1) for each index, with 53 random bits.

    >>> float(uniform(0, 0, [4], 0)[0]) == float(uniform(0, 0, [9, 4], 0)[1])
    True
    """
    return (bits(seed, epoch, index, draw) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def integers(seed: int, epoch: int, index: ArrayLike, draw: ArrayLike, high: ArrayLike) -> Ints:
    """Return an integer in [0, high) for each index; high may be one number or one for each index."""
    scaled: Floats = uniform(seed, epoch, index, draw) * np.asarray(high)
    return np.floor(scaled).astype(np.int64)


def permutation(seed: int, epoch: int, n: int) -> Ints:
    """Return a random order of 0 .. n-1: the indices sorted by their random bits.

    >>> sorted(permutation(0, 1, 5).tolist())
    [0, 1, 2, 3, 4]
    """
    order = np.argsort(bits(seed, epoch, np.arange(n), Drawn.ORDER), kind="stable")
    return order.astype(np.int64)


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch: (seed, epoch) and, for each picture, its index and repeat (B,).

    `draw` is a number of 0 .. 2^32 - 1 that names what is drawn; the same name gives the same number.
    """

    seed: int
    epoch: int
    index: Ints
    repeat: Ints

    def __len__(self) -> int:
        return len(self.index)

    def bits(self, draw: int) -> Bits:
        """Return 64 random bits for each picture (B,)."""
        return bits(self.seed, self.epoch, self.index, self.repeat * _REPEAT + draw)

    def uniform(self, draw: int) -> Floats:
        """Return a number in [0, 1) for each picture (B,)."""
        return uniform(self.seed, self.epoch, self.index, self.repeat * _REPEAT + draw)

    def integers(self, draw: int, high: ArrayLike) -> Ints:
        """Return an integer in [0, high) for each picture (B,)."""
        return integers(self.seed, self.epoch, self.index, self.repeat * _REPEAT + draw, high)
