"""What is drawn stays in its bounds, colours move as the formula says, and names follow a mirror."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from residua.data.counter import Draws
from residua.errors import BadInput
from residua.training.pose.augmentation import (
    NONE,
    PoseAugmentation,
    coloured,
    drawn,
    exchanged,
)


def draws(count=400, seed=0):
    index = np.arange(count)
    return Draws(seed, 0, index, np.zeros_like(index))


def picture(channels=3):
    return np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)


def test_the_defaults_are_the_published_ones_and_fill_their_range():
    how = drawn(PoseAugmentation(), draws())
    for values, low, high in ((how.angle, -30, 30), (how.scale, 0.75, 1.25)):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.1 * (high - low))
    assert 0.4 < how.mirrored.mean() < 0.6
    assert how.colour.shape == (400, 3)
    assert 0.8 <= how.colour.min() < 0.81
    assert 1.19 < how.colour.max() <= 1.2


def test_nothing_is_drawn_where_nothing_is_asked_for():
    how = drawn(NONE, draws(9))
    assert (how.angle == 0).all()
    assert (how.scale == 1).all()
    assert not how.mirrored.any()
    assert coloured(picture(), *how.colour[0]) is not None
    assert np.array_equal(coloured(picture(), *how.colour[0]), picture())


def test_what_is_drawn_for_a_person_does_not_depend_on_the_others():
    every, one = drawn(PoseAugmentation(), draws()), Draws(0, 0, np.array([7]), np.array([0]))
    alone = drawn(PoseAugmentation(), one)
    assert alone.angle[0] == every.angle[7]
    assert alone.mirrored[0] == every.mirrored[7]
    assert np.array_equal(alone.colour[0], every.colour[7])


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.2])
def test_colours_are_those_of_pillow(factor):
    image = Image.fromarray(picture())
    for place, enhance in enumerate(
        (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    ):
        factors = [1.0, 1.0, 1.0]
        factors[place] = factor
        expected = np.asarray(enhance(image).enhance(factor)).astype(int)
        assert np.abs(coloured(picture(), *factors) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 4])
def test_saturation_is_for_colours_alone(channels):
    assert np.array_equal(coloured(picture(channels), 1.0, 1.0, 0.5), picture(channels))
    darker = coloured(picture(channels), 0.5, 1.0, 1.0)
    assert np.abs(darker - picture(channels) / 2).max() <= 0.5


def test_left_and_right_are_exchanged_where_mirrored():
    joints = np.arange(18).reshape(2, 3, 3)
    out = exchanged(joints, (0, 2, 1), np.array([False, True]))
    assert np.array_equal(out[0], joints[0])
    assert np.array_equal(out[1], joints[1][[0, 2, 1]])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"rotation": -1}, "rotation"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (2, 1)}, "scale"),
        ({"colour": (0, 0, 1)}, "colour"),
    ],
    ids=["rotation", "no scale", "reversed", "colour"],
)
def test_nonsense_is_refused_by_its_key(options, key):
    with pytest.raises(BadInput, match=f"augmentation.{key}="):
        PoseAugmentation(**options)
