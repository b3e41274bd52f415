"""One map for a picture and its mask: exact where it can be, and never apart."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from residua.data.counter import Draws
from residua.data.deform import Warp, deform, displacements, offsets, window
from residua.data.masks import IGNORED
from residua.data.patch_augmentation import PatchAugmentation

SIDES = st.integers(1, 130)


def noise(shape, channels=2, dtype=np.uint8, seed=0):
    generator = np.random.default_rng(seed)
    picture = generator.integers(0, 256, (*shape, channels)).astype(dtype)
    return picture, generator.integers(0, 5, shape).astype(np.uint8)


def middle(shape):
    return [(n - 1) / 2 for n in shape]


def turn(angle):
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


# -- slices, turns and mirrors are exact ---------------------------------------------------------------------


@given(st.lists(SIDES, min_size=1, max_size=2), st.data())
@settings(deadline=None)
def test_without_a_map_a_patch_is_numpys_reflected_slice(sides, data):
    picture, mask = noise(sides)
    size = [data.draw(SIDES) for _ in sides]
    corner = [data.draw(st.integers(-150, 150)) for _ in sides]
    edges = [(300, 300) for _ in sides]
    wide = np.pad(mask, edges, mode="reflect")
    expected = wide[tuple(slice(300 + c, 300 + c + n) for c, n in zip(corner, size, strict=True))]
    centre = [c + m for c, m in zip(corner, middle(size), strict=True)]
    cut = deform(picture, mask, size, centre)
    assert np.array_equal(cut.mask, expected)
    assert cut.picture.dtype == np.uint8
    assert np.array_equal(window(mask, corner, size), expected)
    assert np.array_equal(cut.picture, window(picture, corner, size))


def test_a_slice_inside_is_a_view_bit_for_bit():
    picture, mask = noise((20, 30), dtype=np.float32)
    cut = deform(picture, mask, (7, 8), (2 + 3, 5 + 3.5))
    assert np.shares_memory(cut.picture, picture)
    assert np.array_equal(cut.picture, picture[2:9, 5:13])
    assert np.array_equal(cut.mask, mask[2:9, 5:13])


@pytest.mark.parametrize("k", [0, 1, 2, 3])
@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)])
def test_turns_and_mirrors_are_numpys(k, flips):
    picture, mask = noise((9, 9))
    cut = deform(picture, mask, (9, 9), (4, 4), Warp(turns=((0, 1, k),), flips=flips))
    assert np.array_equal(cut.picture, np.flip(np.rot90(picture, k), flips))
    assert np.array_equal(cut.mask, np.flip(np.rot90(mask, k), flips))


def test_a_margin_leaves_the_mask_of_the_centre():
    picture, mask = noise((30, 30))
    plain = deform(picture, mask, (20, 20), (14.5, 14.5), margin=(4, 6))
    assert plain.picture.shape == (20, 20, 2)
    assert np.array_equal(plain.mask, mask[5 + 4 : 25 - 4, 5 + 6 : 25 - 6])
    bent = Warp(turn(0.3), flips=(1,))
    whole = deform(picture, mask, (20, 20), (14.5, 14.5), bent, weights=mask.astype(np.float32))
    part = deform(
        picture, mask, (20, 20), (14.5, 14.5), bent, margin=(4, 6), weights=mask.astype(np.float32)
    )
    assert np.array_equal(part.picture, whole.picture)
    assert np.array_equal(part.mask, whole.mask[4:-4, 6:-6])
    assert np.array_equal(part.weights, whole.weights[4:-4, 6:-6])


# -- the map --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [20, 21])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_rotation_by_quarter_turns_is_rot90(side, k):
    picture, mask = noise((side, side), dtype=np.float32)
    warp = Warp(turn(-k * math.pi / 2))
    cut = deform(picture, mask, (side, side), middle((side, side)), warp)
    inner = (slice(1, -1), slice(1, -1))
    assert np.array_equal(cut.mask[inner], np.rot90(mask, k)[inner])
    np.testing.assert_allclose(cut.picture[inner], np.rot90(picture, k)[inner], atol=0.02)


@pytest.mark.parametrize("shape", [(40,), (30, 37), (14, 17, 15)], ids=["1d", "2d", "3d"])
def test_sampling_is_scipys_at_the_coordinates_of_the_equation(shape):
    """Linear for pictures, nearest for masks, mirrored: scipy's order 1, order 0, mode "mirror"."""
    n = len(shape)
    generator = np.random.default_rng(1)
    picture, mask = noise(shape, dtype=np.float32)
    matrix = np.eye(n) + 0.3 * generator.standard_normal((n, n))
    coarse = generator.standard_normal((n, *(3,) * n))
    patch = (12, 13, 11)[:n]
    centre = [side / 2 + 0.2 for side in shape]
    grid = np.stack(np.meshgrid(*[np.arange(m) - (m - 1) / 2 for m in patch], indexing="ij"))
    bent = grid + displacements(coarse, patch)
    places = np.einsum("ij,j...->i...", matrix, bent)
    places += np.array(centre).reshape(-1, *(1,) * n)
    cut = deform(picture, mask, patch, centre, Warp(matrix, coarse))
    for channel in range(2):
        expected = map_coordinates(picture[..., channel], places, order=1, mode="mirror")
        np.testing.assert_allclose(cut.picture[..., channel], expected, atol=0.05)
    fraction = np.abs(places - np.floor(places) - 0.5).min(0)
    clear = fraction > 1e-3  # a tie may go either way
    expected = map_coordinates(mask, places, order=0, mode="mirror")
    assert clear.mean() > 0.9
    assert np.array_equal(cut.mask[clear], expected[clear])


def test_slices_of_a_stack_are_bent_alike_and_never_mixed():
    picture, mask = noise((5, 24, 26), dtype=np.float32)
    coarse = np.random.default_rng(0).standard_normal((2, 3, 3))
    warp = Warp(turn(0.4) * 1.1, coarse)
    volume = deform(picture, mask, (3, 16, 16), (2, 12, 12.5), warp)
    for k in range(3):
        one = deform(picture[1 + k], mask[1 + k], (16, 16), (12, 12.5), warp)
        assert np.array_equal(volume.picture[k], one.picture)
        assert np.array_equal(volume.mask[k], one.mask)


@pytest.mark.parametrize("warp", [Warp(), Warp(np.eye(2) * 1.5), Warp(turn(0.5))])
def test_outside_of_the_picture_a_mask_is_ignored_where_asked(warp):
    _, mask = noise((10, 12))
    picture = np.zeros((10, 12, 1), np.uint8)
    cut = deform(picture, mask, (15, 15), (1, 11), warp, outside="ignored")
    whole = deform(picture, mask, (15, 15), (1, 11), warp)
    places = offsets((15, 15), warp) + np.array([1, 11], np.float32).reshape(2, 1, 1)
    off = (np.rint(places) < 0) | (np.rint(places) > np.array([9, 11]).reshape(2, 1, 1))
    tie = np.abs(np.abs(places - np.floor(places)) - 0.5).min(0) < 1e-3
    outside = off.any(0)
    assert outside.any() and not outside.all()
    assert (cut.mask[outside & ~tie] == IGNORED).all()
    assert np.array_equal(cut.mask[~outside & ~tie], whole.mask[~outside & ~tie])


# -- elastic deformation --------------------------------------------------------------------------------


def test_displacements_are_torchs_bicubic_and_pass_through_the_coarse_points():
    coarse = np.random.default_rng(0).standard_normal((2, 3, 3))
    found = displacements(coarse, (31, 21))
    planes = torch.from_numpy(coarse)[None]
    expected = F.interpolate(planes, (31, 21), mode="bicubic", align_corners=True)[0]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[:, ::15, ::10], coarse, atol=1e-6)


def test_displacements_have_the_standard_deviation_of_unet_and_no_fold():
    how = PatchAugmentation(elastic=10)
    index = np.arange(400)
    warps = how.warps(Draws(0, 0, index, np.zeros_like(index)), (572, 572))
    coarse = np.stack([warp.elastic for warp in warps])
    assert coarse.shape == (400, 2, 3, 3)
    assert coarse.std() == pytest.approx(10, rel=0.03)
    assert abs(coarse.mean()) < 0.5
    dense = np.stack([displacements(warp.elastic, (64, 64)) for warp in warps[:200]])
    assert dense[:, :, 0, 0].std() == pytest.approx(10, rel=0.15)
    neighbours = np.corrcoef(coarse[:, 0, 0, 0], coarse[:, 0, 0, 1])[0, 1]
    assert abs(neighbours) < 0.15


def test_small_patches_are_not_folded():
    """Neighbouring pixels keep their order: the map's determinant stays above zero."""
    how = PatchAugmentation(elastic=10)
    index = np.arange(200)
    for warp in how.warps(Draws(0, 0, index, np.zeros_like(index)), (32, 32)):
        y, x = offsets((32, 32), warp).astype(float)
        determinant = np.gradient(y, axis=0) * np.gradient(x, axis=1)
        determinant -= np.gradient(y, axis=1) * np.gradient(x, axis=0)
        assert determinant.min() > 0


# -- picture and mask stay together ---------------------------------------------------------------------


@given(
    st.lists(st.integers(2, 130), min_size=1, max_size=2),
    st.integers(1, 40),
    st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=60)
def test_a_mask_shows_the_class_of_the_place_that_the_picture_shows(sides, size, seed):
    """Pictures hold coordinates; every class is a function of them."""
    picture = np.stack(np.meshgrid(*[np.arange(n) for n in sides], indexing="ij"), -1)
    mask = (picture.sum(-1) % 251).astype(np.uint8)
    seen = _augmented(picture.astype(np.float32), mask, size, seed)
    nearest = np.rint(seen.picture).astype(int)
    clear = (np.abs(seen.picture - np.floor(seen.picture) - 0.5) > 0.01).all(-1)
    assume(clear.any())
    assert np.array_equal(seen.mask[clear], (nearest.sum(-1) % 251)[clear])


def _augmented(picture, mask, size, seed):
    draws = Draws(seed, 0, np.array([3]), np.array([0]))
    patch = (size,) * mask.ndim
    warp = PatchAugmentation.strong().warps(draws, patch)[0]
    centre = [draws.uniform(axis)[0] * n for axis, n in enumerate(mask.shape)]
    centre = [round(c) + (size - 1) / 2 - size // 2 for c in centre]
    return deform(picture, mask, patch, centre, warp)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 20), st.integers(0, 999)
)
@settings(deadline=None, max_examples=60)
def test_no_class_is_invented(sides, size, seed):
    """Between 3 and 9 a blend would give what the mask does not hold."""
    mask = np.random.default_rng(seed).choice(np.array([3, 9, 200, IGNORED], np.uint8), sides)
    seen = _augmented(np.zeros((*sides, 1), np.uint8), mask, size, seed)
    assert set(np.unique(seen.mask)) <= set(np.unique(mask))
    assert seen.picture.shape == (*(size,) * len(sides), 1)


def test_rotations_are_rigid_in_millimetres():
    """A turned box of 2 mm slices keeps its lengths: D R D^-1 is orthogonal for the matrix drawn."""
    how = PatchAugmentation(rotation=30)
    index = np.arange(20)
    spacing = np.array([2.0, 1.0, 1.5])
    for warp in how.warps(Draws(0, 0, index, index), (16, 16, 16), tuple(spacing)):
        rigid = spacing[:, None] * warp.matrix / spacing
        np.testing.assert_allclose(rigid @ rigid.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rigid) == pytest.approx(1)


@pytest.mark.parametrize(
    ("patch", "spacing", "axes"),
    [
        ((16, 16, 16), None, 3),
        ((8, 64, 64), None, 2),
        ((8, 64, 64), (2.0, 1.0, 1.0), 3),
        ((16, 16, 16), (4.0, 1.0, 1.0), 2),
    ],
)
def test_volumes_of_thick_slices_are_bent_in_their_slices_only(patch, spacing, axes):
    draws = Draws(0, 0, np.arange(3), np.zeros(3, np.int64))
    how = PatchAugmentation(rotation=20, elastic=3, rotate90=True)
    for warp in how.warps(draws, patch, spacing):
        assert warp.matrix.shape == (axes, axes)
        assert len(warp.elastic) == axes
        assert all(0 not in (a, b) for a, b, _ in warp.turns) or axes == 3


def test_quarter_turns_need_equal_sides_and_spacings():
    draws = Draws(0, 0, np.arange(50), np.zeros(50, np.int64))

    def turns(shape, **options):
        warps = PatchAugmentation(rotate90=True).warps(draws, shape, **options)
        return {k for warp in warps for _, _, k in warp.turns}

    assert turns((8, 8)) == {1, 2, 3}
    assert turns((8, 9)) == {2}
    assert turns((8, 8), spacing=(1.0, 2.0)) == {2}
    assert turns((8, 8), margin=(1, 2)) == {2}
