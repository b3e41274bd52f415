"""A training that is killed at an early step and gone on with, against one that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import residua
from residua.training.api import resume

ALONE = ("--device", "cpu", "--workers", "0")
STEPS = 60


def assert_a_kill_changes_no_bit(
    data: Path, folder: Path, kills: ModuleType, small: Sequence[str]
) -> None:
    """Train on the data twice in `folder`, kill one of the two, go on, compare all that they leave."""
    # a precision chosen by timing might be another one the second time
    settings = (f"steps={STEPS}", "precision=32-true", *small, "checkpoint_seconds=0.01")
    residua.train(data, out=folder / "whole", settings=settings, device="cpu", workers=0)
    arguments = [part for setting in settings for part in ("--set", setting)]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "residua", "train", data, *arguments, *ALONE),
            *("--out", folder / "killed"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = folder / "killed" / "checkpoint.safetensors"
    deadline = time.monotonic() + 900
    while not checkpoint.exists() or kills.checkpoint_step(folder / "killed") < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert kills.checkpoint_step(folder / "killed") < STEPS
    resume(folder / "killed")
    assert kills.differences(folder / "killed", folder / "whole") == []
