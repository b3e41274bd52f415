"""Stacks of slices in files, read and written: multi-page TIFF, NIfTI and NumPy.

    file -> array (D, H, W, C) or (H, W, C) in the file's own type, spacing (z, y, x) or None

D counts slices, C channels. NIfTI (.nii, .nii.gz; the extra `residua[volumes]`) stores (x, y, z): its axes
are turned round, nothing is resampled, and its affine is kept for writing. A TIFF has a spacing where
ImageJ or OME recorded one. Arrays of NumPy hold channels last; a file with pickled objects is refused.

    write_volume(path, array, like=source), write_mask(path, classes, values, like=source)

write the format that the ending names, whole or not at all.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data.decode import opened
from residua.data.naming import shown
from residua.errors import BadInput, ResiduaError

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

NIFTI = (".nii", ".nii.gz")
NUMPY = (".npy", ".npz")
TIFF = (".tif", ".tiff")
EXTENSIONS = frozenset({*NIFTI, *NUMPY, *TIFF})
MAX_VOXELS = 2**33  # about 2,000 x 2,000 x 2,000: what is larger is a damaged header
_MOST_CHANNELS = 64
_COLOURS = (3, 4)  # samples a pixel of a colour picture
_STACKED = "ZIQT"  # axes of a TIFF that count slices, as tifffile names them
_CLASSIC_TIFF = 2**31  # bytes; beyond 4 GB a file needs the large layout
_OME_SIZE = r'\bPhysicalSize{axis}="([^"]+)"'
_NO_UNIT = "reference frame"  # what OME calls a unit that nobody knows
_OME_UNITS = {"nm": "nm", "mm": "mm", "m": "m"} | dict.fromkeys(
    ("um", "µm", "micron", "microns"), "µm"
)
_OME_UNIT = r'\bPhysicalSizeXUnit="([^"]+)"'


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


def read_volume(path: str | Path, *, dims: int | None = None) -> Volume:
    """Return what a TIFF, NIfTI or NumPy file holds, in its own type.

    `dims` (2 or 3) says how many axes are in space where it is known: without it, a NumPy array of
    three axes is a picture if its last axis counts 3 or 4, else a stack. Raises `BadInput`, naming
    the file, if it is missing, damaged, cut short, pickled, NaN or infinite, without pixels, of a
    type or number of axes that no picture has, or has more than `MAX_VOXELS` values.
    """
    with opened(path) as file:
        kind = ending(path)
        if os.fstat(file.fileno()).st_size == 0:
            raise BadInput("is empty (0 bytes); expected a picture or a stack")
        if kind in TIFF:
            found = _read_tiff(Path(path), stack=dims == 3)
        elif kind in NIFTI:
            found = _read_nifti(Path(path))
        else:
            found = Volume(_read_numpy(Path(path)))
        array = _with_channels(found.array, kind, dims)
        _refuse_strange(array)
    return Volume(array, found.spacing, found.unit)


def read_labels(path: str | Path) -> Array:
    """Return the values of a mask that is a TIFF, NIfTI or NumPy file: (D, H, W) or (H, W).

    Raises `BadInput` as `read_volume` does, and where a pixel has several values (a colour).
    """
    with opened(path):
        kind = ending(path)
        if kind in TIFF:
            array = _one_value(_read_tiff(Path(path), stack=True).array)
        elif kind in NIFTI:
            array = _read_nifti(Path(path)).array
        else:
            array = _read_numpy(Path(path))
        if array.ndim == 4:
            array = _one_value(array)
        if array.ndim not in (2, 3):
            raise BadInput(
                f"has shape {array.shape}; expected one value a pixel: (H, W) or (D, H, W)"
            )
        _refuse_strange(array)
    return array


def read_spacing(path: str | Path) -> Spacing | None:
    """Return the distance of voxels along (z, y, x) as the file's header has it; None if it has none."""
    return _measures(path)[0]


def _measures(path: str | Path) -> tuple[Spacing | None, str]:
    kind = ending(path)
    with opened(path):
        if kind in NIFTI:
            image = _nibabel().load(path)
            return _nifti_spacing(image), _nifti_unit(image)
        if kind in TIFF:
            import tifffile

            with tifffile.TiffFile(path) as tiff:
                return _tiff_spacing(tiff)
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
        channels = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] in _COLOURS)
    if spacing is None and like is not None and ending(like) in EXTENSIONS:
        spacing, unit = _measures(like)
    if kind not in EXTENSIONS and kind != ".png":
        raise BadInput(f"{shown(path)}: expected an ending of .tif, .nii.gz, .npy, .npz or .png")
    if kind == ".png" and array.ndim != 2 + channels:
        raise BadInput(f"{shown(path)}: a PNG holds no stack; expected an ending such as .tif")
    with _aside(target) as aside:
        if kind in TIFF:
            _write_tiff(aside, array, channels, spacing, unit)
        elif kind in NIFTI:
            _write_nifti(aside, array, channels, spacing, like)
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
    classes: npt.NDArray[Any],
    values: Sequence[int] | None = None,
    *,
    like: str | Path | None = None,
) -> None:
    """Write classes (D, H, W) or (H, W); with `values`, class k is written as values[k].

    So a prediction has the values of the masks that were learnt from: 0 and 255, say. `like` is as
    in `write_volume`.
    """
    if values is not None:
        table = np.asarray(values)
        classes = table.astype(_smallest(table))[classes]
    write_volume(path, classes, like=like, channels=False)


def lossless_name(path: str | Path, addition: str = "") -> str:
    """Return the name of a file that holds a mask of the picture `path`: same format, or PNG.

    >>> lossless_name("scan.nii.gz", "_mask"), lossless_name("cell.jpg")
    ('scan_mask.nii.gz', 'cell.png')
    """
    kind = ending(path)
    return stem(path) + addition + (kind if kind in EXTENSIONS else ".png")


def _smallest(table: Array) -> np.dtype[Any]:
    low, high = int(table.min()), int(table.max())
    for name in ("uint8", "uint16", "int16", "int32"):
        limits = np.iinfo(name)
        if limits.min <= low and high <= limits.max:
            return np.dtype(name)
    return np.dtype("int64")


def _with_channels(array: Array, kind: str, dims: int | None) -> Array:
    """Return the array with an axis of channels at the end."""
    if kind in TIFF:
        return array  # its axes have names
    if array.ndim == 2 and dims != 3:
        return array[..., None]
    if array.ndim == 3:
        flat = array.shape[-1] in _COLOURS and kind in NUMPY if dims is None else dims == 2
        return array if flat else array[..., None]
    if array.ndim == 4 and dims != 2:
        return array
    expected = {None: "2 to 4", 2: "2 or 3", 3: "3 or 4"}[dims]
    raise BadInput(f"has {array.ndim} axes, shape {array.shape}; expected {expected}")


def _refuse_strange(array: Array) -> None:
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


def _refuse_size(shape: Sequence[int]) -> None:
    """Raise before memory is asked for."""
    if math.prod(int(n) for n in shape) > MAX_VOXELS:
        sides = " x ".join(f"{n:,}" for n in shape)
        raise BadInput(f"announces {sides} values; expected at most {MAX_VOXELS:,} in all")


def _read_numpy(path: Path) -> Array:
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".npy":
                _refuse_size(_npy_shape(file))
                file.seek(0)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            names = loaded.files
            if len(names) != 1:
                raise BadInput(f"holds {len(names)} arrays ({', '.join(names[:4])}); expected one")
            with loaded.zip.open(names[0] + ".npy") as member:
                _refuse_size(_npy_shape(member))
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


def _nibabel() -> Any:
    try:
        import nibabel
    except ModuleNotFoundError:
        raise BadInput(
            "NIfTI files need the package nibabel: pip install 'residua[volumes]'"
        ) from None
    return nibabel


def _read_nifti(path: Path) -> Volume:
    image = _nibabel().load(path)
    _refuse_size(image.shape)
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
    return Volume(turned, _nifti_spacing(image), _nifti_unit(image))


def _nifti_unit(image: Any) -> str:
    """Return "mm", "um", "m" or "" as the header says."""
    unit = str(image.header.get_xyzt_units()[0])
    return {"micron": "um", "meter": "m", "unknown": ""}.get(unit, unit)


def _nifti_spacing(image: Any) -> Spacing | None:
    zooms = [float(z) for z in image.header.get_zooms()[:3]]
    if len(zooms) < 3 or not all(math.isfinite(z) and z > 0 for z in zooms):
        return None
    return zooms[2], zooms[1], zooms[0]


def _read_tiff(path: Path, *, stack: bool) -> Volume:
    import tifffile

    with _complaints() as complaints, tifffile.TiffFile(path) as tiff:
        if not tiff.series:
            raise BadInput("holds no picture")
        series = tiff.series[0]
        _refuse_size(series.shape)
        if len(tiff.series) > 1:
            raise BadInput(
                f"holds {len(tiff.series)} pictures of different size or type; expected one stack"
            )
        spacing, unit = _tiff_spacing(tiff)
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
    if stack and not stacked and channels and axes[0] == "S":
        stacked, channels = [0], []  # three slices, which were written as three colours
    slices = stacked or [i for i, a in enumerate(axes) if a == "Z"]
    rest = [i for i, a in enumerate(axes) if a not in "YX" and i not in (*slices, *channels)]
    if len(stacked) > 1 or len(channels) > 1 or any(array.shape[i] > 1 for i in rest):
        raise BadInput(f"has the axes {axes}, shape {array.shape}; expected one stack of slices")
    order = [*slices, axes.index("Y"), axes.index("X"), *channels]
    array = array.transpose(*order, *rest).reshape([array.shape[i] for i in order])
    return np.ascontiguousarray(array if channels else array[..., None])


def _one_value(array: Array) -> Array:
    """Return (..., H, W) of (..., H, W, C) with equal channels."""
    if (array != array[..., :1]).any():
        raise BadInput("is a picture in colour; expected one value a pixel")
    one: Array = array[..., 0]
    return one


def _tiff_spacing(tiff: Any) -> tuple[Spacing | None, str]:
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


def _write_tiff(
    path: Path, array: Array, channels: bool, spacing: Spacing | None, unit: str
) -> None:
    import tifffile

    colour = channels and array.shape[-1] in _COLOURS and array.dtype == np.uint8
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
        bigtiff=array.nbytes > _CLASSIC_TIFF,
        ome=len(metadata) > 1,
        metadata=metadata,
    )


def _write_nifti(
    path: Path, array: Array, channels: bool, spacing: Spacing | None, like: str | Path | None
) -> None:
    nibabel = _nibabel()
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
