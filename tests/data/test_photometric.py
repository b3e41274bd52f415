"""Tone by its equations, in the patch's own units."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from residua.data.photometric import Tone, photometric


@pytest.fixture
def patch():
    generator = np.random.default_rng(0)
    scale = np.array([1, 20], np.float32)
    return (generator.random((40, 50, 2)).astype(np.float32) * scale) + np.float32(3)


def test_the_neutral_tone_changes_nothing(patch):
    assert Tone().neutral
    np.testing.assert_allclose(photometric(patch, Tone()), patch, rtol=1e-6)


def test_brightness_and_contrast_act_on_mean_and_spread(patch):
    out = photometric(patch, Tone(brightness=0.5, contrast=1.5))
    mean, std = patch.mean((0, 1)), patch.std((0, 1))
    np.testing.assert_allclose(out, mean + 1.5 * (patch - mean) + 0.5 * std, rtol=1e-5)


def test_gamma_keeps_the_extremes_and_the_order(patch):
    out = photometric(patch, Tone(gamma=2))
    low, high = patch.min((0, 1)), patch.max((0, 1))
    unit = (patch - low) / (high - low)
    np.testing.assert_allclose(out, low + (high - low) * unit**2, atol=1e-4)


def test_noise_has_its_spread_and_is_decided_by_its_key(patch):
    def added(key):
        return photometric(patch, Tone(noise=0.3, key=key)) - patch

    np.testing.assert_allclose(added(1).std((0, 1)), 0.3 * patch.std((0, 1)), rtol=0.05)
    assert np.array_equal(added(1), added(1))
    assert abs(np.corrcoef(added(1).ravel(), added(2).ravel())[0, 1]) < 0.05


def test_blur_is_a_gaussian_along_the_last_axes_only(patch):
    volume = np.stack([patch, 2 * patch])
    out = photometric(volume, Tone(blur=1.0), 2)
    for k in range(2):
        for channel in range(2):
            expected = gaussian_filter(volume[k, ..., channel], 1.0, mode="mirror", truncate=3)
            np.testing.assert_allclose(out[k, ..., channel], expected, rtol=1e-4)


def test_the_input_is_left_alone(patch):
    before = patch.copy()
    photometric(patch, Tone(0.3, 1.2, 0.8, 0.1, 1.0, 5))
    assert np.array_equal(patch, before)


def test_an_even_patch_stays_finite():
    flat = np.full((4, 4, 1), 7, np.float32)
    assert np.array_equal(photometric(flat, Tone(0.5, 1.5, 2.0, 0.5, 0.0)), flat)
