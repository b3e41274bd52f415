"""Pictures of people (or animals, or things) with named joints, in splits that can be had again.

    open_keypoints(source) -> Keypoints: splits train, val and (where the data has one) test

Sources: COCO keypoint JSON (`coco`), MPII's MAT file and the JSON files made of it (`mpii`). One row is one
person; people of one picture are always in one split. Joints are float32 (J, 3): x, y in pixels of the
picture with the first pixel's centre at 0, and v: 0 not labelled, 1 hidden, 2 visible. Boxes are left, top,
right, bottom on the same axes, so that a picture W wide reaches from -0.5 to W - 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.decode import Pixels, decode
from residua.data.joints import head_sizes, mirror_of, sigmas_of, torso_sizes
from residua.data.naming import shown, some
from residua.data.split import SPLITS, TEST_FRACTION, TEST_FROM, hold_out
from residua.errors import BadInput

Floats = npt.NDArray[np.float32]
Rows = dict[str, npt.NDArray[np.int64]]


@dataclass(eq=False)
class PoseSplit:
    """One row a person.

    names     unique: the picture's name, with "#2" and so on where it shows several people
    pictures  the picture's name: its path relative to the set
    joints    (N, J, 3);  boxes (N, 4) left, top, right, bottom
    areas     (N,) square pixels; areas_known (N,): False where it is the box's, the annotation having none
    heads     (N,) head sizes, torsos (N,) torso sizes: pixels, NaN where unknown
    sizes     (N, 2) height and width that the annotation states, 0 where it does not
    """

    names: list[str]
    pictures: list[str]
    paths: list[Path]
    joints: Floats
    boxes: Floats
    areas: Floats
    heads: Floats
    torsos: Floats
    sizes: npt.NDArray[np.int64]
    areas_known: npt.NDArray[np.bool_]
    channels: int = 3

    def __len__(self) -> int:
        return len(self.names)

    def read(self, i: int) -> Pixels:
        """Return the whole picture of person `i`, uint8 (H, W, channels); `BadInput` if unreadable."""
        return decode(self.paths[i], self.channels)

    def take(self, indices: npt.NDArray[np.int64] | Sequence[int]) -> PoseSplit:
        """Return the split of these rows only."""
        rows = np.asarray(indices, np.int64)
        return replace(
            self,
            names=[self.names[i] for i in rows],
            pictures=[self.pictures[i] for i in rows],
            paths=[self.paths[i] for i in rows],
            joints=self.joints[rows],
            boxes=self.boxes[rows],
            areas=self.areas[rows],
            heads=self.heads[rows],
            torsos=self.torsos[rows],
            sizes=self.sizes[rows],
            areas_known=self.areas_known[rows],
        )


def whole_pictures(paths: Sequence[Path], joints: int, channels: int) -> PoseSplit:
    """Return pictures without annotation, each as one person who fills it, to predict from.

    joints: how many the network knows; none is labelled. `BadInput` for an unreadable picture.
    """
    sizes = np.array([decode(path, channels).shape[:2] for path in paths], np.int64).reshape(-1, 2)
    edges = np.stack([0 * sizes[:, 0], 0 * sizes[:, 1], sizes[:, 1], sizes[:, 0]], axis=1) - 0.5
    unknown = np.full(len(paths), np.nan, np.float32)
    return PoseSplit(
        names=[str(path) for path in paths],
        pictures=[str(path) for path in paths],
        paths=list(paths),
        joints=np.zeros((len(paths), joints, 3), np.float32),
        boxes=edges.astype(np.float32),
        areas=sizes.prod(axis=1).astype(np.float32),
        heads=unknown,
        torsos=unknown,
        sizes=sizes,
        areas_known=np.zeros(len(paths), np.bool_),
        channels=channels,
    )


def boxed_people(path: Path, boxes: Floats, joints: int, channels: int) -> PoseSplit:
    """Return the people of one picture by their boxes (N, 4), to predict from; as `whole_pictures`."""
    everybody = whole_pictures([path], joints, channels).take([0] * len(boxes))
    return replace(everybody, boxes=np.asarray(boxes, np.float32))


@dataclass
class Person:
    """One person as a reader finds them; what is None is made from the joints."""

    picture: str
    path: Path
    joints: Floats  # (J, 3)
    box: tuple[float, float, float, float] | None = None
    area: float | None = None
    head: float | None = None
    size: tuple[int, int] = (0, 0)


@dataclass(eq=False)
class PoseSource:
    """What a reader returns: everybody, and the split (or None) of each."""

    name: str
    location: str
    joints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    people: list[Person]
    split_of: list[str] | None = None
    without_joints: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Keypoints:
    """A set that is ready to train on; the index of a joint in `joints` is its channel.

    skeleton  pairs of joints that are drawn with a line
    mirror    the partner of each joint in a mirrored picture; unpaired: names that lack theirs
    sigmas    of each joint, for OKS
    """

    name: str
    location: str
    joints: tuple[str, ...]
    skeleton: tuple[tuple[int, int], ...]
    splits: dict[str, PoseSplit]
    split_record: dict[str, Any]
    without_joints: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Return the partner of each joint in a mirrored picture (J,)."""
        return mirror_of(self.joints)[0]

    @property
    def unpaired(self) -> tuple[str, ...]:
        """Return the names that speak of a side but have no partner."""
        return mirror_of(self.joints)[1]

    @property
    def may_flip(self) -> bool:
        """Whether the names say all that mirroring needs: some have sides, and all of those a partner."""
        return not self.unpaired and self.mirror != tuple(range(len(self.joints)))

    @property
    def sigmas(self) -> tuple[float, ...]:
        """Return each joint's sigma for OKS (J,)."""
        return sigmas_of(self.joints)


def recognises(source: str | Path) -> bool:
    """Tell whether a folder or file holds keypoints that `open_keypoints` reads."""
    from residua.data import coco, mpii

    path = Path(source).expanduser()
    try:
        return path.exists() and (coco.recognises(path) or mpii.recognises(path))
    except OSError:
        return False


def open_keypoints(
    source: str | Path,
    *,
    seed: int = 0,
    val_fraction: float = 0.1,
    most_val: int | None = None,
    split_record: Mapping[str, Any] | None = None,
) -> Keypoints:
    """Open a folder or file of keypoints.

    Splits that the source does not bring are made, picture by picture, decided by `seed` and the
    pictures' names; `val` is `val_fraction` of the training pictures, but no more than `most_val`.
    `split_record` asks for exactly that split, with the joints that it records. People without any
    labelled joint are left out and counted. Raises `BadInput`, one line, for anything wrong.
    """
    if not 0 < val_fraction < 1:
        raise BadInput(f"val_fraction is {val_fraction:g}; expected a number between 0 and 1")
    found = _read(Path(source).expanduser().absolute(), source)
    if not found.people:
        raise BadInput(f"{shown(found.location)}: has no person with a labelled joint")
    people = _gathered(found)
    decided: dict[str, Any] = {"seed": seed, "val_fraction": val_fraction}
    if split_record is not None:
        rows, how, notes = _repeat(found, people, split_record)
        decided = {key: split_record.get(key) for key in decided}
    else:
        rows, how, notes = _divide(found, people, seed, val_fraction, most_val)
    record = {
        "version": 1,
        "how": how,
        **decided,
        "joints": list(found.joints),
        "splits": {key: [people.names[i] for i in index] for key, index in rows.items()},
    }
    people.channels = _decide_channels(people)
    return Keypoints(
        name=found.name,
        location=found.location,
        joints=found.joints,
        skeleton=found.skeleton,
        splits={key: people.take(index) for key, index in rows.items()},
        split_record=record,
        without_joints=found.without_joints,
        notes=[*found.notes, *notes],
    )


def _read(path: Path, given: str | Path) -> PoseSource:
    from residua.data import coco, mpii

    try:
        if path.exists() and coco.recognises(path):
            return coco.read(path)
        if path.exists() and mpii.recognises(path):
            return mpii.read(path)
    except PermissionError as error:
        raise BadInput(f"{shown(error.filename or path)}: permission denied") from None
    what = "holds no keypoints" if path.exists() else "no such file or folder"
    raise BadInput(
        f"{shown(given)}: {what}; expected COCO keypoint JSON (train/keypoints.json, ..., or "
        "annotations/*.json beside images/, or one .json), or MPII's .mat or .json"
    )


def _gathered(source: PoseSource) -> PoseSplit:
    """Put everybody into one split, with a name, a box and sizes."""
    joints = np.stack([person.joints for person in source.people]).astype(np.float32)
    boxes = np.array(
        [p.box or around(p.joints) for p in source.people], np.float32
    )  # of joints alone: without hands and feet
    wide, tall = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = [
        a if (a := p.area) else float(w * h)
        for p, w, h in zip(source.people, wide, tall, strict=True)
    ]
    measured = head_sizes(joints, source.joints)
    heads = [
        m if (h := p.head) is None else h for p, m in zip(source.people, measured, strict=True)
    ]
    return PoseSplit(
        names=_names(source),
        pictures=[person.picture for person in source.people],
        paths=[person.path for person in source.people],
        joints=joints,
        boxes=boxes,
        areas=np.array(areas, np.float32),
        heads=np.array(heads, np.float32),
        torsos=torso_sizes(joints, source.joints),
        sizes=np.array([person.size for person in source.people], np.int64),
        areas_known=np.array([bool(person.area) for person in source.people]),
    )


def around(joints: Floats) -> tuple[float, float, float, float]:
    """Return the box of the labelled joints, one pixel wide at least."""
    points = joints[joints[:, 2] > 0, :2]
    (left, top), (right, bottom) = points.min(0) - 0.5, points.max(0) + 0.5
    return float(left), float(top), float(right), float(bottom)


def _names(source: PoseSource) -> list[str]:
    """Return a name for each person: the picture's, numbered from the second one on it."""
    seen: dict[str, int] = {}
    names = []
    for person in source.people:
        count = seen[person.picture] = seen.get(person.picture, 0) + 1
        names.append(person.picture if count == 1 else f"{person.picture}#{count}")
    return names


def _divide(
    source: PoseSource, people: PoseSplit, seed: int, val_fraction: float, most_val: int | None
) -> tuple[Rows, dict[str, str], list[str]]:
    """Return rows by split, how each was had, and notes; pictures are held out, not people."""
    given = source.split_of
    everybody = np.arange(len(people), dtype=np.int64)
    rows: Rows = {"train": everybody}
    if given is not None:
        rows = {key: everybody[np.array(given) == key] for key in SPLITS if key in given}
    if not len(rows.get("train", ())):
        raise BadInput(f"{shown(source.location)}: has nobody to train on; expected a train split")
    how = dict.fromkeys(rows, "made" if given is None else "given")
    pictures = list(dict.fromkeys(people.pictures[i] for i in rows["train"]))
    labels = np.zeros(len(pictures), np.int64)
    train, total, held = np.arange(len(pictures), dtype=np.int64), len(pictures), {}
    if given is None and total >= TEST_FROM:
        held["test"], train = hold_out(pictures, labels, train, TEST_FRACTION, seed)
    if "val" not in rows:
        wanted = val_fraction * total if most_val is None else min(val_fraction * total, most_val)
        fraction = min(wanted / len(train), 0.9)
        held["val"], train = hold_out(pictures, labels, train, fraction, seed)
        if not len(held["val"]):
            raise BadInput(
                f"{shown(source.location)}: has one picture only, so none can be held out for "
                "validation; expected more pictures"
            )
    split_of = {pictures[i]: key for key, index in held.items() for i in index}
    split = np.array([split_of.get(people.pictures[i], "train") for i in rows["train"]])
    rows |= {key: rows["train"][split == key] for key in (*held, "train")}
    how |= dict.fromkeys((*held, "train"), "made") if held else {}
    rows = {key: rows[key] for key in SPLITS if key in rows}
    made = [f"{len(held[key]):,} for {key}" for key in SPLITS if key in held]
    return rows, how, [f"pictures held out: {' and '.join(made)}"] if made else []


def _repeat(
    source: PoseSource, people: PoseSplit, record: Mapping[str, Any]
) -> tuple[Rows, dict[str, str], list[str]]:
    """Return exactly the recorded split; `BadInput` where its people or its joints are others now."""
    try:
        wanted = {key: list(record["splits"][key]) for key in SPLITS if key in record["splits"]}
        how, joints = dict(record["how"]), list(record["joints"])
    except (KeyError, TypeError) as error:
        raise BadInput(
            f"split record: {error} is missing; expected splits, how and joints"
        ) from None
    if joints != list(source.joints):
        raise BadInput(
            f"{shown(source.location)}: has the joints {some(source.joints)}; expected those of the "
            f"recorded split: {some(joints)}"
        )
    position = {name: i for i, name in enumerate(people.names)}
    gone = [name for names in wanted.values() for name in names if name not in position]
    if gone:
        raise BadInput(
            f"{shown(source.location)}: {len(gone):,} of the recorded people are gone "
            f"({some(gone)}); expected the same files as when the split was made"
        )
    rows = {key: np.array([position[n] for n in wanted[key]], np.int64) for key in wanted}
    extra = len(position) - sum(len(names) for names in wanted.values())
    notes = [f"{extra:,} people are not in the recorded split and are left out"] if extra else []
    return rows, how, notes


def _decide_channels(people: PoseSplit) -> int:
    """Return 1 if every picture is grey, else 3; `BadInput` where no picture can be found at all."""
    from residua.data.scan import all_grey

    paths = [path for path in dict.fromkeys(people.paths) if path.is_file()]
    if not paths:
        raise BadInput(
            f"{shown(people.paths[0])}: no such file, nor is any other of the annotated pictures "
            "there; expected them beside the annotations or in images/"
        )
    return 1 if all_grey(paths) else 3
