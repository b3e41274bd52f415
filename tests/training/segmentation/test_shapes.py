"""Shapes of whole pictures: what is averaged, what is absent, and what of it a run's measures hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error

import residua
from residua.data.pairs import open_pairs
from residua.training.segmentation import shapes
from residua.training.segmentation.matching import found
from residua.training.segmentation.shapes import ShapeScores, shape_words
from tests.training.segmentation.made import CELLS

TWO = ("background", "cell")


def squares(*corners: tuple[int, int], side: int = 6, size: int = 40) -> np.ndarray:
    """Return a mask of squares of class 1."""
    mask = np.zeros((size, size), np.uint8)
    for y, x in corners:
        mask[y : y + side, x : x + side] = 1
    return mask


def scored(classes: tuple[str, ...], *pairs: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    scores = ShapeScores(classes)
    for key, (said, truth) in enumerate(pairs):
        scores.add(key, said, truth)
    return scores.result()


@given(st.integers(0, 99), st.integers(2, 3), st.integers(2, 4))
def test_the_right_answer_has_every_score_and_no_distance(seed: int, dims: int, k: int) -> None:
    truth = np.random.default_rng(seed).integers(0, k, (7,) * dims)
    result = scored(tuple("abcd"[:k]), (truth, truth))
    boundary, objects = result["boundary"], result["objects"]
    assert boundary["boundary_f1"] == boundary["surface_dice"] == 1
    assert boundary["mean_distance"] == boundary["hd95"] == boundary["missed"] == 0
    assert objects["f1"] == objects["pq"] == objects["sq"] == objects["mean_ap"] == 1
    assert (result["rand"] is None) == (dims == 3 or k > 2)
    assert result["rand"] is None or result["rand"]["rand"] in (None, 1)


def test_a_square_that_moved_is_as_far_away_as_it_moved() -> None:
    truth, said = squares((10, 10)), squares((10, 13))
    row = scored(TWO, (said, truth))["boundary"]["per_class"][0]
    # of 20 points on each boundary the leading side is 3 away, the sides behind it 2 and 1, and the
    # trailing side, inside the other square, 1, 2, 2 and 1 from its nearest side
    assert row["hd95"] == 3 and row["boundary_f1"] == pytest.approx(14 / 20)
    assert row["mean_distance"] == pytest.approx((6 * 3 + 2 * (2 + 1) + (1 + 2 + 2 + 1)) / 20)


def test_means_are_over_the_pictures_that_have_the_class() -> None:
    full, none = squares((10, 10)), squares()
    result = scored(TWO, (full, full), (none, none), (none, full), (full, none))
    row = result["boundary"]["per_class"][0]
    assert row["boundary_f1"] == pytest.approx(1 / 3)  # of the three where there is something
    assert row["mean_distance"] == 0 and row["missed"] == 2
    objects = result["objects"]
    assert (objects["true"], objects["predicted"]) == (2, 2)
    assert objects["f1"] == 0.5 and objects["sq"] == 1
    assert result["rand"]["pictures"] == 4 and result["rand"]["rand"] == 0.5


def test_a_class_that_no_picture_has_is_absent_and_no_mean_counts_it() -> None:
    truth = squares((10, 10))
    result = scored(("background", "cell", "mitosis"), (truth, truth))
    cell, mitosis = result["boundary"]["per_class"]
    assert mitosis["boundary_f1"] is None and mitosis["mean_distance"] is None
    assert result["boundary"]["boundary_f1"] == cell["boundary_f1"] == 1
    assert [row["f1"] for row in result["objects"]["per_class"]] == [1, None]


def test_objects_are_parts_of_a_class_and_never_of_the_border() -> None:
    truth, said = squares((4, 4), (4, 20), (20, 4)), squares((4, 4), (4, 22), (30, 30))
    truth[0, :], said[0, :] = 2, 2
    objects = scored(CELLS, (said, truth))["objects"]
    assert [row["name"] for row in objects["per_class"]] == ["cell"]
    assert (objects["true"], objects["predicted"]) == (3, 3)
    # the second square overlaps by 4 columns of 6: IoU 24 / 48
    assert objects["f1"] == pytest.approx(4 / 6) and objects["sq"] == 1
    assert objects["pq"] == pytest.approx(1 / 3)


def test_the_rand_score_is_one_less_scikit_images_error() -> None:
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 9, (4, 4)) > 1, np.ones((9, 9), int))
    said = truth * (rng.random(truth.shape) > 0.02)
    from skimage.measure import label
    from skimage.segmentation import expand_labels

    parts = expand_labels(label(said, connectivity=1), 100)
    error, *_ = adapted_rand_error(label(truth, connectivity=1), parts)
    assert scored(("membrane", "inside"), (said, truth))["rand"]["rand"] == pytest.approx(1 - error)


def test_distances_are_in_the_unit_of_each_volumes_own_spacing() -> None:
    truth, said = np.zeros((12, 8, 8), int), np.zeros((12, 8, 8), int)
    truth[2:6, 2:6, 2:6], said[4:8, 2:6, 2:6] = 1, 1
    scores = ShapeScores(TWO, (1.0, 0.5, 0.5), "mm")
    scores.add(0, said, truth, (3.0, 9.0, 9.0))
    assert scores.result()["boundary"]["hd95"] == 6.0
    assert scores.result()["boundary"]["tolerance"] == 1.0
    scores.add(0, said, truth)  # records none: the usual one
    assert scores.result()["boundary"]["hd95"] == 2.0
    pixels = ShapeScores(TWO)
    pixels.add(0, said, truth, (3.0, 9.0, 9.0))
    assert pixels.result()["boundary"]["hd95"] == 2.0
    assert pixels.result()["boundary"]["unit"] == "pixels"


def test_a_picture_that_is_too_large_is_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "LARGEST", 1600)
    full, large = squares((4, 4)), squares((4, 4), size=41)
    found = scored(TWO, (full, full), (large, large))
    for key in ("boundary", "objects", "rand"):
        assert (found[key]["pictures"], found[key]["left_out"]) == (1, 1)
    alone = scored(TWO, (large, large))
    assert alone == {"boundary": None, "objects": None, "rand": None}
    assert shape_words(alone) == []


def test_ranks_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    every = [rng.integers(0, 3, (2, 12, 12)) for _ in range(4)]
    whole, first, second = (ShapeScores(CELLS) for _ in range(3))
    for key, (said, truth) in enumerate(every):
        whole.add(key, said, truth)
        (first, second)[key % 2].add(key, said, truth)
    second.add(0, *every[0])  # a rank may see a picture twice
    first.merge(second)
    assert first.result() == whole.result()


def test_as_many_specks_as_noise_has_are_matched_at_once() -> None:
    """Dense, 65,536 by 65,536 overlaps would need 34 GB."""
    numbers = np.arange(1, 2**16 + 1).reshape(256, 256)
    said = numbers.copy()
    said[:16] = 0
    one = found(said, numbers)
    assert (one.true, one.predicted) == (2**16, 2**16 - 16 * 256)
    assert len(one.pairs[0]) == len(one.pairs[-1]) == one.predicted


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six thick slices of 40 x 44 a volume, 3 x 1 x 0.5 µm apart: seen slice by slice."""
    root, rng = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    space = {"axes": "ZYX"} | {
        f"PhysicalSize{a}": s for a, s in zip("ZYX", (3, 1, 0.5), strict=True)
    }
    for i in range(4):
        mask = np.zeros((6, 40, 44), np.uint8)
        y, x = rng.integers(4, 20, 2)
        mask[1:5, y : y + 14, x : x + 16] = 255
        picture = (rng.normal(80, 15, mask.shape) + mask / 3).clip(0, 255).astype(np.uint8)
        for kind, array in (("images", picture), ("masks", mask)):
            tifffile.imwrite(root / kind / f"v{i}.ome.tif", array, ome=True, metadata=space)
    return root


def test_planes_of_a_volume_have_the_spacing_within_them(volumes: Path) -> None:
    pairs = open_pairs(volumes)
    assert pairs.dims == 2 and pairs.spacing == (3.0, 1.0, 0.5)
    assert pairs.splits["train"].spacing(0) == (1.0, 0.5)
    assert shapes.shapes_of(pairs).spacing == (1.0, 0.5)
    whole = open_pairs(volumes, dims=3)
    assert whole.splits["train"].spacing(0) == (3.0, 1.0, 0.5)
    assert shapes.shapes_of(whole).spacing == (3.0, 1.0, 0.5)


def test_planes_are_cut_along_the_axis_that_is_asked_for(volumes: Path) -> None:
    pairs = open_pairs(volumes, dims=2, axis=1)
    part = pairs.splits["train"]
    assert pairs.axis == 1 and part.shape(0) == (6, 44) and part.spacing(0) == (3.0, 0.5)
    assert part.read(0)[0].shape == (6, 44, 1)


def test_the_end_of_a_training_and_an_evaluation_score_shapes(
    volumes: Path, tmp_path: Path
) -> None:
    settings = ["steps=4", "batch_size=2", "model_options.width=4", "model_options.depth=2"]
    run = residua.train(volumes, out=tmp_path / "run", settings=settings, device="cpu", workers=0)
    again = residua.open_run(run.path).evaluate()
    for key in ("boundary", "objects", "rand"):
        assert again[key] == run.measures[key], key
    assert run.card.axis == 0
    assert again["boundary"]["unit"] == "µm" and again["boundary"]["tolerance"] == 1.0
    assert set(again["rand"]) == {"rand", "split", "merge", "pictures", "left_out"}
    assert "boundary F1" in run.sentence(again) and "within 1 µm" in run.sentence(again)
    page = run.report.read_text(encoding="utf-8")
    for words in ("Boundaries and objects", "Boundary F1", "Object F1", "Split score"):
        assert words in page
    header = (run.path / "metrics.csv").read_text().splitlines()[0]
    assert "boundary" not in header  # while it trains, pixels are enough
