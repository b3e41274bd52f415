"""Training on masks from end to end: files in, masks out, nothing lost on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import residua
from residua.cli import main
from residua.errors import BadInput
from residua.training import checkpoint
from residua.training.segmentation.run import SegmentationRun
from residua.training.state import Watcher

SMALL = (
    *("steps=80", "batch_size=4", "model_options.width=4", "model_options.depth=3"),
    *("optimiser.lr=0.02", "ema=0", "segmentation.augmentation=light"),
)


def disc(rng: np.random.Generator, *sides: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright ball on noise, and where it is."""
    grid = np.indices(sides)
    centre = [rng.uniform(0.3 * n, 0.7 * n) for n in sides]
    far = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True))
    mask = far < (0.25 * min(sides)) ** 2
    picture = rng.normal(90, 20, sides) + 70 * mask
    return picture.clip(0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for i in range(12):
        picture, mask = disc(rng, 40, 48 + i)
        Image.fromarray(picture).save(root / "images" / f"cell{i}a.png")
        Image.fromarray(mask).save(root / "masks" / f"cell{i}a.png")
    return root


@pytest.fixture(scope="module")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> SegmentationRun:
    out = tmp_path_factory.mktemp("runs") / "run"
    run = residua.train(discs, out=out, settings=SMALL, device="cpu", workers=0)
    assert isinstance(run, SegmentationRun)
    return run


def test_discs_on_noise_are_learnt(trained: SegmentationRun) -> None:
    assert trained.measures["iou"] > 0.8
    assert trained.card.name == "unet" and trained.card.values == (0, 255)
    assert {p.name for p in trained.path.iterdir()} >= {
        *("config.yaml", "split.json", "setup.json", "metrics.csv"),
        *("checkpoint.safetensors", "best.safetensors", "model.safetensors", "report.html"),
    }
    header = (trained.path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,minutes,train_loss,val_loss,val_iou,lr"


def test_evaluating_again_gives_the_measures_of_the_end(trained: SegmentationRun) -> None:
    opened = residua.open_run(trained.path)
    again = opened.evaluate()
    for key in ("iou", "dice", "pixel_error", "loss"):
        assert again[key] == pytest.approx(trained.measures[key]), key
    for key in ("confusion", "split", "n"):
        assert again[key] == trained.measures[key], key
    alone = residua.open_run(trained.folder.model)
    assert isinstance(alone, SegmentationRun)


def test_masks_are_written_in_the_values_of_the_training(
    trained: SegmentationRun, discs: Path, tmp_path: Path
) -> None:
    rows = trained.predict(discs / "images", out=tmp_path, uncertainty=True)
    assert len(rows) == 12
    scores = []
    for row in rows:
        said = np.asarray(Image.open(row["mask"]))
        truth = np.asarray(Image.open(discs / "masks" / Path(row["path"]).name))
        assert said.shape == truth.shape and set(np.unique(said)) <= {0, 255}
        assert sum(row["shares"].values()) == pytest.approx(1.0)
        unsure = tifffile.imread(row["uncertainty"])
        assert unsure.shape == said.shape and unsure.min() >= 0 and unsure.max() <= 1 + 1e-6
        scores.append(((said > 0) & (truth > 0)).sum() / ((said > 0) | (truth > 0)).sum())
    assert np.median(scores) > 0.7


def test_a_run_with_itself_decides_as_it_does_alone(
    trained: SegmentationRun, discs: Path, tmp_path: Path
) -> None:
    path = discs / "images" / "cell3a.png"
    masks = []
    for vote in ("mean", "majority", "unanimity"):
        out = tmp_path / vote
        (row,) = trained.predict(path, out=out, members=[trained], vote=vote)
        masks.append(np.asarray(Image.open(row["mask"])))
    assert (masks[0] == masks[1]).all() and (masks[0] == masks[2]).all()
    with pytest.raises(BadInput, match="vote 'loudest': expected mean, majority, unanimity"):
        trained.predict(path, out=tmp_path, vote="loudest")


def test_a_picture_that_cannot_be_read_is_a_row_and_the_others_go_on(
    trained: SegmentationRun, discs: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes((discs / "images" / "cell0a.png").read_bytes()[:200])
    rows = trained.predict([cut, discs / "images" / "cell1a.png"], out=tmp_path / "out")
    assert "cut.png" in rows[0]["error"] and "mask" in rows[1]


class Stops(Watcher):
    """Interrupts a run after some steps, as Ctrl-C does."""

    def step(self, state: Any, loss: float, lr: float) -> None:
        if state.step == 7:
            raise KeyboardInterrupt


def test_a_run_that_was_interrupted_ends_with_the_same_weights(discs: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "settings": [
            *SMALL,
            "steps=12",
            "precision=32-true",  # one chosen by timing might be another the second time
            "checkpoint_seconds=1e-9",
            "segmentation.border_weights=true",
        ],
        "device": "cpu",
        "workers": 0,
    }
    whole = residua.train(discs, out=tmp_path / "whole", **given)
    with pytest.raises((KeyboardInterrupt, residua.errors.ResiduaError)):
        residua.train(discs, out=tmp_path / "parts", watcher=Stops(), **given)
    saved = checkpoint.load(tmp_path / "parts" / "checkpoint.safetensors")["state"]["step"]
    assert 0 < saved < 12
    parts = residua.training.api.resume(tmp_path / "parts")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, parts.model.state_dict()[name]), name


def test_volumes_are_trained_in_3d_and_a_mask_volume_is_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for i in range(4):
        picture, mask = disc(rng, 20, 24, 26)
        tifffile.imwrite(tmp_path / "set" / "images" / f"v{i}.tif", picture)
        tifffile.imwrite(tmp_path / "set" / "masks" / f"v{i}.tif", mask)
    settings = ["steps=30", "batch_size=2", "model_options.width=4", "model_options.depth=2"]
    settings += ["segmentation.dims=3", "segmentation.augmentation=light"]
    run = residua.train(tmp_path / "set", out=tmp_path / "run", settings=settings, device="cpu")
    assert run.card.name == "unet3d" and run.card.dims == 3
    assert json.loads(run.folder.setup.read_text())["plan"]["precision"] == "32-true"
    (row,) = run.predict(tmp_path / "set" / "images" / "v1.tif", out=tmp_path / "out")
    assert tifffile.imread(row["mask"]).shape == (20, 24, 26)


@pytest.mark.parametrize(
    ("spacing", "depth", "flat"),
    [
        ((1.0, 1.0, 1.0), 5, 0),
        ((2.0, 1.0, 1.0), 5, 0),  # twice as thick as wide is no reason yet
        ((3.0, 1.0, 1.0), 5, 1),  # 3 : 1 -> 3 : 2
        ((9.0, 2.0, 2.0), 5, 2),  # 9 : 2 -> 9 : 4 -> 9 : 8
        ((1.0, 2.0, 2.0), 5, 0),
        ((100.0, 1.0, 1.0), 3, 2),  # one level sees across slices
    ],
)
def test_slices_are_left_apart_until_pixels_are_half_as_wide_as_they_are_thick(
    tmp_path: Path, spacing: tuple[float, ...], depth: int, flat: int
) -> None:
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for i in range(3):
        for kind, array in zip(("images", "masks"), disc(rng, 16, 16, 16), strict=True):
            image = nibabel.Nifti1Image(array.T, np.diag([*spacing[::-1], 1.0]))
            nibabel.save(image, tmp_path / "set" / kind / f"v{i}.nii.gz")
    settings = ["steps=1", "batch_size=2", "model_options.width=2", "segmentation.dims=3"]
    settings += [f"model_options.depth={depth}"]
    run = residua.train(tmp_path / "set", out=tmp_path / "run", settings=settings, device="cpu")
    assert run.card.spacing == spacing
    assert run.card.options.get("flat", 0) == flat


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model=resnet18"], "resnet18 is a network for classification"),
        (["model=unet3d"], "unet3d is for pictures of 3 dimensions, and these have 2"),
        (["loss=binary_cross_entropy"], "loss binary_cross_entropy is not one for segmentation"),
        (["segmentation.augmentation=wild"], "segmentation.augmentation"),
    ],
)
def test_what_does_not_fit_masks_is_one_line(
    discs: Path, tmp_path: Path, settings: list[str], expected: str
) -> None:
    with pytest.raises(BadInput, match=expected) as said:
        residua.train(discs, out=tmp_path / "run", settings=[*SMALL, *settings], device="cpu")
    assert "\n" not in str(said.value)


def test_the_command_line_trains_evaluates_and_predicts(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    sets = [part for setting in (*SMALL, "steps=5") for part in ("--set", setting)]
    for arguments in (
        ["train", str(discs), "--out", str(out), *sets, "--json"],
        ["evaluate", str(out), "--json"],
        ["predict", str(out), str(discs / "images" / "cell0a.png"), "--json"],
    ):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        found = json.loads(capsys.readouterr().out)
        assert done.value.code == 0
    assert Path(found[0]["mask"]).parent == out / "masks"
