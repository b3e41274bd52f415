"""Where pictures are cut, erased or seen: rectangles (B, 4) of top, bottom, left, right, in pixels.

    random rectangle   area ~ U(a0, a1) of the picture, log(width / height) ~ U(log r0, log r1),
                       drawn again, at most ten times, until it fits

Szegedy et al. 2015, section 6 (resized crop); Zhong et al. 2017, algorithm 1 (random erasing);
DeVries, Taylor 2017 (cutout). A rectangle is empty where bottom <= top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from residua.data.counter import Drawn, Draws, Ints

_ATTEMPTS = 10  # at a box that fits into the picture; as torchvision and timm
_ERASE_AREA = (0.02, 0.33)  # torchvision's defaults for Zhong's s_l, s_h and r_1
_ERASE_ASPECT = (0.3, 1 / 0.3)


def cutout_boxes(height: int, width: int, side: int, draws: Draws) -> Ints:
    """Return squares of `side` pixels around a uniform centre, clipped at the border (B, 4)."""
    top = draws.integers(Drawn.CUTOUT_Y, height) - side // 2
    left = draws.integers(Drawn.CUTOUT_X, width) - side // 2
    return np.stack([top, top + side, left, left + side], axis=1)


def erasing_boxes(height: int, width: int, probability: float, draws: Draws) -> Ints:
    """Return Zhong's rectangles, empty where a picture is left alone (B, 4).

    They are to be filled with a constant, as in Zhong's RE-M, rather than with noise (RE-R).
    """
    sizes = (np.full(len(draws), height), np.full(len(draws), width))
    boxes, fits = _random_boxes(*sizes, _ERASE_AREA, _ERASE_ASPECT, draws, Drawn.ERASE_BOX)
    keep = fits & (draws.uniform(Drawn.ERASE) < probability)
    return np.where(keep[:, None], boxes, 0)


def resized_crop_boxes(
    heights: Ints,
    widths: Ints,
    area: tuple[float, float],
    aspect: tuple[float, float],
    draws: Draws,
) -> Ints:
    """Return random rectangles (B, 4); the largest allowed one in the centre where none fits."""
    boxes, found = _random_boxes(heights, widths, area, aspect, draws, Drawn.RESIZED_CROP)
    tall = np.minimum(heights, np.maximum(np.rint(widths / aspect[0]).astype(np.int64), 1))
    wide = np.minimum(widths, np.maximum(np.rint(heights * aspect[1]).astype(np.int64), 1))
    top, left = (heights - tall) // 2, (widths - wide) // 2
    centre = np.stack([top, top + tall, left, left + wide], axis=1)
    return np.where(found[:, None], boxes, centre)


def centre_box(height: int, width: int, ratio: float) -> tuple[float, float, float, float]:
    """Return the centred square of `ratio` times the short side: top, bottom, left, right."""
    side = min(height, width) * ratio
    top, left = (height - side) / 2, (width - side) / 2
    return (top, top + side, left, left + side)


def _random_boxes(
    heights: Ints,
    widths: Ints,
    area: tuple[float, float],
    aspect: tuple[float, float],
    draws: Draws,
    first_draw: int,
) -> tuple[Ints, NDArray[np.bool_]]:
    """Draw each picture's box until one fits: boxes (B, 4), and which fitted (B,)."""
    boxes = np.zeros((len(draws), 4), dtype=np.int64)
    found = np.zeros(len(draws), dtype=bool)
    for attempt in range(_ATTEMPTS):
        draw = first_draw + 4 * attempt
        share = area[0] + (area[1] - area[0]) * draws.uniform(draw)
        low, high = np.log(aspect[0]), np.log(aspect[1])
        ratio = np.exp(low + (high - low) * draws.uniform(draw + 1))  # width / height
        target = share * heights * widths
        tall = np.rint(np.sqrt(target / ratio)).astype(np.int64)
        wide = np.rint(np.sqrt(target * ratio)).astype(np.int64)
        fits = (tall > 0) & (wide > 0) & (tall <= heights) & (wide <= widths)
        top = draws.integers(draw + 2, np.maximum(heights - tall + 1, 1))
        left = draws.integers(draw + 3, np.maximum(widths - wide + 1, 1))
        new = fits & ~found
        boxes[new] = np.stack([top, top + tall, left, left + wide], axis=1)[new]
        found |= fits
        if found.all():
            break
    return boxes, found
