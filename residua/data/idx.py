"""IDX files (LeCun's format; MNIST, Fashion-MNIST), plain or .gz.

    0, 0, type (8: bytes), n; n sizes as big-endian 32-bit numbers; the values, last index fastest

Pictures have sizes (N, H, W) or (N, H, W, 3); labels (N,).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from residua.data.decode import Pixels
from residua.data.download import Remote, data_folder, fetch
from residua.data.naming import shown
from residua.data.pictures import Source, Split
from residua.errors import BadInput

_BYTES = 0x08  # the only type that pictures and labels come in
_CHUNK = 1 << 26  # bytes; a damaged header may announce more than there is memory
_TRAIN, _TEST = ("train",), ("t10k", "test")

DIGIT_CLASSES = tuple(str(i) for i in range(10))
FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

# The MD5s are those that the authors' pages and torchvision give.
_FILES = {
    "mnist": (
        ("https://ossci-datasets.s3.amazonaws.com/mnist/",),
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion_mnist": (
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
}
_CLASSES = {"mnist": DIGIT_CLASSES, "fashion_mnist": FASHION_CLASSES}


def recognises(path: Path) -> bool:
    """Tell whether a folder holds IDX pictures."""
    return _find(path, "images", _TRAIN) is not None


def read(path: Path) -> Source:
    """Read train (and, where there are, test) files of a folder; classes are the label values."""
    return _read(path, path.name or "idx", None)


def read_named(name: str, data: Path | None, *, download: bool = True) -> Source:
    """Read "mnist" or "fashion_mnist" from `data`, or download the four files there."""
    folder = data_folder(data, name)
    torchvision = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}[name]
    for place in (folder, folder / name, folder / torchvision):
        if place.is_dir() and recognises(place):
            return _read(place, name, _CLASSES[name])
    urls, files = _FILES[name]
    place = folder if data is None else folder / name
    for file, md5 in files.items():
        remote = Remote(file, tuple(url + file for url in urls), md5)
        fetch(remote, place, download=download)
    return _read(place, name, _CLASSES[name])


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Return the array of an IDX file of bytes; `BadInput` where header and length disagree."""
    where = shown(path)
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0":
                raise BadInput(
                    f"{where}: is no IDX file (it begins with {magic.hex() or 'nothing'})"
                )
            if magic[2] != _BYTES:
                raise BadInput(f"{where}: holds IDX type 0x{magic[2]:02x}; expected bytes (0x08)")
            sizes = file.read(4 * magic[3])
            if len(sizes) < 4 * magic[3] or not sizes:
                raise BadInput(f"{where}: ends within its header")
            shape = struct.unpack(f">{magic[3]}I", sizes)
            count = math.prod(shape)
            values = _read_up_to(file, count + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"{where}: cannot be read ({error}); get it again") from None
    if len(values) != count:
        found = f"{len(values):,}" if len(values) < count else "more"
        raise BadInput(f"{where}: its header announces {count:,} values but it holds {found}")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_up_to(file: gzip.GzipFile | IO[bytes], count: int) -> bytes:
    parts = []
    while count > 0 and (part := file.read(min(count, _CHUNK))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _find(path: Path, what: str, split: tuple[str, ...]) -> Path | None:
    """Return the file of pictures or labels of a split; the plain one before the packed."""
    found = [
        p
        for p in sorted(path.iterdir())
        if p.is_file() and what in p.name and "idx" in p.name and any(s in p.name for s in split)
    ]
    return found[0] if found else None


def _read(path: Path, name: str, classes: tuple[str, ...] | None) -> Source:
    parts: dict[str, tuple[Pixels, npt.NDArray[np.int64]]] = {}
    for split, words in (("train", _TRAIN), ("test", _TEST)):
        images, labels = _find(path, "images", words), _find(path, "labels", words)
        if images is not None:
            parts[split] = _part(path, split, images, labels)
    labels_seen = np.unique(np.concatenate([y for _, y in parts.values()]))
    if classes is None:
        classes = tuple(str(v) for v in labels_seen)
        parts = {s: (x, np.searchsorted(labels_seen, y)) for s, (x, y) in parts.items()}
    elif len(labels_seen) and labels_seen[-1] >= len(classes):
        raise BadInput(
            f"{shown(path)}: has the label {labels_seen[-1]}; expected 0..{len(classes) - 1}"
        )
    shapes = {x.shape[1:] for x, _ in parts.values()}
    if len(shapes) > 1:
        raise BadInput(f"{shown(path)}: train and test have pictures of different shapes {shapes}")
    pixels = np.concatenate([x for x, _ in parts.values()])
    names = [f"{split}/{i:05d}" for split, (x, _) in parts.items() for i in range(len(x))]
    given, start = {}, 0
    for split, (x, _) in parts.items():
        given[split] = np.arange(start, start + len(x), dtype=np.int64)
        start += len(x)
    pictures = Split(
        labels=np.concatenate([y for _, y in parts.values()]).astype(np.int64),
        names=names,
        channels=pixels.shape[-1],
        array=pixels,
    )
    # Files of one split only: that is all there is, and it is divided as any other set.
    return Source(name, str(path), classes, pictures, given if len(given) > 1 else None)


def _part(
    path: Path, split: str, images: Path, labels: Path | None
) -> tuple[Pixels, npt.NDArray[np.int64]]:
    if labels is None:
        raise BadInput(f"{shown(path)}: has {images.name} but no labels for {split}")
    x, y = read_idx(images), read_idx(labels)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise BadInput(f"{shown(images)}: has sizes {x.shape}; expected (N, H, W) or (N, H, W, 3)")
    if y.shape != (len(x),):
        raise BadInput(f"{shown(labels)}: has {y.size:,} labels for {len(x):,} pictures")
    return x, y.astype(np.int64)
