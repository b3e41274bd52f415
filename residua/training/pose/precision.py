"""OKS-AP of everybody of a split, and what it rests on: areas, spreads of joints, boxes.

    OKS-AP = mean over t in 0.50, 0.55, ..., 0.95 of the average precision at OKS >= t      COCO 2017

OKS is that of `scores.oks`. Everybody is looked for in the annotated box, so that nobody is missed and
nobody is found twice: it is the AP that papers give for "ground-truth boxes". People are ranked by the mean
confidence of their joints. An area that the annotation lacks is that of the box, which is larger than the
person and so forgives more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from residua.data.joints import OTHER_SIGMA, sigmas_of, without_sigma
from residua.data.keypoints import PoseSplit
from residua.data.naming import some
from residua.errors import BadInput
from residua.training.pose.evaluation import Found
from residua.training.pose.scores import oks_ap

KEPT = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar")
_SAME = 0.01  # of a box's area: the annotation took the box for the person


def average_precision(
    found: Found, people: PoseSplit, joints: tuple[str, ...]
) -> dict[str, float | str | None]:
    """Return oks_ap, oks_ap50 and so on, and oks_basis: what they rest on, or why there are none."""
    try:
        scores = oks_ap(
            found.joints,
            people.joints,
            people.boxes,
            people.areas,
            sigmas_of(joints),
            people.pictures,
            found.confidence.mean(1),
        )
    except BadInput as error:
        return {"oks_ap": None, "oks_basis": f"none: {error}"}
    basis = f"{_areas(people)}; {_spreads(joints)}; everybody in the annotated box"
    return {f"oks_{key}": scores[key] for key in KEPT} | {"oks_basis": basis}


def _areas(people: PoseSplit) -> str:
    """Say where areas come from."""
    sides = (people.boxes[:, 2:] - people.boxes[:, :2]).astype(np.float64)
    boxed = np.isclose(people.areas, sides.prod(1), rtol=_SAME)
    known = int(people.areas_known.sum())
    if known == 0:
        return "areas estimated: those of the boxes"
    if boxed.all():
        return "areas as annotated, which are those of the boxes"
    if known == len(people):
        return "areas as annotated"
    return f"areas as annotated, {len(people) - known:,} of {len(people):,} estimated by the box"


def _spreads(joints: tuple[str, ...]) -> str:
    """Say whose spreads the joints have."""
    others = without_sigma(joints)
    if not others:
        return "COCO's spread of each joint"
    if len(others) == len(joints):
        return f"a spread of {OTHER_SIGMA} for every joint, for COCO has none of them"
    return f"COCO's spread of each joint, {OTHER_SIGMA} for {some(others)}"


def shown(measures: dict[str, Any]) -> str:
    """Return OKS-AP and what it rests on in a line, or why there is none."""
    if measures["oks_ap"] is None:
        return f"OKS-AP: {measures['oks_basis']}"
    at = ", ".join(
        f"{name} {measures[key]:.3f}"
        for name, key in (("AP50", "oks_ap50"), ("AP75", "oks_ap75"), ("AR", "oks_ar"))
    )
    return f"OKS-AP {measures['oks_ap']:.3f} ({at}; {measures['oks_basis']})"
