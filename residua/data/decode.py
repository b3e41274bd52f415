"""One picture file to pixels: decode(path, channels) -> uint8 (H, W, C), and the same for any depth.

    y = round(255 (x - lo) / (hi - lo)),   [lo, hi] the range of the file's type, never of its values

so that 16-bit pictures of a set stay comparable with each other. RGBA is composited on white; the
EXIF orientation is applied; a file that cannot be read is a `BadInput` of one line with its name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from residua.data.naming import shown
from residua.errors import BadInput

Pixels = npt.NDArray[np.uint8]

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp"})
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")  # no other decoder of Pillow is ever asked
MAX_PIXELS = 178_956_970  # Pillow refuses what is larger (2 x Image.MAX_IMAGE_PIXELS)

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_BITS, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_ORIENTATION_CARRIERS = ("exif", "xmp", "Raw profile type exif", "XML:com.adobe.xmp")


def decode(path: str | Path, channels: int) -> Pixels:
    """Return the picture as uint8 (H, W, channels), channels 1 (grey) or 3 (RGB).

    Raises `BadInput`, naming the file, if it is missing, empty, truncated, no picture, larger than
    `MAX_PIXELS`, a stack of pages, or holds NaN.
    """
    return to_pixels(load(path, channels), channels)


def load(path: str | Path, channels: int, short_side: int | None = None) -> Image.Image:
    """Return the picture as an upright 8-bit Pillow image of mode L or RGB.

    With `short_side`, a large JPEG may come at a fraction of its size (1/2, 1/4, 1/8), as long as
    its short side is at least twice that: the decoder then skips what a reduction would discard.
    """
    with opened(path) as file:
        return _load(file, channels, short_side)


@contextlib.contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """Open a file to decode it; whatever goes wrong inside is a `BadInput` that names the file."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except BadInput as error:
        raise BadInput(f"{shown(path)}: {error}") from None
    except FileNotFoundError:
        raise BadInput(f"{shown(path)}: no such file") from None
    except Image.DecompressionBombError:
        raise BadInput(
            f"{shown(path)}: has more than {MAX_PIXELS:,} pixels; expected a smaller picture"
        ) from None
    except PermissionError:
        raise BadInput(f"{shown(path)}: permission denied") from None
    except Exception as error:  # decoders raise nearly anything on a damaged file
        raise BadInput(f"{shown(path)}: cannot be decoded ({_reason(error)})") from None


def is_grey(image: Image.Image) -> bool:
    """Tell from the header alone whether the picture has one channel (a grey palette counts)."""
    if image.mode == "P" and image.palette is not None:
        colours = np.frombuffer(image.palette.getdata()[1], np.uint8)
        if image.palette.mode == "RGB" and colours.size % 3 == 0:
            triples = colours.reshape(-1, 3)
            return bool((triples == triples[:, :1]).all())
    return image.mode in _GREY_MODES


def to_pixels(image: Image.Image, channels: int) -> Pixels:
    """Return an L or RGB image as uint8 (H, W, channels)."""
    pixels: Pixels = np.asarray(image)
    return pixels[:, :, None] if channels == 1 else pixels


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """Return (H, W, 1 or 3) pixels with as many channels as asked (luma of ITU-R 601)."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def check_size(width: int, height: int) -> None:
    """Raise `BadInput` where a picture is too large to decode, before memory is asked for."""
    if width * height > MAX_PIXELS:
        raise BadInput(f"has {width:,} x {height:,} pixels; expected at most {MAX_PIXELS:,} in all")


def open_image(file: BinaryIO) -> Image.Image | None:
    """Return the one picture in a file, not yet decoded; None for a TIFF that Pillow does not know."""
    head = file.read(4)
    if not head:
        raise BadInput("is empty (0 bytes); expected a picture")
    file.seek(0)
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if head[:2] in (b"II", b"MM"):
            return None
        raise BadInput("is not a JPEG, PNG, BMP, TIFF or WebP picture") from None
    check_size(*image.size)
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise BadInput(f"is a stack of {getattr(image, 'n_frames', 1)} pages; expected one picture")
    return image


def _load(file: BinaryIO, channels: int, short_side: int | None) -> Image.Image:
    image = open_image(file)
    if image is None:
        return _eight_bit(read_tiff(file), channels)
    if image.format == "JPEG" and short_side is not None:
        image.draft(None, (2 * short_side, 2 * short_side))
    if image.mode in DEEP_MODES:
        return _upright(_eight_bit(deep_values(image), channels), image)
    image.load()
    return _upright(_flatten(image, channels), image)


def _flatten(image: Image.Image, channels: int) -> Image.Image:
    """Composite transparency on white and convert to L or RGB."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _upright(pixels: Image.Image, source: Image.Image) -> Image.Image:
    """Apply the EXIF orientation that the source file records."""
    orientation = orientation_of(source)
    if orientation == 1:
        return pixels
    pixels = pixels.copy()
    pixels.getexif()[0x0112] = orientation
    return ImageOps.exif_transpose(pixels)


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation that a file records; 1, upright, where it records none."""
    if image.format != "TIFF" and not any(key in image.info for key in _ORIENTATION_CARRIERS):
        return 1  # most small pictures: asking Pillow for EXIF costs as much as decoding
    return int(image.getexif().get(0x0112, 1))


def deep_values(image: Image.Image) -> npt.NDArray[np.generic]:
    """Return the values of a 16-bit, 32-bit or float picture in the type that the file has."""
    values = np.asarray(image)
    if image.mode == "F":
        return values
    if image.mode != "I":
        return values.astype(np.uint16)
    if image.format != "TIFF":
        return values.astype(np.uint16)  # PNG: at most 16 bits, without sign
    tags = getattr(image, "tag_v2", {})
    bits = int(np.ravel(tags.get(_BITS, 32))[0])
    signed = int(np.ravel(tags.get(_SAMPLE_FORMAT, 1))[0]) == 2
    return values.astype(np.dtype(f"{'i' if signed else 'u'}{bits // 8}"))


def read_tiff(file: BinaryIO) -> npt.NDArray[np.generic]:
    """Read a one-page TIFF that Pillow does not know (float RGB, 64 bits, ...)."""
    import tifffile

    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        if len(tiff.pages) > 1:
            raise BadInput(f"is a stack of {len(tiff.pages)} pages; expected one picture")
        page = tiff.pages[0]
        height, width = (*page.shape, 1)[:2]
        check_size(width, height)
        values: npt.NDArray[np.generic] = page.asarray()
    if values.ndim == 3 and values.shape[0] in (1, 3, 4) and values.shape[-1] not in (1, 3, 4):
        values = np.moveaxis(values, 0, -1)  # planes apart
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[-1] in (3, 4)):
        raise BadInput(f"has shape {values.shape}; expected (H, W) or (H, W, 3)")
    return values


def _eight_bit(values: npt.NDArray[np.generic], channels: int) -> Image.Image:
    """Scale by the range of the type; floats must already lie in 0..1."""
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            raise BadInput("holds NaN or infinite values; expected finite ones in 0..1")
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            raise BadInput(
                f"holds float values from {low:g} to {high:g}; expected 0..1 (or whole numbers)"
            )
        span = (0.0, 1.0)
    elif values.dtype.kind == "b":
        span = (0.0, 1.0)
    else:
        limits = np.iinfo(values.dtype)  # type: ignore[type-var]
        span = (float(limits.min), float(limits.max))
    scaled = (values.astype(np.float64) - span[0]) * (255.0 / (span[1] - span[0]))
    return _flatten(Image.fromarray(np.rint(scaled).astype(np.uint8)), channels)


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
