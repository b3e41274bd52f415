"""Mask pictures, whose values stand for classes: any values -> classes 0, 1, 2, ... without gaps.

    class of a pixel = the place of its value among the values of all masks, in order

so {0, 255} are classes 0 and 1, and {0, 3, 7} are 0, 1 and 2. A value is what the file stores: a grey level
of 1, 8 or 16 bits, an index into a palette, a whole number; never a colour, and nothing is scaled. RGB is
read where its three channels are equal. One value may mark pixels that count for nothing (`ignore`, 255 in
many sets).

Refused, with the name of the file: colours; a transparent pixel; JPEG, whose compression smears values; a
file that records a rotation; fractions; more values than a mask has classes; and all that `decode` refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data.decode import (
    DEEP_MODES,
    deep_values,
    open_image,
    opened,
    orientation_of,
    read_tiff,
)
from residua.data.naming import shown
from residua.errors import BadInput

IGNORED = 255  # the class of pixels that count for nothing
MAX_CLASSES = 255  # 0 .. 254

_SHOWN = 8  # values that a message lists
_AT_ONCE = 1 << 22


def mask_values(paths: Iterable[str | Path], *, ignore: int | None = None) -> tuple[int, ...]:
    """Return the values in all masks in order, `ignore` left out: their places are the classes.

    Raises `BadInput`, naming the file, for one that is no mask, or with which there are more than
    `MAX_CLASSES` values.
    """
    found: set[int] = set()
    for path in paths:
        found.update(values_and_counts(whole_values(path))[0])
        if ignore is not None:
            found.discard(ignore)
        if len(found) > MAX_CLASSES:
            raise BadInput(
                f"{shown(path)}: with it the masks have {len(found):,} values; expected a value a"
                f" class, {MAX_CLASSES} at most: is it a picture, not a mask?"
            )
    return tuple(sorted(found))


def read_mask(
    path: str | Path, values: Sequence[int], *, ignore: int | None = None
) -> npt.NDArray[np.uint8]:
    """Return the classes of a mask, uint8 (H, W): class k where the file has values[k].

    Pixels of value `ignore` become `IGNORED`. Raises `BadInput`, naming the file, for one that is no
    mask or holds another value.
    """
    _refuse_values(values)
    pixels = whole_values(path)
    try:
        return to_classes(pixels, values, ignore=ignore)
    except BadInput as error:
        raise BadInput(f"{shown(path)}: {error}") from None


def to_classes(
    pixels: npt.NDArray[Any], values: Sequence[int], *, ignore: int | None = None
) -> npt.NDArray[np.uint8]:
    """Return the classes of an array of any shape; `BadInput` where it holds another value."""
    _refuse_values(values)
    classes = {value: k for k, value in enumerate(values)}
    if ignore is not None:
        classes[ignore] = IGNORED
    different, _ = values_and_counts(pixels)
    strange = [value for value in different if value not in classes]
    if strange:
        raise BadInput(
            f"holds the value{'s' if len(strange) > 1 else ''} {listed(strange)};"
            f" expected {listed(sorted(classes))}"
        )
    if pixels.dtype == np.uint8:  # several times as fast as indexing, which makes 8 bytes of each
        table = np.zeros(256, np.uint8)
        table[different] = [classes[value] for value in different]
        found = bytearray(pixels.tobytes()).translate(table.tobytes())
        return np.frombuffer(found, np.uint8).reshape(pixels.shape)
    lookup = np.array([classes[value] for value in different], np.uint8)
    return np.take(lookup, np.searchsorted(different, pixels))


def values_and_counts(pixels: npt.NDArray[Any]) -> tuple[list[int], list[int]]:
    """Return the different values in order, and how often each occurs."""
    if _is_small(pixels):  # counting is several times as fast as sorting
        flat, size = pixels.ravel(), np.iinfo(pixels.dtype).max + 1
        totals = np.zeros(size, np.int64)
        for start in range(0, flat.size, _AT_ONCE):  # bincount makes 8 bytes of each value
            totals += np.bincount(flat[start : start + _AT_ONCE], minlength=size)
        present = np.flatnonzero(totals)
        return present.tolist(), totals[present].tolist()
    different, counts = np.unique(pixels, return_counts=True)
    return different.tolist(), counts.tolist()


def _is_small(pixels: npt.NDArray[Any]) -> bool:
    return pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2


def _refuse_values(values: Sequence[int]) -> None:
    if len(values) > MAX_CLASSES or len(set(values)) < len(values):
        raise ValueError(f"expected different values, {MAX_CLASSES} at most, not {values}")


def listed(values: Sequence[int]) -> str:
    """Return the first values as text, and how many there are."""
    more = f", ... ({len(values):,} in all)" if len(values) > _SHOWN else ""
    return ", ".join(map(str, values[:_SHOWN])) + more


def whole_values(path: str | Path) -> npt.NDArray[Any]:
    """Return the whole numbers that a mask picture stores, (H, W); `BadInput` as in `mask_values`."""
    with opened(path) as file:
        image = open_image(file)
        if image is None:
            return whole(_grey(read_tiff(file)))
        if image.format == "JPEG":
            raise BadInput("is a JPEG, which smears the values of a mask; expected a PNG or a TIFF")
        if orientation_of(image) != 1:
            raise BadInput("records a rotation (EXIF orientation); expected an upright mask")
        return whole(_values(image))


def _values(image: Image.Image) -> npt.NDArray[Any]:
    if image.mode in DEEP_MODES:
        return deep_values(image)
    if image.mode == "P" and not isinstance(image.info.get("transparency", b""), bytes):
        image.info.pop("transparency")  # one index that is shown as clear is a value as any other
    if "A" in image.mode.upper() and image.mode not in ("LA", "RGBA"):
        image = image.convert("RGBA")
    pixels = np.asarray(image)
    if image.mode in ("LA", "RGBA"):
        if (pixels[..., -1] != 255).any():
            raise BadInput("has transparent pixels; expected one value a pixel")
        pixels = pixels[..., :-1]
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise BadInput(f"is a picture of mode {image.mode}; expected grey values or a palette")
    return _grey(pixels)


def _grey(pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (H, W) of (H, W) or (H, W, C) with equal channels."""
    if pixels.ndim == 2:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise BadInput("is a picture in colour; expected one value a pixel: grey, or a palette")
    one: npt.NDArray[Any] = pixels[..., 0]
    return one


def whole(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the values as whole numbers; `BadInput` for fractions."""
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.rint(values)).all()):
            raise BadInput("holds fractions; expected whole numbers, one a class")
        return values.astype(np.int64)
    return values.astype(np.uint8) if values.dtype.kind == "b" else values
