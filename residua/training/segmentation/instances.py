"""Instances: touching objects as targets that a network can learn, and its prediction taken apart again.

    classes    0 background, 1 inside, 2 border: an object's pixels with a face, edge or corner on what is
               not this object (Caicedo et al. 2019: the 2018 Data Science Bowl's way)
    distance   of a pixel to the nearest pixel that is not of its object, over the largest of that object:
               1 in the middle, towards 0 at the border, 0 outside

and back: seeds are the parts inside (class 1), or those far inside (distance), or the peaks of the distance
within the foreground where there are no more than a foreground's probabilities; scikit-image's watershed
floods the foreground from the seeds. A part of the foreground that has no seed is no object.

The edge of a picture is no border: an object that it cuts goes on. Shapes: labels (*S), 1-D to 3-D, 0 the
background; probabilities (3, *S); foreground and distance (*S).
"""

# mypy: allow-untyped-calls
# (scikit-image has no types)

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.measure import label
from skimage.segmentation import find_boundaries, relabel_sequential, watershed

BACKGROUND, INSIDE, BORDER = 0, 1, 2

Labels = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


# -- targets ------------------------------------------------------------------------------------------


def to_border_classes(labels: Labels) -> npt.NDArray[np.uint8]:
    """Return the classes, uint8 (*S), of numbered objects.

    An object so thin that it would be border alone keeps one pixel inside, its deepest.
    """
    numbers = relabel_sequential(labels)[0]
    border = find_boundaries(numbers, connectivity=labels.ndim, mode="inner")
    border &= numbers > 0
    classes = np.where(border, BORDER, np.where(numbers > 0, INSIDE, BACKGROUND)).astype(np.uint8)
    everyone = np.arange(1, int(numbers.max(initial=0)) + 1)
    thin = np.setdiff1d(everyone, np.unique(numbers[classes == INSIDE]))
    if len(thin):
        deepest = ndimage.maximum_position(distance_target(numbers), numbers, thin)
        classes[tuple(np.transpose(deepest))] = INSIDE
    return classes


def distance_target(
    labels: Labels, *, spacing: Sequence[float] | None = None, normalise: bool = True
) -> Floats:
    """Return the distances, float32 (*S); normalise=False: in the unit of the spacing.

    An object without any border in the picture is as far from it as can be: 1, or the picture's
    longest side.
    """
    numbers = relabel_sequential(labels)[0]
    distances = np.zeros(labels.shape, np.float32)
    for number, box in enumerate(ndimage.find_objects(numbers), start=1):
        around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        mine = numbers[around] == number
        if mine.all():
            lengths = np.multiply(labels.shape, 1.0 if spacing is None else spacing)
            depth = np.full(mine.shape, lengths.max(), np.float32)
        else:
            depth = ndimage.distance_transform_edt(mine, sampling=spacing)
        if normalise:
            depth = depth / depth.max()
        distances[around][mine] = depth[mine]
    return distances


# -- taken apart --------------------------------------------------------------------------------------


def from_border_classes(
    probabilities: npt.NDArray[Any], *, min_size: int = 0
) -> npt.NDArray[np.int32]:
    """Return objects (*S), numbered 1, 2, ..., from probabilities (3, *S) or scores of classes.

    Seeds are the connected pixels whose class is inside; they grow over the border's pixels, least
    likely border first. Objects smaller than `min_size` pixels go.
    """
    if probabilities.shape[0] != 3:
        raise ValueError(f"expected 3 classes, not {probabilities.shape[0]}")
    classes = probabilities.argmax(0)
    seeds = label(classes == INSIDE, connectivity=1)
    return flooded(probabilities[BORDER], seeds, classes != BACKGROUND, min_size)


def from_distance(
    distance: npt.NDArray[Any],
    *,
    foreground: float = 0.1,
    seed: float = 0.5,
    min_size: int = 0,
) -> npt.NDArray[np.int32]:
    """Return objects from a predicted distance map (*S) as `distance_target` makes them.

    foreground, seed: pixels above are of an object, and of an object's middle.
    """
    seeds = label(distance > seed, connectivity=1)
    return flooded(-distance, seeds, distance > foreground, min_size)


def from_foreground(
    probability: npt.NDArray[Any],
    *,
    threshold: float = 0.5,
    apart: int = 5,
    min_size: int = 0,
    spacing: Sequence[float] | None = None,
) -> npt.NDArray[np.int32]:
    """Return objects from the probability of the foreground (*S), by their shape alone.

    Seeds are the pixels that are deepest within `apart` pixels, and the largest of equals once.
    """
    mask = probability > threshold
    # A foreground that fills the picture has no depth; one object is all that can be said.
    if mask.all():
        return flooded(np.zeros(mask.shape), label(mask), mask, min_size)
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    peaks = peak_local_max(
        depth,
        min_distance=apart,
        labels=label(mask, connectivity=1),
        exclude_border=False,
    )
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return flooded(-depth, seeds, mask, min_size)


def flooded(
    height: npt.NDArray[Any], seeds: Labels, mask: npt.NDArray[np.bool_], min_size: int
) -> npt.NDArray[np.int32]:
    """Return the objects (*S) that grow from numbered seeds over the mask, low ground first."""
    objects = watershed(height, seeds, connectivity=mask.ndim, mask=mask)
    sizes = np.bincount(objects.reshape(-1))
    kept = sizes >= min_size
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    found: npt.NDArray[np.int32] = numbers[objects]
    return found
