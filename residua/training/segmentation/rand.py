"""Segmentation: the foreground-restricted Rand score of ISBI 2012, which counts splits and mergers.

With n_ij the pixels of true segment i and predicted segment j, t_i and s_j their sums:

    V = sum n_ij (n_ij - 1) / (1/2 sum s_j (s_j - 1) + 1/2 sum t_i (t_i - 1))
    split = sum n_ij (n_ij - 1) / sum t_i (t_i - 1)     1 where no true segment is cut
    merge = sum n_ij (n_ij - 1) / sum s_j (s_j - 1)     1 where no two true segments are joined

over pixels inside true segments alone (Arganda-Carreras et al. 2015: V^Rand, its split and its merge score;
counted in pairs of different pixels, which for segments of many pixels is the same). V is one minus scikit-
image's `adapted_rand_error`; what that function calls precision is the split score.

Exactly: segments are the connected components, by faces, of the pixels inside. True borders count for
nothing. Predicted borders are thinned away, so that their width does not matter: every border pixel joins the
nearest predicted segment. (The challenge thins them to lines one pixel wide; the pixels of such a line are
segments of their own there. Here no line is left.) With thinned=False every pixel of a predicted border is a
segment of its own, as in the challenge's first score. Either way a prediction without any segment has V = 0,
and a truth without any pair of pixels has none: None.

Shapes: truth and prediction (H, W), or (D, H, W), where a segment is a volume.
"""

# mypy: allow-untyped-calls
# (scikit-image has no types)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import label
from skimage.metrics import adapted_rand_error
from skimage.segmentation import expand_labels, relabel_sequential

from residua.training.segmentation.scores import mean

THRESHOLDS = tuple(k / 10 for k in range(1, 10))

Labels = npt.NDArray[Any]


def foreground_rand(
    truth: Labels, predicted: Labels, *, thinned: bool = True
) -> dict[str, float | None]:
    """Return {"rand", "split", "merge"} of one picture or volume.

    truth, predicted: boolean, True inside; or numbered segments, 0 the border. Raises ValueError for
    shapes that differ.
    """
    if truth.shape != predicted.shape:
        raise ValueError(f"expected a prediction {truth.shape}, not {predicted.shape}")
    true, said = _segments(truth), _segments(predicted)
    if thinned and said.any():
        said = expand_labels(said, distance=float(np.hypot.reduce(said.shape)) + 1.0)
    inside = true > 0
    true, said = true[inside], said[inside].copy()
    border = said == 0
    said[border] = said.max(initial=0) + 1 + np.arange(border.sum())
    if not (np.bincount(true) > 1).any():
        return {"rand": None, "split": None, "merge": None}
    if not (np.bincount(said) > 1).any():
        return {"rand": 0.0, "split": 0.0, "merge": None}
    error, split, merge = adapted_rand_error(true, said)
    return {"rand": float(1.0 - error), "split": float(split), "merge": float(merge)}


def best_foreground_rand(
    pairs: Iterable[tuple[Labels, npt.NDArray[Any]]],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    thinned: bool = True,
) -> dict[str, Any]:
    """Return the best mean score of pictures over the thresholds of their probability of inside.

    pairs: truth as in `foreground_rand`, and the probability (*S), inside where it is above the
    threshold. A threshold that is chosen on the pictures that are scored flatters, as the challenge's
    does: choose it on others where there are some. "curve" has the mean of every threshold.
    """
    scores: list[list[float | None]] = [[] for _ in thresholds]
    for truth, probability in pairs:
        true = _segments(truth)
        for column, threshold in zip(scores, thresholds, strict=True):
            column.append(foreground_rand(true, probability > threshold, thinned=thinned)["rand"])
    curve = [mean(column) for column in scores]
    best = int(np.argmax([-1.0 if value is None else value for value in curve]))
    return {
        "rand": curve[best],
        "threshold": thresholds[best],
        "curve": [[t, value] for t, value in zip(thresholds, curve, strict=True)],
    }


def _segments(inside: Labels) -> npt.NDArray[np.int64]:
    """Return numbers without gaps, 0 the border."""
    if inside.dtype == np.bool_:
        numbers: npt.NDArray[np.int64] = label(inside, connectivity=1).astype(np.int64)
    else:
        numbers = relabel_sequential(inside.astype(np.int64))[0]
    return numbers
