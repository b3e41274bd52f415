"""Decoded pictures, once: `store` decodes a split to uint8 and keeps it memory-mapped on disk.

    uniform   pixels (N, S, S, C): short side resized to S, centre S x S cropped
    ragged    pictures (H, W, C) of their own shape: short side reduced to S where it is larger

An entry is a folder named after what it was made from (paths, sizes, times of change, S, C, version
of this code), written aside and renamed: it is whole or absent, and a changed file is another entry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data.decode import Pixels, load, to_pixels, with_channels
from residua.data.naming import shown, some
from residua.data.pictures import Split
from residua.errors import BadInput, ResiduaError

Progress = Callable[[int, int], None]

VERSION = 1  # raise it when the same files would give other pixels
_CHUNK_BYTES = 8 << 20  # pixels that one task decodes
_CHUNK_MOST = 256
_STALE_SECONDS = 3600  # what a killed writer left behind, and nobody has touched since
_UNKNOWN_MEMORY = 4e9  # bytes, where the system does not say
_MEMORY_SHARE = 0.5  # of the free memory, at most, where the disk is of no use


class PixelStore:
    """Decoded pictures of a split; `store[i]` is uint8 (H, W, C). Small to send to a worker.

    `pixels` is uint8 (N, S, S, C) when `uniform`, else all pictures end to end, with `offsets`
    (N + 1,) and `shapes` (N, 3). `note` says what the user should know (such as a full disk).
    """

    def __init__(
        self,
        pixels: Pixels,
        shapes: npt.NDArray[np.int64] | None = None,
        *,
        path: Path | None = None,
        note: str = "",
    ) -> None:
        self.pixels = pixels
        self.shapes = shapes
        self.path = path
        self.note = note
        self.offsets: npt.NDArray[np.int64] | None = None
        if shapes is not None:
            self.offsets = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])

    @property
    def uniform(self) -> bool:
        """Whether all pictures have one shape, so that `pixels` is (N, S, S, C)."""
        return self.shapes is None

    def __len__(self) -> int:
        return len(self.pixels) if self.shapes is None else len(self.shapes)

    def __getitem__(self, i: int) -> Pixels:
        if self.shapes is None or self.offsets is None:
            picture: Pixels = self.pixels[i]
            return picture
        i = range(len(self.shapes))[i]  # as a list: -1 is the last, beyond is an IndexError
        return self.pixels[self.offsets[i] : self.offsets[i + 1]].reshape(self.shapes[i])

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if self.path is not None:
            state["pixels"] = None  # the receiver maps the same file again
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path is not None:
            self.pixels = _map(self.path)


class _Fit(NamedTuple):
    """The pictures that are asked for."""

    size: int
    channels: int
    uniform: bool


def default_folder() -> Path:
    """Return $RESIDUA_CACHE, else ~/.cache/residua."""
    named = os.environ.get("RESIDUA_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "residua"


def store(
    split: Split,
    *,
    size: int,
    channels: int,
    uniform: bool = True,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> PixelStore:
    """Return the split's decoded pictures, from the cache where its files have not changed.

    `progress(done, total)` is called from this thread while decoding. Where the folder cannot be
    written, or the disk is full, the pictures are kept in memory and `note` says so.
    Raises `BadInput` naming unreadable pictures, `ResiduaError` where neither disk nor memory do.
    """
    fit = _Fit(size, channels, uniform)
    ready = _as_it_is(split, fit)
    if ready is not None:
        return PixelStore(ready)
    if len(split) == 0:
        return _in_memory(split, fit, progress, "")  # an empty file cannot be mapped
    folder = default_folder() if folder is None else folder
    entry = folder / f"pixels-{_key(split, fit)}"
    found = _open(entry, len(split), fit)
    if found is not None:
        return found
    try:
        _write(entry, split, fit, progress)
    except OSError as error:
        note = f"the picture cache {shown(folder)} cannot be written ({error.strerror})"
        return _in_memory(split, fit, progress, note)
    written = _open(entry, len(split), fit)
    if written is None:
        raise ResiduaError(f"{shown(entry)}: what was written cannot be read back; check the disk")
    return written


def fingerprint(paths: Sequence[Path]) -> tuple[str, npt.NDArray[np.int64]]:
    """Return a digest of the files' paths, sizes and times of change, and the sizes in bytes."""
    h = hashlib.blake2b(digest_size=16)
    sizes = np.empty(len(paths), np.int64)
    for i, path in enumerate(paths):
        try:
            status = os.stat(path)  # noqa: PTH116 - hot path
        except OSError as error:
            reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise BadInput(f"{shown(path)}: {reason}") from None
        sizes[i] = status.st_size
        h.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="replace"))
    return h.hexdigest(), sizes


def in_order(
    count: int,
    chunk: int,
    work: Callable[[range], Any],
    progress: Progress | None = None,
) -> Iterator[Any]:
    """Yield `work(rows)` for chunks of rows in order, done by threads, a few chunks ahead.

    Threads, for Pillow decodes without the interpreter's lock, and they need no start-up.
    """
    threads = _cores()
    starts = iter(range(0, count, chunk))
    with ThreadPoolExecutor(threads) as pool:
        waiting: list[tuple[range, Future[Any]]] = []
        try:
            while True:
                while len(waiting) < 2 * threads and (start := next(starts, None)) is not None:
                    rows = range(start, min(start + chunk, count))
                    waiting.append((rows, pool.submit(work, rows)))
                if not waiting:
                    return
                rows, task = waiting.pop(0)
                yield task.result()
                if progress is not None:
                    progress(rows.stop, count)
        finally:
            pool.shutdown(cancel_futures=True)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _as_it_is(split: Split, fit: _Fit) -> Pixels | None:
    """Return the array of a split that already is what is asked for."""
    array = split.array
    if array is None or array.shape[-1] != fit.channels:
        return None
    if fit.uniform and array.shape[1:3] == (fit.size, fit.size):
        return array
    return array if not fit.uniform and min(array.shape[1:3]) <= fit.size else None


def _key(split: Split, fit: _Fit) -> str:
    if split.array is not None:
        content = hashlib.blake2b(repr(split.array.shape).encode(), digest_size=16)
        content.update(np.ascontiguousarray(split.array).data)
        made_from = content.hexdigest()
    else:
        assert split.paths is not None
        made_from, _ = fingerprint(split.paths)
    text = f"{VERSION}\0{made_from}\0{fit.size}\0{fit.channels}\0{fit.uniform}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _map(entry: Path) -> Pixels:
    # As a plain array over the map: indexing an np.memmap takes several times as long.
    return np.asarray(np.load(entry / "pixels.npy", mmap_mode="r"))


def _open(entry: Path, count: int, fit: _Fit) -> PixelStore | None:
    """Map an entry; None where there is none, or what is there is damaged."""
    try:
        pixels = _map(entry)
        shapes = None if fit.uniform else np.load(entry / "shapes.npy")
    except (OSError, ValueError, EOFError):
        return None
    expected = (count, fit.size, fit.size, fit.channels)
    if pixels.dtype != np.uint8 or (shapes is None and pixels.shape != expected):
        return None
    if shapes is not None and (len(shapes) != count or shapes.prod(axis=1).sum() != len(pixels)):
        return None
    try:
        os.utime(entry)  # last used, for whoever tidies the folder
    except OSError:
        return PixelStore(pixels, shapes, path=entry)  # a read-only cache is still a cache
    return PixelStore(pixels, shapes, path=entry)


def _write(entry: Path, split: Split, fit: _Fit, progress: Progress | None) -> None:
    """Decode into a folder aside and rename it. OSError where the disk does not take it."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    _tidy(entry.parent)
    aside = Path(tempfile.mkdtemp(prefix=f"{entry.name}.aside-", dir=entry.parent))
    try:
        shapes = _write_pixels(aside / "pixels.npy", split, fit, progress)
        if not fit.uniform:
            with (aside / "shapes.npy").open("wb") as file:
                np.save(file, shapes)
                _flush(file.fileno(), file.flush)
        aside.chmod(0o755)  # mkdtemp makes it private; a cache may be shared
        _put_in_place(aside, entry, len(split), fit)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_pixels(
    path: Path, split: Split, fit: _Fit, progress: Progress | None
) -> npt.NDArray[np.int64]:
    """Write plainly, in order: a full disk is then an OSError (a mapped write would be SIGBUS)."""
    shapes: list[tuple[int, ...]] = []
    with path.open("wb") as file:
        header = len(_header(file, fit, len(split), 1 << 62))  # room for the largest count
        for pictures in _decoded(split, fit, progress):
            for picture in pictures:
                shapes.append(picture.shape)
                file.write(np.ascontiguousarray(picture).data)
        total = file.tell() - header
        file.seek(0)
        _header(file, fit, len(split), total)
        _flush(file.fileno(), file.flush)
    return np.array(shapes, np.int64).reshape(-1, 3)


def _header(file: Any, fit: _Fit, count: int, total: int) -> bytes:
    """Write the .npy header (format 1.0) at a length that does not depend on `total`."""
    shape = f"({count}, {fit.size}, {fit.size}, {fit.channels})" if fit.uniform else f"({total},)"
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    header += text.ljust(117).encode() + b"\n"
    file.write(header)
    return header


def _flush(descriptor: int, flush: Callable[[], object]) -> None:
    flush()
    os.fsync(descriptor)


def _put_in_place(aside: Path, entry: Path, count: int, fit: _Fit) -> None:
    try:
        aside.rename(entry)
    except OSError:
        if _open(entry, count, fit) is not None:
            return  # another process has written the same pictures meanwhile
        if not entry.exists():
            raise
        shutil.rmtree(entry)  # a damaged one
        aside.rename(entry)


def _tidy(folder: Path) -> None:
    """Remove what killed writers left behind."""
    for left in folder.glob("*.aside-*"):
        try:
            inside = left.iterdir() if left.is_dir() else ()
            newest = max(p.stat().st_mtime for p in (left, *inside))
            if time.time() - newest > _STALE_SECONDS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError:
            continue  # its writer has finished meanwhile, or it is not ours to remove


def _in_memory(split: Split, fit: _Fit, progress: Progress | None, note: str) -> PixelStore:
    per_picture = fit.size * fit.size * fit.channels * (1.0 if fit.uniform else 1.5)
    need, room = len(split) * per_picture, free_memory() * _MEMORY_SHARE
    if need > room:
        raise ResiduaError(
            f"{note}, and {need / 1e9:.1f} GB do not fit in memory; "
            "set RESIDUA_CACHE to a folder with room"
        )
    note = f"{note}: the pictures are kept in memory" if note else ""
    if fit.uniform:
        pixels = np.empty((len(split), fit.size, fit.size, fit.channels), np.uint8)
        done = 0
        for pictures in _decoded(split, fit, progress):
            pixels[done : done + len(pictures)] = pictures
            done += len(pictures)
        return PixelStore(pixels, note=note)
    every = [picture for pictures in _decoded(split, fit, progress) for picture in pictures]
    shapes = np.array([p.shape for p in every], np.int64).reshape(-1, 3)
    flat = np.concatenate([p.ravel() for p in every]) if every else np.empty(0, np.uint8)
    return PixelStore(flat, shapes, note=note)


def free_memory() -> float:
    """Return the bytes that programs may still ask for; a guess where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    except (OSError, ValueError):
        return _UNKNOWN_MEMORY
    return _UNKNOWN_MEMORY


def _decoded(split: Split, fit: _Fit, progress: Progress | None) -> Iterator[list[Pixels]]:
    """Yield chunks of pictures in order. All unreadable ones are named in one `BadInput`."""
    chunk = _CHUNK_BYTES // (fit.size * fit.size * fit.channels)
    faults: list[str] = []

    def work(rows: range) -> tuple[list[Pixels], list[str]]:
        pictures, wrong = [], []
        for i in rows:
            try:
                pictures.append(_fitted(split, i, fit))
            except BadInput as error:
                wrong.append(str(error))
        return pictures, wrong

    for pictures, wrong in in_order(len(split), max(1, min(chunk, _CHUNK_MOST)), work, progress):
        faults += wrong
        if not faults:
            yield pictures
    if len(faults) == 1:
        raise BadInput(faults[0])
    if faults:
        raise BadInput(f"{len(faults):,} pictures cannot be read: {some(faults)}")


def fitted(split: Split, i: int, size: int, channels: int, *, uniform: bool) -> Pixels:
    """Return picture `i` of a split decoded as `store` would keep it."""
    return _fitted(split, i, _Fit(size, channels, uniform))


def _fitted(split: Split, i: int, fit: _Fit) -> Pixels:
    """Return picture `i` at the size that is asked for."""
    if split.paths is not None:
        image = load(split.paths[i], fit.channels, fit.size)
    else:
        pixels = with_channels(split.read(i), fit.channels)
        image = Image.fromarray(pixels[..., 0] if fit.channels == 1 else pixels)
    return to_pixels(_crop(_resize(image, fit), fit), fit.channels)


def _resize(image: Image.Image, fit: _Fit) -> Image.Image:
    short = min(image.size)
    if short == fit.size or (short < fit.size and not fit.uniform):
        return image
    width, height = (max(fit.size, round(side * fit.size / short)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _crop(image: Image.Image, fit: _Fit) -> Image.Image:
    if not fit.uniform or image.size == (fit.size, fit.size):
        return image
    left, top = (image.width - fit.size) // 2, (image.height - fit.size) // 2
    return image.crop((left, top, left + fit.size, top + fit.size))
