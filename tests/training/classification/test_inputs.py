"""Sizes, normalisation, mirrors, and the one way in which every picture is looked at."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from residua.data.batches import to_input
from residua.data.pictures import Split
from residua.training.classification import inputs
from residua.training.classification.inputs import (
    Listed,
    Normalisation,
    Shape,
    augmentation_of,
    decide_shape,
    evaluation_batches,
    measure,
    mirrors_matter,
    open_store,
    picture_files,
    reduced,
)
from residua.training.recipe import Recipe, with_overrides
from residua.training.recipes import load_recipe

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))


def shape(size=8, evaluation=None, channels=3, small=True, crop=0.875):
    return Shape(size, evaluation or size, channels, small, crop)


def recipe(*assignments):
    return with_overrides(Recipe(epochs=1), assignments)


# -- sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "median", "accelerator", "size", "evaluated", "small", "stored"),
    [
        ([], (8, 8), False, 8, 8, True, 8),
        ([], (32, 40), True, 32, 32, True, 32),
        ([], (64, 64), False, 64, 64, True, 64),
        ([], (65, 300), False, 65, 65, False, 74),
        ([], (480, 640), False, 128, 128, False, 146),
        ([], (480, 640), True, 224, 224, False, 256),  # He et al. 2015: 224 of 256
        (["size=96"], (480, 640), True, 96, 96, False, 110),
        (["size=32"], (480, 640), False, 32, 32, False, 37),
        (["size=16"], (32, 32), False, 16, 16, True, 16),
        (["size=128"], (32, 32), False, 128, 128, False, 146),
        (["evaluation.size=40"], (32, 32), False, 32, 40, False, 46),
        (["evaluation.crop=1"], (480, 640), True, 224, 224, False, 224),
    ],
)
def test_the_size_follows_the_pictures_and_the_recipe(
    settings, median, accelerator, size, evaluated, small, stored
):
    found = decide_shape(recipe(*settings), median, 3, accelerator)
    assert (found.size, found.evaluation_size, found.small) == (size, evaluated, small)
    assert found.stored == stored


def test_rsb_a3_trains_at_160_and_is_evaluated_at_224_of_236():
    found = decide_shape(load_recipe("rsb-a3"), (375, 500), 3, accelerator=False)
    assert (found.size, found.evaluation_size, found.stored) == (160, 224, 236)


# -- normalisation --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 3]))
def test_mean_and_deviation_are_those_of_all_pixels(seed, channels):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 5, 5, channels), dtype=np.uint8)
    found = measure(Listed(list(pixels)), channels, seed=seed)
    scaled = pixels.reshape(-1, channels) / 255
    assert found.mean == pytest.approx(scaled.mean(0), abs=1e-12)
    assert found.std == pytest.approx(scaled.std(0), abs=1e-9)


def test_pictures_of_different_sizes_count_by_their_pixels():
    dark, bright = np.zeros((4, 4, 1), np.uint8), np.full((2, 2, 1), 255, np.uint8)
    found = measure(Listed([dark, bright]), 1, seed=0)
    assert found.mean == pytest.approx((4 / 20,))


def test_a_normalised_training_set_has_mean_0_and_deviation_1():
    pixels = np.random.default_rng(0).integers(30, 90, (50, 6, 6, 3), dtype=np.uint8)
    mean, std = measure(Listed(list(pixels)), 3, seed=0).tensors()
    x = to_input(torch.from_numpy(pixels), mean, std).double()
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        x.std((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0
    )


def test_a_channel_that_never_changes_is_only_shifted():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), dtype=np.uint8)
    pixels[..., 1] = 77
    found = measure(Listed(list(pixels)), 3, seed=0)
    assert found.mean[1] == pytest.approx(77 / 255)
    assert found.std[1] == 1.0
    mean, std = found.tensors()
    x = to_input(torch.from_numpy(pixels), mean, std)
    assert x[:, 1].abs().max() < 1e-6


def test_of_a_large_set_a_sample_is_measured_that_the_seed_decides(monkeypatch):
    monkeypatch.setattr(inputs, "MEASURED", 20)
    pixels = list(np.random.default_rng(0).integers(0, 256, (100, 2, 2, 1), dtype=np.uint8))
    first, again, other = (measure(Listed(pixels), 1, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first != other


# -- mirrors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "matter"),
    [
        (tuple("0123456789"), True),
        (("A", "B", "C", "ampersand"), True),
        (("left", "right"), True),
        (("Left hand", "foot"), True),
        (("turn_left", "stop"), True),
        (("keep-right", "stop"), True),
        (("rechts abbiegen", "halt"), True),
        (("clockwise", "still"), True),
        (("cat", "dog"), False),
        (("copyright", "leftover"), False),
        (("airplane", "bright"), False),
        (("10", "11"), False),
    ],
)
def test_mirrors_matter_where_the_names_speak_of_signs_or_sides(classes, matter):
    assert mirrors_matter(classes) is matter


def test_flips_are_decided_by_the_names_unless_the_recipe_decides():
    digits, animals = tuple("0123"), ("cat", "dog")
    assert not augmentation_of(recipe(), digits, shape()).flip
    assert augmentation_of(recipe(), animals, shape()).flip
    assert augmentation_of(recipe("augmentation.flip=true"), digits, shape()).flip
    assert not augmentation_of(recipe("augmentation.flip=false"), animals, shape()).flip


def test_large_pictures_are_cropped_and_resized_instead_of_padded():
    asked = recipe("augmentation.crop_padding=4")
    assert augmentation_of(asked, ("cat",), shape()).crop_padding == 4
    large = augmentation_of(asked, ("cat",), shape(128, small=False))
    assert (large.crop_padding, large.random_resized_crop) == (0, (0.35, 1.0))
    own = recipe("augmentation.random_resized_crop=[0.08, 1]")
    assert augmentation_of(own, ("cat",), shape(128, small=False)).random_resized_crop == (0.08, 1)


def test_randaugment_is_asked_of_10_and_done_of_30():
    found = augmentation_of(recipe("augmentation.randaugment=[2, 7]"), ("cat",), shape())
    assert found.randaugment == (2, 21)


# -- the same picture in every way in ------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i, (height, width) in enumerate([(40, 40), (60, 35), (33, 90), (20, 24), (50, 51)]):
        pixels = rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        path = tmp_path / f"{i}.png"
        (picture.convert("L") if i == 4 else picture).save(path)
        paths.append(path)
    return paths


def split_of(paths, channels=3):
    labels = np.zeros(len(paths), np.int64)
    return Split(labels, [p.name for p in paths], channels, paths=list(paths))


SHAPES = {
    "small": shape(16),
    "small grey": shape(16, channels=1),
    "large": shape(24, small=False),
    "large grey": shape(24, channels=1, small=False),
    "evaluated larger": shape(16, 28, small=False, crop=0.95),
}


@pytest.mark.parametrize("how", SHAPES.values(), ids=SHAPES)
def test_a_file_to_predict_is_what_the_store_holds(files, how):
    stored = open_store(split_of(files, how.channels), how, (40, 40), None)
    single = picture_files(files, how)
    assert len(single) == len(stored) == len(files)
    for i in range(len(files)):
        assert np.array_equal(single[i], stored[i]), files[i]


@pytest.mark.parametrize("how", SHAPES.values(), ids=SHAPES)
def test_batches_are_the_same_from_a_store_from_files_and_from_a_list(files, how):
    labels = np.zeros(len(files), np.int64)
    single = picture_files(files, how)
    ways = [
        open_store(split_of(files, how.channels), how, (40, 40), None),
        single,
        Listed([single[i] for i in range(len(files))]),
    ]
    found = [evaluation_batches(way, labels, how, 8, CPU).batch(0).pictures for way in ways]
    side = how.evaluation_size
    assert found[0].shape == (len(files), side, side, how.channels)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_set_that_is_too_large_for_the_cache_is_decoded_each_time(files, monkeypatch):
    monkeypatch.setattr(inputs, "CACHE_BYTES", 1000)
    found = open_store(split_of(files), shape(16), (40, 40), None)
    assert "decoded each time" in found.note
    monkeypatch.undo()
    monkeypatch.setenv("RESIDUA_CACHE", str(files[0].parent / "cache"))
    stored = open_store(split_of(files), shape(16), (40, 40), None)
    assert np.array_equal(found[2], stored[2])


def test_decoding_tells_how_far_it_is(files):
    seen = []
    open_store(split_of(files), shape(16), (40, 40), lambda *told: seen.append(told))
    assert seen[-1] == ("decoding", 5, 5)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(1, 40))
def test_a_reduced_picture_keeps_its_aspect_and_a_small_one_itself(height, width, channels, side):
    picture = np.full((height, width, channels), 9, np.uint8)
    found = reduced(picture, side)
    if min(height, width) <= side:
        assert found is picture
        return
    assert min(found.shape[:2]) == side
    assert found.shape[2] == channels
    longer = max(height, width) * side / min(height, width)
    assert abs(max(found.shape[:2]) - longer) <= 0.5
    assert (found == 9).all()


def test_normalisation_gives_float32_tensors():
    mean, std = Normalisation((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)).tensors()
    assert mean.dtype == std.dtype == torch.float32
    assert std.tolist() == [1.0, 2.0, 3.0]
