"""Look at a set of keypoints before training: what would stop it, what would spoil its result.

An error stops a training: missing or unreadable pictures, pictures of another size than the annotation
states. A warning does not: joints outside of the picture, people without joints, names with a side but no
partner, joints that are never labelled, the same picture in two splits.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.cache import Progress
from residua.data.check import Findings, readable_splits
from residua.data.keypoints import Keypoints, PoseSplit
from residua.data.naming import shown, some
from residua.data.scan import scan
from residua.errors import BadInput

_PAIRS = (("train", "test"), ("train", "val"), ("val", "test"))


class PoseFindings(Findings):
    """Findings of a set of keypoints; `unreadable` holds rows of people."""

    def text(self) -> str:
        """Return a summary of a few lines for a person."""
        facts = self.facts
        kind = "grey" if facts["channels"] == 1 else "colour"
        lines = [
            f"{facts['name']}: {facts['people']:,} people with {len(facts['joints'])} joints, {kind}"
        ]
        for split, counts in facts["splits"].items():
            lines.append(
                f"  {split:<6}{counts['people']:>9,} people in {counts['pictures']:,} pictures, "
                f"{100 * counts['labelled']:.0f} % of joints labelled"
            )
        lines += [f"  note: {note}" for note in facts["notes"]]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  error: {error}" for error in self.errors]
        return "\n".join(lines)


def check_keypoints(
    keypoints: Keypoints,
    *,
    deep: bool = True,
    skip_unreadable: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> PoseFindings:
    """Return errors, warnings and facts of a set.

    `deep` reads the header and the end of every picture. `skip_unreadable` decodes every file to be
    sure, and makes missing and unreadable ones a warning: train then on `readable_keypoints`. What was
    read is kept in the cache `folder`.
    """
    findings = PoseFindings(facts=_facts(keypoints))
    _check_joints(keypoints, findings)
    if deep:
        _check_pictures(keypoints, findings, skip_unreadable, folder, progress)
    return findings


def readable_keypoints(keypoints: Keypoints, findings: Findings) -> Keypoints:
    """Return the set without the people whose picture could not be read, its record included."""
    splits, record = readable_splits(keypoints.splits, keypoints.split_record, findings)
    if not len(splits["train"]):
        raise BadInput(f"{shown(keypoints.location)}: has no readable picture to train on")
    return replace(keypoints, splits=splits, split_record=record)


def _facts(keypoints: Keypoints) -> dict[str, Any]:
    return {
        "name": shown(keypoints.name),
        "location": shown(keypoints.location),
        "joints": list(keypoints.joints),
        "mirror": list(keypoints.mirror),
        "channels": next(iter(keypoints.splits.values())).channels,
        "people": sum(len(split) for split in keypoints.splits.values()),
        "without_joints": keypoints.without_joints,
        "splits": {
            key: {
                "people": len(split),
                "pictures": len(set(split.paths)),
                "labelled": float((split.joints[:, :, 2] > 0).mean()) if len(split) else 0.0,
            }
            for key, split in keypoints.splits.items()
        },
        "notes": list(keypoints.notes),
    }


def _check_joints(keypoints: Keypoints, findings: Findings) -> None:
    if keypoints.without_joints:
        findings.warnings.append(
            f"{keypoints.without_joints:,} people have no labelled joint and are left out"
        )
    if keypoints.unpaired:
        findings.warnings.append(
            f"{some(keypoints.unpaired)}: a side, but no joint with the other one; pictures are not "
            "mirrored in training"
        )
    elif not keypoints.may_flip:
        findings.warnings.append(
            "no joint's name speaks of left or right: pictures are not mirrored in training"
        )
    for key, split in keypoints.splits.items():
        never = np.flatnonzero(~(split.joints[:, :, 2] > 0).any(axis=0))
        if len(never) and len(split):
            names = some(keypoints.joints[j] for j in never)
            findings.warnings.append(f"{names}: never labelled in {key}")


def _check_pictures(
    keypoints: Keypoints,
    findings: Findings,
    skip_unreadable: bool,
    folder: Path | None,
    progress: Progress | None,
) -> None:
    people = [(key, i) for key, split in keypoints.splits.items() for i in range(len(split))]
    paths = list(dict.fromkeys(keypoints.splits[key].paths[i] for key, i in people))
    there = [path for path in paths if path.is_file()]
    seen = scan(there, thorough=skip_unreadable, folder=folder, progress=progress)
    sizes = {
        path: (int(seen.heights[k]), int(seen.widths[k]))
        for k, path in enumerate(there)
        if k not in seen.errors
    }
    missing = [path for path in paths if path not in set(there)]
    troubles = [f"{shown(path)}: no such file" for path in missing] + list(seen.errors.values())
    for key, i in people:
        if keypoints.splits[key].paths[i] not in sizes:
            findings.unreadable.setdefault(key, []).append(i)
    findings.facts |= {"missing": len(missing), "unreadable": len(seen.errors)}
    if troubles:
        line = troubles[0]
        if len(troubles) > 1:
            line = f"{len(troubles):,} of {len(paths):,} pictures cannot be read: {some(troubles)}"
        if skip_unreadable:
            findings.warnings.append(f"left out: {line}")
        else:
            findings.errors.append(line)
    _report_sizes(keypoints, sizes, findings)
    _report_outside(keypoints, sizes, findings)
    digests = {path: seen.digests[k].tobytes() for k, path in enumerate(there) if seen.hashed[k]}
    _report_equal(keypoints.splits, digests, findings)


def _report_sizes(
    keypoints: Keypoints, sizes: dict[Path, tuple[int, int]], findings: Findings
) -> None:
    """A picture that was turned or resized after it was annotated has its joints elsewhere."""
    wrong: dict[str, str] = {}
    for split in keypoints.splits.values():
        for picture, path, stated in zip(
            split.pictures, split.paths, split.sizes.tolist(), strict=True
        ):
            found = sizes.get(path)
            if found is not None and all(stated) and tuple(stated) != found:
                wrong[picture] = (
                    f"{picture} is {found[0]} x {found[1]}, not {stated[0]} x {stated[1]}"
                )
    if wrong:
        findings.errors.append(
            f"{shown(keypoints.location)}: {len(wrong):,} pictures are not of the size that the "
            f"annotation states ({some(wrong.values())})"
        )


def _report_outside(
    keypoints: Keypoints, sizes: dict[Path, tuple[int, int]], findings: Findings
) -> None:
    """Count the labelled joints that lie beyond the outermost pixels' edges."""
    joints, examples = 0, []
    for split in keypoints.splits.values():
        for i, path in enumerate(split.paths):
            if path in sizes:
                outside = int(_outside(split, i, sizes[path]).sum())
                joints += outside
                examples += [split.names[i]] if outside else []
    findings.facts["outside"] = joints
    if joints:
        findings.warnings.append(
            f"{joints:,} labelled joints lie outside of their picture ({some(examples)})"
        )


def _outside(split: PoseSplit, i: int, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    x, y, v = split.joints[i].T
    height, width = size
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    return np.asarray((v > 0) & ~inside)


def _report_equal(
    splits: dict[str, PoseSplit], digests: dict[Path, bytes], findings: Findings
) -> None:
    """Warn of one picture in two splits: the same file, or an equal one."""
    names: dict[str, dict[Any, str]] = defaultdict(dict)
    for key, split in splits.items():
        for picture, path in zip(split.pictures, split.paths, strict=True):
            names[key].setdefault(digests.get(path, path), picture)
    findings.facts["duplicates"] = {}
    for a, b in _PAIRS:
        both = [f"{names[a][d]} = {names[b][d]}" for d in names[b] if d in names[a]]
        if a in splits and b in splits:
            findings.facts["duplicates"][f"{a}/{b}"] = len(both)
        if both:
            findings.warnings.append(
                f"{len(both):,} pictures in {b} are in {a} too ({some(both)}): the score on {b} will "
                "flatter"
            )
