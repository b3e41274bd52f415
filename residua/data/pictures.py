"""A set of labelled pictures from any source, in splits that can be had again.

    open_pictures(source) -> Pictures: splits train, val and (where the data has one) test

The source decides which pictures and classes there are; `residua.data.split` decides which picture
is where, as a function of its name and the seed; `split_record` holds the result by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.decode import Pixels, decode, with_channels
from residua.data.naming import shown
from residua.errors import BadInput, nearest

NAMED = ("digits", "cifar10", "cifar100", "mnist", "fashion_mnist")
Labels = npt.NDArray[np.int64]


@dataclass(eq=False)
class Split:
    """Pictures with labels: files (`paths`) or an array of uint8 (N, H, W, C).

    `names` are unique within the set: the path relative to its root, or such as "train/00012".
    """

    labels: Labels
    names: list[str]
    channels: int = 3
    paths: list[Path] | None = None
    array: Pixels | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> Pixels:
        """Return picture `i` as uint8 (H, W, channels); `BadInput` if its file is unreadable."""
        if self.array is not None:
            return with_channels(self.array[i], self.channels)
        assert self.paths is not None
        return decode(self.paths[i], self.channels)

    def digest(self, i: int) -> str:
        """Return 32 hexadecimal digits that depend on the picture's content alone.

        The content is the bytes of the file, or the shape and pixels of an array's row: the same
        picture in two file formats has two digests.
        """
        if self.array is not None:
            return array_digest(self.array[i])
        assert self.paths is not None
        try:
            with self.paths[i].open("rb") as file:
                return hashlib.file_digest(file, _blake).hexdigest()
        except OSError as error:
            raise BadInput(f"{shown(self.paths[i])}: cannot be read ({error.strerror})") from None

    def take(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> Split:
        """Return the split of these rows only."""
        rows = np.asarray(indices, np.int64)
        return replace(
            self,
            labels=self.labels[rows],
            names=[self.names[i] for i in rows],
            paths=None if self.paths is None else [self.paths[i] for i in rows],
            array=None if self.array is None else self.array[rows],
        )


@dataclass(eq=False)
class Source:
    """What a reader of one kind of source returns: all pictures, and the splits it came with.

    `given` maps "train", "val", "test" to rows of `pictures`; None where the source has no splits.
    """

    name: str
    location: str
    classes: tuple[str, ...]
    pictures: Split
    given: dict[str, npt.NDArray[np.int64]] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Pictures:
    """A set that is ready to train on; the index of a class in `classes` is its label."""

    name: str
    location: str
    classes: tuple[str, ...]
    channels: int
    splits: dict[str, Split]
    split_record: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def open_pictures(
    source: str | Path,
    *,
    data: Path | None = None,
    seed: int = 0,
    val_fraction: float = 0.1,
    most_val: int | None = None,
    split_record: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    download: bool = True,
) -> Pictures:
    """Open a named set, a folder, a CSV, a CIFAR archive or folder, or a folder of IDX files.

    `data` is the folder of a named set's files (default: the cache folder), or the folder that the
    paths in a CSV are relative to (default: the CSV's own). Splits that the source does not bring
    are made: stratified, and decided by `seed` and the pictures' names; `val` is `val_fraction` of
    the training pictures, but no more than `most_val`. `split_record` asks for
    exactly that split, with the classes that it records. `classes` fixes the labels by name; a
    class that is not in it is an error, one that the data lacks keeps its label.

    Raises `BadInput` (one line) for anything wrong with what was given; `ResiduaError` where a
    download fails.
    """
    from residua.data import split

    if not 0 < val_fraction < 1:
        raise BadInput(f"val_fraction is {val_fraction:g}; expected a number between 0 and 1")
    found = _read(source, data, download)
    if classes is None and split_record is not None:
        classes = split_record.get("classes")
    if classes is not None:
        found = _relabel(found, tuple(classes))
    if split_record is not None:
        rows, record, notes = split.repeat(found, split_record)
    else:
        rows, record, notes = split.divide(found, seed, val_fraction, most_val)
    channels = _decide_channels(found.pictures)
    found.pictures.channels = channels
    return Pictures(
        name=found.name,
        location=found.location,
        classes=found.classes,
        channels=channels,
        splits={key: found.pictures.take(index) for key, index in rows.items()},
        split_record=record,
        notes=[*found.notes, *notes],
    )


def array_digest(picture: Pixels) -> str:
    """Return the content digest of one picture (H, W, C)."""
    h = _blake(repr(picture.shape).encode())
    h.update(np.ascontiguousarray(picture).data)
    return h.hexdigest()


def _blake(data: bytes = b"") -> hashlib.blake2b:
    return hashlib.blake2b(data, digest_size=16)


def _read(source: str | Path, data: Path | None, download: bool) -> Source:
    """Find out what kind of source this is, and read its list of pictures."""
    if isinstance(source, str):
        name = source.lower().replace("-", "_")
        if name in NAMED:
            found = _read_named(name, data, download)
            if Path(source).is_dir():
                found.notes.append(
                    f"{name} is the named data set, not the folder here (that is ./{source})"
                )
            return found
    path = Path(source).expanduser().absolute()
    try:
        if path.is_dir():
            return _read_folder(path)
        if path.is_file():
            return _read_file(path, data)
    except PermissionError as error:
        raise BadInput(f"{shown(error.filename or path)}: permission denied") from None
    raise BadInput(
        f"{shown(source)}: no such file or folder, and no named data set "
        f"({', '.join(NAMED)}).{nearest(str(source), NAMED)}"
    )


def _read_named(name: str, data: Path | None, download: bool) -> Source:
    if name == "digits":
        from residua.data import digits

        return digits.read()
    if name.startswith("cifar"):
        from residua.data import cifar

        return cifar.read_named(name, data, download=download)
    from residua.data import idx

    return idx.read_named(name, data, download=download)


def _read_folder(path: Path) -> Source:
    from residua.data import cifar, folder, idx

    if cifar.recognises(path):
        return cifar.read(path)
    if idx.recognises(path):
        return idx.read(path)
    return folder.read(path)


def _read_file(path: Path, data: Path | None) -> Source:
    from residua.data import cifar, idx, table

    suffixes = [s.lower() for s in path.suffixes]
    if suffixes[-1:] in ([".csv"], [".tsv"]):
        return table.read(path, root=data)
    if suffixes[-2:] == [".tar", ".gz"] or suffixes[-1:] in ([".tgz"], [".tar"]):
        return cifar.read(path)
    if idx.recognises(path.parent) and "idx" in path.name:
        return idx.read(path.parent)
    raise BadInput(
        f"{shown(path)}: is not a set of pictures; expected a folder, a .csv of path,label, "
        "or a CIFAR .tar.gz"
    )


def _relabel(source: Source, classes: tuple[str, ...]) -> Source:
    """Give every picture the label that its class has in `classes`."""
    if len(set(classes)) != len(classes):
        raise BadInput("classes: a name occurs twice; expected each class once")
    counts = np.bincount(source.pictures.labels, minlength=len(source.classes))
    strange = [c for c, n in zip(source.classes, counts, strict=True) if n and c not in classes]
    if strange:
        raise BadInput(
            f"{shown(source.location)}: has the class {shown(strange[0])}, which is not among the "
            f"{len(classes)} expected ones.{nearest(strange[0], classes)}"
        )
    position = {name: i for i, name in enumerate(classes)}
    table = np.array([position.get(name, -1) for name in source.classes], np.int64)
    labels = table[source.pictures.labels]
    return replace(source, classes=classes, pictures=replace(source.pictures, labels=labels))


def _decide_channels(pictures: Split) -> int:
    """Return 1 if every picture is grey, else 3; one colour picture is proof enough."""
    if pictures.array is not None:
        return int(pictures.array.shape[-1])
    from residua.data.scan import all_grey

    assert pictures.paths is not None
    return 1 if all_grey(pictures.paths) else 3
