"""Weights that are large in the gaps between touching objects: U-Net's map.

    w(x) = w_c(x) + w_0 exp(-(d_1(x) + d_2(x))^2 / (2 sigma^2)),   w_0 = 10, sigma = 5 pixels

Ronneberger, Fischer, Brox 2015, equation 2. d_1 and d_2 are the distances to the nearest and to the second
nearest object, 0 inside of one; w_c balances the classes. The second term is added in the background, and
inside of objects there is w_c alone: the gap is to be learned, not the cells beside it. Objects are the
connected parts of the foreground (by faces, so that objects that touch at a corner stay two), or as
labelled. Shapes: masks (*S), maps float32 (*S), any number of axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from residua.data.masks import IGNORED

W0 = 10.0  # Ronneberger et al. 2015, below equation 2
SIGMA = 5.0  # pixels, likewise
_REACH = 6.0  # sigmas beyond which the exponential is below 2e-8

Singles = NDArray[np.float32]


def border_weights(
    mask: NDArray[np.integer],
    *,
    instances: NDArray[np.integer] | None = None,
    class_weights: Sequence[float] | None = None,
    w0: float = W0,
    sigma: float = SIGMA,
    spacing: Sequence[float] | None = None,
) -> Singles:
    """Return w for a mask of classes (*S), 0 the background: float32 (*S).

    instances      (*S) numbers of objects, 0 none; None: the connected parts of what is neither class
                   0 nor `IGNORED`
    class_weights  w_c of each class; None: one for all. `IGNORED` pixels weigh nothing
    sigma          in pixels, or in the units of `spacing`: the distance of pixels along each axis

    An object's distances are looked for only where they can matter, within 6 sigma around it.
    """
    ignored = mask == IGNORED
    if instances is None:
        instances, _ = ndimage.label((mask != 0) & ~ignored)
    weights = np.ones(mask.shape, np.float32)
    if class_weights is not None:
        table = np.zeros(IGNORED + 1, np.float32)
        table[: len(class_weights)] = class_weights
        weights = table[mask]
    near, second = nearest_two(instances, _REACH * sigma, spacing)
    between = w0 * np.exp(-np.square(near + second) / (2 * sigma**2))
    weights += np.where(instances == 0, between, 0).astype(np.float32)
    weights[ignored] = 0
    return weights


def nearest_two(
    instances: NDArray[np.integer], reach: float, spacing: Sequence[float] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances to the nearest and second nearest object (*S); inf beyond `reach`.

    From centre to centre of pixels; 0 inside of an object.
    """
    near = np.full(instances.shape, np.inf)
    second = near.copy()
    steps = np.asarray(spacing or (1.0,) * instances.ndim)
    border = np.ceil(reach / steps).astype(int)
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box is None:
            continue
        around = tuple(
            slice(max(part.start - b, 0), part.stop + b)
            for part, b in zip(box, border, strict=True)
        )
        distance = ndimage.distance_transform_edt(instances[around] != number, sampling=steps)
        distance[distance > reach] = np.inf
        first, other = near[around], second[around]
        np.minimum(other, np.maximum(first, distance), out=other)
        np.minimum(first, distance, out=first)
    return near, second
