"""What the values of masks mean: the table value -> class, and the names of the classes.

Names come from a file beside the folders, the first there is of

    classes.txt    a name a line, in the order of the values; or "3: nucleus", value and name
    classes.json   ["membrane", "inside"], or {"membrane": 0, "inside": 255}, or {"0": "membrane", ...}
    dataset.json   "labels" as nnU-Net has them, with "ignore" as the value that counts for nothing

Without one, a class is called by its value ("0", "255"): which of two is the background is not guessed.
A file that gives values also gives classes that no mask holds; then the table is the file's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from residua.data.masks import MAX_CLASSES, listed
from residua.data.naming import shown
from residua.errors import BadInput

FILES = ("classes.txt", "classes.json", "dataset.json")
_VALUE_AND_NAME = re.compile(r"^(-?\d+)\s*[:,;=\t ]\s*(\S.*)$")


@dataclass
class Table:
    """`values[k]` in a mask is class k, called `classes[k]`."""

    values: tuple[int, ...]
    classes: tuple[str, ...]
    ignore: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class _Declared:
    names: list[str]
    values: list[int] | None
    ignore: int | None = None
    notes: list[str] = field(default_factory=list)


def table(
    root: Path,
    found: Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore: int | None = None,
) -> Table:
    """Return the table for masks that hold the values `found`.

    `classes` and `values` are asked for (those of a checkpoint, say); else the file beside says
    them. Raises `BadInput` for a value that is not in the table, and for more values than classes.
    """
    declared = _declared(root) if classes is None else _Declared(list(classes), None)
    if values is not None:
        names = declared.names if declared else []
        declared = _Declared(names or [str(value) for value in values], list(values))
    if ignore is None and declared is not None:
        ignore = declared.ignore
    present = sorted(set(found) - {ignore})
    if len(present) > MAX_CLASSES:
        raise BadInput(
            f"{shown(root)}: the masks hold {len(present):,} values; expected a value a class, "
            f"{MAX_CLASSES} at most: do they number objects?"
        )
    if declared is None:
        made = Table(tuple(present), tuple(str(value) for value in present), ignore)
    else:
        made = _declared_table(root, declared, present, ignore)
    made.notes = [*(declared.notes if declared else []), *_notes(made)]
    return made


def _notes(made: Table) -> list[str]:
    notes = []
    if made.values != tuple(range(len(made.values))):
        pairs = [f"{value} is class {k}" for k, value in enumerate(made.values[:8])]
        more = ", ..." if len(made.values) > 8 else ""
        notes.append(f"values of the masks are renumbered: {', '.join(pairs)}{more}")
    if made.classes == tuple(str(value) for value in made.values):
        notes.append(
            "classes are named by their values; names may stand in classes.txt, one a line"
        )
    if made.ignore is not None:
        notes.append(f"pixels of the value {made.ignore} count for nothing")
    return notes


def _declared_table(
    root: Path, declared: _Declared, present: list[int], ignore: int | None
) -> Table:
    names, count = declared.names, len(declared.names)
    if len(set(names)) < count or not all(names):
        raise BadInput(
            f"{shown(root)}: a class has no name or that of another; expected different names"
        )
    if declared.values is not None:
        if len(declared.values) != count:
            raise BadInput(f"{shown(root)}: {count} classes for {len(declared.values)} mask values")
        values = declared.values
    elif len(present) == count:
        values = present
    else:
        values = list(range(count))  # a class that no mask holds keeps its place
    strange = [value for value in present if value not in values]
    if strange:
        raise BadInput(
            f"{shown(root)}: the masks hold the value{'s' * (len(strange) > 1)} {listed(strange)}, "
            f"which no class has; expected {listed(values)} ({', '.join(names[:4])}"
            f"{', ...' * (count > 4)})"
        )
    return Table(tuple(values), tuple(names), ignore)


def _declared(root: Path) -> _Declared | None:
    for name in FILES:
        path = root / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError):
            raise BadInput(f"{shown(path)}: cannot be read as text") from None
        if name.endswith(".txt"):
            return _from_lines(path, text)
        try:
            content = json.loads(text)
        except ValueError as error:
            raise BadInput(f"{shown(path)}: is no JSON ({error})") from None
        return _from_labels(path, content) if name == "dataset.json" else _from_json(path, content)
    return None


def _from_lines(path: Path, text: str) -> _Declared:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise BadInput(f"{shown(path)}: is empty; expected the name of a class a line")
    pairs = [_VALUE_AND_NAME.match(line) for line in lines]
    if all(pairs):
        return _by_value({int(p.group(1)): p.group(2) for p in pairs if p})
    return _Declared(lines, None)


def _from_json(path: Path, content: Any) -> _Declared:
    if isinstance(content, list) and content and all(isinstance(name, str) for name in content):
        return _Declared(content, None)
    if isinstance(content, dict) and content:
        return _from_mapping(path, content)
    raise BadInput(f"{shown(path)}: expected a list of names, or names with their values")


def _from_mapping(path: Path, content: dict[str, Any]) -> _Declared:
    if all(isinstance(value, int) for value in content.values()):
        return _by_value({int(value): name for name, value in content.items()})
    try:
        return _by_value({int(value): str(name) for value, name in content.items()})
    except ValueError:
        raise BadInput(f"{shown(path)}: expected a whole number for each class") from None


def _by_value(names: dict[int, str]) -> _Declared:
    values = sorted(names)
    return _Declared([names[value] for value in values], values)


def _from_labels(path: Path, content: Any) -> _Declared | None:
    labels = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(labels, dict) or not labels:
        return None
    named = {name: value for name, value in labels.items() if name != "ignore"}
    ignore = labels.get("ignore")
    if any(isinstance(value, list) for value in named.values()):
        made = _regions(path, named)
    else:
        made = _from_mapping(path, named)
    made.ignore = ignore if isinstance(ignore, int) else None
    return made


def _regions(path: Path, named: dict[str, Any]) -> _Declared:
    every = [v for value in named.values() for v in (value if isinstance(value, list) else [value])]
    if not all(isinstance(value, int) for value in every):
        raise BadInput(f"{shown(path)}: expected whole numbers as the values of labels")
    values = sorted(set(every))
    note = "dataset.json names regions, which overlap: here each value is a class of its own"
    return _Declared([str(value) for value in values], values, None, [note])
