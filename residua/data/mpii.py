"""MPII Human Pose: the MAT file as published, and the two JSON files that are made of it.

    ROOT/mpii_human_pose_v1_u12_1.mat    RELEASE.annolist(i).annorect(r).annopoints.point(k)
    a list of {image, joints, joints_vis, center, scale}                   one person each
    a list of {img_paths, joint_self, isValidation, objpos, scale_provided}

Andriluka et al. 2014. Pictures lie in ROOT/images/ or beside the file. Coordinates count pixels from 1, as
in MATLAB; one is taken off. The person's box is the square of 200 x scale pixels around the stated centre;
the head size is 0.6 of the head box's diagonal (their evaluation code), for which only the MAT file has the
box. A file is read by scipy as plain arrays; nothing in it is ever run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from residua.data.keypoints import Floats, Person, PoseSource
from residua.data.naming import natural_sort, shown
from residua.errors import BadInput

JOINTS = (
    "right_ankle",
    "right_knee",
    "right_hip",
    "left_hip",
    "left_knee",
    "left_ankle",
    "pelvis",
    "thorax",
    "upper_neck",
    "head_top",
    "right_wrist",
    "right_elbow",
    "right_shoulder",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
)
SKELETON = (
    *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9)),
    *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),
)
HEAD_SHARE = 0.6  # of the head box's diagonal
_PERSON = 200  # pixels that a person of scale 1 is tall
_HEAD_OF_FILE = 1 << 16
_JSON_MARKS = (b'"joint_self"', b'"joints_vis"')


def recognises(path: Path) -> bool:
    """Tell whether a file, or a folder with such a file, is MPII's MAT or one of the JSON files."""
    return _annotation_file(path) is not None


def read(path: Path) -> PoseSource:
    """Read everybody who has joints; `BadInput` names the file and what is wrong in it."""
    file = _annotation_file(path)
    assert file is not None  # `recognises` said so
    read_people = _people_of_mat if file.suffix.lower() == ".mat" else _people_of_json
    found = list(read_people(file))
    kept = [(person, split) for person, split in found if (person.joints[:, 2] > 0).any()]
    splits = [split for _, split in kept]
    given = splits if {"train", "val"} <= set(splits) else None
    without = len(found) - len(kept)
    notes = [f"{without:,} people without a labelled joint are left out"] if without else []
    people = [person for person, _ in kept]
    return PoseSource(path.name, str(path), JOINTS, SKELETON, people, given, without, notes)


def _annotation_file(path: Path) -> Path | None:
    if path.is_file():
        return path if _is_mat(path) or _is_json(path) else None
    for folder in (path, path / "annotations", path / "annot"):
        if folder.is_dir():
            for name in natural_sort(f.name for f in folder.iterdir() if f.is_file()):
                if _is_mat(folder / name) or _is_json(folder / name):
                    return folder / name
    return None


def _is_mat(path: Path) -> bool:
    """Look at the header alone: a MAT file of version 5 names its variables."""
    if path.suffix.lower() != ".mat":
        return False
    from scipy.io import whosmat

    try:
        return any(name == "RELEASE" for name, _, _ in whosmat(str(path)))
    except Exception:  # not a MAT file that scipy knows: not MPII's
        return False


def _is_json(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD_OF_FILE)
    return head.lstrip()[:1] == b"[" and any(mark in head for mark in _JSON_MARKS)


def _folder_of(file: Path, name: str) -> Path:
    """Return where the pictures are: beside the file, or in images/ there or one folder up."""
    for folder in (file.parent, file.parent / "images", file.parent.parent / "images"):
        if (folder / name).is_file():
            return folder
    return file.parent / "images"


def _box(centre: Any, scale: Any) -> tuple[float, float, float, float] | None:
    """Return the person's square, counted from 0; None where centre or scale are not stated."""
    x, y = (float(v) for v in np.ravel(centre)[:2])
    half = float(scale) * _PERSON / 2
    if not np.isfinite((x, y, half)).all() or half <= 0:
        return None
    return x - 1 - half, y - 1 - half, x - 1 + half, y - 1 + half


# -- JSON ---------------------------------------------------------------------------------------------


def _people_of_json(file: Path) -> Iterator[tuple[Person, str]]:
    try:
        rows = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{shown(file)}: is not JSON ({error})") from None
    folder = None
    for i, row in enumerate(rows):
        try:
            own = "joint_self" in row
            name = str(row["img_paths" if own else "image"])
            xy, v = _json_joints(row, own)
            centre, scale = (
                row["objpos" if own else "center"],
                row["scale_provided" if own else "scale"],
            )
            box = _box(centre, scale)
            height, width = int(row.get("img_height", 0)), int(row.get("img_width", 0))
            split = "val" if row.get("isValidation") else "train"
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BadInput(f"{shown(file)}: entry {i} is not MPII's ({error!r})") from None
        folder = folder or _folder_of(file, name)
        yield Person(name, folder / name, _counted_from_0(xy, v), box, size=(height, width)), split


def _json_joints(row: dict[str, Any], own: bool) -> tuple[Floats, Floats]:
    joints = np.array(row["joint_self" if own else "joints"], np.float32)
    if joints.shape != (len(JOINTS), 3 if own else 2):
        raise ValueError(f"joints of shape {joints.shape}, not of {len(JOINTS)} joints")
    if not np.isfinite(joints).all():
        raise ValueError("a joint that is not finite")
    seen = joints[:, 2] if own else np.array(row["joints_vis"], np.float32).reshape(len(JOINTS))
    return joints[:, :2], seen


def _counted_from_0(xy: Floats, seen: Floats) -> Floats:
    """Return joints (16, 3): not labelled where both coordinates are below 1, else hidden or visible."""
    labelled = np.asarray((xy >= 1).any(axis=1))
    v = np.where(labelled, np.where(seen > 0, 2, 1), 0)
    joints = np.concatenate([xy - 1, v[:, None]], axis=1)
    return np.where(labelled[:, None], joints, 0).astype(np.float32)


# -- MAT ----------------------------------------------------------------------------------------------


def _people_of_mat(file: Path) -> Iterator[tuple[Person, str]]:
    from scipy.io import loadmat

    try:
        release = loadmat(str(file), squeeze_me=True, struct_as_record=False)["RELEASE"]
        pictures = np.atleast_1d(release.annolist)
        training = np.atleast_1d(release.img_train)
    except Exception as error:  # scipy raises nearly anything on a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{shown(file)}: cannot be read as MPII's MAT file ({reason})") from None
    folder = None
    for i, (entry, train) in enumerate(zip(pictures, training, strict=False)):
        if not train:
            continue  # the joints of test pictures are not public
        try:
            name = str(entry.image.name)
            people = [_mat_person(rect) for rect in np.atleast_1d(entry.annorect)]
        except (AttributeError, TypeError, ValueError, IndexError) as error:
            raise BadInput(f"{shown(file)}: picture {i + 1} is not MPII's ({error})") from None
        folder = folder or _folder_of(file, name)
        for person in people:
            if person is not None:
                joints, box, head = person
                yield Person(name, folder / name, joints, box, head=head), "train"


def _mat_person(
    rect: Any,
) -> tuple[Floats, tuple[float, float, float, float] | None, float | None] | None:
    """Return joints, box and head size; None for somebody of whom nothing is annotated."""
    points = getattr(getattr(rect, "annopoints", None), "point", None)
    if points is None:
        return None
    xy, seen = np.zeros((len(JOINTS), 2), np.float32), np.zeros(len(JOINTS), np.float32)
    for point in np.atleast_1d(points):
        j = int(point.id)
        xy[j] = point.x, point.y
        visible = np.ravel(getattr(point, "is_visible", 1))
        # "1", 1, "0" or 0; nothing is stated of the head's joints, which are then visible
        seen[j] = 1 if visible.size == 0 or str(visible[0]) == "" else float(str(visible[0]))
    scale, centre = getattr(rect, "scale", ()), getattr(rect, "objpos", None)
    stated = centre is not None and hasattr(centre, "x") and np.size(scale) == 1
    box = _box((centre.x, centre.y), scale) if centre is not None and stated else None
    head = None
    if all(np.size(getattr(rect, key, ())) == 1 for key in ("x1", "y1", "x2", "y2")):
        diagonal = np.hypot(float(rect.x2) - float(rect.x1), float(rect.y2) - float(rect.y1))
        head = HEAD_SHARE * float(diagonal)
    return _counted_from_0(xy, seen), box, head
