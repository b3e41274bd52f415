"""Pictures with masks, one after another: PairSplit.read(i) -> picture, classes.

    2-D   picture (H, W, C), classes uint8 (H, W)
    3-D   picture (D, H, W, C), classes uint8 (D, H, W)

An item is a file, a plane of a volume, a block of its slices, or a volume whose slices lie in files of
their own. Pictures of a set are all uint8, or all float32 in the files' own units. Classes are 0 .. K-1 and
`IGNORED`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data.masks import to_classes
from residua.data.naming import shown
from residua.data.pairs.reading import as_channels, read_picture
from residua.data.pairs.scan import sides
from residua.data.volumes import Spacing, read_labels
from residua.errors import BadInput

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Item:
    """One picture and its mask.

    `pictures` has a tuple of channel files for each file of `masks`; several are slices of one
    volume. `window` (start, stop) are rows along `axis`; of a `plane` that axis is left out.
    `shape` is what is read: (H, W) or (D, H, W). `spacing` is the file's (z, y, x), None where unknown.
    """

    name: str
    pictures: tuple[tuple[Path, ...], ...]
    masks: tuple[Path, ...]
    shape: tuple[int, ...]
    axis: int = 0
    window: tuple[int, int] | None = None
    plane: bool = False
    spacing: Spacing | None = None

    def cut(self, axis: int, start: int, stop: int) -> Item:
        """Return the rows start .. stop - 1 along an axis: "name[3:7]"."""
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        name = f"{self.name}[{start}:{stop}]"
        return replace(self, name=name, shape=shape, axis=axis, window=(start, stop))

    def slice(self, axis: int, k: int) -> Item:
        """Return plane k: "name[3]"."""
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        window = (k, k + 1)
        return replace(
            self, name=f"{self.name}[{k}]", shape=shape, axis=axis, window=window, plane=True
        )

    @property
    def source(self) -> tuple[Path, ...]:
        """All files of the picture."""
        return tuple(path for files in self.pictures for path in files)


class Last:
    """The arrays that were read last, for items that are parts of one volume."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, Array]] = {}
        self._lock = threading.Lock()

    def get(self, kind: str, key: object, read: Callable[[], Array]) -> Array:
        """Return the array of a key, read where it is not the last one of its kind."""
        with self._lock:
            if kind in self._kept and self._kept[kind][0] == key:
                return self._kept[kind][1]
        array = read()
        with self._lock:
            self._kept[kind] = (key, array)
        return array

    def __reduce__(self) -> tuple[type[Last], tuple[()]]:
        return Last, ()  # another process reads for itself


@dataclass(eq=False)
class PairSplit:
    """Pictures with masks; `deep` says that they come as float32 in their own units."""

    items: list[Item]
    channels: int
    values: tuple[int, ...]
    ignore: int | None = None
    deep: bool = False
    dims: int = 2
    last: Last = field(default_factory=Last, repr=False)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[str]:
        """Names, unique within the set: "images/a.png", "scan.tif[12]", "scan.tif[0:24]"."""
        return [item.name for item in self.items]

    @property
    def pictures(self) -> list[tuple[Path, ...]]:
        """All files of each picture: channels, or slices of a volume."""
        return [item.source for item in self.items]

    @property
    def masks(self) -> list[Path]:
        """The mask file of each; the first, where every slice of a volume has its own."""
        return [item.masks[0] for item in self.items]

    def read(self, i: int) -> tuple[Array, Classes]:
        """Return picture (*S, C) and classes (*S); `BadInput`, naming the file, if they do not fit."""
        picture, classes = self.picture(i), self.mask(i)
        if picture.shape[:-1] != classes.shape:
            item = self.items[i]
            raise BadInput(
                f"{shown(item.masks[0])}: is {sides(classes.shape)}, its picture "
                f"{shown(item.source[0].name)} {sides(picture.shape[:-1])}; expected one size"
            )
        return picture, classes

    def picture(self, i: int) -> Array:
        """Return uint8, or float32 of a deep set, (H, W, channels) or (D, H, W, channels)."""
        item = self.items[i]
        whole = self._whole("picture", item, item.pictures, self._read_picture)
        return _part(whole, item)

    def mask(self, i: int) -> Classes:
        """Return classes uint8 (H, W) or (D, H, W)."""
        item = self.items[i]
        return _part(self._whole("mask", item, item.masks, self._read_mask), item)

    def shape(self, i: int) -> tuple[int, ...]:
        """Return (H, W) or (D, H, W) of an item, as its mask has it."""
        return self.items[i].shape

    def spacing(self, i: int) -> tuple[float, ...] | None:
        """Return the distance of an item's pixels along the axes of its shape; None where unknown."""
        item = self.items[i]
        if item.spacing is None:
            return None
        if item.plane:
            return tuple(s for axis, s in enumerate(item.spacing) if axis != item.axis)
        return item.spacing[-len(item.shape) :]

    def digest(self, i: int) -> str:
        """Return 32 hexadecimal digits that depend on the bytes of the picture's files and the part."""
        item = self.items[i]
        made = hashlib.blake2b(repr((item.axis, item.window)).encode(), digest_size=16)
        for path in item.source:
            try:
                made.update(path.read_bytes())
            except OSError as error:
                raise BadInput(f"{shown(path)}: cannot be read ({error.strerror})") from None
        return made.hexdigest()

    def counts(self, i: int) -> npt.NDArray[np.int64]:
        """Return the pixels of each class, (K,); ignored ones count for none."""
        found = np.bincount(self.mask(i).ravel(), minlength=256)
        return found[: len(self.values)]

    def take(self, rows: npt.NDArray[np.int64] | Sequence[int]) -> PairSplit:
        """Return the split of these rows only."""
        return replace(self, items=[self.items[int(i)] for i in rows])

    def _whole(
        self, kind: str, item: Item, files: Sequence[Any], read: Callable[[Any, int], Array]
    ) -> Array:
        """Return what the files of an item hold; slices in files of their own only within its window."""
        if len(files) > 1:
            start, stop = item.window or (0, len(files))
            if item.axis == 0:
                files = files[start:stop]
            return np.stack([read(file, 2) for file in files])
        volume = len(item.shape) + item.plane
        if item.window is None:
            return read(files[0], volume)
        return self.last.get(kind, files[0], lambda: read(files[0], volume))

    def _read_picture(self, files: tuple[Path, ...], dims: int) -> Array:
        found = [read_picture(path, dims).array for path in files]
        for path, array in zip(files, found, strict=True):
            if array.shape[:-1] != found[0].shape[:-1] or array.ndim != dims + 1:
                raise BadInput(
                    f"{shown(path)}: is {sides(array.shape[:-1])}; expected the "
                    f"{sides(found[0].shape[:-1])} of its other channels, {dims}-D"
                )
        picture = found[0] if len(found) == 1 else np.concatenate(found, -1)
        picture = as_channels(files[0], picture, self.channels)
        return picture.astype(np.float32) if self.deep else picture

    def _read_mask(self, path: Path, dims: int) -> Classes:
        labels = read_labels(path)
        if labels.ndim != dims:
            raise BadInput(f"{shown(path)}: has {labels.ndim} axes; expected {dims}")
        try:
            return to_classes(labels, self.values, ignore=self.ignore)
        except BadInput as error:
            raise BadInput(f"{shown(path)}: {error}") from None


def _part(whole: Array, item: Item) -> Array:
    if item.window is None:
        return whole
    start, stop = item.window
    if len(item.masks) > 1 and item.axis == 0:
        part = whole  # only these slices were read
    else:
        part = whole[(slice(None),) * item.axis + (slice(start, stop),)]
    if part.shape[item.axis] != stop - start:
        raise BadInput(f"{shown(item.source[0])}: has no slices {start} to {stop - 1}")
    part = np.take(part, 0, item.axis) if item.plane else part
    return np.ascontiguousarray(part)
