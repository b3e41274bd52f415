"""Pictures with layers to lay over them, as small PNG data URIs: masks by palette, slices in one strip.

A layer is a PNG of one byte a pixel whose palette holds colour and opacity, so a mask costs a few hundred
bytes. The slices of a volume stand under one another in one tall picture, and the page moves the strip
behind a window. All pictures of a page keep to a budget: they are reduced together, masks without mixing
classes, until they fit.
"""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]
Rgba = tuple[int, int, int, int]

IGNORED = 255  # of a mask: counts for nothing
MOST_SLICES = 16  # of a volume
LARGEST = 320  # pixels of the longer side
SMALLEST = 64
BUDGET = 2_000_000  # characters of all pictures of a page

CLEAR: Rgba = (0, 0, 0, 0)
OPEN: Rgba = (128, 128, 128, 200)  # pixels that the truth leaves open
MISSED: Rgba = (230, 57, 70, 255)
INVENTED: Rgba = (255, 183, 3, 255)
MISTAKEN: Rgba = (168, 85, 247, 255)
_CLASSES = (  # Okabe and Ito 2008: told apart by colour-blind people too
    (0, 158, 215), (230, 130, 0), (0, 170, 120), (230, 80, 170), (240, 228, 66),
    (90, 110, 230), (213, 70, 0), (150, 200, 60),
)  # fmt: skip
_LEVELS = 32  # steps of the uncertainty's scale


@dataclass
class Layer:
    """One thing to see: greys or colours (D, H, W, C) or places in a palette (D, H, W); D slices."""

    pixels: Array
    palette: Sequence[Rgba] = field(default_factory=tuple)

    def uri(self, side: int, slices: Sequence[int]) -> str:
        """Return the slices under one another as a PNG data URI, reduced to `side` if longer."""
        resample = Image.Resampling.NEAREST if self.palette else Image.Resampling.LANCZOS
        frames = [_reduced(self.pixels[z], side, resample) for z in slices]
        strip = Image.fromarray(np.concatenate([np.asarray(frame) for frame in frames]))
        extra: dict[str, Any] = {}
        if self.palette:
            strip = strip.convert("L")
            strip.putpalette([c for rgba in self.palette for c in rgba[:3]])
            extra["transparency"] = bytes(rgba[3] for rgba in self.palette)
        elif strip.mode == "RGB":
            strip = strip.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        strip.save(buffer, format="PNG", optimize=True, **extra)
        return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _reduced(pixels: Array, side: int, resample: Image.Resampling) -> Image.Image:
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    image = Image.fromarray(np.ascontiguousarray(flat))
    scale = side / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), resample)


def class_colours(number: int, background: int | None = 0) -> list[Rgba]:
    """Return a colour for each class; the background is clear.

    >>> class_colours(3)[0], len(set(class_colours(60)))
    ((0, 0, 0, 0), 60)
    """
    colours: list[Rgba] = []
    for k in range(number):
        nth = len([c for c in colours if c != CLEAR])
        if k == background:
            colours.append(CLEAR)
        elif nth < len(_CLASSES):
            colours.append((*_CLASSES[nth], 255))
        else:  # hues a golden angle apart, so that neighbours differ
            light = (0.5, 0.65, 0.4)[nth % 3]
            rgb = colorsys.hls_to_rgb(nth * 0.381966 % 1.0, light, 0.75)
            colours.append((round(rgb[0] * 255), round(rgb[1] * 255), round(rgb[2] * 255), 255))
    return colours


def picture_layer(picture: Array, *, volume: bool) -> Layer:
    """Return a picture (H, W), (H, W, C), or a volume with D before, as greys or colours of 8 bits.

    What is not uint8 is stretched between its 0.5th and 99.5th percentile; of several channels that are
    no colours, the first is shown.
    """
    array = np.asarray(picture)
    if array.ndim == (3 if volume else 2):
        array = array[..., None]
    if not volume:
        array = array[None]
    if array.ndim != 4:
        raise ValueError(f"expected a picture (H, W[, C]) or a volume, not {picture.shape}")
    array = array[..., :3] if array.shape[-1] in (3, 4) else array[..., :1]
    return Layer(array if array.dtype == np.uint8 else _stretched(array))


def _stretched(array: Array) -> Array:
    values = np.nan_to_num(array.astype(np.float32))
    low, high = np.percentile(values, (0.5, 99.5))
    grey: Array = np.clip((values - low) * (255.0 / max(high - low, 1e-12)), 0, 255)
    return grey.astype(np.uint8)


def mask_layer(mask: Array, colours: Sequence[Rgba]) -> Layer:
    """Return a mask (H, W) or (D, H, W) of classes; pixels left open are grey."""
    places = np.minimum(_as_slices(mask), len(colours)).astype(np.uint8)
    return Layer(places, [*colours, OPEN])


def error_layer(truth: Array, answer: Array, background: int | None = 0) -> Layer:
    """Return where the answer is wrong: 1 missed, 2 invented, 3 one class taken for another.

    Missed is background where there is a class, invented a class where there is background; without a
    background every error is of the third kind. Pixels left open are no errors.
    """
    truth, answer = _as_slices(truth), _as_slices(answer)
    kind = np.full(truth.shape, 3, np.uint8)
    if background is not None:
        kind[answer == background] = 1
        kind[truth == background] = 2
    kind[(truth == answer) | (truth == IGNORED)] = 0
    return Layer(kind, [CLEAR, MISSED, INVENTED, MISTAKEN])


def uncertainty_layer(uncertainty: Array) -> Layer:
    """Return a map of 0..1 (H, W) or (D, H, W): clear where it is sure, stronger where it is not."""
    values = np.nan_to_num(np.asarray(uncertainty, np.float32))
    values = values if values.ndim == 3 else values[None]
    steps = np.rint(np.clip(values, 0, 1) * (_LEVELS - 1)).astype(np.uint8)
    shares = np.linspace(0, 1, _LEVELS)
    return Layer(
        steps, [(255, round(80 + 150 * s), round(200 * (1 - s)), round(255 * s)) for s in shares]
    )


def _as_slices(mask: Array) -> Array:
    array = np.asarray(mask)
    if array.ndim not in (2, 3):
        raise ValueError(f"expected a mask (H, W) or (D, H, W), not {array.shape}")
    array = array if array.ndim == 3 else array[None]
    return array.astype(np.uint8)


def slices_shown(depth: int, most: int = MOST_SLICES) -> list[int]:
    """Return the slices of a volume that are shown: all of a few, else evenly spaced.

    >>> slices_shown(3), slices_shown(100, most=5)
    ([0, 1, 2], [0, 25, 50, 74, 99])
    """
    return sorted({round(z) for z in np.linspace(0, depth - 1, min(depth, most))})


def fitted(cases: Sequence[dict[str, Layer]], budget: int = BUDGET) -> list[dict[str, str]]:
    """Return the layers of each case as data URIs whose length together keeps to the budget.

    All are reduced by the same rule until they fit; if they do not at `SMALLEST`, the last cases have
    none.
    """
    side = LARGEST
    while True:
        made = [_uris(layers, side) for layers in cases]
        total = sum(len(uri) for uris in made for uri in uris.values())
        if total <= budget or side <= SMALLEST:
            break
        side = max(SMALLEST, min(side - 16, int(side * (budget / total) ** 0.5)))
    spent = 0
    for uris in made:
        spent += sum(map(len, uris.values()))
        if spent > budget:
            uris.clear()
    return made


def _uris(layers: dict[str, Layer], side: int) -> dict[str, str]:
    return {
        name: layer.uri(side, slices_shown(len(layer.pixels))) for name, layer in layers.items()
    }
