"""Look at pictures with masks before training: what would stop it, what would spoil it, what is in it.

An error stops a training: files that cannot be read, a mask of another size or without a picture, one class
only, a class that is held out but never learnt. A warning does not: pictures without a mask, a picture in two
splits, a class of hardly any pixels, values that look like numbered objects or smoothed edges.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.cache import Progress
from residua.data.check import Findings
from residua.data.naming import shown, some
from residua.data.pairs.items import PairSplit
from residua.data.pairs.scan import Seen, sides
from residua.data.pairs.sets import Pairs

RARE = 0.001  # of the pixels of train
OBJECTS_FROM = 10  # values of a mask from which on they may number objects
SMOOTH_FROM = 6  # values beside the two outer ones that look like smoothed edges
_SMOOTH_SHARE = 0.3  # of all pixels, at most
_TWO_SPLITS = (("train", "test"), ("train", "val"), ("val", "test"))

Counts = npt.NDArray[np.int64]


@dataclass(eq=False)
class PairFindings(Findings):
    """What `check_pairs` found."""

    def text(self) -> str:
        """Return a summary of a few lines for a person."""
        facts = self.facts
        lines = [
            f"{facts['name']}: {facts['pictures']:,} pictures with masks, {len(facts['classes'])} "
            f"classes, {facts['kind']}, {facts['dims']}-D{_sizes_text(facts['sizes'])}"
        ]
        for split, found in facts["splits"].items():
            shares = ", ".join(
                f"{shown(name)} {share:.2%}" for name, share in list(found["shares"].items())[:6]
            )
            more = ", ..." if len(found["shares"]) > 6 else ""
            lines.append(f"  {split:<6}{found['pictures']:>9,}   {shares}{more}")
        lines += [f"  {reason}" for reason in facts["reasons"]]
        lines += [f"  note: {note}" for note in facts["notes"]]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  error: {error}" for error in self.errors]
        return "\n".join(lines)


def check_pairs(
    pairs: Pairs, *, skip_unreadable: bool = False, progress: Progress | None = None
) -> PairFindings:
    """Return errors, warnings and facts of a set.

    Files that cannot be read are in no split; `skip_unreadable` makes that a warning. `progress`
    counts the pictures whose classes are counted: parts of volumes are read again for it.
    `facts["splits"][split]` has "pictures", "pixels" and "shares" (of each class, of those that
    count), "ignored" (share of all) and "sizes".
    """
    findings = PairFindings()
    counts = _counts(pairs, progress)
    findings.facts = _facts(pairs, counts)
    _check_files(pairs, findings, skip_unreadable)
    _check_classes(pairs, counts, findings)
    _check_values(pairs, findings)
    _check_units(pairs, findings)
    _check_equal(pairs, findings)
    return findings


def _counts(pairs: Pairs, progress: Progress | None) -> dict[str, Counts]:
    """Return pixels by split: (N, K + 1), the last column ignored ones."""
    known = {row.mask: seen for row, seen in zip(pairs.rows, pairs.seen, strict=True)}
    total = sum(len(split) for split in pairs.splits.values())
    done, found = 0, {}
    for key, split in pairs.splits.items():
        rows = []
        for i, item in enumerate(split.items):
            whole = len(item.masks) == 1 and item.window is None
            rows.append(_of_scan(known[item.masks[0]], pairs) if whole else _of_mask(split, i))
            done += 1
            if progress is not None:
                progress(done, total)
        found[key] = np.array(rows, np.int64).reshape(len(rows), len(pairs.classes) + 1)
    return found


def _of_scan(seen: Seen, pairs: Pairs) -> list[int]:
    ignored = 0 if pairs.ignore is None else seen.values.get(pairs.ignore, 0)
    return [*(seen.values.get(value, 0) for value in pairs.values), ignored]


def _of_mask(split: PairSplit, i: int) -> list[int]:
    counts = split.counts(i)
    return [*counts.tolist(), int(np.prod(split.shape(i))) - int(counts.sum())]


def _facts(pairs: Pairs, counts: dict[str, Counts]) -> dict[str, Any]:
    splits = {}
    for key, split in pairs.splits.items():
        by_class = counts[key].sum(axis=0)
        counted = int(by_class[:-1].sum())
        shares = (by_class[:-1] / max(counted, 1)).tolist()
        splits[key] = {
            "pictures": len(split),
            "pixels": dict(zip(pairs.classes, by_class[:-1].tolist(), strict=True)),
            "shares": dict(zip(pairs.classes, shares, strict=True)),
            "ignored": float(by_class[-1]) / max(int(by_class.sum()), 1),
            "sizes": _sizes(split),
        }
    good = [seen for seen in pairs.seen if not seen.wrong]
    return {
        "name": shown(pairs.name),
        "location": shown(pairs.location),
        "task": "segmentation",
        "classes": list(pairs.classes),
        "values": list(pairs.values),
        "ignore": pairs.ignore,
        "channels": pairs.channels,
        "kind": {1: "grey", 3: "colour"}.get(pairs.channels, f"{pairs.channels} channels"),
        "dims": pairs.dims,
        "spacing": None if pairs.spacing is None else list(pairs.spacing),
        "unit": pairs.unit,
        "range": [min(seen.low for seen in good), max(seen.high for seen in good)],
        "pictures": sum(len(split) for split in pairs.splits.values()),
        "sizes": _sizes(*pairs.splits.values()),
        "splits": splits,
        "notes": list(pairs.notes),
        "reasons": list(pairs.reasons),
    }


def _sizes(*splits: PairSplit) -> dict[str, list[int]]:
    shapes = np.array([split.shape(i) for split in splits for i in range(len(split))], np.int64)
    return {
        "min": shapes.min(axis=0).tolist(),
        "median": np.rint(np.median(shapes, axis=0)).astype(int).tolist(),
        "max": shapes.max(axis=0).tolist(),
    }


def _sizes_text(sizes: dict[str, list[int]]) -> str:
    low, middle, high = (sides(sizes[key]) for key in ("min", "median", "max"))
    return f", {low} pixels" if low == high else f", {low} to {high} pixels (median {middle})"


def _check_files(pairs: Pairs, findings: PairFindings, skip_unreadable: bool) -> None:
    wrong = [seen.wrong for seen in pairs.seen if seen.wrong]
    findings.facts["unreadable"] = len(wrong)
    findings.facts["without_mask"] = len(pairs.alone["pictures"])
    findings.facts["without_picture"] = len(pairs.alone["masks"])
    stop = findings.warnings if skip_unreadable else findings.errors
    out = "left out: " if skip_unreadable else ""
    if len(wrong) == 1:
        stop.append(out + wrong[0])
    elif wrong:
        stop.append(
            f"{out}{len(wrong):,} of {len(pairs.seen):,} pairs cannot be used: {some(wrong, 2)}"
        )
    if pairs.alone["masks"]:
        stop.append(
            f"{out}{shown(pairs.location)}: {len(pairs.alone['masks']):,} masks have no picture "
            f"({some(pairs.alone['masks'])}); expected a picture of the same name"
        )
    if pairs.alone["pictures"]:
        findings.warnings.append(
            f"{len(pairs.alone['pictures']):,} pictures have no mask and are left out "
            f"({some(pairs.alone['pictures'])})"
        )


def _check_classes(pairs: Pairs, counts: dict[str, Counts], findings: PairFindings) -> None:
    where = shown(pairs.location)
    train = counts["train"][:, :-1].sum(axis=0)
    present = [name for name, n in zip(pairs.classes, train, strict=True) if n]
    if len(present) < 2:
        held = f"the class {shown(present[0])} only" if present else "no class"
        findings.errors.append(
            f"{where}: the masks of train hold {held}; expected two or more classes"
        )
        return
    for key in ("val", "test"):
        if key not in counts:
            continue
        here = counts[key][:, :-1].sum(axis=0)
        unknown = [c for c, n, t in zip(pairs.classes, here, train, strict=True) if n and not t]
        missing = [c for c, n, t in zip(pairs.classes, here, train, strict=True) if t and not n]
        if unknown:
            findings.errors.append(
                f"{where}: {some(unknown)} is in {key} but has no pixels in train"
            )
        if missing:
            findings.warnings.append(
                f"{len(missing)} of {len(train)} classes have no pixels in {key} "
                f"({some(missing)}): nothing will be known of them there"
            )
    absent = [
        name
        for k, name in enumerate(pairs.classes)
        if not any(found[:, k].any() for found in counts.values())
    ]
    if absent:
        findings.warnings.append(f"no pixels of {some(absent)} in any mask")
    total = int(train.sum())
    rare = [
        f"{name} ({n / total:.2%})"
        for name, n in zip(pairs.classes, train, strict=True)
        if 0 < n < RARE * total
    ]
    if rare:
        findings.warnings.append(
            f"of {some(rare)} there are hardly any pixels in train: a loss that balances classes, such "
            "as Dice, is needed"
        )
    single = sum(int(((found[:, :-1] > 0).sum(axis=1) <= 1).sum()) for found in counts.values())
    findings.facts["one_class_pictures"] = single
    if 2 * single > findings.facts["pictures"]:
        findings.warnings.append(
            f"{single:,} of {findings.facts['pictures']:,} masks hold one class only"
        )


def _check_values(pairs: Pairs, findings: PairFindings) -> None:
    """Warn of values that may be objects, smoothed edges, or pixels that should count for nothing."""
    masks = [seen.values for seen in pairs.seen if not seen.wrong]
    highest = [max(values) for values in masks]
    dense = all(len(values) == max(values) + (0 in values) for values in masks)
    if dense and max(highest) >= OBJECTS_FROM and (len(set(highest)) > 1 or len(masks) == 1):
        findings.warnings.append(
            f"values run from 1 to {min(highest)} or {max(highest)} as the mask goes: they may number "
            "objects, and here each number is a class"
        )
        return
    values, inner = pairs.values, pairs.values[1:-1]
    total = sum(sum(found.values()) for found in masks)
    between = sum(n for found in masks for value, n in found.items() if value in set(inner))
    outer = values[0] == 0 and values[-1] in (255, 65535)
    if outer and len(inner) >= SMOOTH_FROM and between < _SMOOTH_SHARE * total:
        findings.warnings.append(
            f"between 0 and {values[-1]} the masks hold {len(inner)} more values in "
            f"{between / total:.1%} of the pixels: smoothed edges? Expected masks resized without "
            "interpolation"
        )
    elif len(values) > 2 and values[-1] == 255 and values[:-1] == tuple(range(len(values) - 1)):
        findings.warnings.append(
            "the value 255 is a class of its own; if it marks pixels that count for nothing, say "
            "ignore=255"
        )


def _check_units(pairs: Pairs, findings: PairFindings) -> None:
    """Warn of pictures whose values are not comparable, and of spacings that differ."""
    good = [(row, seen) for row, seen in zip(pairs.rows, pairs.seen, strict=True) if not seen.wrong]
    deep = [row.name for row, seen in good if seen.depth != "uint8"]
    findings.facts["deep"] = len(deep)
    if 0 < len(deep) < len(good):
        findings.warnings.append(
            f"{len(deep):,} of {len(good):,} pictures hold more than 8 bits ({some(deep)}): their "
            "values are not comparable with those of the others"
        )
    known = np.array([seen.spacing for _, seen in good if seen.spacing is not None])
    if len(known) and (known.max(axis=0) > 2 * known.min(axis=0)).any():
        low, high = (
            " x ".join(f"{s:g}" for s in known.min(axis=0)),
            " x ".join(f"{s:g}" for s in known.max(axis=0)),
        )
        findings.warnings.append(f"spacings differ by more than twice: {low} to {high}")
    if 0 < len(known) < len(good):
        findings.warnings.append(
            f"{len(good) - len(known):,} of {len(good):,} files record no spacing"
        )


def _check_equal(pairs: Pairs, findings: PairFindings) -> None:
    """Warn of equal pictures in two splits; only files of one length can be equal."""
    by_size: dict[tuple[int, ...], list[tuple[str, int]]] = defaultdict(list)
    for key, split in pairs.splits.items():
        for i, item in enumerate(split.items):
            if item.window is None:
                by_size[tuple(path.stat().st_size for path in item.source)].append((key, i))
    same: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for places in by_size.values():
        if len({key for key, _ in places}) > 1:
            for key, i in places:
                same[pairs.splits[key].digest(i)].append((key, i))
    findings.facts["duplicates"] = {}
    for a, b in _TWO_SPLITS:
        if not {a, b} <= set(pairs.splits):
            continue
        found = [
            f"{pairs.splits[a].names[one[a]]} = {pairs.splits[b].names[i]}"
            for places in same.values()
            for key, i in places
            if key == b and a in (one := dict(places))
        ]
        findings.facts["duplicates"][f"{a}/{b}"] = len(found)
        if found:
            findings.warnings.append(
                f"{len(found):,} of the {len(pairs.splits[b]):,} pictures in {b} are in {a} too "
                f"({some(found)}): the score on {b} will flatter"
            )
