"""How much each tile says about a pixel that several tiles cover.

    gaussian   w(x) = exp(-(x - c)^2 / (2 (u / 8)^2))       u pixels a side, c the centre of the tile
    linear     w(x) = 1 - |x - c| / ((u + 1) / 2)            a tent, 1 / (u + 1) or more at the border
    constant   w(x) = 1

Isensee et al. 2021, online methods, "Inference": Gaussian importance weighting, so that a tile's centre
counts most; its border, where a network sees least, counts little and never nothing. Weights of several
dimensions are products, tiles stand in a grid, and so their sum is a product too: each dimension is divided
by its own sum beforehand, and blended probabilities need no map of counts and no division.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

SIGMA = 1 / 8  # of a tile's side


def _gaussian(size: int) -> Floats:
    x = np.arange(size) - (size - 1) / 2
    return np.asarray(np.exp(-0.5 * (x / (SIGMA * size)) ** 2))


def _linear(size: int) -> Floats:
    x = np.abs(np.arange(size) - (size - 1) / 2)
    return np.asarray(1 - x / ((size + 1) / 2))


BLENDS: dict[str, Callable[[int], Floats]] = {
    "gaussian": _gaussian,
    "linear": _linear,
    "constant": np.ones,
}


def shares(starts: Sequence[int], size: int, length: int, blend: str) -> list[Floats]:
    """Return each tile's share of the pixels of one dimension that it covers, in order.

    Tiles of `size` pixels begin at `starts`; what is beyond `length` is left out. Shares of a pixel sum
    to one.

    >>> [s.tolist() for s in shares([0, 1], 2, 3, "constant")]
    [[1.0, 0.5], [0.5, 1.0]]
    """
    weight = BLENDS[blend](size)
    total = np.zeros(length)
    for start in starts:
        total[start : start + size] += weight[: length - start]
    return [weight[: length - s] / total[s : s + size] for s in starts]
