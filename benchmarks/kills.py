"""Trainings killed by SIGKILL at random instants, resumed, and compared bit by bit with one that was not.

    python benchmarks/kills.py --kills 20 --workers 2 [--json]

Makes a small folder of pictures and trains on it once undisturbed: evaluations on the way, stochastic
depth, mixup, an average of the weights, precise batch norm. Then as many runs as asked for, each killed
(the whole process group) one to three times in a row, at instants drawn evenly from the start of the
process to its end; after a kill the run goes on with `--resume`, or with the original command where
nothing had been saved. Compares every tensor of the finished model, the best weights and the checkpoint
bit by bit, everything else in the checkpoint, and metrics.csv; times of the clock are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from residua.training.checkpoint import TREE, read_tensors

CLASSES, SIDE = 4, 16
CLOCK = {
    "seconds",
    "evaluating",
    "looked",
    "minutes",
    "pictures_per_second",
}  # the only values that may differ
FILES = ("model", "best", "checkpoint")
MOST_TRIES = 6  # draws of an instant, where the process ends before it
SETTINGS = (
    "batch_size=16",
    "evaluation.every_epochs=1.3",
    "checkpoint_seconds=0.3",
    "ema=0.95",
    "augmentation.mixup=0.4",
    "augmentation.flip=true",
    "model_options.stochastic_depth=0.3",
    "precise_bn=3",
)


@dataclass
class Outcome:
    """What became of one run: where its kills fell, and what differs from the undisturbed one."""

    fell: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


def write_pictures(folder: Path, n: int) -> None:
    """Write n PNGs a class: noise, brighter in one corner, so that there is something to learn."""
    generator = np.random.default_rng(0)
    for label in range(CLASSES):
        target = folder / f"corner{label}"
        target.mkdir(parents=True)
        for k in range(n):
            pixels = generator.integers(0, 160, (SIDE, SIDE, 3))
            top, left = (SIDE // 2) * (label // 2), (SIDE // 2) * (label % 2)
            pixels[top : top + SIDE // 2, left : left + SIDE // 2] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(target / f"{k:03d}.png")


class Runs:
    """Starts runs of one training, each in a folder and with a cache of its own."""

    def __init__(self, folder: Path, steps: int, workers: int) -> None:
        self.folder, self.steps = folder, steps
        write_pictures(folder / "pictures", 60)
        self.command = [sys.executable, "-m", "residua", "train", str(folder / "pictures")]
        self.command += ["--recipe", "he2015-cifar", "--model", "resnet20_cifar"]
        self.command += ["--workers", str(workers)]
        for setting in (f"steps={steps}", *SETTINGS):
            self.command += ["--set", setting]

    def start(self, name: str, *, resume: bool) -> subprocess.Popen[str]:
        """Start a run, or go on with it, in a process group of its own."""
        run = str(self.folder / name)
        go_on = [sys.executable, "-m", "residua", "train", "--resume", run]
        return subprocess.Popen(
            go_on if resume else [*self.command, "--out", run],
            env=os.environ | {"RESIDUA_CACHE": str(self.folder / f"{name}-cache")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def finish(self, name: str) -> float:
        """Let a run go on to its end; return the seconds that took."""
        began = time.perf_counter()
        process = self.start(name, resume=(self.folder / name / "config.yaml").exists())
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(f"{name}: exit code {process.returncode}: {errors[-2000:]}")
        return time.perf_counter() - began

    def kill(self, name: str, after: float) -> bool:
        """Start or go on with a run and kill it after so many seconds; False if it ended before."""
        process = self.start(name, resume=(self.folder / name / "config.yaml").exists())
        try:
            process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return True
        return False

    def where(self, name: str) -> str:
        """Return how far a killed run is, from the files that it left."""
        run = self.folder / name
        if not (run / "config.yaml").exists():
            return "before anything was saved"
        if not (run / "checkpoint.safetensors").exists():
            return "preparing"
        step = checkpoint_step(run)
        if step < self.steps:
            return f"training, saved at step {step}"
        return "finishing" if not (run / "report.html").exists() else "after the report"


def checkpoint_step(run: Path) -> int:
    return int(json.loads(read_tensors(run / "checkpoint.safetensors")[1][TREE])["state"]["step"])


def without_clock(value: Any) -> Any:
    """Return the value without what a clock measured."""
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if key not in CLOCK}
    return [without_clock(item) for item in value] if isinstance(value, list) else value


def differences(one: Path, other: Path) -> list[str]:
    """Return what is not the same in two finished runs; empty where they are identical."""
    found = []
    for name in FILES:
        (tensors, facts), (wanted, expected) = (
            read_tensors(run / f"{name}.safetensors") for run in (one, other)
        )
        if tensors.keys() != wanted.keys():
            found.append(f"{name}: other tensors")
            continue
        found += [
            f"{name}: {key}"
            for key, tensor in tensors.items()
            if not torch.equal(bits(tensor), bits(wanted[key]))
        ]
        for key in facts.keys() | expected.keys():
            values = (without_clock(json.loads(f.get(key, "null"))) for f in (facts, expected))
            if key != "format" and json.dumps(next(values)) != json.dumps(next(values)):
                found.append(f"{name}: {key}")
    if metrics(one) != metrics(other):
        found.append("metrics.csv")
    return found


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor: -0.0 is not 0.0, and NaN is NaN."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in CLOCK} for row in csv.DictReader(file)]


def disturb(runs: Runs, name: str, kills: int, lasts: float, draw: random.Random) -> Outcome:
    """Kill a run so many times, let it end, compare it with the undisturbed one."""
    outcome = Outcome()
    for _ in range(kills):
        for _ in range(MOST_TRIES):
            if runs.kill(name, draw.uniform(0.0, lasts)):
                outcome.fell.append(runs.where(name))
                break
    runs.finish(name)
    outcome.differences = differences(runs.folder / name, runs.folder / "undisturbed")
    return outcome


def table(outcomes: list[Outcome], same: int) -> Table:
    out = Table(title=f"{same} of {len(outcomes)} killed and resumed runs end bit-identical")
    for heading in ("run", "killed", "ends"):
        out.add_column(heading)
    for i, outcome in enumerate(outcomes):
        wrong = outcome.differences
        ends = "identical" if not wrong else f"{len(wrong)} differ: {', '.join(wrong[:3])}"
        out.add_row(str(i + 1), "; ".join(outcome.fell) or "never (it had ended)", ends)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--folder", type=Path, help="keep the runs here")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as made:
        runs = Runs(options.folder or Path(made), options.steps, options.workers)
        lasts = runs.finish("undisturbed")
        outcomes = []
        for i in range(options.kills):
            outcomes.append(disturb(runs, f"run{i + 1}", 1 + i % 3, lasts, draw))
            print(f"run {i + 1}: {asdict(outcomes[-1])}", file=sys.stderr)
    same = sum(bool(o.fell) and not o.differences for o in outcomes)
    if options.json:
        phases = Counter(where.partition(",")[0] for o in outcomes for where in o.fell)
        facts = {"identical": same, "of": len(outcomes), "seconds": lasts, "kills": phases}
        print(json.dumps(facts | {"runs": [asdict(o) for o in outcomes]}, indent=2))
    else:
        Console().print(table(outcomes, same))
    sys.exit(same != len(outcomes))


if __name__ == "__main__":
    main()
