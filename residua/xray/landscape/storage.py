"""Points as they are evaluated: on disk in shards that are whole or absent, so that any run can go on.

    landscape.json            what is being measured; another landscape in the same folder is refused
    points-R-of-W.npz         what rank R of W has evaluated: point numbers and values
    PAIR-round-NNN.json       which points a round evaluates, decided by rank 0

A shard is written aside, flushed and renamed. All shards are read, whichever number of ranks wrote them, so a
run that was killed goes on with any number. Ranks (torchrun's RANK and WORLD_SIZE) meet in the folder alone,
which all must see: a round ends when its points are there.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from residua.errors import BadInput, ResiduaError

FLUSH_SECONDS = 5.0  # at most so much is lost
LOOK_SECONDS = 0.2
PATIENCE = 3600.0  # seconds without a new point after which the other ranks are taken for dead


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears under its name when it is complete, or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise ResiduaError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink()


def ranks() -> tuple[int, int]:
    """Return (rank, number of ranks) from torchrun's environment; (0, 1) without it."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        raise BadInput("RANK and WORLD_SIZE in the environment are not numbers") from None
    if not 0 <= rank < world:
        raise BadInput(f"RANK={rank} with WORLD_SIZE={world}: expected a rank below the size")
    return rank, world


class Store:
    """The evaluated points of a landscape, in a folder or, with none, in memory."""

    def __init__(
        self, folder: Path | None, key: Mapping[str, Any], rank: int = 0, world: int = 1
    ) -> None:
        """Open the folder; BadInput if another landscape is in it, or ranks have none to meet in."""
        if folder is None and world > 1:
            raise BadInput(f"{world} ranks need a folder to meet in: give one for the results")
        self.folder, self.rank, self.world = folder, rank, world
        self.points: dict[int, NDArray[np.float64]] = {}
        self.own: dict[int, NDArray[np.float64]] = {}
        self.seen: dict[Path, int] = {}  # shard -> when it was last changed
        self.flushed = time.monotonic()
        if folder is not None:
            self._claim(folder / "landscape.json", json.loads(json.dumps(key)))
            self.read()

    def _claim(self, path: Path, key: dict[str, Any]) -> None:
        if path.exists():
            there = _read_json(path)
            other = [name for name in key if there.get(name) != key[name]]
            if other:
                name = other[0]
                raise BadInput(
                    f"{path.parent}: another landscape is there ({name} {there.get(name)!r}, asked for"
                    f" {key[name]!r}); choose another folder"
                )
        elif self.rank == 0:
            with whole(path) as file:
                file.write(json.dumps(key, indent=1).encode())

    def read(self) -> None:
        """Take in what all ranks have written."""
        if self.folder is None:
            return
        for path in sorted(self.folder.glob("points-*.npz")):
            changed = path.stat().st_mtime_ns
            if self.seen.get(path) == changed:
                continue
            try:
                with np.load(path) as shard:
                    found = dict(zip(shard["point"].tolist(), shard["values"], strict=True))
            except (OSError, ValueError, KeyError) as error:
                raise BadInput(
                    f"{path}: cannot be read ({error}); remove it to measure anew"
                ) from None
            self.seen[path] = changed
            self.points |= found
            if path == self._shard(self.folder):
                self.own |= found

    def _shard(self, folder: Path) -> Path:
        return folder / f"points-{self.rank}-of-{self.world}.npz"

    def put(self, point: int, values: Sequence[float]) -> None:
        """Keep the values of a point; they are on disk some seconds later, or after `flush`."""
        self.points[point] = self.own[point] = np.array(values, dtype=np.float64)
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write this rank's shard."""
        self.flushed = time.monotonic()
        if self.folder is None or not self.own:
            return
        points = sorted(self.own)
        with whole(self._shard(self.folder)) as file:
            np.savez(file, point=np.array(points), values=np.stack([self.own[p] for p in points]))

    def plan(self, name: str, decide: Callable[[], list[int]]) -> list[int]:
        """Return the points of a round: decided once, by rank 0, and kept."""
        if self.folder is None:
            return decide()
        path = self.folder / f"{name}.json"
        if self.rank == 0 and not path.exists():
            with whole(path) as file:
                file.write(json.dumps(decide()).encode())
        self._wait(path.exists)
        found: list[int] = _read_json(path)
        return found

    def wait(self, points: Sequence[int]) -> None:
        """Return when all these points are there, whichever rank evaluates them."""

        def there() -> bool:
            self.read()
            return all(point in self.points for point in points)

        self._wait(there)

    def _wait(self, ready: Callable[[], bool]) -> None:
        known, since = len(self.points), time.monotonic()
        while not ready():
            if len(self.points) > known:
                known, since = len(self.points), time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise ResiduaError(
                    f"no other rank has evaluated a point for {PATIENCE:.0f} s; what is there is kept,"
                    " and the same command goes on from it"
                )
            time.sleep(LOOK_SECONDS)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
