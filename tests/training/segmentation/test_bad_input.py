"""Whatever is wrong with pictures and masks is one line that names it, through the real command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

import residua
from tests.training.killed import ALONE, assert_a_kill_changes_no_bit

SMALL = ("batch_size=2", "model_options.width=2", "model_options.depth=2", "size=32")
QUICKLY = [part for setting in ("steps=2", *SMALL) for part in ("--set", setting)]

Train = Callable[..., Any]


def write_blobs(
    root: Path, n: int = 5, *, deep: bool = False, colour: bool = False, seed: int = 0
) -> Path:
    """Write n pictures of 32 x 40 with a bright square, and its mask of 0 and 255."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for i in range(n):
        mask = np.zeros((32, 40), bool)
        y, x = rng.integers(2, 16, 2)
        mask[y : y + 12, x : x + 12] = True
        picture = (rng.normal(80, 15, mask.shape) + 80 * mask).clip(0, 255).astype(np.uint8)
        shown: np.ndarray = picture.astype(np.uint16) * 200 if deep else picture
        if colour:
            shown = np.stack([picture, 255 - picture, picture], -1)
        Image.fromarray(shown).save(root / "images" / f"b{i}a.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "masks" / f"b{i}a.png")
    return root


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """Return a small set, to be damaged."""
    return write_blobs(tmp_path / "blobs")


@pytest.fixture
def train(command: Callable[..., Any], tmp_path: Path) -> Train:
    """Train for two steps, into tmp_path / "run" unless told otherwise."""

    def call(source: object, *more: object) -> Any:
        out = () if "--out" in more else ("--out", tmp_path / "run")
        return command("train", source, *QUICKLY, *ALONE, *out, *more)

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run on 8 bits of grey; its pictures are beside it."""
    folder = tmp_path_factory.mktemp("trained")
    write_blobs(folder / "blobs")
    residua.train(
        folder / "blobs", out=folder / "run", settings=("steps=2", *SMALL), device="cpu", workers=0
    )
    return folder / "run"


# -- pictures and masks -------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def with_nan(path: Path) -> None:
    path.unlink()
    values = np.full((32, 40), 0.5, np.float32)
    values[3, 4] = np.nan
    tifffile.imwrite(path.with_suffix(".tif"), values)


def in_colour(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (32, 40, 3), np.uint8)
    Image.fromarray(noise).save(path)


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "truncated picture": ("images/b2a.png", truncate, "cannot be decoded"),
    "truncated mask": ("masks/b2a.png", truncate, "cannot be decoded"),
    "empty picture": ("images/b2a.png", lambda p: p.write_bytes(b""), "0 bytes"),
    "empty mask": ("masks/b2a.png", lambda p: p.write_bytes(b""), "0 bytes"),
    "mask of another size": (
        "masks/b2a.png",
        lambda p: Image.new("L", (9, 9)).save(p),
        "9 x 9, its picture b2a.png 32 x 40",
    ),
    "mask in colour": ("masks/b2a.png", in_colour, "in colour"),
    "picture with NaN": ("images/b2a.png", with_nan, "NaN"),
}


@pytest.mark.parametrize(("file", "damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_file_that_is_wrong_is_named_once_and_left_out_if_asked(
    train: Train, blobs: Path, file: str, damage: Callable[[Path], object], words: str
) -> None:
    damage(blobs / file)
    said = train(blobs)
    assert said.code == 2
    assert said.line.count(file.removesuffix(".png")) == 1 and words in said.line
    if words == "cannot be decoded":
        said = train(blobs, "--skip-unreadable", "--overwrite")
        assert said.code == 0 and "left out" in said.error


def test_an_empty_folder(train: Train, tmp_path: Path) -> None:
    (tmp_path / "empty" / "images").mkdir(parents=True)
    (tmp_path / "empty" / "masks").mkdir()
    for more in ((), ("--task", "segmentation")):
        said = train(tmp_path / "empty", *more)
        assert said.code == 2 and str(tmp_path / "empty") in said.line
    assert not (tmp_path / "run").exists()


def test_masks_of_one_class(train: Train, blobs: Path) -> None:
    for path in (blobs / "masks").iterdir():
        Image.new("L", (40, 32)).save(path)
    said = train(blobs)
    assert said.code == 2 and "hold the class 0 only" in said.line


def test_pictures_without_a_mask_are_left_out_and_said(train: Train, blobs: Path) -> None:
    for i in (1, 3):
        (blobs / "masks" / f"b{i}a.png").unlink()
    said = train(blobs)
    assert said.code == 0 and "2 pictures have no mask and are left out" in said.error


def test_one_picture_gives_batches_of_its_patches(
    train: Train, tmp_path: Path, command: Callable[..., Any]
) -> None:
    said = train(write_blobs(tmp_path / "one", 1), "--set", "size=16")
    assert said.code == 0 and "rows" in said.error
    said = train(write_blobs(tmp_path / "two", 2), "--overwrite")
    assert said.code == 0


# -- another task ---------------------------------------------------------------------------------------


def test_a_task_that_is_not_the_datas(train: Train, blobs: Path, corners: Path) -> None:
    said = train(blobs, "--task", "pose")
    assert said.code == 2 and "holds no keypoints" in said.line
    said = train(corners, "--task", "segmentation")
    assert said.code == 2 and "no masks beside them" in said.line
    said = train(blobs, "--task", "segmentatoin")
    assert said.code == 2 and "Did you mean segmentation?" in said.line


def test_classes_that_are_called_images_and_masks(
    command: Callable[..., Any],
    train: Train,
    tmp_path: Path,
    write_set: Callable[..., Path],
) -> None:
    source = write_set(tmp_path / "set", {"images": 20, "masks": 20})
    said = train(source)
    assert said.code == 2 and "in colour" in said.line and "--task classification" in said.line
    few = ("--recipe", "he2015-cifar", "--set", "steps=2", "--set", "batch_size=8")
    said = command(
        *("train", source, "--task", "classification", *few, *ALONE, "--out", tmp_path / "classes")
    )
    assert said.code == 0


# -- predicting and evaluating --------------------------------------------------------------------------


def test_pictures_that_the_network_does_not_know(
    command: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    deep = write_blobs(tmp_path / "deep", 2, deep=True)
    colour = write_blobs(tmp_path / "colour", 2, colour=True)
    for source, words in ((deep, "has more than 8 bits"), (colour, "has 3 channels; expected 1")):
        picture = source / "images" / "b0a.png"
        said = command("predict", trained, picture, "--out", tmp_path / "out", "--json")
        assert said.code == 1  # nothing could be predicted
        (row,) = said.value
        assert words in row["error"] and row["error"].count("b0a.png") == 1
    said = command("evaluate", trained, deep)
    assert said.code == 2 and "has more than 8 bits" in said.line
    assert command("evaluate", trained, colour).code == 0  # colours are made grey, as in training


def test_pictures_of_8_bits_for_a_network_of_16(
    command: Callable[..., Any], train: Train, trained: Path, tmp_path: Path
) -> None:
    deep = write_blobs(tmp_path / "deep", deep=True)
    assert train(deep).code == 0
    picture = trained.parent / "blobs" / "images" / "b0a.png"
    said = command("predict", tmp_path / "run", picture, "--json")
    assert said.code == 1 and "has 8 bits; the network learnt from deeper" in said.value[0]["error"]
    said = command("evaluate", tmp_path / "run", trained.parent / "blobs")
    assert said.code == 2 and "has 8 bits" in said.line
    said = command("predict", trained, picture, "--with", tmp_path / "run")
    assert said.code == 2 and "its bits are not those of" in said.line


def test_masks_of_other_values_cannot_be_compared(
    command: Callable[..., Any], trained: Path, blobs: Path
) -> None:
    mask = np.zeros((32, 40), np.uint8)
    mask[:5] = 7
    Image.fromarray(mask).save(blobs / "masks" / "b1a.png")
    said = command("evaluate", trained, blobs)
    assert said.code == 2 and "7" in said.line and "0, 255" in said.line
    said = command("evaluate", trained, "--split", "tests")
    assert said.code == 2 and "train, val" in said.line


def test_a_run_for_another_task_decides_on_no_mask(
    command: Callable[..., Any], trained: Path, corners: Path, tmp_path: Path
) -> None:
    few = ("--recipe", "he2015-cifar", "--set", "steps=1", "--set", "batch_size=8")
    assert command("train", corners, *few, *ALONE, "--out", tmp_path / "classes").code == 0
    picture = trained.parent / "blobs" / "images" / "b0a.png"
    said = command("predict", trained, picture, "--with", tmp_path / "classes")
    assert said.code == 2 and "is a run for classification" in said.line
    for more in (("--with", trained), ("--uncertainty",), ("--vote", "majority")):
        said = command("predict", tmp_path / "classes", picture, *more)
        assert said.code == 2 and "go with runs on masks" in said.line
    said = command("predict", trained, picture, "--vote", "loudest")
    assert said.code == 2 and "expected mean, majority, unanimity" in said.line


# -- files that are written -------------------------------------------------------------------------------


def test_an_output_that_cannot_be_a_folder(
    command: Callable[..., Any], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    picture = trained.parent / "blobs" / "images" / "b0a.png"
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        said = command("predict", trained, picture, "--out", out)
        assert said.code == 1 and f"{out}: cannot be written" in said.line


def test_no_mask_replaces_a_picture_or_another_mask(
    command: Callable[..., Any], trained: Path, blobs: Path, tmp_path: Path
) -> None:
    pictures = blobs / "images"
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    said = command("predict", trained, pictures, "--out", pictures)
    assert said.code == 2 and "would be replaced" in said.line
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before
    shutil.copytree(pictures, tmp_path / "again")
    out = tmp_path / "out"
    said = command("predict", trained, pictures, tmp_path / "again", "--out", out, "--json")
    assert said.code == 0 and len({row["mask"] for row in said.value}) == 10
    assert len(list(out.iterdir())) == 10


LIMITED = """
import resource, signal, sys
from residua.cli.main import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
sys.exit(run(sys.argv[2:]))
"""


def test_a_full_disk_while_masks_are_written_leaves_no_half_mask(
    trained: Path, tmp_path: Path
) -> None:
    picture = trained.parent / "blobs" / "images" / "b0a.png"
    arguments = ("predict", trained, picture, "--out", tmp_path / "out", "--uncertainty")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "1000", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "internal error" not in done.stderr
    assert [p.name for p in (tmp_path / "out").iterdir()] in ([], ["b0a.png"])


@pytest.mark.slow
def test_a_kill_in_training_changes_no_bit(blobs: Path, tmp_path: Path, kills: ModuleType) -> None:
    assert_a_kill_changes_no_bit(blobs, tmp_path, kills, SMALL)
