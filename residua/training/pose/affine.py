"""The one map between a crop and its picture, for pixels and for joints alike.

    p = c + s R(angle) F (q - (S - 1) / 2)          q in the crop, p in the picture

c is the box's centre, s the picture's pixels to a pixel of the crop, F = diag(-1, 1) where mirrored. Both
axes count from the first pixel's centre, so a mirrored crop is the crop read backwards, q_x -> S - 1 - q_x,
with nothing left over (Huang et al. 2020, "The devil is in the details": the pixel that others lose).
Maps are float64 (B, 2, 3); points (B, N, 2).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


def crop_maps(
    boxes: npt.NDArray[np.floating],
    size: int,
    *,
    margin: float = 1.25,
    angle: Floats | float = 0.0,
    scale: Floats | float = 1.0,
    mirrored: npt.NDArray[np.bool_] | bool = False,
) -> Floats:
    """Return the maps (B, 2, 3) from crops of `size` pixels to pictures.

    boxes (B, 4): left, top, right, bottom; the crop is a square of `margin` times the long side.
    angle (B,) in degrees; scale (B,): the crop shows scale times as much; mirrored (B,).
    """
    boxes = np.asarray(boxes, np.float64)
    count = len(boxes)
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) * margin * scale
    turn = np.broadcast_to(np.radians(angle), count)
    sign = np.where(np.broadcast_to(mirrored, count), -1.0, 1.0)
    cos, sin = np.cos(turn), np.sin(turn)
    linear = np.stack([np.stack([cos * sign, -sin], -1), np.stack([sin * sign, cos], -1)], 1)
    linear = linear * (side / size)[:, None, None]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle = np.full(2, (size - 1) / 2)
    return np.concatenate([linear, (centre - linear @ middle)[:, :, None]], axis=2)


def inverse(maps: Floats) -> Floats:
    """Return the maps (B, 2, 3) that lead back."""
    back = np.linalg.inv(maps[:, :, :2])
    return np.concatenate([back, -back @ maps[:, :, 2:]], axis=2)


def moved(points: npt.NDArray[np.floating], maps: Floats) -> Floats:
    """Return the points (B, N, 2) under the maps (B, 2, 3)."""
    there: Floats = np.asarray(points, np.float64) @ maps[:, :, :2].swapaxes(1, 2)
    return there + maps[:, None, :, 2]


def sample(picture: Pixels, to_picture: Floats, size: int, fill: int = 0) -> Pixels:
    """Return the crop (size, size, C) that a map (2, 3) cuts out of a picture (H, W, C).

    Where the crop is coarser than the picture, the part that it shows is first reduced by that factor
    with an antialiasing filter, its place known to a fraction of a pixel. Then bilinear; `fill` outside.
    """
    linear, shift = to_picture[:, :2], to_picture[:, 2]
    grey = picture.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if grey else picture))
    scale = math.sqrt(abs(float(np.linalg.det(linear))))
    if scale > 1:
        image, factor, corner = _reduced(image, linear, shift, size, scale)
        linear, shift = linear / factor[:, None], (shift + 0.5 - corner) / factor - 0.5
    # Pillow measures from the corner of the first pixel on both sides.
    offset = shift + 0.5 - linear @ np.full(2, 0.5)
    data = tuple(np.concatenate([linear, offset[:, None]], axis=1).ravel().tolist())
    colour = fill if grey else (fill,) * picture.shape[2]
    out = np.asarray(
        image.transform(
            (size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=colour
        )
    )
    return out[:, :, None] if grey else out


def _reduced(
    image: Image.Image, linear: Floats, shift: Floats, size: int, scale: float
) -> tuple[Image.Image, Floats, Floats]:
    """Reduce what the crop shows: the image, pixels to a pixel (x, y), and the corner it begins at."""
    corners = np.array([(x, y) for x in (-1, size) for y in (-1, size)], np.float64)
    seen = corners @ linear.T + shift
    whole = np.array(image.size)
    first = np.clip(np.floor(seen.min(axis=0)), 0, whole - 1)
    last = np.clip(np.ceil(seen.max(axis=0)) + 1, first + 1, whole)
    wide, tall = (int(n) for n in np.maximum(np.rint((last - first) / scale), 1))
    box = (*first.tolist(), *last.tolist())
    small = image.resize((wide, tall), Image.Resampling.BILINEAR, box=box)
    return small, (last - first) / np.array([wide, tall]), first
