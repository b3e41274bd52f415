"""COCO keypoint JSON: images, annotations with 3 J numbers each, and a category that names the joints.

    ROOT/train/keypoints.json, ROOT/val/..., ROOT/test/...      pictures beside it or in images/
    ROOT/annotations/*train*.json, *val*.json                   pictures in ROOT/images/ or ROOT/train2017/
    ROOT/keypoints.json, or any one .json file                  no splits

Lin et al. 2014; the data format of cocodataset.org. Keypoints (x, y, v) count pixels from 0, a whole number
being a pixel's centre; a bbox (x, y, width, height) is measured from the corner of the first pixel, so half
a pixel is taken off. Crowds, and people without a labelled joint, are left out and counted.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from residua.data.keypoints import Floats, Person, PoseSource
from residua.data.naming import natural_sort, shown, some
from residua.data.split import SPLITS
from residua.errors import BadInput

_CHUNK = 1 << 20
_MARK = b'"keypoints"'
_LOOKED_FOR = 5  # pictures by which their folder is found


def recognises(path: Path) -> bool:
    """Tell whether a file, or a folder, is COCO keypoints (by the word "keypoints" in the JSON)."""
    try:
        return bool(_annotation_files(path))
    except BadInput:
        return True  # keypoints, and too many files of them: `read` says so


def read(path: Path) -> PoseSource:
    """Read all people of a file or folder; `BadInput` names the file and what is wrong in it."""
    people: list[Person] = []
    splits: list[str] = []
    notes: list[str] = []
    names: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()
    without, first = 0, None
    files = _annotation_files(path)
    root = path if path.is_dir() else path.parent
    for split, file in files.items():
        found = _File(file, root, split)
        if first is not None and found.names != names:
            raise BadInput(
                f"{shown(file)}: names the joints {some(found.names)}; expected those of "
                f"{shown(first)}: {some(names)}"
            )
        names, first = found.names, file
        skeleton = skeleton or found.skeleton
        these = list(found.people())
        people += these
        splits += [split] * len(these)
        without += found.without
        if found.crowds:
            notes.append(f"{shown(file.name)}: {found.crowds:,} crowds are left out")
    if without:
        notes.append(f"{without:,} people without a labelled joint are left out")
    given = splits if "" not in files else None
    return PoseSource(path.name, str(path), names, skeleton, people, given, without, notes)


def _annotation_files(path: Path) -> dict[str, Path]:
    """Return the annotation file of each split; the key is "" where there is but one file."""
    if path.is_file():
        return {"": path} if path.suffix.lower() == ".json" and _speaks_of_keypoints(path) else {}
    by_folder = {split: _only(path / split) for split in SPLITS}
    found = {split: file for split, file in by_folder.items() if file}
    if found:
        return found
    files = _keypoint_files(path / "annotations")
    if files:
        for file in files:
            split = _split_in(file.stem)
            if split in found:
                raise BadInput(
                    f"{shown(file)}: is a second file of keypoints for {split}, after "
                    f"{shown(found[split].name)}; expected one"
                )
            found[split] = file
        if "" in found and len(found) > 1:
            raise BadInput(f"{shown(found[''])}: expected train, val or test in the name")
        return found
    only = _only(path)
    return {"": only} if only else {}


def _only(folder: Path) -> Path | None:
    """Return keypoints.json of a folder, or its one file of keypoints."""
    named = folder / "keypoints.json"
    if named.is_file():
        return named
    files = _keypoint_files(folder)
    if len(files) > 1:
        raise BadInput(
            f"{shown(folder)}: holds several files of keypoints ({some(f.name for f in files)}); "
            "expected one, or keypoints.json"
        )
    return files[0] if files else None


def _keypoint_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    names = natural_sort(f.name for f in folder.iterdir() if f.suffix.lower() == ".json")
    return [folder / name for name in names if _speaks_of_keypoints(folder / name)]


def _speaks_of_keypoints(path: Path) -> bool:
    """Look for "keypoints" anywhere in a file: COCO writes the categories last."""
    before = b""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            if _MARK in before + chunk:
                return True
            before = chunk[-len(_MARK) :]
    return False


def _split_in(name: str) -> str:
    return next((split for split in SPLITS if split in name.lower()), "")


class _File:
    """One annotation file: its joints, and an iterator over its people."""

    def __init__(self, path: Path, root: Path, split: str) -> None:
        self.path, self.root = path, root
        self.without = self.crowds = 0
        content = load_json(path)
        self.images = {self._key(image, "id"): image for image in self._rows(content, "images")}
        if len(self.images) < len(content["images"]):
            raise self._wrong("two images have one id; expected each id once")
        self.annotations = self._rows(content, "annotations")
        self._read_joints(content)
        self.folder = self._find_pictures(split)

    def _wrong(self, text: str) -> BadInput:
        return BadInput(f"{shown(self.path)}: {text}")

    def _rows(self, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
        rows = content.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._wrong(f"has no list of {key}; expected COCO keypoint JSON")
        return rows

    def _key(self, row: dict[str, Any], key: str) -> Any:
        value = row.get(key)
        if not isinstance(value, int | str):
            raise self._wrong(f"an entry has no {key}; expected one in each")
        return value

    def _read_joints(self, content: dict[str, Any]) -> None:
        """Find the names and lines; COCO counts joints of its skeleton from 1."""
        with_names = [c for c in self._rows(content, "categories") if c.get("keypoints")]
        kinds = {tuple(map(str, c["keypoints"])) for c in with_names}
        if len(kinds) != 1:
            listed = some(str(c.get("name")) for c in with_names) or "none"
            raise self._wrong(
                f"has {len(kinds)} kinds of joints ({listed}); expected one category's"
            )
        (self.names,) = kinds
        if len(set(self.names)) < len(self.names):
            raise self._wrong("a joint's name occurs twice; expected each once")
        pairs = with_names[0].get("skeleton") or []
        try:
            lines = [(int(a), int(b)) for a, b in pairs]
        except (TypeError, ValueError):
            raise self._wrong("has a skeleton that is not pairs of numbers") from None
        least = 0 if any(0 in line for line in lines) else 1
        if any(not least <= j < len(self.names) + least for line in lines for j in line):
            raise self._wrong(f"has a skeleton beyond its {len(self.names)} joints (from {least})")
        self.skeleton = tuple((a - least, b - least) for a, b in lines)

    def _find_pictures(self, split: str) -> Path:
        """Return the first folder that has one of the first pictures."""
        files = [str(self._key(image, "file_name")) for image in self.images.values()]
        folders = [self.path.parent, self.path.parent / "images", self.root, self.root / "images"]
        for parent in (self.root, self.root / "images"):
            if split and parent.is_dir():
                inside = natural_sort(f.name for f in parent.iterdir() if f.is_dir())
                folders += [parent / name for name in inside if split in name.lower()]
        for folder in folders:
            if any((folder / file).is_file() for file in files[:_LOOKED_FOR]):
                return folder
        return next((f for f in folders if any((f / file).is_file() for file in files)), folders[1])

    def people(self) -> Iterator[Person]:
        """Yield everybody with a labelled joint, in the file's order."""
        for row in self.annotations:
            if row.get("iscrowd"):
                self.crowds += 1
                continue
            if row.get("keypoints") is None:
                continue  # another kind of annotation: a box alone
            joints = self._joints(row)
            if not (joints[:, 2] > 0).any():
                self.without += 1
                continue
            yield self._person(row, joints)

    def _person(self, row: dict[str, Any], joints: Floats) -> Person:
        image = self.images.get(self._key(row, "image_id"))
        if image is None:
            raise self._wrong(
                f"annotation {row.get('id')} is of image {row['image_id']}, which is not listed"
            )
        path = self.folder / str(image["file_name"])
        size = (image.get("height") or 0, image.get("width") or 0)
        box = row.get("bbox")
        area = row.get("area")
        try:
            x, y, wide, tall = map(float, box or (0, 0, 0, 0))
            area, size = float(area or 0), (int(size[0]), int(size[1]))
        except (TypeError, ValueError):
            raise self._wrong(
                f"annotation {row.get('id')}: bbox, area or size is no number"
            ) from None
        if not all(map(math.isfinite, (x, y, wide, tall, area))):
            raise self._wrong(f"annotation {row.get('id')}: bbox or area is not finite")
        edges = (
            (x - 0.5, y - 0.5, x + wide - 0.5, y + tall - 0.5) if wide > 0 and tall > 0 else None
        )
        name = (
            path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        )
        return Person(name, path, joints, edges, area or None, size=size)

    def _joints(self, row: dict[str, Any]) -> Floats:
        count, where = len(self.names), f"annotation {row.get('id')}"
        try:
            numbers = np.array(row["keypoints"], np.float32)
        except (TypeError, ValueError):
            raise self._wrong(f"{where}: keypoints are not numbers") from None
        if numbers.size != 3 * count:
            raise self._wrong(f"{where}: has {numbers.size} numbers; expected {3 * count}")
        joints = numbers.reshape(count, 3)
        if not np.isfinite(joints).all():
            raise self._wrong(f"{where}: a keypoint is not finite")
        if not np.isin(joints[:, 2], (0, 1, 2)).all():
            raise self._wrong(f"{where}: visibility is not 0, 1 or 2")
        return joints


def load_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; BadInput where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{shown(path)}: is not JSON ({error})") from None
    except OSError as error:
        raise BadInput(f"{shown(path)}: cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise BadInput(f"{shown(path)}: expected COCO keypoint JSON with images and annotations")
    return content
