"""Pictures in class folders, with or without train, val and test above them.

    ROOT/CLASS/.../picture.jpg          or          ROOT/train/CLASS/.../picture.jpg, ROOT/test/...

A folder within a class folder belongs to the class. Hidden files and files that are no pictures
are left out with a note. Links are followed, each folder once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from residua.data.decode import EXTENSIONS
from residua.data.naming import natural_key, natural_sort, shown, some
from residua.data.pictures import Source, Split
from residua.errors import BadInput

_ORDER = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass
class _Listing:
    """Files of one class folder, relative to it, and what was left out."""

    files: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)


def read(root: Path) -> Source:
    """Return the pictures below `root`; `BadInput` where there are none or no class folders."""
    folders = _folders(root)
    parts = _split_folders(root, folders)
    builder = _Builder(root)
    if parts is None:
        _refuse_flat(root, folders)
        builder.add_classes(root, None)
    else:
        for split, folder in sorted(parts.items(), key=lambda part: _ORDER.index(part[0])):
            _refuse_flat(folder, _folders(folder))
            builder.add_classes(folder, split)
        ignored = [f.name for f in folders if f not in parts.values()]
        if ignored:
            builder.notes.append(f"folders beside train are left out: {some(ignored)}")
    return builder.source(splits=parts is not None)


def is_picture(name: str) -> bool:
    """Tell by its ending whether a file is a picture."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122 - 60,000 names


class _Builder:
    """Collects (class, file) pairs of one or several splits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[tuple[str, str, str | None]] = []  # class, name, split
        self.classes: set[str] = set()
        self.notes: list[str] = []
        self.strangers: list[str] = []

    def add_classes(self, folder: Path, split: str | None) -> None:
        prefix = "" if split is None else f"{folder.name}/"
        empty = []
        for entry in _folders(folder):
            listing = _list_class(entry)
            label = shown(entry.name)
            self.strangers += [f"{prefix}{entry.name}/{name}" for name in listing.strangers]
            if not listing.files:
                empty.append(f"{prefix}{entry.name}")
                continue
            self.classes.add(label)
            for name in sorted(listing.files, key=natural_key):
                self.rows.append((label, f"{prefix}{entry.name}/{name}", split))
        if empty:
            self.notes.append(f"class folders without pictures are left out: {some(empty)}")
        loose = [e.name for e in _entries(folder) if e.is_file() and is_picture(e.name)]
        if loose:
            self.notes.append(
                f"{len(loose):,} pictures outside class folders are left out: {some(loose)}"
            )

    def source(self, *, splits: bool) -> Source:
        if not self.rows:
            raise BadInput(f"{shown(self.root)}: holds no pictures; {_expected(self.root)}")
        if self.strangers:
            self.notes.append(
                f"{len(self.strangers):,} hidden files or files that are no pictures are left "
                f"out: {some(self.strangers)}"
            )
        classes = tuple(natural_sort(self.classes))
        position = {name: i for i, name in enumerate(classes)}
        prefix = os.fspath(self.root) + os.sep
        pictures = Split(
            labels=np.array([position[c] for c, _, _ in self.rows], np.int64),
            names=[name for _, name, _ in self.rows],
            paths=[Path(prefix + name) for _, name, _ in self.rows],
        )
        given = None
        if splits:
            column = np.array([split for _, _, split in self.rows])
            given = {s: np.flatnonzero(column == s) for s in _ORDER}
            given = {s: index for s, index in given.items() if len(index)}
        name = self.root.name or "pictures"
        return Source(name, os.fspath(self.root), classes, pictures, given, self.notes)


def _split_folders(root: Path, folders: list[Path]) -> dict[str, Path] | None:
    """Return train, val and test folders, or None where the folders of `root` are classes.

    A class may be called "train" (vehicles): then it holds pictures itself. It is a split where it
    holds folders instead, or where no other folder could be a class.
    """
    named = [f for f in folders if f.name.lower() in SPLIT_NAMES]
    found: dict[str, Path] = {}
    for folder in named:
        split = SPLIT_NAMES[folder.name.lower()]
        if split in found:
            raise BadInput(
                f"{shown(root)}: has both {shown(found[split].name)} and {shown(folder.name)}; "
                f"expected one folder for {split}"
            )
        found[split] = folder
    if not named:
        return None
    if "train" not in found:
        if len(named) == len(folders):
            raise BadInput(f"{shown(root)}: has {shown(named[0].name)} but no train folder")
        return None
    holds_folders = bool(_folders(found["train"])) and not _has_pictures(found["train"])
    return found if holds_folders or len(named) == len(folders) else None


def _refuse_flat(folder: Path, folders: list[Path]) -> None:
    """Raise where a folder that should hold class folders does not."""
    if not folders:
        entries = [e.name for e in _entries(folder)]
        pictures = [name for name in entries if is_picture(name)]
        tables = [name for name in entries if name.lower().endswith((".csv", ".tsv"))]
        if pictures:
            hint = f" (or give the table {shown(folder / tables[0])})" if tables else ""
            raise BadInput(
                f"{shown(folder)}: holds {len(pictures):,} pictures but no class folders; "
                f"{_expected(folder)}{hint}"
            )
        raise BadInput(f"{shown(folder)}: is empty; {_expected(folder)}")
    if len(folders) == 1 and _folders(folders[0]) and not _has_pictures(folders[0]):
        raise BadInput(
            f"{shown(folder)}: holds one folder, which holds folders itself; "
            f"did you mean {shown(folders[0])}?"
        )


def _expected(folder: Path) -> str:
    return f"expected pictures in class folders such as {shown(folder / 'CLASS' / 'picture.jpg')}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    found = [Path(e.path) for e in _entries(folder) if e.is_dir() and e.name != "__MACOSX"]
    return sorted(found, key=lambda path: natural_key(path.name))


def _has_pictures(folder: Path) -> bool:
    return any(e.is_file() and is_picture(e.name) for e in _entries(folder))


def _list_class(folder: Path) -> _Listing:
    """List all files below a class folder; a folder that is reached twice (a loop) counts once."""
    listing = _Listing()
    seen: set[tuple[int, int]] = set()
    waiting = [(os.fspath(folder), "")]
    while waiting:
        path, prefix = waiting.pop()
        status = os.stat(path)  # noqa: PTH116 - hot path
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(path) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    listing.strangers.append(name)
                elif entry.is_dir():
                    waiting.append((entry.path, name + "/"))
                elif is_picture(entry.name) and entry.is_file():  # no pipe, no dangling link
                    listing.files.append(name)
                else:
                    listing.strangers.append(name)
    return listing
