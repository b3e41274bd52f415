"""Which picture or slice is in which split: neighbours in a stack are alike, and must not be torn apart.

    three or more groups   whole groups are held out, drawn by (seed, name) as in `residua.data.split`
    fewer                  each stack gives its last slices as one block: train | val, or train | val | test

A group is a volume, a sequence of numbered slices of one size, or a picture of its own. Blocks are also taken
where one group is larger than all others together. A single picture that is no stack gives its last rows.
Splits that the folders bring are kept; where they bring none, a tenth is held out for a test from 100
pictures or slices on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from residua.data.naming import shown
from residua.data.pairs.items import Item
from residua.data.pairs.scan import sides
from residua.data.split import SPLITS, TEST_FRACTION, TEST_FROM, hold_out
from residua.errors import BadInput

WHOLE_FROM = 3  # groups of which whole ones are held out


@dataclass(frozen=True)
class Group:
    """Items that are neighbours: the pictures of a sequence in order, or one volume or picture."""

    name: str
    items: tuple[Item, ...]
    kind: str  # "volume", "sequence" or "picture"
    axis: int = 0

    def __len__(self) -> int:
        return self.items[0].shape[self.axis] if self.kind == "volume" else len(self.items)

    def part(self, start: int, stop: int, dims: int) -> list[Item]:
        """Return the items that slices start .. stop - 1 make."""
        if self.kind != "volume":
            return list(self.items[start:stop])
        volume = self.items[0]
        if dims == 2:
            return [volume.slice(self.axis, k) for k in range(start, stop)]
        whole = (start, stop) == (0, len(self))
        return [volume if whole else volume.cut(self.axis, start, stop)]


@dataclass
class Division:
    """Items by split, how each split came about, and what the user should know."""

    splits: dict[str, list[Item]]
    how: dict[str, str]
    notes: list[str] = field(default_factory=list)


def divide(
    groups: Mapping[str, list[Group]],
    *,
    dims: int,
    seed: int,
    val_fraction: float,
    most_val: int | None,
    where: str,
) -> Division:
    """Return the items of "train", "val" and "test"; `groups` are by the split that folders give.

    Groups under "train" alone are divided. Raises `BadInput` where there is nothing to train on or
    nothing to hold out.
    """
    train = groups.get("train", [])
    if not train:
        raise BadInput(f"{shown(where)}: has no pictures with masks to train on")
    made = Division({}, dict.fromkeys(groups, "given"))
    for key, members in groups.items():
        made.splits[key] = [item for g in members for item in g.part(0, len(g), dims)]
    if "val" not in groups:
        total = sum(len(group) for group in train)
        wanted = val_fraction * total if most_val is None else min(val_fraction * total, most_val)
        test = TEST_FRACTION if "test" not in groups and total >= TEST_FROM else 0.0
        way = _whole_groups if _can_hold_out_whole(train) else _blocks
        parts, note = way(train, wanted / total, test, dims, seed)
        if not parts["val"]:
            raise BadInput(
                f"{shown(where)}: one picture of {sides(train[0].items[0].shape)} is too small to hold a "
                "part out for validation; expected more pictures"
            )
        made.splits |= {key: items for key, items in parts.items() if items}
        made.how |= {key: "made" for key, items in parts.items() if items}
        made.notes.append(note)
    made.splits = {key: made.splits[key] for key in SPLITS if made.splits.get(key)}
    return made


def _can_hold_out_whole(groups: list[Group]) -> bool:
    sizes = [len(group) for group in groups]
    if all(group.kind == "picture" for group in groups):
        return len(groups) > 1
    return len(groups) >= WHOLE_FROM and 2 * max(sizes) <= sum(sizes)


def _whole_groups(
    groups: list[Group], val: float, test: float, dims: int, seed: int
) -> tuple[dict[str, list[Item]], str]:
    """Hold out whole groups, decided by their names and the seed."""
    rows = np.arange(len(groups), dtype=np.int64)
    names, same = [group.name for group in groups], np.zeros(len(groups), np.int64)
    chosen = {"test": rows[:0]}
    if test and len(groups) * test >= 1:
        chosen["test"], rows = hold_out(names, same, rows, test, seed)
    fraction = min(val * len(groups) / len(rows), 0.9)
    chosen["val"], chosen["train"] = hold_out(names, same, rows, fraction, seed)
    parts = {
        key: [item for i in sorted(index) for item in groups[i].part(0, len(groups[i]), dims)]
        for key, index in chosen.items()
    }
    counts = " and ".join(f"{len(chosen[k]):,} for {k}" for k in ("val", "test") if len(chosen[k]))
    if all(group.kind == "picture" for group in groups):
        return parts, f"held out at random: {counts} of {len(groups):,} pictures"
    return parts, (
        f"held out at random: {counts} of {len(groups):,} stacks, none of them torn apart"
    )


def _blocks(
    groups: list[Group], val: float, test: float, dims: int, seed: int
) -> tuple[dict[str, list[Item]], str]:
    """Hold out the last slices of each group; `seed` decides nothing."""
    parts: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    lines = []
    for group in groups:
        if group.kind == "picture":
            if len(groups) > 1:
                parts["train"] += group.items
                continue
            group, dims = _rows_of(group), 3
        n = len(group)
        last = round(n * test) if n * test >= 1 else 0
        held = min(max(1, round(n * val)), n - last - 1)  # one slice at least is for training
        ends = {
            "train": (0, n - held - last),
            "val": (n - held - last, n - last),
            "test": (n - last, n),
        }
        for key, (start, stop) in ends.items():
            if stop > start:
                parts[key] += group.part(start, stop, dims)
        what = "rows" if group.kind == "volume" and len(group.items[0].shape) == 2 else "slices"
        text = f"{group.name}: of {n:,} {what} the last {held + last:,}"
        lines.append(text + (f" ({held:,} val, {last:,} test)" if last else ""))
    numbered = any(group.kind == "sequence" for group in groups)
    why = "numbered pictures of one size may be neighbours" if numbered else "neighbours are alike"
    return parts, f"held out as one block, not at random, for {why}: {'; '.join(lines)}"


def _rows_of(picture: Group) -> Group:
    """Return a single picture as a stack of rows."""
    return Group(picture.name, picture.items, "volume", 0)
