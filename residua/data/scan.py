"""What the headers of picture files say, and which files are equal, without decoding them all.

The result is kept in the cache folder, so that a second look at unchanged files costs no reading.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data.cache import Progress, default_folder, fingerprint, in_order
from residua.data.decode import FORMATS, check_size, decode, is_grey
from residua.data.naming import shown
from residua.errors import BadInput

VERSION = 1
_CHUNK = 256
_ON_ITS_SIDE = 5  # EXIF orientations 5 to 8
_SAMPLE = 64  # headers that decide, nearly always, whether a set is in colour
# A picture that ends as its format demands is whole; any other is decoded to find out.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82"}


@dataclass(eq=False)
class Scan:
    """One row a file: heights, widths, grey; digest (16 bytes) where another file has its size."""

    heights: npt.NDArray[np.int32]
    widths: npt.NDArray[np.int32]
    grey: npt.NDArray[np.bool_]
    digests: npt.NDArray[np.uint8]
    hashed: npt.NDArray[np.bool_]
    errors: dict[int, str]
    thorough: bool


def scan(
    paths: Sequence[Path],
    *,
    thorough: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Read the headers of all files, and the bytes of those that may equal another (same length).

    A file that is unreadable or cut short is in `errors`; `thorough` decodes every file to be sure.
    """
    order = sorted(range(len(paths)), key=lambda i: os.fspath(paths[i]))
    ordered = [paths[i] for i in order]
    key, sizes = fingerprint(ordered)
    file = (folder or default_folder()) / f"scan-{VERSION}-{key}.npz"
    found = _load(file)
    if found is None or (thorough and not found.thorough):
        found = _scan(ordered, sizes, thorough, progress)
        _save(file, found)
    return _in_order_of(found, order)


def all_grey(paths: Sequence[Path], folder: Path | None = None) -> bool:
    """Tell whether every readable picture has one channel; a colour picture in a sample ends it."""
    step = max(1, len(paths) // _SAMPLE)
    for path in paths[::step]:
        try:
            if not _header(path).grey:
                return False
        except BadInput:
            continue  # `check` names the unreadable ones
    found = scan(paths, folder=folder)
    readable = np.ones(len(paths), np.bool_)
    readable[list(found.errors)] = False
    return bool(readable.any()) and bool(found.grey[readable].all())


@dataclass(frozen=True)
class _Header:
    height: int
    width: int
    grey: bool
    whole: bool


def _header(path: Path) -> _Header:
    """Read size and mode, and look whether the file ends as it should."""
    try:
        with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            check_size(width, height)
            if "exif" in image.info and image.getexif().get(0x0112, 1) >= _ON_ITS_SIDE:
                width, height = height, width
            return _Header(height, width, is_grey(image), _ends(file, image.format or ""))
    except BadInput as error:
        raise BadInput(f"{shown(path)}: {error}") from None
    except Exception:  # a damaged or unusual file: decoding it finds the words, or reads it
        pixels = decode(path, 3)
        return _Header(pixels.shape[0], pixels.shape[1], grey=_equal(pixels), whole=True)


def _equal(pixels: npt.NDArray[np.uint8]) -> bool:
    return bool((pixels == pixels[..., :1]).all())


def _ends(file: BinaryIO, kind: str) -> bool:
    end = _ENDS.get(kind)
    if end is None:
        return False
    file.seek(-len(end), os.SEEK_END)
    return file.read() == end


def _scan(
    paths: list[Path],
    sizes: npt.NDArray[np.int64],
    thorough: bool,
    progress: Progress | None,
) -> Scan:
    count = len(paths)
    found = Scan(
        heights=np.zeros(count, np.int32),
        widths=np.zeros(count, np.int32),
        grey=np.zeros(count, np.bool_),
        digests=np.zeros((count, 16), np.uint8),
        hashed=_may_be_equal(sizes),
        errors={},
        thorough=thorough,
    )

    def work(rows: range) -> None:
        for i in rows:
            try:
                header = _header(paths[i])
                if thorough or not header.whole:
                    decode(paths[i], 3)
                if found.hashed[i]:
                    found.digests[i] = _digest(paths[i])
            except (BadInput, OSError) as error:
                found.errors[i] = " ".join(str(error).split())
                found.hashed[i] = False
                continue
            found.heights[i], found.widths[i] = header.height, header.width
            found.grey[i] = header.grey

    for _ in in_order(count, _CHUNK, work, progress):
        pass
    return found


def _may_be_equal(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    _, where, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    return counts[where] > 1


def _digest(path: Path) -> npt.NDArray[np.uint8]:
    with path.open("rb") as file:
        made = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
    return np.frombuffer(made.digest(), np.uint8)


def _in_order_of(found: Scan, order: list[int]) -> Scan:
    """Put rows that were sorted by path back into the caller's order."""
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return Scan(
        found.heights[back],
        found.widths[back],
        found.grey[back],
        found.digests[back],
        found.hashed[back],
        {order[i]: text for i, text in sorted(found.errors.items())},
        found.thorough,
    )


def _load(file: Path) -> Scan | None:
    try:
        with np.load(file, allow_pickle=False) as saved:
            errors = {int(i): t for i, t in json.loads(str(saved["errors"])).items()}
            return Scan(
                saved["heights"],
                saved["widths"],
                saved["grey"],
                saved["digests"],
                saved["hashed"],
                errors,
                bool(saved["thorough"]),
            )
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _save(file: Path, found: Scan) -> None:
    """Keep the result; where the folder cannot be written it is made again next time."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=file.parent, prefix="scan.aside-")
        try:
            with os.fdopen(handle, "wb") as stream:
                np.savez(
                    stream,
                    heights=found.heights,
                    widths=found.widths,
                    grey=found.grey,
                    digests=found.digests,
                    hashed=found.hashed,
                    errors=np.array(json.dumps(found.errors)),
                    thorough=np.array(found.thorough),
                )
            Path(aside).chmod(0o644)  # mkstemp makes it private; a cache may be shared
            Path(aside).replace(file)
        finally:
            Path(aside).unlink(missing_ok=True)
