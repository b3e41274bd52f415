"""Segmentation: how far the surfaces of prediction and truth are from one another.

The surface of a class is its pixels with a face on another class or on the edge of the picture. With d(a, B)
the distance of a point of surface A from the nearest point of surface B, in the unit of the spacing:

    hd95          max(95th percentile of d(p, T), 95th percentile of d(t, P))
    mean_distance (sum d(p, T) + sum d(t, P)) / (|P| + |T|): average symmetric surface distance
    surface_dice  (|d(p, T) <= tolerance| + |d(t, P) <= tolerance|) / (|P| + |T|)
                  (Nikolov et al. 2018; here by points, not by their areas)
    boundary_f1   2 q r / (q + r), q the share of P within the tolerance of T, r that of T within it of P
                  (Csurka et al. 2013)

Distances are Euclidean, by scipy's distance transform. A class absent from both has no score (None). One that
is absent from one of them alone has surface_dice and boundary_f1 0, and no distance (None): `missed` says so,
as a mean of the other distances hides it. Ignored pixels are of no class.

Shapes: classes (*S), whole numbers; spacing (one length an axis of S), 1 unless told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from residua.data.masks import IGNORED

PERCENTILE = 95.0

Mask = npt.NDArray[np.bool_]
Distances = npt.NDArray[np.float64]


def surface_scores(
    predicted: npt.NDArray[Any],
    truth: npt.NDArray[Any],
    classes: int,
    *,
    tolerance: float,
    spacing: Sequence[float] | None = None,
) -> list[dict[str, Any]]:
    """Return the scores of each class 1 .. K - 1 of one picture; the background has none.

    tolerance: a distance in the unit of the spacing. Raises ValueError for shapes that differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"expected classes {truth.shape}, not {predicted.shape}")
    if spacing is not None and len(spacing) != truth.ndim:
        raise ValueError(f"expected a spacing of {truth.ndim} lengths, not {spacing}")
    counted = truth != IGNORED
    rows = []
    for k in range(1, classes):
        said, true = (predicted == k) & counted, (truth == k) & counted
        rows.append({"class": k} | _scores(*surface_distances(said, true, spacing), tolerance))
    return rows


def surface_distances(
    predicted: Mask, truth: Mask, spacing: Sequence[float] | None = None
) -> tuple[Distances | None, Distances | None]:
    """Return the distances of each surface's points from the other surface.

    None stands for the distances of a surface that has no points; those of the other are then
    infinite.
    """
    said, true = _surfaces(predicted, truth)
    return _distances(said, true, spacing), _distances(true, said, spacing)


def _surfaces(*masks: Mask) -> list[Mask]:
    """Return the surfaces of masks, all cut to the smallest box around all of them."""
    boxes = ndimage.find_objects(np.logical_or.reduce(masks).astype(np.int8))
    cut = [mask[boxes[0]] for mask in masks] if boxes else list(masks)
    return [mask & ~ndimage.binary_erosion(mask) for mask in cut]


def _distances(these: Mask, others: Mask, spacing: Sequence[float] | None) -> Distances | None:
    if not these.any():
        return None
    if not others.any():
        return np.full(int(these.sum()), np.inf)
    distances: Distances = ndimage.distance_transform_edt(~others, sampling=spacing)[these]
    return distances


def _scores(
    said: Distances | None, true: Distances | None, tolerance: float
) -> dict[str, float | bool | None]:
    if said is None and true is None:
        nothing = dict.fromkeys(("hd95", "mean_distance", "surface_dice", "boundary_f1"))
        return nothing | {"missed": False}
    if said is None or true is None:
        return {
            "hd95": None,
            "mean_distance": None,
            "surface_dice": 0.0,
            "boundary_f1": 0.0,
            "missed": True,
        }
    n = len(said) + len(true)
    q, r = (said <= tolerance).mean(), (true <= tolerance).mean()
    return {
        "hd95": float(max(np.percentile(said, PERCENTILE), np.percentile(true, PERCENTILE))),
        "mean_distance": float((said.sum() + true.sum()) / n),
        "surface_dice": float(((said <= tolerance).sum() + (true <= tolerance).sum()) / n),
        "boundary_f1": float(2 * q * r / (q + r)) if q + r else 0.0,
        "missed": False,
    }
