"""A run that was interrupted and goes on is the run that was not, bit by bit."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import residua
from residua.errors import BadInput
from residua.training import checkpoint
from residua.training.api import resume
from residua.training.interruption import InterruptedRunError
from residua.training.optimisers import lr_factor
from residua.training.recipe import ScheduleSection
from residua.training.state import State, Watcher

STEPS = 14
EVERYTHING = (  # all kinds of state: momentum, average, statistics, draws of every sort
    "batch_size=16",
    "evaluation.every_epochs=0.5",
    "ema=0.9",
    "augmentation.mixup=0.4",
    "augmentation.flip=true",
    "augmentation.random_erasing=0.2",
    "model_options.stochastic_depth=0.3",
    "precise_bn=2",
)


class CrashError(Exception):
    """What a fault in the middle of a step raises."""


class At(Watcher):
    """Does something after a step, and keeps what is said."""

    def __init__(self, step: int = -1, action: Callable[[], None] = lambda: None) -> None:
        self.at, self.action = step, action
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, state: State, loss: float, lr: float) -> None:
        if state.step == self.at:
            self.action()


def crash() -> None:
    raise CrashError


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def train(source: Path | str, out: Path, *settings: str, **given: Any) -> residua.training.api.Run:
    return residua.train(
        source,
        out=out,
        recipe="he2015-cifar",
        settings=[f"steps={STEPS}", *EVERYTHING, *settings],
        **given,
    )


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def undisturbed(corners: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(corners, out, workers=0)
    return out


@pytest.fixture
def finished(undisturbed: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, to be changed."""
    return Path(shutil.copytree(undisturbed, tmp_path / "finished"))


# -- the same bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_crash_in_the_middle_changes_no_bit(
    corners: Path, undisturbed: Path, tmp_path: Path, kills: ModuleType, workers: int
) -> None:
    often = "checkpoint_seconds=0.000001"
    with pytest.raises(CrashError):
        train(corners, tmp_path / "run", often, workers=workers, watcher=At(9, crash))
    assert kills.checkpoint_step(tmp_path / "run") == 8
    resume(tmp_path / "run")
    found = kills.differences(tmp_path / "run", undisturbed)
    assert found == ["checkpoint: tree"]  # of which checkpoint_seconds is the only difference
    one, other = (
        checkpoint.load(r / "checkpoint.safetensors") for r in (tmp_path / "run", undisturbed)
    )
    assert one["recipe"] | {"checkpoint_seconds": 60.0} == other["recipe"]


def test_a_crash_before_the_first_checkpoint_changes_no_bit(
    corners: Path, undisturbed: Path, tmp_path: Path, kills: ModuleType
) -> None:
    with pytest.raises(CrashError):
        train(corners, tmp_path / "run", watcher=At(9, crash))
    assert kills.checkpoint_step(tmp_path / "run") == 0
    resume(tmp_path / "run")
    assert kills.differences(tmp_path / "run", undisturbed) == []


def test_ctrl_c_saves_says_how_to_go_on_and_changes_no_bit(
    corners: Path, undisturbed: Path, tmp_path: Path, kills: ModuleType
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match=f"step 5 of {STEPS}.*--resume") as stopped:
        train(corners, tmp_path / "run", workers=2, watcher=At(5, interrupt))
    assert stopped.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
    assert kills.checkpoint_step(tmp_path / "run") == 5
    resume(tmp_path / "run", workers=0)
    assert kills.differences(tmp_path / "run", undisturbed) == []


@pytest.mark.parametrize(
    "settings",
    [
        ("optimiser.name=adamw", "optimiser.lr=0.001"),
        ("optimiser.name=lamb", "optimiser.lr=0.005", "clip_gradient=1.0"),
        ("accumulate=3", "batch_size=15", "progressive=[[0.5, 0.75]]", "freeze=[stem]"),
        ("precision=bf16-mixed", "schedule.name=one_cycle", "augmentation.repeats=2"),
        ("loss=binary_cross_entropy", "augmentation.cutmix=1.0", "non_finite=skip"),
        ("model_options.drop=shake_drop", "model_options.norm=ghost(4)"),
        (
            "model_options.drop=res_drop",
            "model_options.dropout=0.2",
            "model_options.norm=renorm(3, 5, 2, 8, 8)",
            "model_options.recompute=true",
        ),
        ("model=shake_shake26_2x32d_cifar", "model_options={}", "batch_size=4", "ema=0"),
    ],
    ids=lambda settings: settings[0],
)
def test_every_kind_of_state_survives_an_interruption(
    corners: Path, tmp_path: Path, kills: ModuleType, settings: tuple[str, ...]
) -> None:
    train(corners, tmp_path / "whole", *settings)
    with pytest.raises(InterruptedRunError):
        train(corners, tmp_path / "parts", *settings, watcher=At(6, interrupt))
    with pytest.raises(InterruptedRunError):
        resume(tmp_path / "parts", watcher=At(11, interrupt))
    resume(tmp_path / "parts")
    assert kills.differences(tmp_path / "parts", tmp_path / "whole") == []


def test_different_seeds_do_end_differently(
    corners: Path, undisturbed: Path, tmp_path: Path, kills: ModuleType
) -> None:
    train(corners, tmp_path / "other", seed=1)
    found = kills.differences(tmp_path / "other", undisturbed)
    assert "model: head.fc.weight" in found and "metrics.csv" in found


# -- what a resumed run remembers -------------------------------------------------------------------


def test_learning_rate_history_and_best_go_on(
    corners: Path, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train(corners, tmp_path / "run", watcher=At(10, interrupt))
    before = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")["state"]
    kept = rows(tmp_path / "run")
    resume(tmp_path / "run")
    assert rows(tmp_path / "run")[: len(kept)] == kept
    assert [r["lr"] for r in rows(tmp_path / "run")] == [r["lr"] for r in rows(undisturbed)]
    after = checkpoint.load(tmp_path / "run" / "checkpoint.safetensors")["state"]
    assert after["best_score"] >= before["best_score"] >= 0
    assert after["seconds"] > before["seconds"] > 0
    assert after["best_score"] == max(row["val_accuracy"] for row in after["history"])


def test_worse_weights_do_not_replace_the_best(finished: Path) -> None:
    """The best weights of the first part stay, whatever a ruinous second part does."""
    saved = checkpoint.load(finished / "checkpoint.safetensors")
    saved["state"]["best_score"] = 1.1  # cannot be reached again
    checkpoint.save(finished / "checkpoint.safetensors", saved)
    before = (finished / "best.safetensors").read_bytes()
    resume(finished, settings=["steps=20"])
    assert (finished / "best.safetensors").read_bytes() == before
    assert checkpoint.load(finished / "checkpoint.safetensors")["state"]["step"] == 20


def test_metrics_of_steps_past_the_checkpoint_are_dropped(corners: Path, tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        train(corners, tmp_path / "run", watcher=At(12, crash))
    assert len(rows(tmp_path / "run")) > 1  # and the checkpoint is of step 0
    resume(tmp_path / "run")
    steps = [int(row["step"]) for row in rows(tmp_path / "run")]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS


# -- a finished run ---------------------------------------------------------------------------------


def test_a_finished_run_gets_its_report_again_and_says_so(
    finished: Path, undisturbed: Path, kills: ModuleType
) -> None:
    (finished / "report.html").unlink()
    watcher = At()
    run = resume(finished, watcher=watcher)
    assert any(f"all {STEPS} steps are done" in note for note in watcher.notes)
    assert run.report.stat().st_size > 100_000
    assert kills.differences(finished, undisturbed) == []


def test_a_run_becomes_longer_on_the_schedule_of_its_whole_length(finished: Path) -> None:
    resume(finished, epochs=4)
    recorded = rows(finished)
    steps = 4 * 6  # 86 pictures in batches of 16
    assert int(recorded[-1]["step"]) == steps
    schedule = ScheduleSection(name="step", milestones=(0.5, 0.75), gamma=0.1)
    for row in recorded[-2:]:
        factor = lr_factor(schedule, int(row["step"]) - 1, steps, 6)
        assert float(row["lr"]) == pytest.approx(0.1 * factor)


def test_a_longer_run_that_is_killed_at_once_is_still_longer(finished: Path) -> None:
    with pytest.raises(CrashError):
        resume(finished, settings=["steps=18"], watcher=At(STEPS + 1, crash))
    resume(finished)
    assert int(rows(finished)[-1]["step"]) == 18


@pytest.mark.parametrize("change", [{"epochs": 1}, {"settings": [f"steps={STEPS}"]}])
def test_a_run_does_not_become_shorter(finished: Path, change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"step {STEPS} is done already") as refused:
        resume(finished, **change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("setting", ["optimiser.lr=1", "model=resnet32_cifar", "stepss=3"])
def test_only_the_length_of_a_run_can_change(finished: Path, setting: str) -> None:
    with pytest.raises(BadInput, match=r"only epochs, steps, budget can change"):
        resume(finished, settings=[setting])


# -- where things are -------------------------------------------------------------------------------


def test_a_run_goes_on_from_another_folder_and_without_its_starting_weights(
    corners: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(corners, tmp_path / "here" / "set")
    shutil.copy(undisturbed / "model.safetensors", tmp_path / "here" / "start.safetensors")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InterruptedRunError):
        train("set", Path("run"), weights="start.safetensors", watcher=At(3, interrupt))
    Path("start.safetensors").unlink()
    monkeypatch.chdir("/")
    assert resume(tmp_path / "here" / "run").measures["n"] == 10


def test_a_named_set_is_recorded_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "digits").mkdir()  # a folder of that name is not meant
    monkeypatch.chdir(tmp_path)
    run = residua.train("digits", out="run", settings=["steps=1", "precision=32-true"])
    assert yaml.safe_load((run.path / "config.yaml").read_text())["source"] == "digits"
    assert run.evaluate()["n"] == 180


def test_a_picture_that_has_gone_is_named(corners: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(corners, tmp_path / "set"))
    with pytest.raises(InterruptedRunError):
        train(source, tmp_path / "run", watcher=At(3, interrupt))
    (source / "north west" / "003.png").unlink()
    with pytest.raises(BadInput, match=r"north west/003\.png") as refused:
        resume(tmp_path / "run")
    assert "\n" not in str(refused.value)
