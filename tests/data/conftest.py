"""Small real files that the tests of `residua.data` read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep every test out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESIDUA_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RESIDUA_MIRROR", raising=False)
        yield


@pytest.fixture
def draw() -> Callable[..., np.ndarray]:
    """Return uint8 noise of a shape, decided by a seed."""

    def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return noise


@pytest.fixture
def save(draw: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Write a picture of noise; the file's ending says the format."""

    def write(path: Path, size: tuple[int, int] = (8, 8), seed: int = 0, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
        Image.fromarray(draw(shape, seed)).save(path)
        return path

    return write


@pytest.fixture
def huge_png() -> bytes:
    """Return a PNG whose header announces 60,000 x 60,000 pixels, which it does not hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def class_folders(save: Callable[..., Path]) -> Callable[..., Path]:
    """Write ROOT/CLASS/0.png, 1.png, ...: all different."""

    def make(root: Path, counts: dict[str, int], seed: int = 0, mode: str = "RGB") -> Path:
        for c, (name, count) in enumerate(counts.items()):
            for i in range(count):
                save(root / name / f"{i}.png", seed=1000 * seed + 100 * c + i, mode=mode)
        return root

    return make
