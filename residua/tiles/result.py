"""Where the result goes: an array in memory, or a .npy file that is whole or absent.

    out.npy.part            the array while it is made, its whole size set aside at once
    out.npy.progress.json   what was asked for, and after how many slabs the .part is right
    out.npy                 the .part under its name, once it is finished

A slab is written and flushed, then the progress is written aside, flushed and renamed: at any instant the
.part holds at least what the progress says. The file is mapped for one slab at a time, so that pages of it
do not stay in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy
from torch import Tensor

from residua.errors import BadInput, ResiduaError

DTYPES = {"float32": np.float32, "float16": np.float16, "classes": np.uint8}
FORMAT = "residua-tiles-1"
_CHUNK = 2**24  # bytes that are converted at a time
_ZEROS = 2**22  # bytes written at a time where a file's size cannot be set aside


class CannotWrite(ResiduaError):  # noqa: N818 - reads as what it is
    """The disk is full or not writable; what was finished before is still there."""


class MemoryResult:
    """A result that is an array: (K, *S) or, for classes, (*S,)."""

    def __init__(self, shape: tuple[int, ...], classes: int, dtype: str) -> None:
        full = shape if dtype == "classes" else (classes, *shape)
        self.array: npt.NDArray[Any] = np.empty(full, DTYPES[dtype])

    def write(self, region: tuple[slice, ...], values: Tensor, step: int) -> None:
        """Take finished probabilities (rows, *breadth, K)."""
        store(self.array, region, values)

    def finish(self) -> npt.NDArray[Any]:
        """Return the array."""
        return self.array


class FileResult:
    """A result that is a file; `done` slabs of it are there already."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        classes: int,
        dtype: str,
        settings: dict[str, Any],
        resume: bool,
    ) -> None:
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.progress = path.with_name(path.name + ".progress.json")
        self.settings = json.loads(json.dumps(settings))
        self.shape = shape if dtype == "classes" else (classes, *shape)
        self.dtype = np.dtype(DTYPES[dtype])
        self.done = self._found() if resume else 0
        if not self.done:
            self._create()

    def write(self, region: tuple[slice, ...], values: Tensor, step: int) -> None:
        """Take finished probabilities (rows, *breadth, K); afterwards they are on the disk."""
        with self._errors():
            array = npy.open_memmap(self.part, "r+")
            store(array, region, values)
            array.flush()
            del array
            self._note(step + 1)

    def finish(self) -> npt.NDArray[Any]:
        """Give the file its name and return it, mapped for reading."""
        with self._errors():
            _flush(self.part)
            self.part.replace(self.path)
            self.progress.unlink(missing_ok=True)
            return npy.open_memmap(self.path, "r")

    def _found(self) -> int:
        """Return how many slabs are done; BadInput if they were made with other settings."""
        if not (self.part.exists() and self.progress.exists()):
            return 0
        try:
            found = json.loads(self.progress.read_text(encoding="utf-8"))
            settings, done = found["settings"], int(found["done"])
            if found["format"] != FORMAT:
                raise ValueError(found["format"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{self.progress}: not the progress of a prediction ({error}); delete it to begin anew"
            ) from None
        for key in sorted({*settings, *self.settings}):
            if settings.get(key) != self.settings.get(key):
                raise BadInput(
                    f"{self.progress}: begun with another {key} ({settings.get(key)}, now"
                    f" {self.settings.get(key)}): go on as it was begun, or begin anew with resume=False"
                )
        return done

    def _create(self) -> None:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.progress.unlink(missing_ok=True)
            with self.part.open("wb") as file:
                header = {
                    "descr": npy.dtype_to_descr(self.dtype),
                    "fortran_order": False,
                    "shape": self.shape,
                }
                npy.write_array_header_2_0(file, header)
                size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
                _set_aside(file, size)
            self._note(0)

    def _note(self, done: int) -> None:
        """Write the progress, whole or not at all."""
        text = json.dumps({"format": FORMAT, "done": done, "settings": self.settings})
        aside = self.progress.with_name(f".{self.progress.name}.{os.getpid()}.aside")
        try:
            aside.write_text(text, encoding="utf-8")
            _flush(aside)
            aside.replace(self.progress)
        finally:
            aside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if not self.progress.exists():
                with contextlib.suppress(OSError):
                    self.part.unlink(missing_ok=True)
            raise CannotWrite(f"{self.path}: cannot be written ({reason})") from error


def store(array: npt.NDArray[Any], region: tuple[slice, ...], values: Tensor) -> None:
    """Put probabilities (rows, *breadth, K) into (K, *S), or their largest class into (*S,)."""
    rows = len(values)
    # Conversion makes the indices of the largest class, 8 bytes each, before they are small.
    each = max(values[:1].numel() * values.element_size() + 8 * values[:1, ..., 0].numel(), 1)
    chunk = max(_CHUNK // each, 1)
    first = region[0].start
    for row in range(0, rows, chunk):
        piece = values[row : row + chunk]
        where = (slice(first + row, first + row + len(piece)), *region[1:])
        if array.ndim == len(region):
            # Among neighbours in memory the largest is found several times as fast.
            array[where] = piece.contiguous().argmax(-1).to(torch.uint8).cpu().numpy()
        else:
            array[(slice(None), *where)] = piece.movedim(-1, 0).cpu().numpy()


def _set_aside(file: Any, size: int) -> None:
    """Give the file its size, with room on the disk for all of it: a full disk says so now."""
    start = file.tell()
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, start + size)
        return
    zeros = bytes(_ZEROS)
    for at in range(0, size, _ZEROS):
        file.write(zeros[: size - at])


def _flush(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())
