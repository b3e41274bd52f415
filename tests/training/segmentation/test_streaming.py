"""Pictures that memory does not hold: the same masks by way of the disk, also after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from residua.errors import BadInput
from residua.training.segmentation.run import SegmentationRun
from residua.training.segmentation.streaming import scratch_of
from tests.training.segmentation.made import made_run, noise

LITTLE = 6.0  # MB: enough for exact tiles, less than the whole of these volumes needs


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SegmentationRun:
    return made_run(tmp_path_factory.mktemp("runs") / "run", dims=3, flips=(2,))


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("volumes") / "v.tif"
    tifffile.imwrite(path, noise(200, 20, 20))
    return path


class Stopped(Exception):  # noqa: N818 - reads as what it is
    """What the progress is made to raise."""


def stops_at(tile: int, told: list[int]) -> Any:
    def tell(what: str, done: int, total: int) -> None:
        told.append(done)
        if done >= tile:
            raise Stopped

    return tell


def ends(told: list[int]) -> Any:
    return lambda what, done, total: told.append(done)


def test_little_memory_gives_the_mask_of_much(
    run: SegmentationRun, volume: Path, tmp_path: Path
) -> None:
    (much,) = run.predict(volume, out=tmp_path / "much", uncertainty=True)
    told: list[int] = []
    (little,) = run.predict(
        volume, out=tmp_path / "little", uncertainty=True, memory_mb=LITTLE, tell=ends(told)
    )
    assert len(told) > 4  # it was tiles on the disk
    masks = [tifffile.imread(row["mask"]) for row in (much, little)]
    assert masks[0].dtype == masks[1].dtype == np.uint8 and len(np.unique(masks[0])) == 3
    assert (masks[0] == masks[1]).all()
    assert little["shares"] == pytest.approx(much["shares"])
    unsure = [tifffile.imread(row["uncertainty"]) for row in (much, little)]
    np.testing.assert_allclose(*unsure, atol=1e-5)
    assert {p.name for p in (tmp_path / "little").iterdir()} == {"v.tif", "v-uncertainty.tif"}


@pytest.mark.parametrize("vote", ["mean", "majority", "unanimity"])
def test_several_networks_decide_block_by_block_as_at_once(
    run: SegmentationRun, volume: Path, tmp_path: Path, vote: str
) -> None:
    other = made_run(tmp_path / "other", dims=3, seed=1)
    given: dict[str, Any] = {"members": [other], "vote": vote}
    (much,) = run.predict(volume, out=tmp_path / "much", **given)
    (little,) = run.predict(volume, out=tmp_path / "little", memory_mb=LITTLE, **given)
    assert (tifffile.imread(much["mask"]) == tifffile.imread(little["mask"])).all()


@pytest.mark.parametrize("uncertainty", [False, True])
def test_what_was_stopped_in_the_middle_goes_on_there(
    run: SegmentationRun, volume: Path, tmp_path: Path, uncertainty: bool
) -> None:
    given: dict[str, Any] = {"memory_mb": LITTLE, "uncertainty": uncertainty}
    whole: list[int] = []
    (row,) = run.predict(volume, out=tmp_path / "whole", tell=ends(whole), **given)
    first: list[int] = []
    with pytest.raises(Stopped):
        run.predict(volume, out=tmp_path / "out", tell=stops_at(whole[-1] * 3 // 4, first), **given)
    assert scratch_of(tmp_path / "out" / "v.tif").is_dir()
    assert not (tmp_path / "out" / "v.tif").exists()
    second: list[int] = []
    (again,) = run.predict(volume, out=tmp_path / "out", tell=ends(second), **given)
    assert len(second) < len(whole) / 2
    assert (tifffile.imread(again["mask"]) == tifffile.imread(row["mask"])).all()
    assert not scratch_of(tmp_path / "out" / "v.tif").exists()


def test_another_question_begins_anew_and_leaves_nothing_behind(
    run: SegmentationRun, volume: Path, tmp_path: Path
) -> None:
    def stopped() -> None:
        with pytest.raises(Stopped):
            run.predict(volume, out=tmp_path, memory_mb=LITTLE, tell=stops_at(6, []))

    stopped()
    told: list[int] = []
    run.predict(volume, out=tmp_path, memory_mb=LITTLE, uncertainty=True, tell=ends(told))
    assert told[-1] == 18 and not scratch_of(tmp_path / "v.tif").exists()
    stopped()
    run.predict(volume, out=tmp_path)  # memory holds it now
    assert not scratch_of(tmp_path / "v.tif").exists()


def test_planes_of_a_stack_are_streamed_one_by_one(tmp_path: Path) -> None:
    flat = made_run(tmp_path / "flat")
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, noise(6, 200, 220))
    (much,) = flat.predict(path, out=tmp_path / "much")
    told: list[str] = []

    def tell(what: str, done: int, total: int) -> None:
        told.append(what)
        if what == "stack.tif 4":
            raise Stopped

    with pytest.raises(Stopped):
        flat.predict(path, out=tmp_path / "out", memory_mb=LITTLE, tell=tell)
    told.clear()
    (little,) = flat.predict(
        path, out=tmp_path / "out", memory_mb=LITTLE, tell=lambda what, *_: told.append(what)
    )
    assert dict.fromkeys(told) == dict.fromkeys(f"stack.tif {n}" for n in (4, 5, 6))
    assert (tifffile.imread(much["mask"]) == tifffile.imread(little["mask"])).all()
    assert little["shares"] == pytest.approx(much["shares"])


def test_objects_need_the_memory_and_say_so(
    run: SegmentationRun, volume: Path, tmp_path: Path
) -> None:
    (row,) = run.predict(volume, out=tmp_path, memory_mb=LITTLE, instances=True)
    assert "its objects need about" in row["error"] and "--memory" in row["error"]
    assert list(tmp_path.iterdir()) == []


def test_memory_that_holds_no_tile_is_one_line_and_leaves_nothing(
    run: SegmentationRun, volume: Path, tmp_path: Path
) -> None:
    (row,) = run.predict(volume, out=tmp_path, memory_mb=0.001)
    assert "memory_mb" in row["error"] and list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match="memory_mb is -1; expected MB above 0"):
        run.predict(volume, out=tmp_path, memory_mb=-1)


def test_a_killed_command_goes_on_when_it_is_given_again(
    run: SegmentationRun, volume: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "residua", "predict", str(run.path), str(volume)]
    command += ["--out", str(out), "--memory", str(LITTLE), "--device", "cpu", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        progress = scratch_of(out / "v.tif") / "0-0.npy.progress.json"
        deadline = time.monotonic() + 300
        while '"done": 0' in (progress.read_text() if progress.exists() else '"done": 0'):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert progress.exists() and not (out / "v.tif").exists()
    before = progress.with_name("0-0.npy.part").stat().st_ino
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert before and not scratch_of(out / "v.tif").exists()
    (row,) = run.predict(volume, out=tmp_path / "whole")
    assert (tifffile.imread(out / "v.tif") == tifffile.imread(row["mask"])).all()
