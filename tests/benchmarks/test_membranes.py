"""The benchmark of membranes trains every way on the same slices and scores them alike."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def membranes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import membranes

    return membranes


def test_the_plain_network_has_the_parameters_of_segmentation_models(
    membranes: ModuleType,
) -> None:
    # What summing the parameters of segmentation_models_pytorch.Unet("resnet34") gives.
    with torch.device("meta"):
        network = membranes.PlainUNet(3, 1)
    assert sum(p.numel() for p in network.parameters()) == 24_436_369


def test_the_plain_network_scores_every_pixel(membranes: ModuleType) -> None:
    torch.manual_seed(0)
    assert membranes.PlainUNet(1, 2).eval()(torch.zeros(1, 1, 64, 32)).shape == (1, 2, 64, 32)


def test_the_plain_loss_of_certain_and_of_even_scores(membranes: ModuleType) -> None:
    labels = torch.tensor([[[0, 1], [1, 0]]])
    right = 100.0 * torch.nn.functional.one_hot(labels, 2).movedim(-1, 1)
    assert float(membranes.plain_loss(right, labels)) == pytest.approx(0.0, abs=1e-6)
    even = float(membranes.plain_loss(torch.zeros(1, 2, 2, 2), labels))
    assert even == pytest.approx(0.5 + math.log(2), abs=1e-5)  # D = 2 * 2 * 0.5 / (2 + 2)


def test_crops_of_pictures_and_masks_are_the_same_places(membranes: ModuleType) -> None:
    torch.manual_seed(0)
    masks = torch.arange(2 * 12 * 10).reshape(2, 12, 10)
    pictures, labels = membranes.plain_batch(masks[:, None].float(), masks, 6)
    assert pictures.shape == (8, 1, 6, 6)
    assert torch.equal(pictures[:, 0].long(), labels)
    assert len({tuple(labels[i].flatten().tolist()) for i in range(8)}) > 1


def test_the_held_out_slices_are_those_that_a_run_holds_out(
    membranes: ModuleType, tmp_path: Path
) -> None:
    membranes.draw_slices(tmp_path / "drawn")
    pairs = membranes.link_splits(tmp_path / "drawn", tmp_path / "split")
    assert {key: len(part) for key, part in pairs.splits.items()} == {"train": 12, "val": 3}
    assert [Path(name).name for name in pairs.splits["val"].names] == ["12.png", "13.png", "14.png"]
    for split, part in pairs.splits.items():
        for i, name in enumerate(part.names):
            picture, mask = part.read(i)
            stem = Path(name).name
            drawn = [
                np.asarray(Image.open(tmp_path / "drawn" / kind / stem))
                for kind in ("images", "masks")
            ]
            assert np.array_equal(picture[..., 0], drawn[0]), split
            assert np.array_equal(255 * mask, drawn[1]), split


def test_masks_of_more_than_two_values_are_refused(membranes: ModuleType, tmp_path: Path) -> None:
    membranes.draw_slices(tmp_path / "drawn")
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "drawn/masks/00.png")
    with pytest.raises(SystemExit, match="two values"):
        membranes.link_splits(tmp_path / "drawn", tmp_path / "split")


def test_the_truth_scores_one_and_its_threshold_comes_from_training_slices(
    membranes: ModuleType, tmp_path: Path
) -> None:
    membranes.draw_slices(tmp_path / "drawn")
    pairs = membranes.link_splits(tmp_path / "drawn", tmp_path / "split")
    truth = {key: membranes._masks(pairs, key).astype(np.float32) for key in ("train", "val")}
    # Inside is 0.9, borders are 0.35: only a threshold of 0.4 or more tells them apart.
    answer = {"held": 0.35 + 0.55 * truth["val"], "chosen": 0.35 + 0.55 * truth["train"][-3:]}
    found = membranes.score(answer, pairs)
    assert found["iou"] == found["rand"] == found["split"] == found["merge"] == 1.0
    assert found["pixel_error"] == 0.0
    assert found["threshold"] == pytest.approx(0.4)
    assert found["slices"] == [1.0, 1.0, 1.0]


def test_a_prediction_without_a_segment_has_no_merge_score(
    membranes: ModuleType, tmp_path: Path
) -> None:
    membranes.draw_slices(tmp_path / "drawn")
    pairs = membranes.link_splits(tmp_path / "drawn", tmp_path / "split")
    nothing = np.zeros((3, 64, 64), np.float32)
    found = membranes.score({"held": nothing, "chosen": nothing}, pairs)
    assert (found["rand"], found["split"], found["merge"]) == (0.0, 0.0, None)
    assert membranes._shown([None]) == "-"
    assert membranes._shown([0.5]) == "50.00"
    assert membranes._shown([0.5, 0.25, 0.75]) == "50.00 (25.00 .. 75.00)"


def test_five_decide_by_mean_by_majority_and_by_unanimity(
    membranes: ModuleType, tmp_path: Path
) -> None:
    said = np.random.default_rng(0).random((5, 2, 6, 6)).astype(np.float32)
    said[:, 0, 0, 0] = 0.9
    files = [str(tmp_path / f"{k}.npz") for k in range(5)]
    for file, p in zip(files, said, strict=True):
        np.savez(file, chosen=1 - p, held=p)
    found = membranes.decide("ensemble", files)
    votes = (said > 0.5).sum(0)
    assert found["five small, mean"]["held"] == pytest.approx(said.mean(0), abs=1e-6)
    assert found["five small, mean"]["chosen"] == pytest.approx(1 - said.mean(0), abs=1e-6)
    assert np.array_equal(found["five small, majority"]["held"], votes > 2)
    assert np.array_equal(found["five small, unanimity"]["held"], votes == 5)


@pytest.mark.slow
def test_every_way_answers_for_the_same_slices(run: Callable[..., Any], tmp_path: Path) -> None:
    found = run("membranes.py", "--out", str(tmp_path))
    assert set(found["trained"]) == {"2d", "3d", "ensemble", "plain"}
    assert found["trained"]["ensemble"][0]["steps"] == 5 * found["trained"]["2d"][0]["steps"] == 10
    assert list(found["scores"]) == [
        "residua, 2-D",
        "residua, 3-D",
        "five small, mean",
        "five small, majority",
        "five small, unanimity",
        "plain",
        "plain, mirrored",
    ]
    for (row,) in found["scores"].values():
        assert row["n"] == found["slices"]["val"] == 3
        assert 0.0 <= row["iou"] <= 1.0
        assert 0.0 <= row["rand"] <= 1.0
    assert json.loads((tmp_path / "membranes.json").read_text()) == found
    assert Image.open(tmp_path / "membranes.png").width == 9 * 260 - 4
