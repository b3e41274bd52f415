"""What a machine does to a training: kills, signals, full disks. Each in a process of its own."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch

from residua.training import checkpoint
from residua.training.api import resume

ROOT = Path(__file__).parents[2]
LONG_ENOUGH = 60.0  # seconds to wait for what takes five on a machine with nothing else to do
RESIDUA = (sys.executable, "-m", "residua", "train")
SMALL = ("--recipe", "he2015-cifar", "--set", "batch_size=16")

# A file-size limit is the full disk that needs no rights: a write past it fails with EFBIG.
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from residua.cli import main
main(sys.argv[2:])
"""


def last_line(text: str) -> str:
    assert "Traceback" not in text
    return text.strip().splitlines()[-1]


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_ENOUGH
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_saves_and_says_how_to_go_on(
    corners: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal sends Ctrl-C: to training and to its workers."""
    run = tmp_path / "run"
    often = ("--set", "steps=100000", "--set", "checkpoint_seconds=0.05", "--workers", "2")
    process = subprocess.Popen(
        [*RESIDUA, str(corners), *SMALL, *often, "--out", str(run)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    first = -1
    try:
        wait_for((run / "checkpoint.safetensors").exists)
        first = (run / "checkpoint.safetensors").stat().st_ino
        wait_for(lambda: (run / "checkpoint.safetensors").stat().st_ino != first)  # it trains
    finally:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=LONG_ENOUGH)
    assert process.returncode == 130
    said = last_line(errors)
    saved = checkpoint.load(run / "checkpoint.safetensors")["state"]["step"]
    assert said.startswith(f"stopped at step {saved} of 100000; go on with")
    assert f"residua train --resume {run}" in said


@pytest.mark.slow
def test_killed_runs_end_bit_identical(tmp_path: Path) -> None:
    """A small one of the benchmark: six kills in all, with two workers."""
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--json"]
    done = subprocess.run(
        [*command, "--kills", "3", "--workers", "2", "--steps", "100", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found = json.loads(done.stdout)
    assert found["identical"] == found["of"] == 3


def test_a_kill_in_training_changes_no_bit(
    tmp_path: Path, kills: ModuleType, command: Callable[..., Any]
) -> None:
    runs = kills.Runs(tmp_path, steps=40, workers=2)
    verb = runs.command.index("train")
    assert command(*runs.command[verb:], "--out", tmp_path / "undisturbed").code == 0
    process = runs.start("killed", resume=False)
    wait_for((tmp_path / "killed" / "checkpoint.safetensors").exists)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert kills.checkpoint_step(tmp_path / "killed") < 40
    resume(tmp_path / "killed", workers=0)
    assert kills.differences(tmp_path / "killed", tmp_path / "undisturbed") == []


def test_a_full_disk_loses_nothing_that_was_saved(corners: Path, tmp_path: Path) -> None:
    """The first checkpoint (1.1 MB) fits; the second, with momentum (2.2 MB), does not."""
    run = tmp_path / "run"
    short = ("--set", "steps=12", "--out", str(run))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "1500000", "train", str(corners), *SMALL, *short],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    said = last_line(done.stderr)
    assert said.startswith(f"error: {run}/checkpoint.safetensors: cannot be written")
    assert "File too large" in said and "untouched" in said
    assert not list(run.glob(".*"))
    assert checkpoint.load(run / "checkpoint.safetensors")["state"]["step"] == 0
    assert safetensors.torch.load_file(run / "best.safetensors")
    assert resume(run).report.exists()  # with room again, it goes on


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 6 MB; skipped where that is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_while_training(corners: Path, small_disk: Path) -> None:
    run = small_disk / "run"
    often = ("--set", "steps=100000", "--set", "checkpoint_seconds=0.05")
    process = subprocess.Popen(
        [*RESIDUA, str(corners), *SMALL, *often, "--out", str(run)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((run / "best.safetensors").exists)
    with (small_disk / "fill").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1024))
    _, errors = process.communicate(timeout=LONG_ENOUGH)
    assert process.returncode == 1
    assert "no space left" in last_line(errors).lower()
    step = checkpoint.load(run / "checkpoint.safetensors")["state"]["step"]
    (small_disk / "fill").unlink()
    subprocess.run(["mount", "-o", "remount,size=30m", str(small_disk)], check=True)
    assert resume(run, settings=[f"steps={step + 5}"]).report.exists()


# -- several processes ------------------------------------------------------------------------------


def torchrun(*args: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*start, "-m", "residua", "train", *args], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_two_ranks_train_one_run(corners: Path, tmp_path: Path) -> None:
    """Both see each validation picture once (ten, an odd share), and one of them writes and speaks."""
    run = tmp_path / "run"
    settings = ("--set", "steps=12", "--set", "ema=0.9", "--set", "evaluation.every_epochs=1")
    done = torchrun(str(corners), *SMALL, *settings, "--out", str(run), "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)  # one value: the second rank is silent
    assert said["n"] == 10
    with (run / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["6", "12"]
    assert len(list(run.glob("events.out.tfevents.*"))) == 1
    assert not list(run.glob(".*"))
    longer = torchrun("--resume", str(run), "--set", "steps=18", "--json")
    assert longer.returncode == 0, longer.stderr
    assert checkpoint.load(run / "checkpoint.safetensors")["state"]["step"] == 18


@pytest.mark.slow
def test_two_ranks_plan_one_run_by_the_clock(corners: Path, tmp_path: Path) -> None:
    """Their clocks differ; a plan of its own for each would leave one waiting for the other."""
    done = torchrun(str(corners), "--budget", "12s", "--out", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_refusal_ends_every_rank(corners: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    done = torchrun(str(corners), *SMALL, "--out", str(tmp_path / "run"))
    assert done.returncode == 1  # torchrun's own
    assert "is no run" in done.stderr and "internal error" not in done.stderr
