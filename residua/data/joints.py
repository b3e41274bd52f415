"""What the names of joints say: sides, partners, tolerances, and the sizes of a person.

    mirror[j] = the joint whose name is that of j with left and right exchanged, else j
    sigma_j   = COCO's for that part of the body (keypoint evaluation 2017), else 0.079
    torso     = |shoulder - opposite hip|, the mean of the two diagonals where both are labelled
    head      = |head top - neck|

Joints are float32 (..., J, 3): x and y in pixels of the picture, the first pixel's centre being 0, and v:
0 not labelled, 1 hidden, 2 visible. A size that cannot be had is NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Side = Literal["left", "right"]

# Standard deviations of repeated annotations over the square root of the person's area (COCO 2017).
_COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
}
OTHER_SIGMA = 0.079  # what CrowdPose (Li et al. 2019) takes for the head's top and the neck

_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
_HEAD_TOPS, _NECKS = ("head top", "top head"), ("neck", "upper neck")


def side_of(name: str) -> Side | None:
    """Return the side that a joint's name speaks of.

    >>> side_of("left_knee"), side_of("RightKnee"), side_of("l-knee"), side_of("upright")
    ('left', 'right', 'left', None)
    """
    found = {_OTHER[_OTHER[word]] for word in _words(name) if word in _OTHER}
    if len(found) != 1:
        return None
    return "left" if found & {"left", "l"} else "right"


def mirror_of(names: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the partner of each joint in a mirrored picture, and the names with a side but no partner.

    >>> mirror_of(["nose", "left_eye", "right_eye", "left_ear"])
    ((0, 2, 1, 3), ('left_ear',))
    """
    place = {tuple(_words(name)): j for j, name in enumerate(names)}
    mirror, unpaired = [], []
    for j, name in enumerate(names):
        partner = place.get(tuple(_OTHER.get(word, word) for word in _words(name)))
        if partner is None:
            unpaired.append(name)
        mirror.append(j if partner is None else partner)
    return tuple(mirror), tuple(unpaired)


def sigmas_of(names: Sequence[str]) -> tuple[float, ...]:
    """Return each joint's sigma for OKS; the tolerance of a joint is k = 2 sigma.

    >>> sigmas_of(["left_wrist", "head_top"])
    (0.062, 0.079)
    """
    return tuple(_COCO_SIGMAS.get(_part(name), OTHER_SIGMA) for name in names)


def without_sigma(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of joints for which COCO has no sigma.

    >>> without_sigma(["left_wrist", "head_top"])
    ('head_top',)
    """
    return tuple(name for name in names if _part(name) not in _COCO_SIGMAS)


def torso_sizes(joints: Floats, names: Sequence[str]) -> Floats:
    """Return the torso of each person in pixels (N,) from joints (N, J, 3)."""
    place: dict[tuple[str | None, str], int] = {}
    for j, name in enumerate(names):
        place[side_of(name), _part(name)] = j
    diagonals = [
        _distance(joints, place.get((a, "shoulder")), place.get((b, "hip")))
        for a, b in (("left", "right"), ("right", "left"))
    ]
    known = ~np.isnan(diagonals)
    total = np.nansum(diagonals, axis=0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan).astype(np.float32)


def head_sizes(joints: Floats, names: Sequence[str]) -> Floats:
    """Return the head of each person in pixels (N,) from joints (N, J, 3)."""
    place = {_part(name): j for j, name in enumerate(names)}
    top = next((place[name] for name in _HEAD_TOPS if name in place), None)
    neck = next((place[name] for name in _NECKS if name in place), None)
    return _distance(joints, top, neck)


def _distance(joints: Floats, a: int | None, b: int | None) -> Floats:
    if a is None or b is None:
        return np.full(len(joints), np.nan, np.float32)
    length = np.linalg.norm(joints[:, a, :2] - joints[:, b, :2], axis=1)
    labelled = (joints[:, a, 2] > 0) & (joints[:, b, 2] > 0) & (length > 0)
    return np.where(labelled, length, np.nan).astype(np.float32)


def _words(name: str) -> list[str]:
    """Return the words of a name in small letters: "leftEye", "left_eye" and "Left-Eye" are one."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.lower())


def _part(name: str) -> str:
    return " ".join(word for word in _words(name) if word not in _OTHER)
