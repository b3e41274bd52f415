"""Pictures and stacks of slices in files, read and written: TIFF, NIfTI, NumPy and the common pictures.

    file -> array (D, H, W, C) or (H, W, C) in the file's own type, spacing (z, y, x) or None

D counts slices, C channels. NIfTI (the extra `residua[volumes]`) stores (x, y, z): its axes are turned
round, nothing is resampled, and its affine is kept for writing. A TIFF has a spacing where ImageJ or OME
recorded one. Arrays of NumPy hold channels last; a file with pickled objects is refused.

    write_volume(path, array, like=source), write_mask(path, classes, values, like=source)

write the format that the ending names, whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from residua.data import decode, masks
from residua.data.decode import opened
from residua.data.naming import shown
from residua.data.nifti import nibabel_module, nifti_spacing, nifti_unit, read_nifti, write_nifti
from residua.data.tiff import read_tiff, tiff_spacing, write_tiff
from residua.data.voxels import (
    COLOURS,
    ENDINGS,
    EXTENSIONS,
    MAX_VOXELS,
    NIFTI,
    NUMPY,
    TIFF,
    Array,
    Spacing,
    Volume,
    ending,
    one_value,
    refuse_size,
    refuse_strange,
    stem,
)
from residua.errors import BadInput, ResiduaError

__all__ = [
    "ENDINGS",
    "EXTENSIONS",
    "MAX_VOXELS",
    "NIFTI",
    "NUMPY",
    "TIFF",
    "Array",
    "Spacing",
    "Volume",
    "ending",
    "lossless_name",
    "read_labels",
    "read_spacing",
    "read_volume",
    "smallest_type",
    "stem",
    "write_mask",
    "write_volume",
]


def read_volume(path: str | Path, *, dims: int | None = None) -> Volume:
    """Return what a picture, TIFF, NIfTI or NumPy file holds, in its own type.

    `dims` (2 or 3) says how many axes are in space where it is known: without it, a NumPy array of
    three axes is a picture if its last axis counts 3 or 4, else a stack. Raises `BadInput`, naming
    the file, if it is missing, damaged, cut short, pickled, NaN or infinite, without pixels, of a
    type or number of axes that no picture has, or has more than `MAX_VOXELS` values.
    """
    if not _may_be_stack(path):
        return Volume(_flat(path))
    with opened(path) as file:
        kind = ending(path)
        if os.fstat(file.fileno()).st_size == 0:
            raise BadInput("is empty (0 bytes); expected a picture or a stack")
        if kind in TIFF:
            found = read_tiff(Path(path), stack=dims == 3)
        elif kind in NIFTI:
            found = read_nifti(Path(path))
        else:
            found = Volume(_read_numpy(Path(path)))
        array = _with_channels(found.array, kind, dims)
        refuse_strange(array)
    return Volume(array, found.spacing, found.unit)


def read_labels(path: str | Path) -> Array:
    """Return the values of a mask of any format, whole numbers: (D, H, W) or (H, W).

    Raises `BadInput` as `read_volume` and `residua.data.masks.whole_values` do, and where a pixel
    has several values (a colour) or a fraction.
    """
    if not _may_be_stack(path):
        return masks.whole_values(path)
    with opened(path):
        kind = ending(path)
        if kind in TIFF:
            array = one_value(read_tiff(Path(path), stack=True).array)
        elif kind in NIFTI:
            array = read_nifti(Path(path)).array
        else:
            array = _read_numpy(Path(path))
        if array.ndim == 4:
            array = one_value(array)
        if array.ndim not in (2, 3):
            raise BadInput(
                f"has shape {array.shape}; expected one value a pixel: (H, W) or (D, H, W)"
            )
        refuse_strange(array)
        return masks.whole(array)


def read_spacing(path: str | Path) -> Spacing | None:
    """Return the distance of voxels along (z, y, x) as the file's header has it; None if it has none."""
    return _measures(path)[0]


def _measures(path: str | Path) -> tuple[Spacing | None, str]:
    kind = ending(path)
    with opened(path):
        if kind in NIFTI:
            image = nibabel_module().load(path)
            return nifti_spacing(image), nifti_unit(image)
        if kind in TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tiff:
                return tiff_spacing(tiff)
    return None, ""


def write_volume(
    path: str | Path,
    array: Array,
    *,
    like: str | Path | None = None,
    spacing: Spacing | None = None,
    channels: bool | None = None,
) -> None:
    """Write (D, H, W), (D, H, W, C), (H, W) or (H, W, C) in the format that the ending names.

    That is .tif (zlib), .nii, .nii.gz, .npy, .npz, and .png for one picture of whole numbers. `like`
    is the file that the array belongs to: its spacing, and from NIfTI to NIfTI its affine, are kept.
    `channels` says whether the last axis counts channels: without it, that of four axes does, and
    that of three axes if it counts 3 or 4. Raises `BadInput` where the format does not hold such an
    array, and `ResiduaError` where the file cannot be written.
    """
    target, kind, unit = Path(path), ending(path), ""
    if channels is None:
        channels = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] in COLOURS)
    if spacing is None and like is not None and ending(like) in EXTENSIONS:
        spacing, unit = _measures(like)
    if kind not in EXTENSIONS and kind != ".png":
        raise BadInput(f"{shown(path)}: expected an ending of .tif, .nii.gz, .npy, .npz or .png")
    if kind == ".png" and array.ndim != 2 + channels:
        raise BadInput(f"{shown(path)}: a PNG holds no stack; expected an ending such as .tif")
    with _aside(target) as aside:
        if kind in TIFF:
            write_tiff(aside, array, channels, spacing, unit)
        elif kind in NIFTI:
            write_nifti(aside, array, channels, spacing, like)
        elif kind == ".npz":
            np.savez_compressed(aside, array=array)
        elif kind == ".npy":
            np.save(aside, array, allow_pickle=False)
        else:
            Image.fromarray(array[..., 0] if channels and array.shape[-1] == 1 else array).save(
                aside
            )


def write_mask(
    path: str | Path,
    classes: Array,
    values: Sequence[int] | None = None,
    *,
    like: str | Path | None = None,
) -> None:
    """Write classes (D, H, W) or (H, W); with `values`, class k is written as values[k].

    So a prediction has the values of the masks that were learnt from: 0 and 255, say. `like` is as
    in `write_volume`.
    """
    classes = np.asarray(classes)
    if values is not None:
        table = np.asarray(values)
        classes = table.astype(smallest_type(table))[classes]
    elif classes.size and classes.dtype.itemsize > 2:
        classes = classes.astype(smallest_type(classes))
    write_volume(path, classes, like=like, channels=False)


def lossless_name(path: str | Path, addition: str = "") -> str:
    """Return the name of a file that holds a mask of the picture `path`: same format, or PNG.

    >>> lossless_name("scan.nii.gz", "_mask"), lossless_name("cell.jpg")
    ('scan_mask.nii.gz', 'cell.png')
    """
    kind = ending(path)
    return stem(path) + addition + (kind if kind in EXTENSIONS else ".png")


def smallest_type(table: Array) -> np.dtype[Any]:
    """Return the type of fewest bytes that holds these whole numbers."""
    low, high = int(table.min()), int(table.max())
    for name in ("uint8", "uint16", "int16", "int32"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.dtype(name)
    return np.dtype("int64")


def _may_be_stack(path: str | Path) -> bool:
    """Tell whether a file is no common picture of one page, by its ending or its pages."""
    kind = ending(path)
    if kind not in TIFF:
        return kind in EXTENSIONS
    import tifffile

    with opened(path) as file:
        if file.read(2) not in (b"II", b"MM"):
            return False  # the common decoder says what is wrong with it
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page: Any = tiff.pages[0]
            several = len(tiff.series) > 1 or tiff.series[0].size != page.size  # ImageJ: one page
            samples = page.samplesperpixel  # announces them all
            plain = samples == 1 or (samples in COLOURS and page.dtype == np.uint8)
            apart = samples > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
            return several or apart or not plain


def _flat(path: str | Path) -> Array:
    """Return a common picture (H, W, 1 or 3): 8 bits as `decode` reads them, deeper ones unscaled."""
    with opened(path) as file:
        image = decode.open_image(file)
        if image is None or image.mode in decode.DEEP_MODES:
            if image is not None and decode.orientation_of(image) != 1:
                raise BadInput("records a rotation; expected an upright picture")
            values = decode.read_tiff(file) if image is None else decode.deep_values(image)
            if not np.isfinite(values).all():
                raise BadInput("holds NaN or infinite values; expected finite ones")
            return values[..., None] if values.ndim == 2 else values
        channels = 1 if decode.is_grey(image) else 3
    return decode.decode(path, channels)


def _with_channels(array: Array, kind: str, dims: int | None) -> Array:
    """Return the array with an axis of channels at the end."""
    if kind in TIFF:
        return array  # its axes have names
    if array.ndim == 2 and dims != 3:
        return array[..., None]
    if array.ndim == 3:
        flat = array.shape[-1] in COLOURS and kind in NUMPY if dims is None else dims == 2
        return array if flat else array[..., None]
    if array.ndim == 4 and dims != 2:
        return array
    expected = {None: "2 to 4", 2: "2 or 3", 3: "3 or 4"}[dims]
    raise BadInput(f"has {array.ndim} axes, shape {array.shape}; expected {expected}")


def _read_numpy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npy":
                refuse_size(_npy_shape(file))
                file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            if len(names) != 1:
                raise BadInput(f"holds {len(names)} arrays ({', '.join(names[:4])}); expected one")
            with loaded.zip.open(names[0] + ".npy") as member:
                refuse_size(_npy_shape(member))
            array: Array = loaded[names[0]]
            return array
    except BadInput:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error) or "Object arrays" in str(error) or "pickle" in str(error):
            raise BadInput("holds pickled objects, which may run code; expected numbers") from None
        raise


def _npy_shape(file: Any) -> tuple[int, ...]:
    """Return the shape in an .npy header; () where it is none, which np.load then explains."""
    try:
        major, _ = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if major == 1
            else np.lib.format.read_array_header_2_0
        )
        return tuple(read(file)[0])
    except ValueError:
        return ()


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Give a file to write beside the target, and put it in place once it is whole."""
    try:
        handle, name = tempfile.mkstemp(prefix=".aside-", suffix=ending(target), dir=target.parent)
    except OSError as error:
        raise BadInput(f"{shown(target)}: cannot be written ({error.strerror})") from None
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o644)
        aside.replace(target)
    except OSError as error:
        raise ResiduaError(f"{shown(target)}: cannot be written ({error.strerror})") from None
    finally:
        aside.unlink(missing_ok=True)
