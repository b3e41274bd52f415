"""Skeletons: left is blue, right is orange, and what is not known is not drawn."""

import numpy as np
import pytest

from residua.training.pose.drawing import COLOURS, beside, draw_pose

NAMES = ("left_hand", "right_hand", "nose")
LINES = ((0, 2), (1, 2))
JOINTS = np.array([[30.0, 10, 2], [10, 30, 2], [50, 50, 2]])


def grey(height=64, width=64, channels=3):
    return np.full((height, width, channels), 90, np.uint8)


def colours(image):
    return {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}


def test_each_joint_has_the_colour_of_its_side():
    image = draw_pose(grey(), JOINTS, NAMES, (), enlarged=False)
    for (x, y, _), side in zip(JOINTS.astype(int).tolist(), ("left", "right", None), strict=True):
        assert image.getpixel((x, y)) == COLOURS[side]


def test_a_limb_has_the_colour_of_the_side_where_it_ends():
    image = draw_pose(grey(), JOINTS, NAMES, LINES, enlarged=False)
    assert image.getpixel((40, 30)) == COLOURS["left"]
    assert image.getpixel((30, 40)) == COLOURS["right"]


@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_what_is_not_labelled_or_not_sure_is_not_drawn(hidden):
    joints = JOINTS.copy()
    joints[hidden, 2] = 0
    unsure = np.ones(3)
    unsure[hidden] = 0.05
    far = JOINTS.copy()
    far[hidden, 0] = np.nan
    for image in (
        draw_pose(grey(), joints, NAMES, LINES, enlarged=False),
        draw_pose(grey(), JOINTS, NAMES, LINES, confidence=unsure, enlarged=False),
        draw_pose(grey(), far, NAMES, LINES, enlarged=False),
    ):
        x, y, _ = JOINTS[hidden].astype(int).tolist()
        assert image.getpixel((x, y)) == (90, 90, 90)
        # a line needs both of its ends
        assert (COLOURS["left"] in colours(image)) == (hidden != 0)
        limbs = draw_pose(grey(), joints, NAMES, LINES, enlarged=False)
        assert (limbs.getpixel((40, 30)) == COLOURS["left"]) == (hidden == 1)


def test_the_picture_is_enlarged_and_left_as_it_was():
    picture = grey(40, 50, 1)
    image = draw_pose(picture, np.array([[20.0, 20]] * 3), NAMES, LINES)
    assert image.size == (400, 320)
    assert image.getpixel((int(20.5 * 8), int(20.5 * 8))) == COLOURS[None]  # the last one drawn
    assert (picture == 90).all()


def test_the_truth_is_beside_the_answer():
    answer = JOINTS[:, :2] + 6
    both = beside(grey(320, 320), JOINTS, answer, NAMES, LINES)
    assert both.size == (648, 320)
    assert both.getpixel((30, 10)) == COLOURS["left"]
    assert both.getpixel((328 + 36, 16)) == COLOURS["left"]
    assert both.getpixel((324, 100)) == (255, 255, 255)
