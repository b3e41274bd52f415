"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): python or binary form, archive or unpacked folder.

    python   pickles of {data: uint8 (N, 3072), labels or fine_labels: list}
    binary   records of 1 (CIFAR-10) or 2 (CIFAR-100: coarse, fine) label bytes and 3,072 of pixels

Pixels are three planes of 32x32, red first. An archive is read in memory, never unpacked; a pickle
by `residua.data.unpickle`, which can build arrays and plain data and nothing else.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data import unpickle
from residua.data.decode import Pixels
from residua.data.download import Remote, data_folder, fetch
from residua.data.naming import shown
from residua.data.pictures import Source, Split
from residua.errors import BadInput

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_LARGEST_MEMBER = 1 << 30  # bytes; the largest real one (CIFAR-100 train) has 155 million
_ADDRESS = "https://www.cs.toronto.edu/~kriz/"

# fmt: off
CLASSES_10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)
CLASSES_100 = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
    "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
    "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
)
# fmt: on


@dataclass(frozen=True)
class _Form:
    """One of the four published forms."""

    name: str
    binary: bool
    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    classes: tuple[str, ...]
    archive: str
    md5: str

    @property
    def label_bytes(self) -> int:
        return 1 if self.name == "cifar10" else 2

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test)


def _batches(ending: str) -> tuple[str, ...]:
    return tuple(f"data_batch_{i}{ending}" for i in range(1, 6))


_FORMS = (
    _Form(
        "cifar10",
        False,
        "cifar-10-batches-py",
        _batches(""),
        "test_batch",
        "batches.meta",
        CLASSES_10,
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
    ),
    _Form(
        "cifar10",
        True,
        "cifar-10-batches-bin",
        _batches(".bin"),
        "test_batch.bin",
        "batches.meta.txt",
        CLASSES_10,
        "cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
    ),
    _Form(
        "cifar100",
        False,
        "cifar-100-python",
        ("train",),
        "test",
        "meta",
        CLASSES_100,
        "cifar-100-python.tar.gz",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
    _Form(
        "cifar100",
        True,
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        "fine_label_names.txt",
        CLASSES_100,
        "cifar-100-binary.tar.gz",
        "03b5dce01913d631647c71ecec9e9cb8",
    ),
)


def recognises(path: Path) -> bool:
    """Tell whether a folder holds CIFAR files, the official folder, or an official archive."""
    return _find(path, None) is not None


def read(path: Path) -> Source:
    """Read an archive or a folder; `BadInput` names the file that is missing or wrong."""
    if path.is_file():
        return _read_archive(path, None)
    found = _find(path, None)
    if found is None:
        raise BadInput(f"{shown(path)}: holds no CIFAR files")
    return _read_found(found)


def read_named(name: str, data: Path | None, *, download: bool = True) -> Source:
    """Read "cifar10" or "cifar100" from `data` (a folder or an archive), or download it there."""
    folder = data_folder(data, name)
    if folder.is_file():
        return _read_archive(folder, name)
    found = _find(folder, name) if folder.is_dir() else None
    if found is not None:
        return _read_found(found)
    form = next(f for f in _FORMS if f.name == name)  # the python form
    if data is not None and folder.is_dir() and any(p.is_dir() for p in folder.iterdir()):
        raise BadInput(
            f"{shown(folder)}: holds no {name} files; expected {form.archive} (for class folders, "
            f"give the folder itself: residua train {shown(folder)})"
        )
    remote = Remote(form.archive, (_ADDRESS + form.archive,), form.md5)
    return _read_archive(fetch(remote, folder, download=download), name)


def _find(path: Path, name: str | None) -> tuple[_Form, Path] | None:
    """Return the form and the folder or archive that holds it, in `path` or just below."""
    for form in _FORMS:
        if name is not None and form.name != name:
            continue
        for folder in (path, path / form.folder):
            if (folder / form.test).is_file() and any((folder / f).is_file() for f in form.train):
                return form, folder
        if (path / form.archive).is_file():
            return form, path / form.archive
    return None


def _read_found(found: tuple[_Form, Path]) -> Source:
    form, path = found
    if path.is_file():
        return _read_archive(path, form.name)
    wanted = (*form.files, form.meta)
    files = {name: (path / name).read_bytes() for name in wanted if (path / name).is_file()}
    return _source(form, path, files)


def _read_archive(path: Path, name: str | None) -> Source:
    """Read the members that a form wants; links, devices and other names are never touched."""
    wanted = {file for form in _FORMS for file in (*form.files, form.meta)}
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                base = member.name.rsplit("/", 1)[-1]
                if not member.isfile() or base not in wanted:
                    continue
                if member.size > _LARGEST_MEMBER:
                    raise BadInput(f"{shown(path)}: {shown(base)} is too large for a CIFAR file")
                stream = archive.extractfile(member)
                files[base] = stream.read() if stream is not None else b""
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise BadInput(
            f"{shown(path)}: is no whole .tar.gz archive ({' '.join(str(error).split())}); "
            "get it again"
        ) from None
    for form in _FORMS:
        if form.test in files and any(f in files for f in form.train):
            if name is not None and form.name != name:
                raise BadInput(f"{shown(path)}: holds {form.name}, expected {name}")
            return _source(form, path, files)
    raise BadInput(f"{shown(path)}: holds no CIFAR files; expected such as data_batch_1, or train")


def _source(form: _Form, path: Path, files: dict[str, bytes]) -> Source:
    missing = [name for name in form.files if name not in files]
    if missing:
        raise BadInput(f"{shown(path)}: {missing[0]} is missing; get {form.archive} again")
    classes = _class_names(form, path, files.get(form.meta))
    parts = {name: _part(form, path / name, files[name], len(classes)) for name in form.files}
    train = [parts[name] for name in form.train]
    pixels = np.concatenate([p for p, _ in train] + [parts[form.test][0]])
    labels = np.concatenate([y for _, y in train] + [parts[form.test][1]])
    n_train = sum(len(y) for _, y in train)
    counts = {"train": n_train, "test": len(labels) - n_train}
    names = [f"{split}/{i:05d}" for split, n in counts.items() for i in range(n)]
    given = {"train": np.arange(n_train), "test": np.arange(n_train, len(labels))}
    pictures = Split(labels=labels, names=names, channels=3, array=pixels)
    return Source(form.name, str(path), classes, pictures, given)


def _class_names(form: _Form, path: Path, meta: bytes | None) -> tuple[str, ...]:
    """Return the names that the archive brings, else the official ones."""
    if meta is None:
        return form.classes
    if form.binary:
        names = [line.strip() for line in meta.decode("latin-1").splitlines() if line.strip()]
    else:
        table = _load(path / form.meta, meta)
        key = b"label_names" if form.name == "cifar10" else b"fine_label_names"
        names = [_text(name) for name in table.get(key) or ()]
    if not names or len(set(names)) != len(names):
        raise BadInput(f"{shown(path / form.meta)}: holds no list of class names")
    return tuple(names)


def _part(form: _Form, path: Path, data: bytes, classes: int) -> tuple[Pixels, npt.NDArray[Any]]:
    planes, labels = (_records if form.binary else _pickled)(form, path, data)
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise BadInput(f"{shown(path)}: has the label {labels.max()}; expected 0..{classes - 1}")
    pixels = planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), labels


def _records(form: _Form, path: Path, data: bytes) -> tuple[Pixels, npt.NDArray[np.int64]]:
    record = form.label_bytes + _PIXELS
    if not data or len(data) % record:
        raise BadInput(f"{shown(path)}: has {len(data):,} bytes; expected a multiple of {record:,}")
    table = np.frombuffer(data, np.uint8).reshape(-1, record)
    return table[:, form.label_bytes :], table[:, form.label_bytes - 1].astype(np.int64)


def _pickled(form: _Form, path: Path, data: bytes) -> tuple[Pixels, npt.NDArray[np.int64]]:
    table = _load(path, data)
    key = b"labels" if form.name == "cifar10" else b"fine_labels"
    planes, labels = table.get(b"data"), table.get(key)
    if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8:
        raise BadInput(f"{shown(path)}: holds no array of bytes under 'data'")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise BadInput(f"{shown(path)}: holds no list of numbers under {key.decode()!r}")
    if planes.shape != (len(labels), _PIXELS):
        raise BadInput(
            f"{shown(path)}: data has shape {planes.shape}; expected ({len(labels)}, {_PIXELS})"
        )
    return planes, np.array(labels, np.int64)


def _load(path: Path, data: bytes) -> dict[bytes, Any]:
    """Unpickle a table; its keys are bytes, whichever Python wrote it."""
    table = unpickle.loads(data, shown(path))
    if not isinstance(table, dict):
        raise BadInput(f"{shown(path)}: holds no table; expected a CIFAR batch")
    return {k.encode() if isinstance(k, str) else k: v for k, v in table.items()}


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)
