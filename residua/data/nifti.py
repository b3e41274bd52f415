"""Volumes in NIfTI (.nii, .nii.gz), by nibabel: the extra `residua[volumes]`.

The file's axes (x, y, z, channel) are turned round to (z, y, x, channel); nothing is resampled or flipped.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from residua.data.voxels import NIFTI, Array, Spacing, Volume, ending, refuse_size
from residua.errors import BadInput


def nibabel_module() -> Any:
    """Return the module; `BadInput` names the extra where it is missing."""
    try:
        import nibabel
    except ModuleNotFoundError:
        raise BadInput(
            "NIfTI files need the package nibabel: pip install 'residua[volumes]'"
        ) from None
    return nibabel


def read_nifti(path: Path) -> Volume:
    """Return (D, H, W) or (D, H, W, C) in the type of the file; scaled values as float32."""
    image = nibabel_module().load(path)
    refuse_size(image.shape)
    values = np.asanyarray(image.dataobj)
    if values.dtype.names:  # RGB24: three bytes a voxel
        values = np.stack([values[name] for name in values.dtype.names], -1)
    if values.dtype == np.float64:
        values = values.astype(np.float32)  # a scaled type, or more digits than any scanner has
    while values.ndim > 3 and values.shape[3] == 1:
        values = values[:, :, :, 0]
    if values.ndim not in (2, 3, 4):
        raise BadInput(f"has {values.ndim} axes, shape {values.shape}; expected 2 to 4")
    if values.ndim == 2:
        values = values[..., None]
    axes = (2, 1, 0, 3)[: values.ndim]
    turned = np.ascontiguousarray(values.transpose(axes))
    return Volume(turned, nifti_spacing(image), nifti_unit(image))


def nifti_unit(image: Any) -> str:
    """Return "mm", "um", "m" or "" as the header says."""
    unit = str(image.header.get_xyzt_units()[0])
    return {"micron": "um", "meter": "m", "unknown": ""}.get(unit, unit)


def nifti_spacing(image: Any) -> Spacing | None:
    """Return (z, y, x) of an opened file; None where its header has none."""
    zooms = [float(z) for z in image.header.get_zooms()[:3]]
    if len(zooms) < 3 or not all(math.isfinite(z) and z > 0 for z in zooms):
        return None
    return zooms[2], zooms[1], zooms[0]


def write_nifti(
    path: Path, array: Array, channels: bool, spacing: Spacing | None, like: str | Path | None
) -> None:
    """Write (D, H, W), (H, W), or with `channels` one axis more; affine and units as those of `like`."""
    nibabel = nibabel_module()
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype in (np.int64, np.uint64):
        array = array.astype(np.int32)
    if array.ndim - channels == 2:
        array = array[None]
    turned = array.transpose((2, 1, 0, 3)[: array.ndim])
    header, affine = None, np.diag([*reversed(spacing or (1.0, 1.0, 1.0)), 1.0])
    if like is not None and ending(like) in NIFTI:
        source = nibabel.load(like)
        header, affine = source.header.copy(), source.affine
    image = nibabel.Nifti1Image(turned, affine, header)
    image.header.set_data_dtype(turned.dtype)
    image.header.set_slope_inter(1, 0)
    nibabel.save(image, path)
