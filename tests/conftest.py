"""What the tests of whole runs share: a cache of their own, small sets, the command line in-process."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("residua", deadline=None)
hypothesis.settings.load_profile("residua")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDUA_CACHE", str(tmp_path_factory.mktemp("shared-cache")))
        yield


@pytest.fixture(scope="session")
def kills() -> ModuleType:
    """Return benchmarks/kills.py as a module: it makes sets, and compares runs bit by bit."""
    spec = importlib.util.spec_from_file_location("kills", ROOT / "benchmarks" / "kills.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kills"] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module


WriteSet = Callable[..., Path]


@pytest.fixture(scope="session")
def write_set() -> WriteSet:
    """Write ROOT/CLASS/000.png, ...: noise with a bright corner, one corner a class.

    counts: pictures of each class, by its name. size: (height, width). mode: L, RGB or RGBA.
    """

    def write(
        root: Path,
        counts: dict[str, int],
        *,
        size: tuple[int, int] = (16, 16),
        mode: str = "RGB",
        ending: str = "png",
        seed: int = 0,
    ) -> Path:
        generator = np.random.default_rng(seed)
        height, width = size
        for label, (name, n) in enumerate(counts.items()):
            (root / name).mkdir(parents=True)
            top, left = (height // 2) * (label // 2 % 2), (width // 2) * (label % 2)
            for k in range(n):
                pixels = generator.integers(0, 160, (height, width, len(mode)))
                pixels[top : top + height // 2, left : left + width // 2] += 80
                shown = pixels.astype(np.uint8)[:, :, 0 if mode == "L" else slice(None)]
                Image.fromarray(shown).save(root / name / f"{k:03d}.{ending}")
        return root

    return write


@pytest.fixture(scope="session")
def corners(tmp_path_factory: pytest.TempPathFactory, write_set: WriteSet) -> Path:
    """Return four class folders of 24 pictures of 16 x 16: not to be changed."""
    names = ("north west", "north east", "south west", "south east")
    return write_set(tmp_path_factory.mktemp("sets") / "corners", dict.fromkeys(names, 24))


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    error: str

    @property
    def line(self) -> str:
        """The line of a failure: there must be exactly one."""
        lines = [text for text in self.error.splitlines() if text.startswith("error: ")]
        assert len(lines) == 1, self.error
        assert "Traceback" not in self.error + self.out
        assert "internal error" not in lines[0], lines[0]
        return lines[0]

    @property
    def value(self) -> Any:
        """What --json printed."""
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process: command("train", folder, "--json") -> Said."""
    from residua.cli.main import run

    def call(*args: object) -> Said:
        capsys.readouterr()
        code = run([str(arg) for arg in args])
        out, error = capsys.readouterr()
        return Said(code, out, error)

    return call
