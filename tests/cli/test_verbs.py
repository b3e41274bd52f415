"""The verbs end to end, as a person or a script calls them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import residua

Command = Callable[..., Any]
STEPS = ("--set", "steps=5", "--set", "precision=32-true")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train digits for five steps in a process of its own; return the run."""
    run = tmp_path_factory.mktemp("verbs") / "digits"
    done = subprocess.run(
        [sys.executable, "-m", "residua", "train", "digits", *STEPS, "--out", str(run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"resnet9_cifar: \d+\.\d\d% right on 180 test pictures", done.stdout)
    assert f"report: {run / 'report.html'}" in done.stdout
    assert "1,797 pictures, 10 classes" in done.stderr and "step       5" in done.stderr
    return run


@pytest.fixture(scope="module")
def corner_run(corners: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("verbs") / "corners"
    settings = ["steps=3", "batch_size=16"]
    residua.train(corners, out=run, recipe="he2015-cifar", settings=settings)
    return run


def test_training_leaves_everything_that_it_names(digits: Path) -> None:
    for name in ("report.html", "metrics.csv", "config.yaml", "model.safetensors"):
        assert (digits / name).stat().st_size > 0
    assert list(digits.glob("events.out.tfevents.*"))


def test_the_recorded_command_is_the_one_that_was_given(digits: Path) -> None:
    page = (digits / "report.html").read_text(encoding="utf-8")
    assert f"residua train digits --set steps=5 --set precision=32-true --out {digits}" in page


def test_train_prints_one_json_value(command: Command, corners: Path, tmp_path: Path) -> None:
    more = ("--recipe", "he2015-cifar", "--set", "steps=1", "--set", "batch_size=16", "--json")
    said = command("train", corners, "--out", tmp_path / "run", *more)
    assert said.code == 0 and said.error == ""
    assert said.value["run"] == str(tmp_path / "run")
    assert said.value["n"] == 10 and len(said.value["classes"]) == 4


def test_evaluate_its_own_and_other_pictures(
    command: Command, digits: Path, corner_run: Path, corners: Path
) -> None:
    own = command("evaluate", digits, "--json").value
    assert own["split"] == "test" and own["n"] == 180 and len(own["confusion"]) == 10
    assert command("evaluate", digits, "--split", "train", "--json").value["n"] == 1437
    other = command("evaluate", corner_run, corners, "--json").value
    assert other["split"] == "all" and other["n"] == 96


def test_evaluate_for_a_person(command: Command, corner_run: Path) -> None:
    said = command("evaluate", corner_run)
    assert said.code == 0 and "south east" in said.out
    assert re.search(r"\d+\.\d\d% right on 10 val pictures \(95 % interval", said.out)


def test_predict_files_and_folders(
    command: Command, corner_run: Path, corners: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(corners / "north west", tmp_path / "folder"))
    (folder / "000.png").write_bytes(b"")
    one = corners / "south east" / "001.png"
    said = command("predict", corner_run, one, folder, "--json", "--top", "2")
    assert said.code == 0
    rows = said.value
    assert len(rows) == 25 and rows[0]["path"] == str(one)
    assert "0 bytes" in rows[1]["error"] and rows[1]["path"] == str(folder / "000.png")
    assert len(rows[2]["top"]) == 2
    table = command("predict", corner_run, one, folder / "000.png")
    assert table.code == 0 and "unreadable" in table.out and str(one) in table.out


def test_predict_fails_where_no_picture_can_be_read(
    command: Command, corner_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"bad")
    said = command("predict", corner_run, tmp_path / "bad.png", "--json")
    assert said.code == 1 and "bad.png" in said.value[0]["error"]


def test_what_only_masks_have_is_refused_for_classes(
    command: Command, corner_run: Path, corners: Path
) -> None:
    for option in ("--instances", "--uncertainty"):
        said = command("predict", corner_run, corners / "south east" / "001.png", option)
        assert said.code == 2 and "--min-size and --memory go with runs on masks" in said.line
    said = command("predict", corner_run, corners, "--min-size", "4")
    assert said.code == 2 and "go with runs on masks" in said.line


def test_models_are_listed(command: Command) -> None:
    assert {row["name"] for row in command("models", "resnet20*", "--json").value} == {
        "resnet20_cifar",
        "resnet200",
        "resnet200d",
    }


def test_resuming_a_finished_run_says_so(
    command: Command, corner_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(corner_run, tmp_path / "run"))
    said = command("train", "--resume", run)
    assert said.code == 0 and "all 3 steps are done" in said.error
    longer = command("train", "--resume", run, "--set", "steps=5")
    assert longer.code == 0 and "going on at step 3 of 5" in longer.error
    shorter = command("train", "--resume", run, "--set", "steps=4")
    assert shorter.code == 2 and "step 5 is done already" in shorter.line


def test_find_lr_suggests_a_setting(command: Command, corners: Path) -> None:
    more = ("--recipe", "he2015-cifar", "--set", "batch_size=16", "--find-lr")
    said = command("train", corners, *more)
    assert said.code == 0
    suggested = re.search(r"--set optimiser\.lr=(\S+)", said.out)
    assert suggested is not None and 1e-5 < float(suggested[1]) < 10
    found = command("train", corners, *more, "--json").value
    assert len(found["lr"]) == len(found["loss"])


def test_names_with_markup_are_printed_as_they_are(
    command: Command, write_set: Callable[..., Path], tmp_path: Path
) -> None:
    """Rich would read [red] as a colour, and [/bold] as the end of what has not begun."""
    source = write_set(tmp_path / "[" / "bold]", {"[red]": 10, "[blue]": 10})
    run = tmp_path / "[i]run"
    more = ("--recipe", "he2015-cifar", "--set", "steps=1", "--set", "batch_size=8", "--out", run)
    said = command("train", source, *more)
    assert said.code == 0 and str(run) in said.out
    assert all(name in command("evaluate", run).out for name in ("[red]", "[blue]"))
    said = command("predict", run, source)
    assert said.code == 0 and "[/bold]/[red]/000.png" in said.out


def test_json_of_a_report_has_no_number_that_json_lacks(command: Command, corner_run: Path) -> None:
    text = command("evaluate", corner_run, "--json").out
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
