"""Open a folder of pictures with masks as splits that can be had again.

    open_pairs(source) -> Pairs: classes, 2-D or 3-D with reasons, splits train, val and perhaps test

Folders and names say what belongs together (`layout`), the masks which classes there are (`names`), sizes
and spacings whether to work in 2-D or 3-D (`dimensions`), and `division` which picture or slice is where.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from residua.data.cache import Progress
from residua.data.naming import shown, some
from residua.data.pairs import layout, names, stacks
from residua.data.pairs.dimensions import Decision, decide
from residua.data.pairs.division import Division, Group, divide
from residua.data.pairs.items import Item, Last, PairSplit
from residua.data.pairs.layout import Layout, Row
from residua.data.pairs.scan import Seen, look, sides
from residua.data.split import SPLITS
from residua.data.volumes import Spacing
from residua.errors import BadInput


@dataclass(eq=False)
class Pairs:
    """A set that is ready to train on; class k is `classes[k]`, and `values[k]` in the mask files.

    `dims` is 2 or 3, `axis` the one along which volumes are sliced where dims is 2, `spacing` the
    median distance of voxels (z, y, x), None where unknown. `reasons` say why 2-D or 3-D, `notes`
    what else was decided. `seen` holds what reading the files has shown, `rows` the files.
    """

    name: str
    location: str
    classes: tuple[str, ...]
    channels: int
    dims: int
    spacing: Spacing | None
    unit: str
    values: tuple[int, ...]
    ignore: int | None
    splits: dict[str, PairSplit]
    split_record: dict[str, Any]
    axis: int = 0
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    alone: dict[str, list[str]] = field(default_factory=dict)


def open_pairs(
    source: str | Path,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    most_val: int | None = None,
    split_record: Mapping[str, Any] | None = None,
    classes: Sequence[str] | None = None,
    values: Sequence[int] | None = None,
    ignore: int | None = None,
    dims: int | None = None,
    axis: int | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """Open a folder that `recognises` knows.

    Every file is read once, counted by `progress`, and what is in it kept in the cache folder. A
    split that the folders do not bring is made: `val` is `val_fraction` of the pictures or slices,
    `most_val` at most. `split_record` repeats exactly that split, with its classes, values and
    dims. `classes` names the classes in the order of their values, and `values` are the masks'
    values in the order of the classes. `ignore` is the value that counts for nothing. `dims`
    overrules the choice of 2-D or 3-D: 3 makes volumes of numbered slices too. `axis` overrules
    that along which volumes are sliced.

    Raises `BadInput` (one line) for anything wrong with what was given. A pair that cannot be read,
    or whose mask has another size, is in no split: `check_pairs` names it. Where all are so, the
    first one is the error.
    """
    if not 0 < val_fraction < 1:
        raise BadInput(f"val_fraction is {val_fraction:g}; expected a number between 0 and 1")
    if dims not in (None, 2, 3):
        raise BadInput(f"dims is {dims}; expected 2 or 3")
    record = dict(split_record) if split_record is not None else {}
    classes = record.get("classes") if classes is None else classes
    values = record.get("values") if values is None else values
    ignore = record.get("ignore") if ignore is None else ignore
    dims = record.get("dims") if dims is None else dims
    if split_record is not None and dims != record.get("dims"):
        raise BadInput(f"the recorded split is {record.get('dims')}-D; expected dims to be that")
    root = Path(source).expanduser().absolute()
    if not root.is_dir():
        raise BadInput(f"{shown(source)}: no such folder")
    try:
        found = layout.find(root)
    except PermissionError as error:
        raise BadInput(f"{shown(error.filename or root)}: permission denied") from None
    seen = look(found.rows, progress)
    good = [i for i, one in enumerate(seen) if not one.wrong]
    if not good:
        raise BadInput(_all_wrong(seen))
    _refuse_mixtures(found, seen, good)
    held = {value for i in good for value in seen[i].values}
    table = names.table(root, sorted(held), classes=classes, values=values, ignore=ignore)
    choice, groups = _groups(found, seen, good, dims, axis)
    if split_record is None:
        made = divide(
            groups,
            dims=choice.dims,
            seed=seed,
            val_fraction=val_fraction,
            most_val=most_val,
            where=os.fspath(root),
        )
        record = _record(made, seed, val_fraction, table, choice.dims)
    else:
        made = _repeat(groups, record, root)
    spacings = [s for i in good if (s := seen[i].spacing) is not None]
    channels = _channels([seen[i].channels for i in good])
    last = Last()  # one for all splits, which may be parts of one volume
    deep = any(seen[i].depth != "uint8" for i in good)
    return Pairs(
        name=root.name or "pairs",
        location=os.fspath(root),
        classes=table.classes,
        channels=channels,
        dims=choice.dims,
        spacing=_median(spacings),
        unit=next((seen[i].unit for i in good if seen[i].unit), ""),
        values=table.values,
        ignore=table.ignore,
        splits={
            key: PairSplit(items, channels, table.values, table.ignore, deep, choice.dims, last)
            for key, items in made.splits.items()
        },
        split_record=record,
        axis=choice.axis,
        notes=[*found.notes, *table.notes, *made.notes],
        reasons=list(choice.reasons),
        rows=found.rows,
        seen=seen,
        alone={"pictures": found.alone_pictures, "masks": found.alone_masks},
    )


def _all_wrong(seen: list[Seen]) -> str:
    if len(seen) == 1:
        return seen[0].wrong
    return (
        f"none of {len(seen):,} pairs of picture and mask can be read: "
        f"{some([one.wrong for one in seen], 1)} (if the folders are classes: --task classification)"
    )


def _refuse_mixtures(found: Layout, seen: list[Seen], good: list[int]) -> None:
    first = good[0]
    for i in good:
        if len(seen[i].shape) != len(seen[first].shape):
            raise BadInput(
                f"{shown(found.rows[i].mask)}: is {sides(seen[i].shape)}, "
                f"{shown(found.rows[first].mask.name)} {sides(seen[first].shape)}; "
                "expected all pictures, or all stacks"
            )
        if {seen[i].channels, seen[first].channels} not in ({1}, {3}, {1, 3}) and (
            seen[i].channels != seen[first].channels
        ):
            raise BadInput(
                f"{shown(found.rows[i].picture[0])}: has {seen[i].channels} channels, "
                f"{shown(found.rows[first].picture[0].name)} {seen[first].channels}; "
                "expected as many in every picture"
            )


def _channels(counts: list[int]) -> int:
    """Return 1 where all are grey, 3 where one is in colour, else what they all have."""
    return max(counts)


def _median(spacings: list[Spacing]) -> Spacing | None:
    if not spacings:
        return None
    z, y, x = np.median(np.array(spacings), axis=0).tolist()
    return z, y, x


def _groups(
    found: Layout, seen: list[Seen], good: list[int], dims: int | None, axis: int | None
) -> tuple[Decision, dict[str, list[Group]]]:
    """Return 2-D or 3-D, and what must stay together, by the split that the folders give."""
    items = {i: _item(found.rows[i], seen[i]) for i in good}
    by_split: dict[str, list[Item]] = {}
    for i in good:
        by_split.setdefault(found.rows[i].split or "train", []).append(items[i])
    if "train" not in by_split:
        raise BadInput(f"{shown(found.root)}: has {some(by_split)} but no train folder")
    if len(seen[good[0]].shape) == 3:
        choice = decide(
            [seen[i].shape for i in good],
            [seen[i].spacing for i in good],
            next((seen[i].unit for i in good if seen[i].unit), ""),
            dims,
        )
        choice = choice if axis is None else replace(choice, axis=axis)
        return choice, {
            key: [Group(item.name, (item,), "volume", choice.axis) for item in members]
            for key, members in by_split.items()
        }
    groups = {key: _flat_groups(members, dims == 3) for key, members in by_split.items()}
    stacked = [group for members in groups.values() for group in members if group.kind != "picture"]
    if dims == 3:
        alone = [g.name for members in groups.values() for g in members if g.kind == "picture"]
        if alone:
            raise BadInput(
                f"{shown(found.root)}: {len(alone):,} pictures are no numbered slices of one size "
                f"({some(alone)}); expected stacks for dims=3"
            )
        shapes = [group.items[0].shape for group in stacked]
        return decide(shapes, [None] * len(shapes), "", 3), groups
    reasons = ["2-D: every file holds one plane"]
    if stacked:
        count = sum(len(group) for group in stacked)
        made = "one volume" if len(stacked) == 1 else f"{len(stacked):,} volumes"
        reasons.append(
            f"{count:,} of them are numbered and of one size: if they are slices, dims=3 reads them "
            f"as {made}"
        )
    return Decision(2, 0, tuple(reasons)), groups


def _item(row: Row, seen: Seen) -> Item:
    return Item(row.name, (row.picture,), (row.mask,), seen.shape, spacing=seen.spacing)


def _flat_groups(items: list[Item], volumes: bool) -> list[Group]:
    """Return numbered slices as sequences (as one volume each, if asked), and single pictures."""
    found, rest = stacks.sequences(items)
    groups = []
    for name, rows in found.items():
        members = tuple(items[row] for row in rows)
        if volumes:
            groups.append(Group(name, (stacks.as_volume(name, members),), "volume"))
        else:
            groups.append(Group(name, members, "sequence"))
    return groups + [Group(items[row].name, (items[row],), "picture") for row in rest]


def _record(
    made: Division, seed: int, val_fraction: float, table: names.Table, dims: int
) -> dict[str, Any]:
    return {
        "version": 1,
        "task": "segmentation",
        "how": made.how,
        "seed": seed,
        "val_fraction": val_fraction,
        "classes": list(table.classes),
        "values": list(table.values),
        "ignore": table.ignore,
        "dims": dims,
        "splits": {key: [item.name for item in items] for key, items in made.splits.items()},
    }


def _repeat(groups: dict[str, list[Group]], record: dict[str, Any], root: Path) -> Division:
    """Return exactly the split that a record holds; `BadInput` if a picture of it is gone."""
    try:
        wanted = {key: list(record["splits"][key]) for key in SPLITS if key in record["splits"]}
        how = dict(record["how"])
    except (KeyError, TypeError) as error:
        raise BadInput(f"split record: {error} is missing; expected splits and how") from None
    every = [group for members in groups.values() for group in members]
    bases = {item.name: (item, group.axis) for group in every for item in group.items}
    made = Division({}, how)
    gone, used = [], set()
    for key, members in wanted.items():
        made.splits[key] = []
        for name in members:
            item, base = _by_name(name, bases)
            used.add(base)
            if item is None:
                gone.append(name)
            else:
                made.splits[key].append(item)
    if gone:
        raise BadInput(
            f"{shown(root)}: {len(gone):,} of the recorded pictures are gone ({some(gone)}); "
            "expected the same files as when the split was made"
        )
    extra = len(set(bases) - used)
    if extra:
        made.notes.append(f"{extra:,} pictures are not in the recorded split and are left out")
    return made


def _by_name(name: str, bases: Mapping[str, tuple[Item, int]]) -> tuple[Item | None, str]:
    """Return the item of a name such as "a.png", "scan.tif[12]" or "scan.tif[0:24]", and its file's."""
    if name in bases:
        return bases[name][0], name
    base, _, window = name.removesuffix("]").rpartition("[")
    if base not in bases:
        return None, name
    item, axis = bases[base]
    try:
        start, _, stop = window.partition(":")
        first, last = int(start), int(stop or int(start) + 1)
    except ValueError:
        return None, base
    if not 0 <= first < last <= item.shape[axis]:
        return None, base
    return (item.cut(axis, first, last) if stop else item.slice(axis, first)), base
