"""One map moves pixels and joints alike; a mirrored crop is the crop read backwards, to the pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.training.pose.affine import crop_maps, inverse, moved, sample

BOX = np.array([[30.0, 20.0, 90.0, 100.0]])
sizes = st.integers(1, 130)
angles = st.floats(-180, 180)
scales = st.floats(0.2, 4)


def ramp(height, width, by_x=1.5, by_y=0.4):
    """A grey picture that rises evenly along both axes."""
    y, x = np.mgrid[:height, :width]
    return np.rint(10 + by_x * x + by_y * y).astype(np.uint8)[:, :, None]


def test_a_crop_without_anything_drawn_is_the_square_around_the_box():
    # the long side is 80, the margin makes it 100, the centre of the box is (60, 60)
    corners = np.array([[[-0.5, -0.5], [49.5, -0.5], [24.5, 24.5]]])
    places = moved(corners, crop_maps(BOX, 50))
    assert places[0] == pytest.approx(np.array([[10, 10], [110, 10], [60, 60]]))


@settings(max_examples=60, deadline=None)
@given(sizes, angles, scales, st.booleans())
def test_the_way_back_leads_back(size, angle, scale, flip):
    maps = crop_maps(BOX, size, angle=angle, scale=scale, mirrored=flip)
    points = np.random.default_rng(size).uniform(0, size, (1, 5, 2))
    assert moved(moved(points, maps), inverse(maps)) == pytest.approx(points, abs=1e-8)


@settings(max_examples=60, deadline=None)
@given(sizes, angles, scales)
def test_mirroring_turns_column_x_into_size_minus_1_minus_x(size, angle, scale):
    plain = crop_maps(BOX, size, angle=angle, scale=scale)
    mirrored = crop_maps(BOX, size, angle=angle, scale=scale, mirrored=True)
    points = np.random.default_rng(size).uniform(0, size, (1, 5, 2))
    turned = points * [-1, 1] + [size - 1, 0]
    assert moved(turned, mirrored) == pytest.approx(moved(points, plain), abs=1e-8)
    # area and the sense of rotation say that it is a similarity, mirrored or not
    side = scale * 100 / size
    assert np.linalg.det(plain[0, :, :2]) == pytest.approx(side**2)
    assert np.linalg.det(mirrored[0, :, :2]) == pytest.approx(-(side**2))


@pytest.mark.parametrize("size", [25, 64, 301])
@pytest.mark.parametrize("angle", [0, 20, 135])
def test_a_ramp_is_sampled_where_the_map_says(size, angle):
    picture = ramp(120, 130)
    (to_picture,) = crop_maps(BOX, size, margin=0.9, angle=angle)
    crop = sample(picture, to_picture, size)
    y, x = np.mgrid[:size, :size]
    places = moved(np.stack([x, y], -1).reshape(1, -1, 2), to_picture[None])[0]
    expected = 10 + places @ [1.5, 0.4]
    assert crop.shape == (size, size, 1)
    # whole levels, rounded three times; Pillow's last rounding is downward: half a level too dark
    assert np.abs(crop.ravel() - expected + 0.5).max() < 1.5
    assert (crop.ravel() - expected).mean() == pytest.approx(-0.5, abs=0.02)


@pytest.mark.parametrize("size", [24, 64, 200])
def test_the_mirrored_crop_of_a_picture_is_the_crop_backwards(size):
    picture = np.random.default_rng(0).integers(0, 256, (120, 130, 3), dtype=np.uint8)
    plain, mirrored = (
        sample(picture, crop_maps(BOX, size, mirrored=flip)[0], size).astype(int)
        for flip in (False, True)
    )
    assert np.abs(mirrored[:, ::-1] - plain).max() <= 1


def test_a_fine_pattern_becomes_grey_and_not_another_pattern():
    y, x = np.mgrid[:400, :400]
    board = (255 * ((x + y) % 2)).astype(np.uint8)[:, :, None]
    (to_picture,) = crop_maps(np.array([[20.0, 20.0, 380.0, 380.0]]), 45, margin=1, angle=11)
    crop = sample(board, to_picture, 45)[2:-2, 2:-2]
    assert np.abs(crop.astype(int) - 127).max() <= 3


def test_outside_of_the_picture_is_the_fill():
    (to_picture,) = crop_maps(np.array([[-300.0, 0.0, -200.0, 100.0]]), 16)
    assert (sample(ramp(20, 20), to_picture, 16, fill=7) == 7).all()
    assert (sample(np.zeros((20, 20, 3), np.uint8), to_picture, 16, fill=9) == 9).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (3, 2)])
def test_pictures_of_any_size_are_cropped(shape):
    picture = np.full((*shape, 1), 50, np.uint8)
    for size in (1, 7, 64):
        for scale in (0.01, 1, 50):
            boxes = np.array([[-0.5, -0.5, shape[1] - 0.5, shape[0] - 0.5]])
            crop = sample(picture, crop_maps(boxes, size, margin=0.5, scale=scale)[0], size)
            assert crop.shape == (size, size, 1)
            assert set(np.unique(crop)) <= {0, 50}
