"""Boxes of people in pictures, from COCO JSON: what says where to look, not what is there.

    {"images": [{"id", "file_name"}], "annotations": [{"image_id", "bbox": [x, y, width, height]}]}

Keypoint JSON will do: where an annotation has no bbox, its box is that of its labelled joints. Of several
categories those with joints count, else that called "person", else all. Crowds are left out. Boxes are
given back as everywhere here: left, top, right, bottom, the first pixel's centre being 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from residua.data.coco import load_json
from residua.data.keypoints import Floats, around
from residua.data.naming import shown
from residua.errors import BadInput

PERSON = "person"


@dataclass(eq=False)
class PictureBoxes:
    """The people of one picture: boxes (N, 4), the annotations' ids; size as stated (height, width), or 0."""

    boxes: Floats
    ids: list[Any]
    size: tuple[int, int]


class PersonBoxes:
    """The boxes in a file, and which of its pictures a path is."""

    def __init__(self, path: str | Path) -> None:
        """Read the file; BadInput, naming it, where it is not COCO JSON or a box is none."""
        self.path = Path(path)
        content = load_json(self.path)
        images = {row.get("id"): row for row in self._rows(content, "images")}
        if not all(isinstance(row.get("file_name"), str) for row in images.values()):
            raise self._wrong("an image has no file_name; expected one in each")
        wanted = self._wanted(content.get("categories"))
        found: dict[Any, list[tuple[Any, tuple[float, ...]]]] = {key: [] for key in images}
        for row in self._rows(content, "annotations"):
            if row.get("iscrowd") or (wanted is not None and row.get("category_id") not in wanted):
                continue
            if row.get("image_id") not in found:
                raise self._wrong(
                    f"annotation {row.get('id')} is of image {row.get('image_id')}, which is not listed"
                )
            if (box := self._box(row)) is not None:
                found[row["image_id"]].append((row.get("id"), box))
        self.pictures = {
            str(images[key]["file_name"]): PictureBoxes(
                np.array([box for _, box in people], np.float32).reshape(-1, 4),
                [number for number, _ in people],
                self._size(images[key]),
            )
            for key, people in found.items()
        }

    def _wrong(self, text: str) -> BadInput:
        return BadInput(f"{shown(self.path)}: {text}")

    def _rows(self, content: dict[str, Any], key: str) -> list[dict[str, Any]]:
        rows = content.get(key)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise self._wrong(f"has no list of {key}; expected COCO JSON of boxes or keypoints")
        return rows

    def _wanted(self, categories: Any) -> set[Any] | None:
        """Return the ids of the categories that are people; None: all are."""
        kinds = [c for c in categories or () if isinstance(c, dict)]
        chosen = [c for c in kinds if c.get("keypoints")]
        chosen = chosen or [c for c in kinds if str(c.get("name")).lower() == PERSON]
        return {c.get("id") for c in chosen} or None

    def _size(self, image: dict[str, Any]) -> tuple[int, int]:
        try:
            return int(image.get("height") or 0), int(image.get("width") or 0)
        except (TypeError, ValueError):
            raise self._wrong(f"{shown(image['file_name'])}: its size is no number") from None

    def _box(self, row: dict[str, Any]) -> tuple[float, ...] | None:
        """Return left, top, right, bottom; None for an annotation without a box or a labelled joint."""
        where = f"annotation {row.get('id')}"
        try:
            numbers = [float(v) for v in row.get("bbox") or ()]
            joints = np.array(row.get("keypoints") or (), np.float32).reshape(-1, 3)
        except (TypeError, ValueError):
            raise self._wrong(f"{where}: bbox or keypoints are not numbers") from None
        if not all(map(math.isfinite, numbers)) or not np.isfinite(joints).all():
            raise self._wrong(f"{where}: bbox or keypoints are not finite")
        if not numbers:
            return around(joints) if (joints[:, 2] > 0).any() else None
        if len(numbers) != 4 or min(numbers[2:]) <= 0:
            raise self._wrong(f"{where}: bbox is not x, y, width and height, both above 0")
        x, y, wide, tall = numbers
        return x - 0.5, y - 0.5, x + wide - 0.5, y + tall - 0.5

    def of(self, paths: Sequence[Path]) -> list[PictureBoxes | None]:
        """Return the boxes of each picture, None for one that the file does not list.

        A picture is the file's own (beside it or in images/ there), else the one whose path ends like
        a file_name, the longest one. BadInput where two pictures would be the same one.
        """
        own = {
            (folder / name).resolve(): name
            for name in self.pictures
            for folder in (self.path.parent / "images", self.path.parent)
        }
        names = [own.get(path.resolve()) or self._ending(path) for path in paths]
        taken: dict[str, Path] = {}
        for path, name in zip(paths, names, strict=True):
            if name is not None and taken.setdefault(name, path).resolve() != path.resolve():
                raise self._wrong(
                    f"{shown(name)} may be {shown(taken[name])} or {shown(path)}; expected one of them"
                )
        return [None if name is None else self.pictures[name] for name in names]

    def _ending(self, path: Path) -> str | None:
        parts = path.absolute().parts
        for start in range(len(parts)):
            if (name := "/".join(parts[start:])) in self.pictures:
                return name
        return None
