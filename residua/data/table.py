"""A CSV of path,label, with an optional third column split (train, val or test).

Paths are relative to the table's own folder. A header is optional; where there is one, columns are
found by name. Separators: comma, semicolon or tab.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from residua.data.folder import SPLIT_NAMES
from residua.data.naming import natural_sort, shown, some
from residua.data.pictures import Source, Split
from residua.errors import BadInput

_ALIASES = {
    "path": ("path", "file", "filename", "file_name", "filepath", "image", "picture"),
    "label": ("label", "class", "category", "target"),
    "split": ("split", "set", "subset"),
}


@dataclass(frozen=True)
class _Row:
    line: int
    name: str
    label: str
    split: str | None


def read(path: Path, root: Path | None = None) -> Source:
    """Return the pictures of a table; `BadInput` names the line or the file that is wrong."""
    folder = path.parent if root is None else Path(root).expanduser().absolute()
    lines = _lines(path)
    rows, notes = _without_repeats(path, _rows(path, lines, folder))
    if not rows:
        raise BadInput(f"{shown(path)}: lists no pictures; expected lines of path,label")
    prefix = os.fspath(folder)
    paths = [Path(os.path.join(prefix, row.name)) for row in rows]  # noqa: PTH118 - 60,000 rows
    missing = [row for row, file in zip(rows, paths, strict=True) if not file.is_file()]
    if missing:
        more = f" ({len(missing):,} are missing)" if len(missing) > 1 else ""
        raise BadInput(
            f"{shown(path)}: line {missing[0].line} names {shown(missing[0].name)}, "
            f"which is not in {shown(folder)}{more}"
        )
    classes = tuple(natural_sort({row.label for row in rows}))
    position = {name: i for i, name in enumerate(classes)}
    pictures = Split(
        labels=np.array([position[row.label] for row in rows], np.int64),
        names=[row.name for row in rows],
        paths=paths,
    )
    given = None
    if rows[0].split is not None:
        column = np.array([row.split for row in rows])
        given = {s: np.flatnonzero(column == s) for s in ("train", "val", "test")}
        given = {s: index for s, index in given.items() if len(index)}
    return Source(path.stem, os.fspath(path), classes, pictures, given, notes)


def _lines(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{shown(path)}: is not UTF-8 text; save the table as UTF-8") from None
    except OSError as error:
        raise BadInput(f"{shown(path)}: cannot be read ({error.strerror})") from None
    if not text.strip():
        raise BadInput(f"{shown(path)}: is empty; expected lines of path,label")
    first = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=first.count)
    try:
        return list(csv.reader(text.splitlines(), delimiter=delimiter))
    except csv.Error as error:
        raise BadInput(f"{shown(path)}: is no readable table ({error})") from None


def _columns(path: Path, first: list[str], folder: Path) -> tuple[dict[str, int], bool]:
    """Return the columns' places and whether the first line is a header."""
    cells = [cell.strip().lower() for cell in first]
    found = {
        column: next((i for i, cell in enumerate(cells) if cell in names), -1)
        for column, names in _ALIASES.items()
    }
    header = found["path"] >= 0 or found["label"] >= 0
    if not header or (len(first) > 1 and (folder / first[0].strip()).is_file()):
        if len(first) in (2, 3):
            return {"path": 0, "label": 1, "split": 2 if len(first) == 3 else -1}, False
        raise BadInput(
            f"{shown(path)}: line 1 has {len(first)} columns; expected path,label or "
            "path,label,split"
        )
    for column in ("path", "label"):
        if found[column] < 0:
            raise BadInput(
                f"{shown(path)}: has no column {column} (it has {some(first, 6)}); "
                "expected path,label or path,label,split"
            )
    return found, True


def _rows(path: Path, lines: list[list[str]], folder: Path) -> list[_Row]:
    numbered = [(i, cells) for i, cells in enumerate(lines, 1) if any(c.strip() for c in cells)]
    columns, header = _columns(path, numbered[0][1], folder)
    last = max(columns.values())
    rows = []
    for line, cells in numbered[1 if header else 0 :]:
        if len(cells) <= last:
            raise BadInput(
                f"{shown(path)}: line {line} has {len(cells)} columns; expected {last + 1} or more"
            )
        name, label = cells[columns["path"]].strip(), cells[columns["label"]].strip()
        if not name or not label:
            what = "label" if name else "path"
            raise BadInput(f"{shown(path)}: line {line} has no {what}; expected path,label")
        split = None
        if columns["split"] >= 0:
            word = cells[columns["split"]].strip()
            split = SPLIT_NAMES.get(word.lower())
            if split is None:
                raise BadInput(
                    f"{shown(path)}: line {line} has the split {word!r}; "
                    "expected train, val or test"
                )
        rows.append(_Row(line, name.replace("\\", "/"), shown(label), split))
    return rows


def _without_repeats(path: Path, rows: list[_Row]) -> tuple[list[_Row], list[str]]:
    """Drop lines that say the same again; two labels, or two splits, of a file are an error."""
    seen: dict[str, _Row] = {}
    for row in rows:
        name = os.path.normpath(row.name)
        before = seen.setdefault(name, row)
        if (before.label, before.split) != (row.label, row.split):
            raise BadInput(
                f"{shown(path)}: line {row.line} lists {shown(row.name)} otherwise than line "
                f"{before.line}; expected one label and one split a file"
            )
    repeats = len(rows) - len(seen)
    notes = [f"{repeats:,} repeated lines of {shown(path.name)} count once"] if repeats else []
    return list(seen.values()), notes
