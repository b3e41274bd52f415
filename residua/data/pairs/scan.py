"""What is in the files of a set, from reading every one of them once: sizes, types, values of masks.

Kept in the cache folder by the files' paths, sizes and times of change, so that a second look costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from residua.data.cache import Progress, default_folder, fingerprint, in_order
from residua.data.masks import MAX_CLASSES, listed, values_and_counts
from residua.data.naming import shown
from residua.data.pairs.layout import Row
from residua.data.pairs.reading import read_picture
from residua.data.volumes import read_labels
from residua.errors import BadInput

VERSION = 1
_CHUNK = 4
_MOST_VALUES = 4 * MAX_CLASSES  # of one mask that are kept; more is a picture


@dataclass
class Seen:
    """One pair: the size of its mask and its pixels by value; the picture's size, channels, type.

    `wrong` says what is the matter with it, "" where nothing is.
    """

    shape: tuple[int, ...] = ()
    values: dict[int, int] = field(default_factory=dict)
    picture_shape: tuple[int, ...] = ()
    channels: int = 0
    depth: str = ""
    spacing: tuple[float, float, float] | None = None
    unit: str = ""
    low: float = 0.0
    high: float = 0.0
    wrong: str = ""


def look(rows: Sequence[Row], progress: Progress | None = None) -> list[Seen]:
    """Read all pairs; `progress(done, total)` counts them."""
    files = [path for row in rows for path in (row.mask, *row.picture)]
    key, _ = fingerprint(files)
    kept = default_folder() / f"pairs-{VERSION}-{key}.json"
    found = _load(kept, len(rows))
    if found is None:
        found = []
        work = lambda part: [_look(rows[i]) for i in part]  # noqa: E731
        for part in in_order(len(rows), _CHUNK, work, progress):
            found += part
        _save(kept, found)
    return found


def _look(row: Row) -> Seen:
    seen = Seen()
    try:
        labels = read_labels(row.mask)
        seen.shape = labels.shape
        values, counts = values_and_counts(labels)
        if len(values) > _MOST_VALUES:
            raise BadInput(
                f"{shown(row.mask)}: holds the values {listed(values)}; expected a value a class, "
                f"{MAX_CLASSES} at most: is it a picture, or does it number objects?"
            )
        seen.values = dict(zip(values, counts, strict=True))
        for path in row.picture:
            _look_at_picture(path, seen)
        if seen.picture_shape != seen.shape:
            raise BadInput(
                f"{shown(row.mask)}: is {sides(seen.shape)}, its picture "
                f"{shown(row.picture[0].name)} {sides(seen.picture_shape)}; expected one size"
            )
    except BadInput as error:
        seen.wrong = " ".join(str(error).split())
    return seen


def _look_at_picture(path: Path, seen: Seen) -> None:
    found = read_picture(path, len(seen.shape))
    array = found.array
    seen.channels += array.shape[-1]
    first = not seen.picture_shape
    seen.low = float(array.min()) if first else min(seen.low, float(array.min()))
    seen.high = float(array.max()) if first else max(seen.high, float(array.max()))
    seen.depth = "float32" if "float32" in (seen.depth, array.dtype.name) else "uint8"
    seen.spacing, seen.unit = found.spacing, found.unit
    if not first and seen.picture_shape != array.shape[:-1]:
        raise BadInput(
            f"{shown(path)}: is {sides(array.shape[:-1])}, its first channel "
            f"{sides(seen.picture_shape)}; expected channels of one size"
        )
    seen.picture_shape = array.shape[:-1]


def sides(shape: Sequence[int]) -> str:
    """Return "30 x 512 x 512"."""
    return " x ".join(f"{n:,}" for n in shape)


def _load(file: Path, count: int) -> list[Seen] | None:
    try:
        rows = json.loads(file.read_text())
        found = [Seen(**row) for row in rows]
    except (OSError, ValueError, TypeError):
        return None
    for seen in found:
        seen.shape, seen.picture_shape = tuple(seen.shape), tuple(seen.picture_shape)
        seen.values = {int(value): n for value, n in seen.values.items()}
        if seen.spacing is not None:
            seen.spacing = (seen.spacing[0], seen.spacing[1], seen.spacing[2])
    return found if len(found) == count else None


def _save(file: Path, found: list[Seen]) -> None:
    """Keep the result; where the folder cannot be written it is made again next time."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=file.parent, prefix="pairs.aside-")
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump([asdict(seen) for seen in found], stream)
            Path(aside).chmod(0o644)  # mkstemp makes it private; a cache may be shared
            Path(aside).replace(file)
        finally:
            Path(aside).unlink(missing_ok=True)
