"""Which picture is in which split: stratified, and a function of (seed, name) alone.

Within a class, pictures are ordered by BLAKE2b(seed, name), and the first ones are held out. So the
order in which a disk lists files does not matter, and a new file moves hardly any other picture.
A class with n pictures gives n f of them, rounded so that the total is right (largest remainder),
and at least one where it has three or more; a class always keeps one for training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.naming import shown, some
from residua.data.pictures import Source
from residua.errors import BadInput

SPLITS = ("train", "val", "test")
TEST_FRACTION = 0.1  # held out for the test where the data brings no split
TEST_FROM = 100  # a smaller set keeps its pictures for training and validation
_ENOUGH = 3  # a class with so many pictures is in every split

Rows = dict[str, npt.NDArray[np.int64]]
Made = tuple[Rows, dict[str, Any], list[str]]


def divide(source: Source, seed: int, val_fraction: float, most_val: int | None = None) -> Made:
    """Return rows by split, the record of the split, and notes for the user."""
    names, labels = source.pictures.names, source.pictures.labels
    rows = dict(source.given or {"train": np.arange(len(names), dtype=np.int64)})
    if len(rows.get("train", ())) == 0:
        raise BadInput(f"{shown(source.location)}: has no pictures to train on")
    how = dict.fromkeys(rows, "given")
    train, total = rows["train"], len(rows["train"])
    if source.given is None:
        how["train"] = "made"
        if total >= TEST_FROM:
            rows["test"], train = hold_out(names, labels, train, TEST_FRACTION, seed)
            how["test"] = "made"
    if "val" not in rows:
        wanted = val_fraction * total
        fraction = (wanted if most_val is None else min(wanted, most_val)) / len(train)
        rows["val"], train = hold_out(names, labels, train, min(fraction, 0.9), seed)
        how["val"] = how["train"] = "made"
        if len(rows["val"]) == 0:
            raise BadInput(
                f"{shown(source.location)}: has no class with two pictures, so none can be held "
                "out for validation; expected more pictures"
            )
    rows["train"] = train
    rows = {key: np.sort(rows[key]) for key in SPLITS if key in rows}
    return rows, _record(source, rows, how, seed, val_fraction), _notes(source, rows, how)


def repeat(source: Source, record: Mapping[str, Any]) -> Made:
    """Return exactly the split that a record holds; `BadInput` if one of its pictures is gone."""
    position = {name: i for i, name in enumerate(source.pictures.names)}
    try:
        wanted = {key: list(record["splits"][key]) for key in SPLITS if key in record["splits"]}
        how = dict(record["how"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"split record: {error} is missing; expected splits and how") from None
    gone = [name for names in wanted.values() for name in names if name not in position]
    if gone:
        raise BadInput(
            f"{shown(source.location)}: {len(gone):,} of the recorded pictures are gone "
            f"({some(gone)}); expected the same files as when the split was made"
        )
    rows = {key: np.array([position[n] for n in wanted[key]], np.int64) for key in wanted}
    extra = len(position) - sum(len(names) for names in wanted.values())
    notes = [f"{extra:,} pictures are not in the recorded split and are left out"] if extra else []
    made = _record(source, rows, how, record.get("seed"), record.get("val_fraction"))
    return rows, made, notes


def hold_out(
    names: list[str],
    labels: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    fraction: float,
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (held out, rest) of these rows, stratified over the classes."""
    order = sorted((int(i) for i in rows), key=lambda i: _place(seed, names[i]))
    by_class: dict[int, list[int]] = {}
    for i in order:
        by_class.setdefault(int(labels[i]), []).append(i)
    sizes = {c: len(members) for c, members in sorted(by_class.items())}
    counts = _shares(sizes, fraction)
    held = [i for c, n in counts.items() for i in by_class[c][:n]]
    mask = np.isin(rows, held)
    return rows[mask], rows[~mask]


def _shares(sizes: dict[int, int], fraction: float) -> dict[int, int]:
    """Return how many pictures each class gives, by largest remainder."""
    total = round(sum(sizes.values()) * fraction)
    counts = {c: min(int(n * fraction), n - 1) for c, n in sizes.items()}
    by_remainder = sorted(sizes, key=lambda c: (-((sizes[c] * fraction) % 1), c))
    for c in by_remainder:
        if sum(counts.values()) < total and counts[c] < sizes[c] - 1:
            counts[c] += 1
    for c, n in sizes.items():
        if n >= _ENOUGH:
            counts[c] = max(counts[c], 1)
    if not any(counts.values()) and sizes:
        largest = max(sizes, key=lambda c: (sizes[c], -c))
        counts[largest] = min(1, sizes[largest] - 1)
    return counts


def _place(seed: int, name: str) -> bytes:
    text = f"{seed}\0{name}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _record(
    source: Source, rows: Rows, how: dict[str, str], seed: Any, val_fraction: Any
) -> dict[str, Any]:
    names = source.pictures.names
    return {
        "version": 1,
        "how": how,
        "seed": seed,
        "val_fraction": val_fraction,
        "classes": list(source.classes),
        "splits": {key: [names[i] for i in index] for key, index in rows.items()},
    }


def _notes(source: Source, rows: Rows, how: dict[str, str]) -> list[str]:
    made = [key for key in ("val", "test") if how.get(key) == "made"]
    if not made:
        return []
    counts = " and ".join(f"{len(rows[key]):,} for {key}" for key in made)
    return [f"held out, stratified over the classes: {counts}"]
