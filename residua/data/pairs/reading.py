"""A picture in its own units, with as many channels as the others of its set.

    read_picture(path) -> Volume: uint8 (H, W, C) or (D, H, W, C); float32 where the file is deeper

8-bit values stay as they are. Those of 16 bits, signed or floating, come as float32 without any scaling:
pressed into 8 bits, a 12-bit picture would keep 256 of its 4,096 levels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from residua.data.decode import with_channels
from residua.data.naming import shown
from residua.data.volumes import Array, Volume, read_volume
from residua.errors import BadInput


def read_picture(path: str | Path, dims: int | None = None) -> Volume:
    """Return uint8 or float32 (H, W, C) or (D, H, W, C); `BadInput` as `read_volume`."""
    found = read_volume(path, dims=dims)
    return Volume(in_own_units(found.array), found.spacing, found.unit)


def in_own_units(array: Array) -> Array:
    """Return uint8 as it is, black and white as 0 and 255, and all else as float32."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def as_channels(path: str | Path, picture: Array, channels: int) -> Array:
    """Return a picture (*S, C) with as many channels; grey and colour are made of each other.

    Raises `BadInput`, naming the file, for any other number.
    """
    given = picture.shape[-1]
    if given == channels:
        return picture
    if given == 1 and channels == 3:
        return np.repeat(picture, 3, -1)
    if given == 3 and channels == 1 and picture.dtype == np.uint8 and picture.ndim == 3:
        return with_channels(picture, 1)
    raise BadInput(f"{shown(path)}: has {given} channels; expected {channels} as the others")
