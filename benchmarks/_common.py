"""What the benchmarks share: contenders in processes of their own, spreads of numbers, versions.

A contender is this script again, in a process that does what it is asked for on its standard input and
sleeps in between. So two ways take turns (A B A B) on the same machine, and yet each has its own
allocator, its own threads and its own peak of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

ANSWER = "answer:"  # what a contender's lines begin with; anything else is somebody's chatter


class Contender:
    """A process of this script that answers requests; use it in a `with` statement."""

    def __init__(self, way: str, **facts: Any) -> None:
        """Start `serve(way, facts)` of the running script."""
        command = [sys.executable, sys.argv[0], "--serve", json.dumps({"way": way} | facts)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.ask("ready")

    def ask(self, what: str, **facts: Any) -> Any:
        """Return the answer; RuntimeError if the process died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps([what, facts]) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the end of its output says so below
        for line in self.process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        raise RuntimeError(f"a contender died (exit code {self.process.wait()}); see above")

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if kind is not None:
            self.process.terminate()
        self.process.wait()


def common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a benchmark whose ways run in processes of their own."""
    parser.add_argument(
        "--device", default="auto", help="cpu or cuda; auto: cuda where there is one"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)


def serve(answers: dict[str, Callable[..., Any]]) -> None:
    """Answer requests by name until the input ends."""
    for line in sys.stdin:
        what, facts = json.loads(line)
        result = None if what == "ready" else answers[what](**facts)
        print(ANSWER + json.dumps(result), flush=True)


def peak_megabytes(device: torch.device) -> float:
    """Return the most memory that this process has held, or on CUDA that its tensors have."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Return {median, min, max, n} of some numbers.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0, 'n': 3}
    """
    numbers = list(values)
    return {
        "median": statistics.median(numbers),
        "min": min(numbers),
        "max": max(numbers),
        "n": len(numbers),
    }


def ratios(upper: list[float], lower: list[float]) -> dict[str, Any]:
    """Return the spread of the ratios, pair by pair of interleaved rounds."""
    return spread(a / b for a, b in zip(upper, lower, strict=True))


def shown(found: dict[str, Any], form: str = ".2f", unit: str = "") -> str:
    """Return "median (min .. max)" of a spread."""
    low, high = format(found["min"], form), format(found["max"], form)
    return f"{format(found['median'], form)}{unit} ({low} .. {high})"


def machine(device: torch.device) -> dict[str, str]:
    """Return the versions, the processor and the number of threads that a number depends on."""
    facts = {name: version(name) for name in ("residua", "torch", "lightning-fabric", "numpy")}
    facts |= {"python": platform.python_version(), "processor": _processor()}
    if device.type == "cuda":
        facts["device"] = torch.cuda.get_device_name(device)
    return facts | {"cores": str(os.cpu_count()), "threads": str(torch.get_num_threads())}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def caption(facts: dict[str, str]) -> str:
    """Return the facts in a line."""
    return ", ".join(f"{key} {value}" for key, value in facts.items())
