"""A loss that is no number stops a run, or its batch is left out; the last checkpoint is a good one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import residua
from residua.training import checkpoint
from residua.training.classification import objective

QUICKLY = ("--recipe", "he2015-cifar", "--set", "batch_size=16")
Train = Callable[..., Any]


@pytest.fixture
def train(command: Callable[..., Any], tmp_path: Path) -> Train:
    """Train into tmp_path / "run"."""

    def call(source: Path, *more: object) -> Any:
        return command("train", source, *QUICKLY, "--out", tmp_path / "run", *more)

    return call


def test_a_loss_that_is_no_number_stops_the_run(
    train: Train, corners: Path, tmp_path: Path
) -> None:
    said = train(corners, "--set", "optimiser.lr=1e30", "--set", "steps=10")
    assert said.code == 1
    assert "step 1: the loss is nan (learning rate 1e+30)" in said.line
    assert ".png, " in said.line and "and 13 more" in said.line  # the batch's pictures
    good = tmp_path / "run" / "checkpoint.safetensors"
    assert f"the last good checkpoint is {good}" in said.line
    saved = safetensors.torch.load_file(good)
    assert all(torch.isfinite(t).all() for t in saved.values() if t.is_floating_point())


def test_weights_that_are_no_numbers_are_not_saved(
    train: Train, corners: Path, tmp_path: Path
) -> None:
    """The last step ruins the weights, and no loss follows that would show it."""
    said = train(corners, "--set", "optimiser.lr=1e38", "--set", "steps=1")
    assert said.code == 1 and "last good checkpoint" in said.line
    saved = safetensors.torch.load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert all(torch.isfinite(t).all() for t in saved.values() if t.is_floating_point())


def test_batches_are_left_out_if_asked_until_there_are_too_many(
    train: Train, corners: Path
) -> None:
    ruin = ("--set", "optimiser.lr=1e30", "--set", "steps=40", "--set", "non_finite=skip")
    said = train(corners, *ruin, "--set", "evaluation.every_epochs=10")
    assert said.code == 1 and "the loss is nan" in said.line
    assert "batch left out" in said.error


def test_one_batch_that_is_left_out_leaves_no_trace(
    corners: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault is put into one step; the run goes on as if the step had not been."""
    real, calls = objective.classification_loss, []

    def once_infinite(*given: Any) -> torch.Tensor:
        calls.append(1)
        loss: torch.Tensor = real(*given)
        return loss * float("inf") if len(calls) == 4 else loss

    monkeypatch.setattr(objective, "classification_loss", once_infinite)
    settings = ["steps=8", "batch_size=16", "ema=0.9", "non_finite=skip"]
    run = residua.train(corners, out=tmp_path / "run", recipe="he2015-cifar", settings=settings)
    state = fit_state(tmp_path / "run")
    assert state["skipped"] == 1 and state["step"] == 8
    assert state["warnings"][0]["text"] == "step 3: the loss is inf; batch left out"
    assert all(torch.isfinite(t).all() for t in run.model.state_dict().values())


def fit_state(run: Path) -> dict[str, Any]:
    state: dict[str, Any] = checkpoint.load(run / "checkpoint.safetensors")["state"]
    return state
