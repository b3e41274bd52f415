"""One file to an array: a picture in its own units, or the whole numbers of a mask.

    read_picture(path) -> Volume: uint8 (H, W, C) or (D, H, W, C); float32 where the file is deeper
    read_labels(path)  -> whole numbers (H, W) or (D, H, W)

8-bit values stay as they are. Those of 16 bits, signed or floating, come as float32 without any scaling:
pressed into 8 bits, a 12-bit picture would keep 16 of its 4,096 levels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data import decode, masks, volumes
from residua.data.naming import shown
from residua.data.volumes import Volume
from residua.errors import BadInput

_PLAIN_SAMPLES = (1, 3, 4)  # of a TIFF of one page that the common decoder reads


def read_picture(path: Path, dims: int | None = None) -> Volume:
    """Return uint8 or float32 (H, W, C) or (D, H, W, C); `BadInput` as `volumes.read_volume`."""
    if not _is_stack(path):
        return Volume(_flat(path))
    found = volumes.read_volume(path, dims=dims)
    return Volume(in_own_units(found.array), found.spacing, found.unit)


def read_labels(path: Path) -> npt.NDArray[Any]:
    """Return the values of a mask; `BadInput` as `masks.whole_values` and `volumes.read_labels`."""
    if not _is_stack(path):
        return masks.whole_values(path)
    try:
        return masks.whole(volumes.read_labels(path))
    except BadInput as error:
        raise _named(path, error) from None


def in_own_units(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return uint8 as it is, black and white as 0 and 255, and all else as float32."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _named(path: Path, error: BadInput) -> BadInput:
    text = str(error)
    return error if text.startswith(shown(path)) else BadInput(f"{shown(path)}: {text}")


def _is_stack(path: Path) -> bool:
    """Tell whether `volumes` reads the file: all but the common pictures of one page."""
    kind = volumes.ending(path)
    if kind not in volumes.TIFF:
        return kind in volumes.EXTENSIONS
    import tifffile

    with decode.opened(path) as file:
        if file.read(2) not in (b"II", b"MM"):
            return False  # the common decoder says what is wrong with it
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page: Any = tiff.pages[0]
            plain = page.dtype in (np.uint8, np.bool_) or page.samplesperpixel == 1
            several = tiff.series[0].size != page.size  # ImageJ: one page announces them all
            return several or page.samplesperpixel not in _PLAIN_SAMPLES or not plain


def _flat(path: Path) -> npt.NDArray[Any]:
    """Return a common picture (H, W, 1 or 3): 8 bits as `decode` reads them, deeper ones unscaled."""
    with decode.opened(path) as file:
        image = decode.open_image(file)
        if image is None:
            values = in_own_units(decode.read_tiff(file))
        elif image.mode in decode.DEEP_MODES:
            if decode.orientation_of(image) != 1:
                raise BadInput("records a rotation; expected an upright picture")
            values = in_own_units(decode.deep_values(image))
        else:
            return decode.decode(path, 1 if decode.is_grey(image) else 3)
        if not np.isfinite(values).all():
            raise BadInput("holds NaN or infinite values; expected finite ones")
        return values[..., None] if values.ndim == 2 else values
