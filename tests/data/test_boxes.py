"""Rectangles lie where, and as often, as their papers say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.data.boxes import centre_box, cutout_boxes, erasing_boxes, resized_crop_boxes
from residua.data.counter import Draws

ASPECT = (3 / 4, 4 / 3)


def draws_for(index, seed=0):
    index = np.asarray(index, dtype=np.int64)
    return Draws(seed, 0, index, np.zeros_like(index))


def test_cutout_centres_cover_every_pixel_equally():
    boxes = cutout_boxes(10, 10, 3, draws_for(range(10_000)))
    counts = np.bincount((boxes[:, 0] + 1) * 10 + boxes[:, 2] + 1, minlength=100)
    assert ((counts - 100) ** 2 / 100).sum() < 157


def test_erasing_takes_the_share_of_pictures_and_of_area_that_it_says():
    boxes = erasing_boxes(64, 64, 0.25, draws_for(range(20_000)))
    tall, wide = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    erased = tall > 0
    assert erased.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 20_000))
    area = (tall * wide)[erased] / 64**2
    assert area.min() > 0.017  # 2 % less what rounding to pixels takes
    assert area.max() < 0.34
    assert area.mean() == pytest.approx(0.175, abs=0.01)
    assert (boxes >= 0).all()
    assert (boxes <= 64).all()


@given(st.integers(0, 2**31), st.sampled_from([(0.08, 0.5), (0.3, 0.3)]))
def test_resized_crop_boxes_lie_in_the_picture_with_the_area_asked_for(seed, area):
    generator = np.random.default_rng(seed)
    heights, widths = generator.integers(100, 130, (2, 12))  # every such box fits
    boxes = resized_crop_boxes(heights, widths, area, ASPECT, draws_for(range(12), seed=seed))
    top, bottom, left, right = boxes.T
    assert ((top >= 0) & (left >= 0) & (bottom <= heights) & (right <= widths)).all()
    ratio = (right - left) / (bottom - top)
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    share = (bottom - top) * (right - left) / (heights * widths)
    assert ((share > area[0] - 0.01) & (share < area[1] + 0.01)).all()


def test_a_picture_too_narrow_for_any_box_is_cut_from_its_centre():
    sizes = np.array([10]), np.array([1000])
    boxes = resized_crop_boxes(*sizes, (0.9, 1.0), ASPECT, draws_for([0]))
    top, bottom, left, right = boxes[0]
    assert (top, bottom) == (0, 10)
    assert right - left == 13  # 10 x 4/3
    assert left == (1000 - 13) // 2


def test_the_centre_box_is_a_centred_square_of_the_short_side():
    assert centre_box(40, 60, 0.5) == (10, 30, 20, 40)
    assert centre_box(7, 4, 1.0) == (1.5, 5.5, 0, 4)
