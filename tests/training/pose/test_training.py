"""Training on joints from end to end: keypoint JSON in, joints out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import residua
from residua.data.drawn import figures
from residua.errors import BadInput
from residua.training.api import resume
from residua.training.pose.run import PoseRun

SMALL = (
    *("steps=6", "batch_size=4", "size=64", "model=hourglass1", "model_options.width=16"),
    *("optimiser.lr=0.003", "ema=0"),
)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "figures"
    figures.write(folder, 12, 0)
    return folder


@pytest.fixture(scope="module")
def trained(people: Path, tmp_path_factory: pytest.TempPathFactory) -> PoseRun:
    out = tmp_path_factory.mktemp("runs") / "run"
    run = residua.train(people, out=out, settings=SMALL, device="cpu", workers=0)
    assert isinstance(run, PoseRun)
    return run


def test_a_folder_with_keypoints_is_trained_on_as_joints(trained: PoseRun) -> None:
    assert trained.card.task == "pose" and trained.classes[-1] == "head_top"
    assert trained.card.flip and trained.card.mirror[0] == 5  # right ankle, left ankle
    assert 0 <= trained.measures["pck"] <= 1 and trained.measures["joints"] > 0
    assert trained.report.stat().st_size > 10_000
    header = (trained.path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,epoch,minutes,train_loss,val_loss,val_pck,lr"


def test_evaluating_again_gives_the_measures_of_the_end(trained: PoseRun) -> None:
    again = residua.open_run(trained.path).evaluate()
    for key in ("pck", "loss", "oks", "auc", "oks_ap", "oks_ar"):
        assert again[key] == pytest.approx(trained.measures[key], rel=1e-4), key
    assert again["split"] == "test" and again["n"] == trained.measures["n"]
    assert again["oks_basis"] == trained.measures["oks_basis"]
    page = trained.report.read_text()
    assert "OKS-AP" in page and "areas as annotated, which are those of the boxes" in page


def test_joints_come_in_pixels_of_the_whole_picture_and_are_drawn(
    trained: PoseRun, people: Path, tmp_path: Path
) -> None:
    picture = next((people / "test").rglob("*.png"))
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    row, unread = trained.predict([picture, bad], out=tmp_path / "out")
    assert [joint["name"] for joint in row["joints"]] == list(trained.classes)
    width, height = Image.open(picture).size
    places = np.array([(joint["x"], joint["y"]) for joint in row["joints"]])
    assert (places > -width).all() and (places < 2 * max(width, height)).all()
    drawing = np.asarray(Image.open(row["drawing"]).convert("RGB"))
    assert drawing.shape[0] >= height and "bad.png" in unread["error"]


def test_a_longer_run_goes_on_where_it_was(people: Path, tmp_path: Path) -> None:
    short = residua.train(people, out=tmp_path / "run", settings=SMALL, device="cpu", workers=0)
    longer = resume(tmp_path / "run", settings=["steps=8"])
    assert short.path == longer.path
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert rows[-1].startswith("8,")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model=unet"], "unet is a network for segmentation, and the data is for pose"),
        (["loss=dice"], "loss dice is not one for pose: expected heatmaps"),
        (["pose.rotation=-1"], "pose.rotation"),
    ],
)
def test_what_does_not_fit_joints_is_one_line(
    people: Path, tmp_path: Path, settings: list[str], expected: str
) -> None:
    with pytest.raises(BadInput, match=expected) as said:
        residua.train(people, out=tmp_path / "run", settings=[*SMALL, *settings], device="cpu")
    assert "\n" not in str(said.value)


@pytest.mark.slow
def test_joints_are_learnt_and_no_map_falls_silent(tmp_path: Path) -> None:
    figures.write(tmp_path / "set", 120, 0)
    settings = [*SMALL, "steps=200", "batch_size=8", "model_options.width=32"]
    run = residua.train(tmp_path / "set", out=tmp_path / "run", settings=settings, device="cpu")
    assert run.measures["silent"] == []
    assert run.measures["pck"] > 0.15  # chance is below 0.05: a disc of 0.2 torsos in a crop
