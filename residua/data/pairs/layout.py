"""Which mask belongs to which picture, told by the names of folders and files alone.

    ROOT/images/a.png + ROOT/masks/a.png          also below train/, val/, test/, or the other way round
    ROOT/imagesTr/case_0000.nii.gz, case_0001.nii.gz + ROOT/labelsTr/case.nii.gz    (nnU-Net: channels)
    ROOT/a.png + ROOT/a_mask.png                  also in folders, one a patient

A mask belongs to the picture of its own name; else its name, less a word such as "mask" at its start or
end, is that of a picture, or that of a picture less a word such as "image"; else files that add _0000,
_0001, ... to its name are the channels of one picture. Letters' case does not count.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from residua.data import volumes
from residua.data.folder import SPLIT_NAMES
from residua.data.naming import natural_key, shown, some
from residua.errors import BadInput

PICTURE_FOLDERS = frozenset(
    [
        "images",
        "image",
        "imgs",
        "img",
        "pictures",
        "picture",
        "pics",
        "raw",
        "scans",
        "inputs",
        "input",
        "volumes",
        "jpegimages",
    ]
)
MASK_FOLDERS = frozenset(
    [
        "masks",
        "mask",
        "labels",
        "label",
        "annotations",
        "annotation",
        "gt",
        "groundtruth",
        "segmentation",
        "segmentations",
        "segs",
        "seg",
        "targets",
        "target",
        "segmentationclass",
    ]
)
_LETTERS = {"x": "picture", "y": "mask"}
_MASK_WORDS = [
    "groundtruth",
    "ground_truth",
    "segmentation",
    "annotation",
    "target",
    "label",
    "mask",
    "masks",
    "labels",
    "seg",
    "gt",
]
_PICTURE_WORDS = ["picture", "image", "img", "raw", "im"]
_SHORT_SPLITS = {"Tr": "train", "Va": "val", "Ts": "test"}  # imagesTr: nnU-Net
_LIKE_A_MASK = re.compile("|".join(_MASK_WORDS))
_CHANNEL = re.compile(r"^(.+)_(\d{4})$")
_DEEPEST = 6  # folders below the root


@dataclass(frozen=True)
class Row:
    """One picture, whose channels may lie in several files, and its mask."""

    name: str
    picture: tuple[Path, ...]
    mask: Path
    split: str | None


@dataclass
class Layout:
    """What a folder holds: pairs in natural order, and the files that have no partner."""

    root: Path
    rows: list[Row] = field(default_factory=list)
    alone_pictures: list[str] = field(default_factory=list)
    alone_masks: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _File:
    path: Path
    role: str | None  # "picture", "mask", or None: the file's own name says it
    split: str | None
    place: str  # the folder below the one that says the role

    @property
    def stem(self) -> str:
        return volumes.stem(self.path).casefold()


def recognises(path: str | Path) -> bool:
    """Tell whether a folder holds pictures and masks.

    It does where there are files both in a folder named as `PICTURE_FOLDERS` and in one named as
    `MASK_FOLDERS`, or where at least half of the pictures in other folders have a mask by name.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        return False
    try:
        if not _may_hold_masks(root):
            return False
        files = list(_unsorted(root))
        in_folders = {file.role for file in files if file.role}
        if in_folders == {"picture", "mask"}:
            return not _has_letters(root) or bool(_match(root, files).rows)
        found = _match(root, [file for file in files if file.role is None])
    except (BadInput, OSError):
        return False
    return bool(found.rows) and len(found.rows) >= len(found.alone_pictures)


def _may_hold_masks(root: Path) -> bool:
    """Look at bare names only: class folders may hold a million files."""
    letters = _has_letters(root)
    for folder, parts in _walk(root):
        if any(_said(part, letters)[0] == "mask" for part in parts):
            return True
        if any(_LIKE_A_MASK.search(entry.name.lower()) for entry in os.scandir(folder)):
            return True
    return False


def find(root: Path) -> Layout:
    """Return the pairs of a folder; `BadInput` where there is none, or a name fits two files."""
    files = _files(root)
    in_folders = [file for file in files if file.role]
    if {file.role for file in in_folders} == {"picture", "mask"}:
        found = _match(root, in_folders)
        loose = [_relative(file.path, root) for file in files if not file.role]
        if loose:
            found.notes.append(
                f"{len(loose):,} pictures are in no folder of pictures or masks and are left out "
                f"({some(loose, 1)})"
            )
    else:
        found = _match(root, files)
    if not found.rows:
        raise BadInput(_no_pairs(root, files, found))
    return found


def _no_pairs(root: Path, files: list[_File], found: Layout) -> str:
    expected = (
        f"expected {shown(root / 'images' / 'a.png')} with {shown(root / 'masks' / 'a.png')}, "
        "or a.png with a_mask.png"
    )
    if not files:
        return f"{shown(root)}: holds no pictures; {expected}"
    if found.alone_masks and found.alone_pictures:
        return (
            f"{shown(root)}: no mask has the name of a picture (pictures: "
            f"{some(found.alone_pictures, 2)}; masks: {some(found.alone_masks, 2)}); {expected}"
        )
    return f"{shown(root)}: holds {len(files):,} pictures and no masks beside them; {expected}"


def _files(root: Path) -> list[_File]:
    """Return all files that may be pictures or masks in natural order."""
    return sorted(_unsorted(root), key=lambda file: natural_key(os.fspath(file.path)))


def _unsorted(root: Path) -> Iterator[_File]:
    """Yield all files that may be pictures or masks, with what the folders above them say."""
    letters = _has_letters(root)
    for folder, parts in _walk(root):
        role = split = None
        place: list[str] = []
        for part in parts:
            said_role, said_split = _said(part, letters)
            if role is None and said_role:
                role, split, place = said_role, split or said_split, []
            elif split is None and said_split:
                split = said_split
            else:
                place.append(part)
        for entry in os.scandir(folder):
            hidden = entry.name.startswith(".")
            if not hidden and volumes.ending(entry.name) in volumes.ENDINGS and entry.is_file():
                yield _File(Path(entry.path), role, split, "/".join(place))


def _has_letters(root: Path) -> bool:
    """Tell whether x and y are all the folders there are; among others they may be two classes."""
    return {entry.name.lower() for entry in os.scandir(root) if entry.is_dir()} == set(_LETTERS)


def _walk(root: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield folders and the names that lead to them; one that is reached twice (a loop) counts once."""
    seen: set[tuple[int, int]] = set()
    waiting: list[tuple[Path, tuple[str, ...]]] = [(root, ())]
    while waiting:
        folder, parts = waiting.pop(0)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        yield folder, parts
        if len(parts) == _DEEPEST:
            continue
        for entry in os.scandir(folder):
            if entry.is_dir() and not entry.name.startswith(".") and entry.name != "__MACOSX":
                waiting.append((Path(entry.path), (*parts, entry.name)))


def _said(folder: str, letters: bool) -> tuple[str | None, str | None]:
    """Return the role and the split that a folder's name says: imagesTr, train_masks, val, ..."""
    split = SPLIT_NAMES.get(folder.lower())
    if split:
        return None, split
    for short, name in _SHORT_SPLITS.items():
        if folder.endswith(short):
            folder, split = folder[: -len(short)], name
    words = re.split(r"[ _.-]+", folder.lower())
    for end in (0, -1):
        if split is None and len(words) > 1 and words[end] in SPLIT_NAMES:
            split = SPLIT_NAMES[words.pop(end)]
    name = "".join(words)
    if letters and name in _LETTERS:
        return _LETTERS[name], split
    role = "picture" if name in PICTURE_FOLDERS else "mask" if name in MASK_FOLDERS else None
    return role, split if role else None


def _without(stem: str, words: list[str]) -> str:
    """Return a stem without one of the words at its end or start, or as it is."""
    either = "|".join(sorted(words, key=len, reverse=True))
    for pattern in (rf"^(.+)[ _.-](?:{either})$", rf"^(?:{either})(?:[ _.-]+|(?=\d))(.+)$"):
        match = re.match(pattern, stem)
        if match:
            return match.group(1)
    return stem


def _match(root: Path, files: list[_File]) -> Layout:
    found = Layout(root)
    groups: dict[tuple[str | None, str], list[_File]] = defaultdict(list)
    for file in files:
        groups[file.split, file.place].append(file)
    for (split, _), members in groups.items():
        _match_group(found, split, members)
    found.rows.sort(key=lambda row: natural_key(row.name))
    return found


def _match_group(found: Layout, split: str | None, files: list[_File]) -> None:
    """Match the files of one place: pictures by stem, then each mask to one of them."""
    masks = [f for f in files if _is_mask(f)]
    pictures = [f for f in files if not _is_mask(f)]
    exact = _by_key(pictures, [f.stem for f in pictures])
    bare = _by_key(pictures, [_without(f.stem, _PICTURE_WORDS) for f in pictures])
    channels = _channels(pictures)
    taken: dict[tuple[_File, ...], _File] = {}
    for mask in masks:
        key = _without(mask.stem, _MASK_WORDS)
        names = (mask.stem, key) if mask.role else (key,)
        picture = next((t[n] for t in (exact, bare, channels) for n in names if n in t), None)
        if picture is None:
            found.alone_masks.append(_relative(mask.path, found.root))
            continue
        if len(picture) > 1 and picture is not channels.get(mask.stem, channels.get(key)):
            raise BadInput(
                f"{shown(mask.path)}: fits {shown(picture[0].path.name)} and "
                f"{shown(picture[1].path.name)}; expected one picture of that name"
            )
        if picture in taken:
            raise BadInput(
                f"{shown(picture[0].path)}: has two masks, {shown(taken[picture].path.name)} and "
                f"{shown(mask.path.name)}; expected one"
            )
        taken[picture] = mask
        paths = tuple(file.path for file in picture)
        found.rows.append(Row(_relative(paths[0], found.root), paths, mask.path, split))
    used = {file for picture in taken for file in picture}
    found.alone_pictures += [_relative(f.path, found.root) for f in pictures if f not in used]


def _is_mask(file: _File) -> bool:
    return file.role == "mask" or (not file.role and _without(file.stem, _MASK_WORDS) != file.stem)


def _by_key(files: list[_File], keys: list[str]) -> dict[str, tuple[_File, ...]]:
    found: dict[str, tuple[_File, ...]] = {}
    for key, file in zip(keys, files, strict=True):
        found[key] = (*found.get(key, ()), file)
    return found


def _channels(pictures: list[_File]) -> dict[str, tuple[_File, ...]]:
    """Return the files case_0000, case_0001, ... by "case", in order."""
    found: dict[str, tuple[_File, ...]] = {}
    for file in sorted(pictures, key=lambda f: f.stem):
        match = _CHANNEL.match(file.stem)
        if match:
            found[match.group(1)] = (*found.get(match.group(1), ()), file)
    return found


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
