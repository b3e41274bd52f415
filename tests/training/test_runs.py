"""Whole runs through the Python interface: what they make, and what can be done with them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import residua
from residua.errors import BadInput
from residua.training import checkpoint
from residua.training.api import find_lr, resume
from residua.training.classification.run import ClassificationRun
from residua.training.folder import read_model
from residua.training.interruption import InterruptedRunError
from residua.training.state import State, Watcher

WriteSet = Callable[..., Path]


def train(source: Path | str, out: Path, *settings: str, **given: Any) -> ClassificationRun:
    quickly = ["steps=4", "batch_size=16", *settings]
    return residua.train(source, out=out, **{"recipe": "he2015-cifar", **given}, settings=quickly)


@pytest.fixture(scope="module")
def trained(corners: Path, tmp_path_factory: pytest.TempPathFactory) -> ClassificationRun:
    """Return a run that has learned its four corners; not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "run"
    # The recipe's flip would teach that left is right.
    more = ("steps=60", "augmentation.flip=false", "augmentation.crop_padding=0", "ema=0.9")
    return train(corners, out, *more, "evaluation.every_epochs=2")


# -- what a run leaves ------------------------------------------------------------------------------


def test_a_run_learns_what_can_be_learned(trained: ClassificationRun) -> None:
    assert trained.measures["accuracy"] >= 0.9
    assert trained.measures["split"] == "val" and trained.measures["n"] == 10
    low, high = trained.measures["interval"]
    assert 0 <= low < trained.measures["accuracy"] <= high + 1e-12 <= 1 + 1e-12


def test_the_files_of_a_run(trained: ClassificationRun) -> None:
    names = {path.name for path in trained.path.iterdir() if "tfevents" not in path.name}
    assert names == {
        *("config.yaml", "split.json", "setup.json", "metrics.csv", "report.html"),
        *("checkpoint.safetensors", "best.safetensors", "model.safetensors"),
    }
    config = yaml.safe_load((trained.path / "config.yaml").read_text())
    assert config["recipe"]["steps"] == 60 and config["seed"] == 0


def test_metrics_and_events_tell_the_same(trained: ClassificationRun) -> None:
    with (trained.path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(trained.path))
    events.Reload()
    logged = events.Scalars("val/accuracy")
    assert [event.step for event in logged] == [int(row["step"]) for row in rows]
    found = [float(row["val_accuracy"]) for row in rows]
    np.testing.assert_allclose([event.value for event in logged], found, rtol=1e-6)
    assert len(events.Scalars("train/loss")) == 60


def test_the_model_is_the_best_on_the_validation_split(trained: ClassificationRun) -> None:
    _, _, facts = read_model(trained.path / "model.safetensors")
    state = checkpoint.load(trained.path / "checkpoint.safetensors")["state"]
    best = max(row["val_accuracy"] for row in state["history"])
    assert facts["val_accuracy"] == best == facts["measures"]["accuracy"]
    assert facts["step"] == state["best_step"]


def test_checkpoint_holds_what_rule_two_names(trained: ClassificationRun) -> None:
    saved = checkpoint.load(trained.path / "checkpoint.safetensors")
    parts = {"model", "average", "optimiser", "scaler", "random", "state", "recipe", "setup"}
    assert set(saved) == parts
    assert {"card", "plan", "versions"} == set(saved["setup"])
    assert saved["setup"]["card"]["classes"] == [
        "north east",
        "north west",
        "south east",
        "south west",
    ]
    assert {"mean", "std"} == set(saved["setup"]["card"]["normalisation"])


# -- what can be done with one ----------------------------------------------------------------------


def test_evaluating_again_gives_the_measures_of_the_end(trained: ClassificationRun) -> None:
    found = residua.open_run(trained.path).evaluate()
    for key in ("accuracy", "loss", "n", "interval"):
        assert found[key] == trained.measures[key]
    assert np.trace(found["confusion"]) == round(found["accuracy"] * found["n"])


def test_labels_of_other_data_are_matched_by_name(
    trained: ClassificationRun, write_set: WriteSet, tmp_path: Path
) -> None:
    """The other set lacks a class, so that its own numbers would be shifted by one."""
    names = ("north west", "north east", "south west", "south east")
    other = write_set(tmp_path / "other", dict.fromkeys(names, 6), seed=5)
    shutil.rmtree(other / "north east")
    found = residua.open_run(trained.path).evaluate(other)
    assert found["n"] == 18 and found["accuracy"] >= 0.8
    support = {row["name"]: row["support"] for row in found["per_class"]}
    assert support == {"north east": 0, "north west": 6, "south east": 6, "south west": 6}


def test_class_order_is_natural_and_kept_whatever_folders_the_other_set_has(
    write_set: WriteSet, tmp_path: Path
) -> None:
    """By string, "10" comes before "2"; both tools must use the recorded order."""
    run = train(write_set(tmp_path / "set", {"2": 12, "10": 12, "1": 12}), tmp_path / "run")
    assert run.classes == ("1", "2", "10")
    other = write_set(tmp_path / "other", {"10": 5, "2": 4}, seed=3)
    support = [(row["name"], row["support"]) for row in run.evaluate(other)["per_class"]]
    assert support == [("1", 0), ("2", 4), ("10", 5)]


def test_predict_names_pictures_and_survives_bad_ones(
    trained: ClassificationRun, write_set: WriteSet, tmp_path: Path
) -> None:
    fresh = write_set(tmp_path / "fresh", {"north west": 3}, seed=9)
    (fresh / "broken.png").write_bytes(b"no picture")
    alone = tmp_path / "grey.png"
    Image.open(fresh / "north west" / "000.png").convert("L").save(alone)
    rows = trained.predict([fresh, alone], top=2)
    assert [Path(row["path"]).name for row in rows] == [
        *("broken.png", "000.png", "001.png", "002.png", "grey.png"),
    ]
    assert "broken.png" in rows[0]["error"] and "class" not in rows[0]
    assert [row["class"] for row in rows[1:4]] == ["north west"] * 3
    assert all(len(row["top"]) == 2 for row in rows[1:])
    assert rows[1]["top"][0] == {"class": rows[1]["class"], "confidence": rows[1]["confidence"]}


def test_predictions_are_those_of_the_evaluation(trained: ClassificationRun, corners: Path) -> None:
    """The two ways to a picture give one answer: decoded into the cache, and one by one."""
    found = trained.evaluate(split="train")
    names = json.loads((trained.path / "split.json").read_text())["splits"]["train"]
    rows = trained.predict([corners / name for name in names])
    right = [row["class"] == Path(row["path"]).parent.name for row in rows]
    assert np.mean(right) == pytest.approx(found["accuracy"])


def test_a_model_file_alone_is_enough_to_predict(
    trained: ClassificationRun, corners: Path, tmp_path: Path
) -> None:
    shutil.copy(trained.path / "model.safetensors", tmp_path / "alone.safetensors")
    alone = residua.open_run(tmp_path / "alone.safetensors")
    picture = corners / "north west" / "000.png"
    assert alone.predict(picture) == trained.predict(picture)
    assert alone.evaluate(corners)["n"] == 96
    with pytest.raises(BadInput, match=r"alone\.safetensors"):
        alone.evaluate()  # which needs the run's own split


def test_a_trained_network_goes_to_torchvision_and_back(corners: Path, tmp_path: Path) -> None:
    run = train(corners, tmp_path / "run", "steps=1", model="resnet18")
    state = residua.torchvision_state_dict(run.model)
    assert state["layer1.0.conv1.weight"].shape == (64, 64, 3, 3) and state["fc.bias"].shape == (4,)
    torch.save(state, tmp_path / "theirs.pth")
    back = residua.create_model("resnet18", num_classes=4).eval()
    back = back.to(memory_format=torch.channels_last)  # as runs have it
    residua.load_weights(back, tmp_path / "theirs.pth")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(back(x), run.model(x))


def test_training_goes_on_from_the_weights_of_a_run(
    trained: ClassificationRun, corners: Path, tmp_path: Path
) -> None:
    run = train(
        corners,
        tmp_path / "run",
        "steps=1",
        "optimiser.lr=1e-9",
        "augmentation.flip=false",
        weights=trained.path / "model.safetensors",
    )
    assert run.measures["accuracy"] == trained.measures["accuracy"]


# -- pictures of every kind -------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3)])
def test_channels_follow_the_pictures(
    write_set: WriteSet, tmp_path: Path, mode: str, channels: int
) -> None:
    source = write_set(tmp_path / "set", {"a": 12, "b": 12}, mode=mode)
    run = train(source, tmp_path / "run", "steps=2")
    assert run.card.shape.channels == channels
    assert run.evaluate(source)["n"] == 24
    assert all("class" in row for row in run.predict(source))


class Stop(Watcher):
    """Asks for a stop after a step, as Ctrl-C does."""

    def step(self, state: State, loss: float, lr: float) -> None:
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_larger_pictures_of_many_shapes_train_and_go_on(
    write_set: WriteSet, tmp_path: Path, kills: Any
) -> None:
    """90 x 120 pixels and others, kept whole in the cache and cut at random by workers."""
    source = write_set(tmp_path / "set", {"a": 10}, size=(90, 120), ending="jpg")
    write_set(tmp_path / "more", {"b": 10}, size=(110, 80), ending="jpg")
    shutil.move(tmp_path / "more" / "b", source / "b")
    settings = ("steps=3", "batch_size=6", "size=64", "augmentation.random_resized_crop=[0.3, 1.0]")
    whole = train(source, tmp_path / "whole", *settings, model="resnet18", workers=0)
    assert whole.card.shape.size == 64 and not whole.card.shape.small
    with pytest.raises(InterruptedRunError):
        train(source, tmp_path / "parts", *settings, model="resnet18", workers=2, watcher=Stop())
    resume(tmp_path / "parts")
    assert kills.differences(tmp_path / "parts", tmp_path / "whole") == []


# -- what a recipe can ask for ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        ("augmentation.randaugment=[2, 7]", "steps=1"),
        ("accumulate=3", "batch_size=16", "batch_size=15"),
        ("precise_bn=4",),
        ("progressive=[[0.5, 0.5], [0.75, 0.75]]",),
        ("optimiser.lr=auto", "steps=2"),
        ("epochs=1.5", "augmentation.cutout=4", "clip_gradient=0.5", "label_smoothing=0.1"),
        ("evaluation.flip=true", "evaluation.batch_size=3", "model_options.norm=group"),
    ],
    ids=lambda settings: settings[0],
)
def test_settings_train(corners: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    run = train(corners, tmp_path / "run", *settings, workers=0)
    assert np.isfinite(run.measures["loss"]) and run.report.exists()


def test_frozen_parts_keep_weights_and_statistics(
    trained: ClassificationRun, corners: Path, tmp_path: Path
) -> None:
    before = trained.model.state_dict()
    settings = (
        "freeze=[stem, stages.0]",
        "steps=5",
        "optimiser.lr=0.01",
        "ema=0.5",
        "precise_bn=2",
    )
    run = train(corners, tmp_path / "run", *settings, weights=trained.path / "model.safetensors")
    for name, tensor in run.model.state_dict().items():
        frozen = name.startswith(("stem.", "stages.0."))
        if name.endswith("weight") or "running" in name:
            assert torch.equal(tensor, before[name]) == frozen, name


def test_the_range_test_suggests_a_rate_and_writes_nothing(
    corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_lr(corners, recipe="he2015-cifar", settings=["batch_size=16"])
    assert found.lrs == sorted(found.lrs) and len(found.lrs) == len(found.losses)
    assert 1e-5 < found.suggestion < 10
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_budget_becomes_steps_and_is_kept(corners: Path, tmp_path: Path) -> None:
    run = residua.train(corners, out=tmp_path / "run", budget="8s")
    setup = json.loads((run.path / "setup.json").read_text())
    plan = setup["plan"]
    assert plan["steps"] > 1 and plan["seconds_per_step"] > 0
    assert checkpoint.load(run.path / "checkpoint.safetensors")["state"]["step"] == plan["steps"]


def test_runs_without_a_name_get_the_next_free_one(
    corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for expected in ("corners-resnet20_cifar", "corners-resnet20_cifar-2"):
        run = residua.train(corners, recipe="he2015-cifar", settings=["steps=1", "batch_size=16"])
        assert run.path == Path("runs") / expected


def test_hostile_names_are_text_in_the_report(write_set: WriteSet, tmp_path: Path) -> None:
    names = {"<script>alert(1)</script>": 12, "<img src=x onerror=alert(2)>": 12}
    # A slash cannot be in a folder's name.
    source = write_set(
        tmp_path / "set", {name.replace("/", "\u2215"): n for name, n in names.items()}
    )
    (source / "<img src=x onerror=alert(2)>" / "011.png").rename(
        source / "<img src=x onerror=alert(2)>" / "<b onclick=alert(3)>.png"
    )
    run = train(source, tmp_path / "run", "steps=2", "val_fraction=0.5")
    page = run.report.read_text(encoding="utf-8")
    for raw in ("<script>alert(1)", "<img src=x", "<b onclick"):
        assert raw not in page
    assert "&lt;script&gt;alert(1)" in page
