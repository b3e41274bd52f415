"""Whatever is wrong with what a user gives is one line that names it, through the real command line."""

from __future__ import annotations

import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from PIL import Image

import residua

QUICKLY = ("--recipe", "he2015-cifar", "--set", "steps=2", "--set", "batch_size=16")

Train = Callable[..., Any]


@pytest.fixture
def train(command: Callable[..., Any], tmp_path: Path) -> Train:
    """Train for two steps, into tmp_path / "run" unless told otherwise."""

    def call(source: object, *more: object) -> Any:
        out = () if "--out" in more else ("--out", tmp_path / "run")
        return command("train", source, *QUICKLY, *out, *more)

    return call


@pytest.fixture
def pictures(write_set: Callable[..., Path], tmp_path: Path) -> Path:
    """Return two classes of 20 pictures, to be damaged."""
    return write_set(tmp_path / "pictures", {"cat": 20, "dog": 20})


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that announces so many pixels, which it does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# -- pictures ---------------------------------------------------------------------------------------


def test_no_source_at_all(command: Callable[..., Any]) -> None:
    said = command("train")
    assert said.code == 2 and "residua train path/to/pictures" in said.line


def test_a_source_that_is_not_there(train: Train) -> None:
    said = train("digts")
    assert said.code == 2 and "Did you mean digits?" in said.line


def test_an_empty_folder(train: Train, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = train(tmp_path / "empty")
    assert said.code == 2 and str(tmp_path / "empty") in said.line
    assert not (tmp_path / "run").exists()


def test_one_class(train: Train, pictures: Path, tmp_path: Path) -> None:
    shutil.rmtree(pictures / "dog")
    said = train(pictures)
    assert said.code == 2 and "one class only (cat)" in said.line
    assert not (tmp_path / "run").exists()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda p: p.write_text("not a picture"), "is not a JPEG"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:300]), "truncated"),
    "zero bytes": (lambda p: p.write_bytes(b""), "0 bytes"),
    "huge": (lambda p: p.write_bytes(png_header(60_000, 60_000)), "pixels; expected"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_a_picture_that_cannot_be_read_is_named(
    train: Train, pictures: Path, damage: Callable[[Path], object], words: str
) -> None:
    damage(pictures / "dog" / "007.png")
    said = train(pictures)
    assert said.code == 2
    assert "dog/007.png" in said.line and words in said.line


def test_pictures_that_cannot_be_read_are_left_out_if_asked(train: Train, pictures: Path) -> None:
    for i, (damage, _) in enumerate(DAMAGES.values()):
        damage(pictures / "dog" / f"{i:03d}.png")
    assert "4 " in train(pictures).line
    said = train(pictures, "--skip-unreadable", "--overwrite", "--json")
    assert said.code == 0
    run = residua.open_run(said.value["run"])
    parts = [run.evaluate(split=split)["n"] for split in ("train", "val")]
    assert sum(parts) == 36


def test_nan_in_a_float_picture(train: Train, pictures: Path) -> None:
    values = np.full((16, 16), 0.5, np.float32)
    values[3, 4] = np.nan
    tifffile.imwrite(pictures / "cat" / "field.tif", values)
    said = train(pictures)
    assert said.code == 2 and "cat/field.tif" in said.line and "NaN" in said.line


def test_a_class_that_is_missing_from_test_is_a_warning_and_shifts_no_label(
    train: Train, write_set: Callable[..., Path], tmp_path: Path
) -> None:
    counts = {"ant": 8, "bee": 8, "cow": 8}
    write_set(tmp_path / "set" / "train", counts)
    write_set(tmp_path / "set" / "test", {"ant": 4, "cow": 4}, seed=1)
    said = train(tmp_path / "set", "--json")
    assert said.code == 0 and said.value["classes"] == ["ant", "bee", "cow"]
    by_class = residua.open_run(said.value["run"]).evaluate()["per_class"]
    assert [(row["name"], row["support"]) for row in by_class] == [
        ("ant", 4),
        ("bee", 0),
        ("cow", 4),
    ]


def test_a_class_that_is_only_in_test(
    train: Train, write_set: Callable[..., Path], tmp_path: Path
) -> None:
    write_set(tmp_path / "set" / "train", {"ant": 8, "bee": 8})
    write_set(tmp_path / "set" / "test", {"ant": 4, "cow": 4})
    said = train(tmp_path / "set")
    assert said.code == 2 and "cow" in said.line


def test_a_csv_with_a_file_that_is_missing(train: Train, pictures: Path) -> None:
    rows = [f"{p.relative_to(pictures)},{p.parent.name}" for p in sorted(pictures.glob("*/*.png"))]
    labels = pictures / "labels.csv"
    labels.write_text("\n".join(["path,label", *rows, "cat/999.png,cat"]))
    said = train(labels)
    assert said.code == 2 and "cat/999.png" in said.line
    labels.write_text("\n".join(["path,label", *rows]))
    assert train(labels, "--overwrite").code == 0


def test_seventeen_pictures_in_batches_of_sixteen_train(
    train: Train, write_set: Callable[..., Path], tmp_path: Path
) -> None:
    """A last batch of one picture has no variance for a norm."""
    write_set(tmp_path / "set" / "train", {"cat": 9, "dog": 8})
    write_set(tmp_path / "set" / "val", {"cat": 9, "dog": 8}, seed=1)
    said = train(tmp_path / "set", "--set", "steps=4", "--set", "precise_bn=3", "--json")
    assert said.code == 0 and said.value["n"] == 17


def test_parts_of_a_batch_that_are_too_small_for_a_norm(train: Train, corners: Path) -> None:
    said = train(corners, "--set", "accumulate=16")
    assert said.code == 2 and "accumulate 16" in said.line and "2 pictures or more" in said.line


@pytest.mark.parametrize("more", [(), ("--set", "size=64", "--set", "progressive=[[0.5, 0.5]]")])
def test_pictures_that_are_too_small_for_the_network(
    train: Train, corners: Path, more: tuple[str, ...]
) -> None:
    said = train(corners, "--model", "alexnet", *more)
    assert said.code == 2 and "alexnet takes pictures of 63 pixels" in said.line


# -- names and keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--model", "resnt18"), "Did you mean resnet18"),
        (("--set", "optimizer.lr=0.1"), "Did you mean optimiser.lr"),
        (("--set", "optimiser.lr=fast"), "optimiser.lr"),
        (("--set", "optimiser.lr"), "expected key=value"),
        (("--set", "model_options.widht=4"), "widht"),
        (("--recipe", "he2015-cifr"), "Did you mean he2015-cifar"),
        (("--budget", "ten minutes"), "expected e.g. 90s, 10m or 1.5h"),
        (("--device", "gpu"), "auto, cpu, cuda, mps"),
        (("--head", "newer"), "keep or new"),
        (("--set", "freeze=[steem]"), "steem"),
        (("--workers", "-1"), "workers"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
def test_names_keys_and_values_that_are_unknown(
    train: Train, corners: Path, more: tuple[str, ...], words: str
) -> None:
    said = train(corners, *more)
    assert said.code == 2 and words in said.line


def test_a_recipe_file_with_an_unknown_key(train: Train, corners: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: quick\nlabel_smoothin: 0.1\n")
    said = train(corners, "--recipe", recipe)
    assert said.code == 2
    assert str(recipe) in said.line and "Did you mean label_smoothing?" in said.line


# -- checkpoints ------------------------------------------------------------------------------------


def test_a_checkpoint_of_another_model(train: Train, corners: Path, tmp_path: Path) -> None:
    other = residua.create_model("resnet32_cifar", num_classes=4)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    said = train(corners, "--weights", tmp_path / "other.pth")
    assert said.code == 2
    assert "other.pth" in said.line and "resnet32_cifar" in said.line and "resnet20" in said.line


def test_another_number_of_classes_names_both_and_trains_with_a_new_head(
    train: Train, corners: Path, tmp_path: Path
) -> None:
    of_ten = residua.create_model("resnet20_cifar", num_classes=10)
    torch.save(of_ten.state_dict(), tmp_path / "ten.pth")
    said = train(corners, "--weights", tmp_path / "ten.pth")
    assert said.code == 2
    assert "(10, 64)" in said.line and "(4, 64)" in said.line and "--head new" in said.line
    more = ("--weights", tmp_path / "ten.pth", "--head", "new", "--overwrite")
    assert train(corners, *more).code == 0


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_truncated_checkpoint(train: Train, corners: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"half.{ending}"
    weights = residua.create_model("resnet20_cifar", num_classes=4).state_dict()
    (torch.save if ending == "pth" else safetensors.torch.save_file)(weights, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    said = train(corners, "--weights", path)
    assert said.code == 2 and str(path) in said.line and "truncated" in said.line


class Touch:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))]
)
def test_a_pickle_that_would_run_code_does_not(
    train: Train, corners: Path, tmp_path: Path, save: Callable[..., object]
) -> None:
    save({"state_dict": Touch(tmp_path / "ran")}, tmp_path / "evil.pth")
    said = train(corners, "--weights", tmp_path / "evil.pth")
    assert said.code == 2 and "would run code" in said.line
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model.safetensors", "setup.json"])
def test_a_truncated_file_of_a_run_is_named(
    train: Train, command: Callable[..., Any], corners: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    assert train(corners).code == 0
    file = run / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    verb = ("evaluate", run) if name.startswith("model") else ("train", "--resume", run)
    said = command(*verb)
    assert said.code == 2 and str(file) in said.line


# -- folders ----------------------------------------------------------------------------------------


def test_resuming_what_is_no_run(command: Callable[..., Any], tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        said = command("train", "--resume", place)
        assert said.code == 2 and str(place) in said.line and "no run to go on with" in said.line


def test_resuming_takes_nothing_that_would_make_it_another_run(
    train: Train, command: Callable[..., Any], corners: Path, tmp_path: Path
) -> None:
    assert train(corners).code == 0
    run = tmp_path / "run"
    for more in (
        ("--set", "optimiser.lr=1"),
        ("--model", "resnet18"),
        ("--epochs", "0.1"),
        ("--seed", "3"),
        ("--overwrite",),
        ("--find-lr",),
    ):
        said = command("train", "--resume", run, *more)
        assert said.code == 2, more
        assert said.line


def test_a_run_is_not_replaced_unless_asked(train: Train, corners: Path, tmp_path: Path) -> None:
    assert train(corners).code == 0
    said = train(corners)
    assert said.code == 2
    assert all(words in said.line for words in ("holds a run already", "--resume", "--overwrite"))
    assert train(corners, "--overwrite").code == 0


def test_other_things_in_the_output_folder_stay(
    train: Train, corners: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    for more in ((), ("--overwrite",)):
        said = train(corners, *more)
        assert said.code == 2 and "is no run" in said.line
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.tex"]


def test_what_a_killed_writer_left_is_no_hindrance(
    train: Train, corners: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    left = tmp_path / "run" / ".config.yaml.4711.aside"
    left.write_text("half a fi")
    assert train(corners).code == 0
    assert not left.exists()


def test_an_output_path_under_a_file(train: Train, corners: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = train(corners, "--out", tmp_path / "file" / "run")
    assert said.code == 1 and str(tmp_path / "file") in said.line


def test_a_cache_that_cannot_be_written_is_a_note(
    train: Train, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "file" / "cache"))
    said = train(pictures)
    assert said.code == 0 and "kept in memory" in said.error


def test_predicting_nothing(
    train: Train, command: Callable[..., Any], corners: Path, tmp_path: Path
) -> None:
    assert train(corners).code == 0
    for what in (tmp_path / "nowhere.png", tmp_path):
        (tmp_path / "folder").mkdir(exist_ok=True)
        said = command(
            "predict", tmp_path / "run", what if what != tmp_path else tmp_path / "folder"
        )
        assert said.code == 2 and str(tmp_path) in said.line


def test_evaluating_pictures_of_a_class_that_the_network_does_not_know(
    train: Train, command: Callable[..., Any], corners: Path, pictures: Path, tmp_path: Path
) -> None:
    assert train(corners).code == 0
    said = command("evaluate", tmp_path / "run", pictures)
    assert said.code == 2 and "cat" in said.line
    said = command("evaluate", tmp_path / "run", "--split", "tests")
    assert said.code == 2 and "train, val" in said.line


def test_a_failure_is_json_too(train: Train, tmp_path: Path) -> None:
    said = train(tmp_path / "nowhere", "--json")
    assert said.code == 2 and "nowhere" in said.value["error"]


def test_a_grey_checkpoint_on_colour_pictures_says_how_many_channels(
    train: Train, corners: Path, tmp_path: Path
) -> None:
    grey = residua.create_model("resnet20_cifar", num_classes=4, in_channels=1)
    torch.save(grey.state_dict(), tmp_path / "grey.pth")
    said = train(corners, "--weights", tmp_path / "grey.pth")
    assert said.code == 2 and "1 channels" in said.line


def test_a_picture_with_a_wrong_ending_is_read_all_the_same(train: Train, pictures: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(pictures / "cat" / "photo.jpg", format="PNG")
    assert train(pictures).code == 0
