"""How the benchmarks are run in tests."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run a script with --quick, and return the JSON that it prints."""

    def call(script: str, *arguments: str) -> Any:
        command = [BENCHMARKS / script, "--quick", "--json", "--device", "cpu", *arguments]
        done = subprocess.run(
            [sys.executable, *command],
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return call
