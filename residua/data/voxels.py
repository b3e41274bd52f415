"""Arrays of voxels in any format: what they are, what is refused, and how their files end.

array (D, H, W, C) or (H, W, C): D slices, H rows, W columns, C channels;  spacing (z, y, x) or None
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.data import decode
from residua.errors import BadInput

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

NIFTI = (".nii", ".nii.gz")
NUMPY = (".npy", ".npz")
TIFF = (".tif", ".tiff")
EXTENSIONS = frozenset({*NIFTI, *NUMPY, *TIFF})  # of files that may hold stacks
ENDINGS = EXTENSIONS | decode.EXTENSIONS  # of all pictures
MAX_VOXELS = 2**33  # about 2,000 x 2,000 x 2,000: what is larger is a damaged header
COLOURS = (3, 4)  # samples a pixel of a colour picture

_MOST_CHANNELS = 64


@dataclass(frozen=True, eq=False)
class Volume:
    """An array (D, H, W, C) or (H, W, C) with the distance of its voxels along (z, y, x)."""

    array: Array
    spacing: Spacing | None = None
    unit: str = ""

    @property
    def dims(self) -> int:
        """Number of axes in space: 2 or 3."""
        return self.array.ndim - 1


def ending(path: str | Path) -> str:
    """Return the ending that says the format, in lower case.

    >>> ending("brain.NII.gz"), ending("a.b.tif")
    ('.nii.gz', '.tif')
    """
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else os.path.splitext(name)[1]  # noqa: PTH122


def stem(path: str | Path) -> str:
    """Return the name without the ending.

    >>> stem("a/brain.NII.gz"), stem("cell.v2.tif")
    ('brain', 'cell.v2')
    """
    name = Path(path).name
    return name[: len(name) - len(ending(name))]


def refuse_strange(array: Array) -> None:
    """Raise `BadInput` for an array that is no picture: no pixels, no numbers, NaN, too many channels."""
    if array.size == 0:
        raise BadInput(f"has no pixels (shape {array.shape})")
    if array.dtype.kind not in "buif":
        raise BadInput(f"holds values of type {array.dtype}; expected whole or floating numbers")
    if array.ndim == 4 and array.shape[-1] > _MOST_CHANNELS:
        raise BadInput(
            f"has {array.shape[-1]:,} channels (shape {array.shape}); expected {_MOST_CHANNELS} at"
            " most, channels last"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BadInput("holds NaN or infinite values; expected finite ones")


def refuse_size(shape: Sequence[int]) -> None:
    """Raise `BadInput` for a shape that no memory holds, before it is asked for."""
    if math.prod(int(n) for n in shape) > MAX_VOXELS:
        sides = " x ".join(f"{n:,}" for n in shape)
        raise BadInput(f"announces {sides} values; expected at most {MAX_VOXELS:,} in all")


def one_value(array: Array) -> Array:
    """Return (..., H, W) of (..., H, W, C) with equal channels; `BadInput` for a colour."""
    if (array != array[..., :1]).any():
        raise BadInput("is a picture in colour; expected one value a pixel")
    one: Array = array[..., 0]
    return one
