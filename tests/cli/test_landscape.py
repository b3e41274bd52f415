"""`residua landscape`: from a run to arrays, figures and a page; again, and with something wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import residua

Command = Callable[..., Any]
SMALL = ("--points", "3", "--pictures", "12")


@pytest.fixture(scope="module")
def runs(corners: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Train two networks of one kind for some steps."""
    folder = tmp_path_factory.mktemp("landscapes")
    given = {"recipe": "he2015-cifar", "settings": ["steps=3", "batch_size=16"]}
    return [residua.train(corners, out=folder / str(s), seed=s, **given).path for s in (0, 1, 2)]


def test_a_plane_is_measured_and_drawn(command: Command, runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "plane"
    said = command("landscape", runs[0], *SMALL, "--range", "-0.5:0.5", "--pairs", 2, "--out", out)
    assert said.code == 0, said.error
    assert "pair 1: loss" in said.out and f"page: {out / 'landscape.html'}" in said.out
    assert "scaled filter by filter" in said.out and "held while the weights move" in said.out
    names = {"landscape.npz", "landscape-0.vtk", "landscape-1.vtk", "contour.png", "landscape.html"}
    assert names <= {path.name for path in out.iterdir()}
    arrays = np.load(out / "landscape.npz")
    assert arrays["loss"].shape == (2, 3, 3) and arrays["x"].tolist() == [-0.5, 0.0, 0.5]
    opened = residua.open_run(runs[0])
    x, y = opened.sample(12, split="train")
    with torch.no_grad():
        plain = F.cross_entropy(opened.model(x), y).item()
    assert arrays["loss"][:, 1, 1] == pytest.approx([plain, plain], rel=1e-5)


def test_json_is_one_value_and_a_second_call_evaluates_nothing(
    command: Command, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residua.xray.landscape.losses import Meter

    call = ("landscape", runs[0], *SMALL, "--line", "--seed", 7, "--out", tmp_path, "--json")
    first = command(*call).value
    assert first["facts"]["seed"] == 7 and first["facts"]["pictures"] == 12
    monkeypatch.setattr(Meter, "at", None)
    again = command(*call).value
    assert again["surfaces"] == first["surfaces"]
    assert json.loads((tmp_path / "landscape.json").read_text())["norms"] == "frozen"


@pytest.mark.parametrize("norms", ["recalibrated", "batch"])
def test_every_policy_for_norms_is_said(
    command: Command, runs: list[Path], tmp_path: Path, norms: str
) -> None:
    said = command("landscape", runs[0], *SMALL, "--line", "--norms", norms, "--out", tmp_path)
    assert said.code == 0, said.error
    assert {"recalibrated": "taken anew", "batch": "of each batch"}[norms] in said.out


def test_a_line_leads_to_another_run(command: Command, runs: list[Path], tmp_path: Path) -> None:
    more = ("--range", "0:1", "--out", tmp_path, "--split", "val")
    said = command("landscape", runs[0], *SMALL, "--directions", f"to:{runs[1]}", *more)
    assert said.code == 0, said.error
    ends = np.load(tmp_path / "landscape.npz")["loss"][0, 0, [0, 2]]
    for run, loss in zip(runs, ends, strict=False):
        opened = residua.open_run(run)
        x, y = residua.open_run(runs[0]).sample(12, split="val")
        with torch.no_grad():
            assert loss == pytest.approx(F.cross_entropy(opened.model(x), y).item(), rel=1e-5)


def test_a_plane_of_components_holds_the_networks(
    command: Command, runs: list[Path], tmp_path: Path
) -> None:
    more = ("--directions", "pca", "--trajectory", runs[0].parent, "--out", tmp_path)
    said = command("landscape", runs[2], *SMALL, *more, "--json")
    assert said.code == 0, said.error
    assert sum(said.value["facts"]["shares"]) == pytest.approx(1.0)
    assert np.load(tmp_path / "landscape.npz")["path"].shape == (3, 2)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--directions", "to"), "expected to:RUN2"),
        (("--directions", "up"), "'up': expected random, pca, to"),
        (("--directions", "up:x"), "expected random, pca or to:RUN2"),
        (("--directions", "pca"), "give --trajectory"),
        (("--range", "1"), "expected two numbers"),
        (("--range", "1:-1"), "a smaller and a larger"),
        (("--norms", "warm"), "frozen, recalibrated, batch"),
        (("--split", "spring"), "the set has"),
        (("--points", "1"), "2 or more"),
    ],
)
def test_what_is_wrong_is_one_line(
    command: Command, runs: list[Path], tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    said = command("landscape", runs[0], "--pictures", 12, *arguments, "--out", tmp_path / "none")
    assert said.code == 2
    assert line in said.line
    assert not (tmp_path / "none").exists()
