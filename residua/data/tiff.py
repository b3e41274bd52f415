"""Stacks in TIFF: pages, ImageJ hyperstacks and OME, whose axes have names.

    axes Z, I, Q or T (one of them) -> slices, C or S -> channels, Y and X -> rows and columns

Distances are read where ImageJ ("spacing", pixels a unit) or OME (PhysicalSize) has recorded them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from residua.data.voxels import COLOURS, Array, Spacing, Volume, refuse_size
from residua.errors import BadInput

_STACKED = "ZIQT"  # axes of a TIFF that count slices, as tifffile names them
_CLASSIC = 2**31  # bytes; beyond 4 GB a file needs the large layout
_OME_SIZE = r'\bPhysicalSize{axis}="([^"]+)"'
_OME_UNIT = r'\bPhysicalSizeXUnit="([^"]+)"'
_OME_UNITS = {"nm": "nm", "mm": "mm", "m": "m"} | dict.fromkeys(
    ("um", "µm", "micron", "microns"), "µm"
)
_NO_UNIT = "reference frame"  # what OME calls a unit that nobody knows


def read_tiff(path: Path, *, stack: bool) -> Volume:
    """Return what the file holds, in its own type; `stack` says that several pages are slices."""
    import tifffile

    with _complaints() as complaints, tifffile.TiffFile(path) as tiff:
        if not tiff.series:
            raise BadInput("holds no picture")
        series = tiff.series[0]
        refuse_size(series.shape)
        if len(tiff.series) > 1:
            raise BadInput(
                f"holds {len(tiff.series)} pictures of different size or type; expected one stack"
            )
        spacing, unit = tiff_spacing(tiff)
        try:
            array = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            array = _pages_by_pillow(path).reshape(series.shape)
        cut = [text for text in complaints if "invalid" in text or "corrupt" in text]
        if cut:
            raise BadInput("is cut short or damaged: not all of its pages can be found")
        return Volume(_in_order(array, series.axes, stack), spacing, unit)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what tifffile only logs, such as a chain of pages that leads out of the file."""
    found: list[str] = []
    this = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == this:
                found.append(record.getMessage())

    logger, listener = logging.getLogger("tifffile"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield found
    finally:
        logger.removeHandler(listener)


def _pages_by_pillow(path: Path) -> Array:
    """Decode a compression that tifffile alone does not know (LZW, JPEG)."""
    with Image.open(path, formats=("TIFF",)) as image:
        pages = []
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            pages.append(np.array(image))
    return np.stack(pages)


def _in_order(array: Array, axes: str, stack: bool) -> Array:
    """Return a TIFF's array as (D, H, W, C) or (H, W, C); a `stack` has slices if it has several pages."""
    stacked = [i for i, a in enumerate(axes) if a in _STACKED and array.shape[i] > 1]
    channels = [i for i, a in enumerate(axes) if a in "CS" and array.shape[i] > 1]
    if stack and not stacked and channels == [0]:
        stacked, channels = [0], []  # slices that were written as channels, or three as colours
    slices = stacked or [i for i, a in enumerate(axes) if a == "Z"]
    rest = [i for i, a in enumerate(axes) if a not in "YX" and i not in (*slices, *channels)]
    if len(stacked) > 1 or len(channels) > 1 or any(array.shape[i] > 1 for i in rest):
        raise BadInput(f"has the axes {axes}, shape {array.shape}; expected one stack of slices")
    order = [*slices, axes.index("Y"), axes.index("X"), *channels]
    array = array.transpose(*order, *rest).reshape([array.shape[i] for i in order])
    return np.ascontiguousarray(array if channels else array[..., None])


def tiff_spacing(tiff: Any) -> tuple[Spacing | None, str]:
    """Return (z, y, x) and its unit as ImageJ or OME has recorded them."""
    if tiff.is_ome and tiff.ome_metadata:
        text = tiff.ome_metadata
        sizes = [re.search(_OME_SIZE.format(axis=axis), text) for axis in "ZYX"]
        unit = re.search(_OME_UNIT, text)
        if all(sizes):
            numbers = [_positive(size.group(1)) for size in sizes if size]
            name = unit.group(1) if unit else "µm"
            return _spacing(numbers), "" if name == _NO_UNIT else name
        return None, ""
    if tiff.is_imagej and tiff.imagej_metadata:
        tags = tiff.pages[0].tags
        per_unit = [tags[name].value for name in ("YResolution", "XResolution") if name in tags]
        z = tiff.imagej_metadata.get("spacing")
        if z is not None and len(per_unit) == 2:
            sides = [_positive(d) / n if (n := _positive(p)) else 0.0 for p, d in per_unit]
            return _spacing([_positive(z), *sides]), str(tiff.imagej_metadata.get("unit", ""))
    return None, ""


def _positive(text: Any) -> float:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0


def _spacing(numbers: list[float]) -> Spacing | None:
    return (numbers[0], numbers[1], numbers[2]) if len(numbers) == 3 and all(numbers) else None


def write_tiff(
    path: Path, array: Array, channels: bool, spacing: Spacing | None, unit: str
) -> None:
    """Write (D, H, W), (H, W), or with `channels` one axis more; zlib, spacing as OME metadata."""
    import tifffile

    colour = channels and array.shape[-1] in COLOURS and array.dtype == np.uint8
    axes = ("YX" if array.ndim - channels == 2 else "ZYX") + ("S" if colour else "C" * channels)
    if axes.endswith("C"):
        array, axes = np.moveaxis(array, -1, -3), axes[:-3] + "CYX"
    metadata: dict[str, Any] = {"axes": axes}
    if spacing is not None and "Z" in axes:
        unit = _OME_UNITS.get(unit, _NO_UNIT)
        for axis, size in zip("ZYX", spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(
        path,
        array,
        compression="zlib",
        photometric="rgb" if colour else "minisblack",
        bigtiff=array.nbytes > _CLASSIC,
        ome=len(metadata) > 1,
        metadata=metadata,
    )
