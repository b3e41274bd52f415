"""A patch of a picture and of its mask through one map of coordinates: where each pixel comes from.

    input(p) = centre + A (p + e(p)),   p = pixel - (shape - 1) / 2,   A = scale x rotation

followed by quarter turns and mirrors, which are exact. e is the elastic deformation of U-Net: random
displacements on a coarse 3 x 3 (x 3) grid over the patch, bicubic in between (Ronneberger, Fischer, Brox
2015, section 3.1). Pictures are sampled linearly and masks by the nearest pixel, so that classes never
blend. Beyond its border a picture goes on as its mirror image, the border pixel not repeated, as in the
overlap-tile strategy (ibid., figure 2). Where neither A nor e is drawn, a patch is a slice, bit for bit.

Shapes: pictures (*S, C), masks and maps of weights (*S), S of 1 to 3 axes; coordinates in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from residua.data.masks import IGNORED

Array = NDArray[Any]
Singles = NDArray[np.float32]
Outside = Literal["mirror", "ignored"]

GRID = 3  # points of the coarse grid along an axis (Ronneberger et al. 2015)


@dataclass(frozen=True)
class Warp:
    """What happens to a patch besides being cut out; the defaults do nothing.

    matrix   (n, n) scale x rotation of the last n axes; the axes before them are only cut
    elastic  (n, 3, ..., 3) displacements in pixels at the points of a grid over the last n axes
    turns    quarter turns (axis, axis, how many), done one after the other, as `numpy.rot90`
    flips    the axes mirrored after that
    """

    matrix: NDArray[np.float64] | None = None
    elastic: NDArray[np.float64] | None = None
    turns: tuple[tuple[int, int, int], ...] = ()
    flips: tuple[int, ...] = ()

    @property
    def sampled(self) -> int:
        """Number of last axes that are interpolated; 0 where a patch is a slice."""
        given = self.matrix if self.matrix is not None else self.elastic
        return 0 if given is None else len(given)


class Cut(NamedTuple):
    """A patch: a picture (*S, C), its mask (*T) and map of weights (*T), of the centre T of S."""

    picture: Array
    mask: Array
    weights: Array | None


def deform(
    picture: Array,
    mask: Array,
    shape: Sequence[int],
    centre: Sequence[float],
    warp: Warp = Warp(),
    *,
    margin: Sequence[int] | None = None,
    outside: Outside = "mirror",
    weights: Array | None = None,
) -> Cut:
    """Cut the patch of `shape` around `centre` out of a picture and its mask.

    picture   (*S, C) uint8 or float32; comes back float32 where it was interpolated, else in its dtype
    mask      (*S) uint8; comes back without `margin` pixels on either side of each axis
    centre    coordinates of the patch's centre, (n - 1) / 2 from its first pixel along n pixels
    outside   what a mask holds beyond the picture's border: its mirror image, or `IGNORED`
    weights   (*S) float32, sampled linearly where the mask is
    """
    inner = tuple(slice(m, n - m) for m, n in zip(margin or (0,) * len(shape), shape, strict=True))
    first = [round(c - (n - 1) / 2) for c, n in zip(centre, shape, strict=True)]
    if warp.sampled:
        parts = _sampled(picture, mask, weights, shape, centre, first, warp, inner, outside)
    else:
        corner = [at + part.start for at, part in zip(first, inner, strict=True)]
        size = [part.stop - part.start for part in inner]
        cut_mask = window(mask, corner, size)
        if outside == "ignored":
            cut_mask = _ignored(cut_mask, corner, mask.shape)
        cut_weights = None if weights is None else window(weights, corner, size)
        parts = Cut(window(picture, first, shape), cut_mask, cut_weights)
    return Cut(*(None if part is None else turned(part, warp) for part in parts))  # type: ignore[arg-type]


def turned(patch: Array, warp: Warp) -> Array:
    """Return the patch after the quarter turns and mirrors of `warp`: a view."""
    for a, b, k in warp.turns:
        patch = np.rot90(patch, k, (a, b))
    return np.flip(patch, warp.flips) if warp.flips else patch


def window(array: Array, corner: Sequence[int], size: Sequence[int]) -> Array:
    """Return the first axes of `array` from `corner` on, `size` long, mirrored beyond the border.

    A view where all of it lies inside.

    >>> window(np.arange(4), [-3], [9]).tolist()
    [3, 2, 1, 0, 1, 2, 3, 2, 1]
    """
    for axis, (start, length) in enumerate(zip(corner, size, strict=True)):
        side = array.shape[axis]
        if start >= 0 and start + length <= side:
            array = array[(slice(None),) * axis + (slice(start, start + length),)]
        else:
            array = array.take(_mirrored(np.arange(start, start + length), side), axis)
    return array


def _mirrored(places: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """Return places of any size mirrored into 0 .. side-1, with a period of 2 (side - 1)."""
    if side == 1:
        return np.zeros_like(places)
    around: NDArray[np.int64] = places % (2 * side - 2)
    return np.minimum(around, 2 * side - 2 - around)


def _ignored(mask: Array, corner: Sequence[int], side: Sequence[int]) -> Array:
    """Return the mask of a window with `IGNORED` beyond the border."""
    mask = mask.copy()
    for axis, (start, whole) in enumerate(zip(corner, side, strict=True)):
        lines = np.moveaxis(mask, axis, 0)
        lines[: max(-start, 0)] = IGNORED
        lines[max(whole - start, 0) :] = IGNORED
    return mask


# -- interpolation ---------------------------------------------------------------------------------------


def _sampled(
    picture: Array,
    mask: Array,
    weights: Array | None,
    shape: Sequence[int],
    centre: Sequence[float],
    first: Sequence[int],
    warp: Warp,
    inner: tuple[slice, ...],
    outside: Outside,
) -> Cut:
    """Sample the last axes at the map's coordinates, and cut the axes before them."""
    n = warp.sampled
    cut = len(shape) - n  # axes that are only cut
    places = offsets(shape[cut:], warp)
    corner, size = list(first[:cut]), list(shape[:cut])
    for place, middle in zip(places, centre[cut:], strict=True):
        low, high = int(np.floor(place.min() + middle)), int(np.ceil(place.max() + middle))
        corner.append(low)
        size.append(high - low + 1)
        place += np.float32(middle - low)
    # What the map reaches is cut out with its mirror images; so sampling never leaves the box.
    grid = _grid(places, size[cut:])
    patch = _sample(window(picture, corner, size), grid, "bilinear")
    few, thin = grid[inner[cut:]], [(corner[k] + inner[k].start) for k in range(cut)]
    corner = thin + corner[cut:]
    size = [part.stop - part.start for part in inner[:cut]] + size[cut:]
    labels = window(mask, corner, size)
    labels = _sample(labels[..., None], few, "nearest")[..., 0].astype(mask.dtype)
    if outside == "ignored":
        labels = _ignored_off(labels, places[(slice(None), *inner[cut:])], corner, mask.shape, cut)
    maps = None
    if weights is not None:
        maps = _sample(window(weights, corner, size)[..., None], few, "bilinear")[..., 0]
    return Cut(patch, labels, maps)


def offsets(shape: Sequence[int], warp: Warp) -> Singles:
    """Return A (p + e(p)) for each pixel of a patch: float32 (n, *shape), in pixels.

    As A p, a sum of one line an axis, and the interpolation of A e, which is that of e times A.
    """
    n = len(shape)
    matrix = np.eye(n) if warp.matrix is None else warp.matrix
    if warp.elastic is None:
        places = np.zeros((n, *shape), np.float32)
    else:
        places = displacements(np.einsum("ij,j...->i...", matrix, warp.elastic), shape)
    for axis, side in enumerate(shape):
        line = _along(axis, np.arange(side) - (side - 1) / 2, n)
        for place, factor in zip(places, matrix[:, axis], strict=True):
            if factor:
                place += (factor * line).astype(np.float32)
    return places


def displacements(coarse: NDArray[np.float64], shape: Sequence[int]) -> Singles:
    """Return the bicubic interpolation of displacements (n, 3, ..., 3): float32 (n, *shape).

    The grid's outer points are the centres of the patch's outer pixels.
    """
    dense = coarse.astype(np.float32)
    for axis in range(len(shape), 0, -1):
        # Not a matrix product: how BLAS adds would depend on its number of threads.
        lines = np.split(dense, GRID, axis)
        columns = [_along(axis, weight, dense.ndim) for weight in _bicubic(shape[axis - 1]).T]
        dense = columns[0] * lines[0]
        term = np.empty_like(dense)
        for column, line in zip(columns[1:], lines[1:], strict=True):
            dense += np.multiply(column, line, out=term)
    return dense


def _along(axis: int, values: Array, axes: int) -> Array:
    """Return values (n,) as an array of so many axes, along one of them."""
    return values.reshape([-1 if k == axis else 1 for k in range(axes)])


@functools.lru_cache(maxsize=64)
def _bicubic(side: int) -> Singles:
    """Return the weights (side, 3) of the coarse points along an axis."""
    points = torch.eye(GRID)[None, None]
    dense = F.interpolate(points, (side, GRID), mode="bicubic", align_corners=True)
    weights: Singles = dense[0, 0].numpy()
    return weights


def _grid(places: Singles, size: Sequence[int]) -> Singles:
    """Return coordinates within a box as `grid_sample` counts them: (*shape, n), last axis first."""
    n = len(places)
    grid = np.zeros((*places.shape[1:], n), np.float32)
    for axis, (place, side) in enumerate(zip(places, size, strict=True)):
        np.multiply(place, np.float32(2 / max(side - 1, 1)), out=grid[..., n - 1 - axis])
    grid -= 1
    return grid


def _sample(box: Array, grid: Singles, mode: str) -> Array:
    """Return a box (*lead, *box, C) sampled on a grid (*out, n): float32 (*lead, *out, C).

    Each patch alone, so that a batch around it can change nothing.
    """
    n = grid.shape[-1]
    planes = np.moveaxis(box, -1, 0)
    lead, sides = planes.shape[:-n], planes.shape[-n:]
    values = torch.from_numpy(planes.astype(np.float32, order="C")).view(1, -1, *sides)
    where = torch.from_numpy(grid)[None]
    if n == 1:  # a line is a picture of one row
        values, where = values[:, :, None], F.pad(where[:, None], (0, 1))
    found = F.grid_sample(values, where, mode=mode, padding_mode="border", align_corners=True)
    out: Array = found.view(*lead, *grid.shape[:-1]).numpy()
    return np.moveaxis(out, 0, -1)


def _ignored_off(
    labels: Array, places: Singles, corner: Sequence[int], side: Sequence[int], cut: int
) -> Array:
    """Return a sampled mask with `IGNORED` where its nearest pixel is beyond the border."""
    labels = _ignored(
        labels, [*corner[:cut], *(0 for _ in places)], [*side[:cut], *labels.shape[cut:]]
    )
    off = np.zeros(places.shape[1:], bool)
    for place, low, whole in zip(places, corner[cut:], side[cut:], strict=True):
        off |= (place < -0.5 - low) | (place > whole - 0.5 - low)
    labels[..., off] = IGNORED
    return labels
