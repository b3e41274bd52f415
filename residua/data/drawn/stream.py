"""The random numbers of one drawn sample: a stream of its own for each (kind, seed, index).

Philox is a counter-based generator (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy
as 1, 2, 3"): a word of its output is a function of a 128-bit key, here (seed, index), and of a 256-bit
counter, whose highest word is here the kind. So a sample is the same whoever draws it, in any order, in
any process, and no two samples share a number.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]


class Kind(IntEnum):
    """What is drawn. A number is never given to something else: the samples would change."""

    CELLS = 0
    TUBES = 1
    FIGURES = 2


def stream(kind: Kind, seed: int, index: int) -> np.random.Generator:
    """Return the random numbers of one sample. Raises ValueError for an index below 0.

    >>> bool(stream(Kind.CELLS, 0, 5).random() == stream(Kind.CELLS, 0, 5).random())
    True
    """
    if index < 0:
        raise ValueError(f"expected an index of 0 or more, not {index}")
    word = 1 << 64
    return np.random.Generator(
        np.random.Philox(
            key=np.array([seed % word, index % word], np.uint64),
            counter=np.array([0, 0, 0, kind], np.uint64),
        )
    )


def place(index: int, n: int) -> int:
    """Return which of n samples is meant, as for a list: -1 is the last. Raises IndexError outside."""
    if not -n <= index < n:
        raise IndexError(f"expected one of {n} samples, not number {index}")
    return index % n


def clouds(draws: np.random.Generator, height: int, width: int, grain: float) -> Floats:
    """Return smooth noise (H, W), about standard normal at its knots, which lie `grain` pixels apart."""
    knots = (max(2, round(height / grain) + 1), max(2, round(width / grain) + 1))
    coarse = Image.fromarray(draws.standard_normal(knots, dtype=np.float32))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
