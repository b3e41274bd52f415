"""Look at a set before training: what would stop it, what would spoil its result, what is in it.

An error stops a training: unreadable pictures, one class only, a class that is only in the test.
A warning does not: the same picture in two splits, classes of very different size, ...
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from residua.data.cache import Progress
from residua.data.naming import shown, some
from residua.data.pictures import Pictures, array_digest
from residua.data.scan import scan
from residua.errors import BadInput

_UNBALANCED = 10  # times as many pictures in the largest class as in the smallest
_FEW = 5  # training pictures of a class
_PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))


class Part(Protocol):
    """A split, of which some rows can be taken."""

    names: list[str]

    def __len__(self) -> int: ...

    def take(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return the split of these rows only."""


P = TypeVar("P", bound=Part)


@dataclass(eq=False)
class Findings:
    """What `check` found: one line each, and the facts behind them (plain data)."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    unreadable: dict[str, list[int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return asdict(self)

    def refuse(self) -> None:
        """Raise BadInput with the first error, and how many more there are; nothing without errors."""
        if self.errors:
            more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
            raise BadInput(self.errors[0] + more)

    def text(self) -> str:
        """Return a summary of a few lines for a person."""
        facts = self.facts
        kind = "grey" if facts["channels"] == 1 else "colour"
        lines = [
            f"{facts['name']}: {facts['pictures']:,} pictures, {len(facts['classes'])} classes, "
            f"{kind}{_sizes_text(facts.get('sizes'))}"
        ]
        for split, counts in facts["splits"].items():
            per_class = counts["classes"].values()
            low, high = min(per_class, default=0), max(per_class, default=0)
            each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
            lines.append(f"  {split:<6}{counts['pictures']:>9,}   {each} a class")
        lines += [f"  note: {note}" for note in facts["notes"]]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  error: {error}" for error in self.errors]
        return "\n".join(lines)


def check(
    pictures: Pictures,
    *,
    deep: bool = True,
    skip_unreadable: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Findings:
    """Return errors, warnings and facts of a set.

    `deep` reads the header and the end of every file, and the bytes of those that may be equal;
    without it, only labels are looked at. `skip_unreadable` decodes every file to be sure, and
    makes unreadable ones a warning: train then on `readable(pictures, findings)`. What was read is
    kept in the cache `folder`.
    """
    findings = Findings(facts=_facts(pictures))
    _check_classes(pictures, findings)
    if deep:
        _check_pictures(pictures, findings, skip_unreadable, folder, progress)
    return findings


def readable(pictures: Pictures, findings: Findings) -> Pictures:
    """Return the set without the pictures that `check` could not read, its record included."""
    splits, record = readable_splits(pictures.splits, pictures.split_record, findings)
    return replace(pictures, splits=splits, split_record=record)


def readable_splits(
    splits: Mapping[str, P], record: dict[str, Any], findings: Findings
) -> tuple[dict[str, P], dict[str, Any]]:
    """Return splits and their record without the rows that could not be read."""
    kept, record = dict(splits), record | {"splits": dict(record["splits"])}
    for key, rows in findings.unreadable.items():
        kept[key] = kept[key].take(np.setdiff1d(np.arange(len(kept[key])), rows))
        record["splits"][key] = list(kept[key].names)
    return kept, record


def _facts(pictures: Pictures) -> dict[str, Any]:
    splits = {}
    for key, split in pictures.splits.items():
        counts = np.bincount(split.labels, minlength=len(pictures.classes)).tolist()
        by_class = dict(zip(pictures.classes, counts, strict=True))
        splits[key] = {"pictures": len(split), "classes": by_class}
    return {
        "name": shown(pictures.name),
        "location": shown(pictures.location),
        "classes": list(pictures.classes),
        "channels": pictures.channels,
        "pictures": sum(len(split) for split in pictures.splits.values()),
        "splits": splits,
        "notes": list(pictures.notes),
    }


def _check_classes(pictures: Pictures, findings: Findings) -> None:
    counts = {key: facts["classes"] for key, facts in findings.facts["splits"].items()}
    train = counts["train"]
    present = [name for name, n in train.items() if n]
    where = shown(pictures.location)
    if len(present) < 2:
        findings.errors.append(
            f"{where}: has one class only ({some(present)}); expected two or more class folders"
        )
        return
    for key in ("val", "test"):
        held = counts.get(key, {})
        unknown = [name for name, n in held.items() if n and not train[name]]
        missing = [name for name, n in held.items() if not n and train[name]]
        if unknown:
            findings.errors.append(
                f"{where}: {some(unknown)} is in {key} but has no pictures in train"
            )
        if missing:
            findings.warnings.append(
                f"{len(missing)} of {len(held)} classes have no pictures in {key} "
                f"({some(missing)}): nothing will be known of them there"
            )
    empty = [n for n in train if not train[n] and not any(counts[k].get(n) for k in counts)]
    if empty:
        findings.warnings.append(f"no pictures of {some(empty)}")
    _check_balance({name: train[name] for name in present}, findings)


def _check_balance(train: dict[str, int], findings: Findings) -> None:
    largest, smallest = max(train, key=lambda c: train[c]), min(train, key=lambda c: train[c])
    ratio = train[largest] / train[smallest]
    findings.facts["balance"] = ratio
    if ratio >= _UNBALANCED:
        findings.warnings.append(
            f"classes are of very different size in train: {shown(largest)} has "
            f"{train[largest]:,} pictures, {shown(smallest)} {train[smallest]:,}"
        )
    few = [name for name, n in train.items() if n < _FEW]
    if few:
        findings.warnings.append(f"fewer than {_FEW} training pictures of {some(few)}")


def _check_pictures(
    pictures: Pictures,
    findings: Findings,
    skip_unreadable: bool,
    folder: Path | None,
    progress: Progress | None,
) -> None:
    files = [
        (key, row, path)
        for key, split in pictures.splits.items()
        for row, path in enumerate(split.paths or ())
    ]
    same: dict[bytes, list[tuple[str, int]]] = defaultdict(list)
    shapes = [s.array.shape[1:3] for s in pictures.splits.values() if s.array is not None]
    if files:
        seen = scan(
            [path for _, _, path in files],
            thorough=skip_unreadable,
            folder=folder,
            progress=progress,
        )
        for i in np.flatnonzero(seen.hashed):
            same[seen.digests[i].tobytes()].append(files[i][:2])
        _report_unreadable(files, seen.errors, findings, skip_unreadable)
        good = np.ones(len(files), np.bool_)
        good[list(seen.errors)] = False
        shapes += list(zip(seen.heights[good], seen.widths[good], strict=True))
        grey = int(seen.grey[good].sum())
        findings.facts["kinds"] = {"grey": grey, "colour": int(good.sum()) - grey}
    for key, digest, row in _array_digests(pictures):
        same[digest].append((key, row))
    if shapes:
        findings.facts["sizes"] = _sizes(np.array(shapes, np.int64))
    _report_equal(pictures, same, findings)


def _array_digests(pictures: Pictures) -> Iterator[tuple[str, bytes, int]]:
    for key, split in pictures.splits.items():
        if split.array is not None:
            for row in range(len(split)):
                yield key, bytes.fromhex(array_digest(split.array[row])), row


def _report_unreadable(
    files: list[tuple[str, int, Path]],
    errors: dict[int, str],
    findings: Findings,
    skip_unreadable: bool,
) -> None:
    findings.facts["unreadable"] = len(errors)
    for i in errors:
        key, row, _ = files[i]
        findings.unreadable.setdefault(key, []).append(row)
    if not errors:
        return
    if len(errors) == 1:
        line = next(iter(errors.values()))
    else:
        line = f"{len(errors):,} of {len(files):,} pictures cannot be read: {some(errors.values())}"
    if skip_unreadable:
        findings.warnings.append(f"left out: {line}")
    else:
        findings.errors.append(line)


def _report_equal(
    pictures: Pictures, same: dict[bytes, list[tuple[str, int]]], findings: Findings
) -> None:
    """Warn of equal pictures in two splits, and of equal pictures with two labels."""
    splits = pictures.splits
    shared: dict[str, list[str]] = {f"{a}/{b}": [] for a, b in _PAIRS if {a, b} <= set(splits)}
    torn: list[str] = []
    for places in same.values():
        if len(places) < 2:
            continue
        first = dict(reversed(places))  # the first row of each split
        for pair, examples in shared.items():
            a, b = pair.split("/")
            if a in first and b in first:
                example = f"{splits[a].names[first[a]]} = {splits[b].names[first[b]]}"
                examples += [example] * sum(key == b for key, _ in places)
        if len({int(splits[key].labels[row]) for key, row in places}) > 1:
            torn.append(" = ".join(splits[key].names[row] for key, row in places[:2]))
    findings.facts["duplicates"] = {pair: len(found) for pair, found in shared.items()}
    findings.facts["contradictions"] = len(torn)
    for pair, found in shared.items():
        if found:
            a, b = pair.split("/")
            findings.warnings.append(
                f"{len(found):,} of the {len(splits[b]):,} pictures in {b} are in {a} too "
                f"({some(dict.fromkeys(found))}): the score on {b} will flatter"
            )
    if torn:
        findings.warnings.append(f"{len(torn):,} pictures have two labels ({some(torn)})")


def _sizes(shapes: npt.NDArray[np.int64]) -> dict[str, list[int]]:
    return {
        "min": shapes.min(axis=0).tolist(),
        "median": np.rint(np.median(shapes, axis=0)).astype(int).tolist(),
        "max": shapes.max(axis=0).tolist(),
    }


def _sizes_text(sizes: dict[str, list[int]] | None) -> str:
    if not sizes:
        return ""
    low, middle, high = (f"{h} x {w}" for h, w in (sizes["min"], sizes["median"], sizes["max"]))
    return f", {low} pixels" if low == high else f", {low} to {high} pixels (median {middle})"
