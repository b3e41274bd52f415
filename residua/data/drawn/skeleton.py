"""The body of a drawn figure: its joints in space, from angles that a person's joints allow.

    x_child = x_parent + length R_limb (0, -1, 0),    R_limb = R_parent R_abduction R_flexion

Lengths are shares of the standing height, about those of an adult (Drillis and Contini 1966: thigh and
shank 0.245 and 0.246, upper arm and forearm 0.186 and 0.146); angles are drawn within the ranges that
joints move through. Axes: x to the figure's left, y up, z forward. A figure that faces the viewer has its
left at the right of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

JOINTS = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "neck",
    "head_top",
)  # names and order of Leeds Sports Pose (Johnson and Everingham 2010)

THIGH, SHANK, UPPER_ARM, FOREARM, FOOT = 0.245, 0.246, 0.186, 0.146, 0.10
TRUNK, HIP, SHOULDER, NECK_TO_TOP = 0.29, 0.085, 0.115, 0.20

# Degrees, lowest and highest: forward is positive, so is away from the body.
_HIP_FLEXION, _HIP_ABDUCTION, _KNEE = (-25, 100), (-5, 45), (0, 130)
_ARM_FLEXION, _ARM_ABDUCTION, _ARM_TWIST, _ELBOW = (-45, 165), (5, 120), (-60, 60), (0, 140)
_LEAN, _SIDEWAYS, _TWIST, _NOD = (-15, 40), (-20, 20), (-30, 30), (-20, 20)

Vector = npt.NDArray[np.float64]  # (3,)
Matrix = npt.NDArray[np.float64]  # (3, 3)


@dataclass(frozen=True)
class Body:
    """Points (3,) of a posed body: the 14 joints and toes; and how pelvis, chest and head are turned."""

    points: dict[str, Vector]
    pelvis: Matrix
    chest: Matrix
    head: Matrix


def turned(axis: int, degrees: float) -> Matrix:
    """Return the rotation by an angle about axis 0 (x), 1 (y) or 2 (z), anticlockwise.

    >>> bool(np.allclose(turned(2, 90) @ [1, 0, 0], [0, 1, 0]))
    True
    """
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = cos
    matrix[i, j], matrix[j, i] = -sin, sin
    return matrix


def posed(draws: np.random.Generator) -> Body:
    """Draw a pose, seen from any side: yaw 0..360 degrees, the camera a little above or below."""

    def angle(limits: tuple[float, float], spread: float = 1.0) -> float:
        middle = min(max(0.0, limits[0]), limits[1])  # at rest
        return middle + spread * (draws.triangular(limits[0], middle, limits[1]) - middle)

    calm = draws.uniform(0.5, 1.25)  # some figures stand, others leap
    view = turned(0, draws.uniform(-12, 12)) @ turned(1, draws.uniform(0, 360))
    pelvis = view @ turned(2, angle(_SIDEWAYS, 0.5)) @ turned(0, angle(_LEAN, 0.5))
    bend = turned(1, angle(_TWIST)) @ turned(2, angle(_SIDEWAYS)) @ turned(0, angle(_LEAN))
    chest = pelvis @ bend
    head = chest @ turned(1, angle(_TWIST)) @ turned(0, angle(_NOD))
    up, down, forward = np.array([0, 1.0, 0]), np.array([0, -1.0, 0]), np.array([0, 0, 1.0])
    points = {"neck": TRUNK * (chest @ up)}
    points["head_top"] = points["neck"] + NECK_TO_TOP * (head @ up)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        across = np.array([sign, 0, 0])
        thigh = pelvis @ turned(2, sign * angle(_HIP_ABDUCTION))
        thigh = thigh @ turned(0, -calm * draws.uniform(*_HIP_FLEXION) * 0.8)
        shank = thigh @ turned(0, angle(_KNEE, min(calm, 1)))
        arm = chest @ turned(2, sign * angle(_ARM_ABDUCTION))
        arm = arm @ turned(0, -angle(_ARM_FLEXION)) @ turned(1, -sign * angle(_ARM_TWIST))
        forearm = arm @ turned(0, -draws.uniform(*_ELBOW))
        hip, shoulder = (
            HIP * (pelvis @ across),
            points["neck"] + chest @ (SHOULDER * across + 0.03 * down),
        )
        knee, elbow = hip + THIGH * (thigh @ down), shoulder + UPPER_ARM * (arm @ down)
        points |= {f"{side}_hip": hip, f"{side}_shoulder": shoulder}
        points |= {f"{side}_knee": knee, f"{side}_elbow": elbow}
        points[f"{side}_ankle"] = ankle = knee + SHANK * (shank @ down)
        points[f"{side}_wrist"] = elbow + FOREARM * (forearm @ down)
        points[f"{side}_toes"] = ankle + FOOT * (shank @ (0.9 * forward + 0.35 * down))
    return Body(points, pelvis, chest, head)
