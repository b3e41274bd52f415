"""Equation 2 of Ronneberger et al. 2015, against all distances between all pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from residua.data.border_weights import border_weights, nearest_two


def by_hand(instances, w0, sigma, spacing, weight_of):
    """Each pixel's distances to every pixel of every object."""
    out = np.zeros(instances.shape)
    objects = {k: np.argwhere(instances == k) for k in np.unique(instances) if k}
    for place in np.ndindex(instances.shape):
        distances = sorted(
            math.sqrt((((pixels - place) * spacing) ** 2).sum(1).min())
            for pixels in objects.values()
        )
        out[place] = weight_of(place)
        if instances[place] == 0 and len(distances) > 1:
            out[place] += w0 * math.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return out


@given(st.data(), st.integers(1, 3), st.floats(0.5, 5), st.floats(0, 10))
@settings(deadline=None, max_examples=30)
def test_weights_are_those_of_the_equation(data, dims, sigma, w0):
    shape = data.draw(st.tuples(*[st.integers(1, 6)] * dims))
    spacing = data.draw(st.tuples(*[st.sampled_from([1.0, 2.5])] * dims))
    seed = data.draw(st.integers(0, 1000))
    mask = (np.random.default_rng(seed).random(shape) < 0.3).astype(np.uint8)
    instances, _ = ndimage.label(mask)
    found = border_weights(mask, w0=w0, sigma=sigma, spacing=spacing, class_weights=(1.0, 3.0))
    expected = by_hand(instances, w0, sigma, spacing, lambda place: (1.0, 3.0)[mask[place]])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32


def test_a_gap_of_one_pixel_between_two_cells_weighs_as_published():
    mask = np.zeros((9, 11), np.uint8)
    mask[2:7, 1:5] = mask[2:7, 6:10] = 1
    weights = border_weights(mask)
    assert weights[4, 5] == pytest.approx(1 + 10 * math.exp(-(2**2) / (2 * 25)))  # d1 = d2 = 1
    assert weights[4, 3] == 1  # inside of a cell


def test_given_objects_may_touch_and_one_alone_has_no_gap():
    instances = np.array([[1, 1, 2, 2, 0]])
    weights = border_weights((instances > 0).astype(np.uint8), instances=instances)
    assert weights[0, 4] == pytest.approx(1 + 10 * math.exp(-((1 + 3) ** 2) / 50))
    assert (border_weights((instances > 0).astype(np.uint8)) == 1).all()  # one connected part


def test_cells_that_touch_at_a_corner_are_two():
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    assert border_weights(mask)[0, 1] == pytest.approx(1 + 10 * math.exp(-(2**2) / 50))


def test_ignored_pixels_weigh_nothing_and_are_no_object():
    mask = np.array([[1, 255, 0, 255, 0, 1]], np.uint8)
    weights = border_weights(mask, class_weights=(1, 2))
    assert weights[0, [1, 3]].tolist() == [0, 0]
    assert weights[0, 2] == pytest.approx(1 + 10 * math.exp(-((2 + 3) ** 2) / 50))


def test_without_objects_all_pixels_weigh_the_same():
    assert (border_weights(np.zeros((3, 4), np.uint8)) == 1).all()


def test_distances_beyond_the_reach_are_infinite():
    near, second = nearest_two(np.array([1, 0, 0, 0, 0, 0, 0, 2]), 3)
    assert near.tolist() == [0, 1, 2, 3, 3, 2, 1, 0]
    assert np.isinf(second).all()
