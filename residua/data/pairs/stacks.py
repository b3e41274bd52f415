"""Numbered pictures of one size in a folder are taken for the slices of a stack.

    00.png, 01.png, ... 29.png   or   brain1_001.tif, ..., brain2_001.tif, ...   (two stacks)

Three or more pictures whose names differ in one number, most of these following each other, all of one size.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from residua.data import volumes
from residua.data.naming import shown, some
from residua.data.pairs.items import Item
from residua.errors import BadInput

FEWEST = 3
_NUMBER = re.compile(r"^(.*?)(\d+)(\D*)$")  # the last number of a name
Key = tuple[str, str, str]


def sequences(items: Sequence[Item]) -> tuple[dict[str, list[int]], list[int]]:
    """Return rows of 2-D items by the name of their stack ("images/*.png"), in order; and the rest."""
    numbered: dict[Key, list[tuple[int, int]]] = defaultdict(list)
    rest = []
    for row, item in enumerate(items):
        match = _NUMBER.match(volumes.stem(item.masks[0]))
        if match is None or len(item.shape) != 2:
            rest.append(row)
            continue
        place = f"{item.masks[0].parent}/{match.group(1)}"
        numbered[place, match.group(3), volumes.ending(item.masks[0])].append(
            (int(match.group(2)), row)
        )
    found: dict[str, list[int]] = {}
    for members in numbered.values():
        members.sort()
        rows = [row for _, row in members]
        if _are_slices([number for number, _ in members], [items[row].shape for row in rows]):
            name = _name(items[rows[0]])
            found[name if name not in found else items[rows[0]].name + "..."] = rows
        else:
            rest += rows
    return found, sorted(rest)


def as_volume(name: str, items: Sequence[Item]) -> Item:
    """Return the volume that consecutive slices make; `BadInput` where a number is missing."""
    numbers = [_number(item.masks[0]) for item in items]
    missing = sorted(set(range(numbers[0], numbers[-1])) - set(numbers))
    if missing:
        raise BadInput(
            f"{shown(name)}: slices {some([str(n) for n in missing])} of {numbers[0]} to {numbers[-1]} are "
            "missing; expected all of them to make one volume"
        )
    pictures = tuple(item.pictures[0] for item in items)
    masks = tuple(item.masks[0] for item in items)
    return Item(name, pictures, masks, (len(items), *items[0].shape))


def _number(path: Path) -> int:
    match = _NUMBER.match(volumes.stem(path))
    return int(match.group(2)) if match else 0


def _are_slices(numbers: list[int], shapes: list[tuple[int, ...]]) -> bool:
    if len(numbers) < FEWEST or len(set(shapes)) > 1 or len(set(numbers)) < len(numbers):
        return False
    steps = sum(b - a == 1 for a, b in itertools.pairwise(numbers))
    return 2 * steps >= len(numbers) - 1


def _name(first: Item) -> str:
    """Return "images/cell*.png" for slices that begin with images/cell00.png."""
    match = _NUMBER.match(volumes.stem(first.masks[0]))
    assert match is not None
    before, _, _ = first.name.rpartition(match.group(2))
    return f"{before}*{volumes.ending(first.name)}"
