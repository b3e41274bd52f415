"""Whatever is wrong with keypoints and pictures is one line that names it, through the real command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

import residua
from residua.data.drawn import figures
from tests.training.killed import ALONE, assert_a_kill_changes_no_bit

SMALL = ("batch_size=4", "size=32", "model=hourglass1", "model_options.width=8")
QUICKLY = [part for setting in ("steps=1", *SMALL) for part in ("--set", setting)]
TRAIN = Path("train/keypoints.json")

Train = Callable[..., Any]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return ten figures in splits: not to be changed."""
    folder = tmp_path_factory.mktemp("people") / "figures"
    figures.write(folder, 10, 0)
    return folder


@pytest.fixture
def people(drawn: Path, tmp_path: Path) -> Path:
    """Return a copy of them, to be damaged."""
    return Path(shutil.copytree(drawn, tmp_path / "people"))


@pytest.fixture(scope="module")
def trained(drawn: Path) -> Path:
    """Return the folder of a run on them."""
    out = drawn.parent / "run"
    residua.train(drawn, out=out, settings=("steps=1", *SMALL), device="cpu", workers=0)
    return out


@pytest.fixture
def train(command: Callable[..., Any], tmp_path: Path) -> Train:
    """Train for one step, into tmp_path / "run" unless told otherwise."""

    def call(source: object, *more: object) -> Any:
        return command("train", source, *QUICKLY, *ALONE, "--out", tmp_path / "run", *more)

    return call


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# -- annotations and pictures -----------------------------------------------------------------------------


def unlabelled(content: dict[str, Any]) -> None:
    for row in content["annotations"]:
        row["keypoints"] = [0] * len(row["keypoints"])


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no people": (lambda c: c.update(annotations=[]), "nobody to train on"),
    "no joints labelled": (unlabelled, "nobody to train on"),
    "no list of images": (lambda c: c.pop("images"), "no list of images"),
    "no categories": (lambda c: c.pop("categories"), "no list of categories"),
    "a joint short": (lambda c: c["annotations"][0]["keypoints"].pop(), "numbers; expected"),
    "a joint that is no number": (
        lambda c: c["annotations"][0]["keypoints"].__setitem__(0, float("nan")),
        "not finite",
    ),
    "a picture that is not listed": (
        lambda c: c["annotations"][0].update(image_id=9999),
        "which is not listed",
    ),
}


@pytest.mark.parametrize(("change", "words"), DAMAGES.values(), ids=DAMAGES)
def test_keypoints_that_are_wrong(
    train: Train, people: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(people / TRAIN, change)
    said = train(people)
    assert said.code == 2 and str(people) in said.line and words in said.line


def test_json_that_is_cut(train: Train, people: Path) -> None:
    file = people / TRAIN
    file.write_bytes(file.read_bytes()[:500])
    said = train(people)
    assert said.code == 2 and str(file) in said.line and "is not JSON" in said.line


def test_pictures_that_are_missing_cut_or_of_another_size(train: Train, people: Path) -> None:
    missing, cut, small, *_ = sorted((people / "train" / "images").iterdir())
    missing.unlink()
    said = train(people)
    assert said.code == 2 and said.line.count(missing.name) == 1 and "no such file" in said.line
    cut.write_bytes(cut.read_bytes()[:200])
    said = train(people, "--skip-unreadable", "--overwrite")
    assert said.code == 0 and "left out" in said.error
    record = json.loads((people.parent / "run" / "split.json").read_text())
    assert len(record["splits"]["train"]) == 4  # of six
    Image.new("RGB", (9, 9)).save(small)  # which can be read: the annotation is of something else
    said = train(people, "--skip-unreadable", "--overwrite")
    assert said.code == 2 and small.name in said.line and "9 x 9, not 128 x 128" in said.line
    shutil.rmtree(people / "train" / "images")
    shutil.rmtree(people / "val" / "images")
    shutil.rmtree(people / "test" / "images")
    said = train(people, "--overwrite")
    assert said.code == 2 and "no such file" in said.line


def test_a_task_or_a_network_that_is_not_the_datas(
    train: Train, drawn: Path, tmp_path: Path
) -> None:
    said = train(drawn, "--set", "model=unet", "--set", "model_options={}")
    assert said.code == 2 and "unet is a network for segmentation" in said.line
    said = train(drawn, "--set", "loss=dice")
    assert said.code == 2 and "loss dice is not one for pose" in said.line
    said = train(drawn, "--task", "segmentation", "--set", "model=unet")
    assert said.code == 2 and "no masks beside them" in said.line
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_of_keypoints_and_masks_is_for_joints_unless_it_is_said(
    command: Callable[..., Any], train: Train, people: Path, tmp_path: Path
) -> None:
    for kind in ("images", "masks"):
        (people / kind).mkdir()
        for i in range(4):
            values = np.zeros((16, 16), np.uint8)
            values[i : i + 8, 2:10] = 200
            Image.fromarray(values).save(people / kind / f"c{i}a.png")
    said = train(people, "--json")
    assert said.code == 0 and said.value["model"] == "hourglass1"
    small = ("steps=1", "batch_size=2", "model_options.width=2", "size=16")
    few = [part for setting in small for part in ("--set", setting)]
    said = command(
        *("train", people, "--task", "segmentation", *few, *ALONE),
        *("--out", tmp_path / "masks", "--json"),
    )
    assert said.code == 0 and said.value["model"] == "unet"


# -- predicting and evaluating ----------------------------------------------------------------------------


def test_predicting_what_cannot_be_read_and_where_nothing_can_be_written(
    command: Callable[..., Any], trained: Path, drawn: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    said = command("predict", trained, bad, "--json")
    assert said.code == 1 and said.value[0]["error"].count("bad.png") == 1
    picture = next((drawn / "test").rglob("*.png"))
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        said = command("predict", trained, picture, "--out", out)
        assert said.code == 1 and f"{out}: cannot be written" in said.line
    for more in (("--with", trained), ("--vote", "majority"), ("--uncertainty",)):
        said = command("predict", trained, picture, *more)
        assert said.code == 2 and "go with runs on masks" in said.line


def test_no_drawing_replaces_a_picture_or_another_drawing(
    command: Callable[..., Any], trained: Path, drawn: Path, tmp_path: Path
) -> None:
    picture = next((drawn / "test").rglob("*.png"))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(picture, tmp_path / folder / "x.png")
    said = command("predict", trained, tmp_path / "a", "--out", tmp_path / "a")
    assert said.code == 2 and "would be replaced" in said.line
    assert (tmp_path / "a" / "x.png").read_bytes() == picture.read_bytes()
    out = tmp_path / "out"
    said = command("predict", trained, tmp_path / "a", tmp_path / "b", "--out", out, "--json")
    assert said.code == 0 and sorted(p.name for p in out.iterdir()) == ["x-2.png", "x.png"]


def test_evaluating_joints_of_other_names(
    command: Callable[..., Any], trained: Path, people: Path
) -> None:
    def rename(content: dict[str, Any]) -> None:
        category = content["categories"][0]
        category["keypoints"] = [f"k{i}" for i in range(len(category["keypoints"]))]

    for split in ("train", "val", "test"):
        edit(people / split / "keypoints.json", rename)
    said = command("evaluate", trained, people)
    assert said.code == 2 and "has other joints" in said.line
    said = command("evaluate", trained, "--split", "tests")
    assert said.code == 2 and "train, val, test" in said.line


@pytest.mark.slow
def test_a_kill_in_training_changes_no_bit(drawn: Path, tmp_path: Path, kills: ModuleType) -> None:
    assert_a_kill_changes_no_bit(drawn, tmp_path, kills, SMALL)
