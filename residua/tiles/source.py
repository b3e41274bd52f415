"""Pixels for tiles, read where they are needed: nothing is read twice at once, nothing is read whole.

    beyond the borders of n pixels the picture is mirrored about its first and last pixel, again and again
    where it is small:  i -> i mod 2(n - 1), and from n on  2(n - 1) - i

Ronneberger, Fischer, Brox 2015, figure 2. A picture is (C, *S), anything with a `shape` that gives an array
for slices: an array in memory, a memory map, a chunked store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.errors import BadInput
from residua.tiles.grid import Span

Pixels = npt.NDArray[Any]
Prepare = Callable[[Pixels], Any]
MAX_DIMS = 3


class Source:
    """A picture that is read tile by tile, each prepared as the network wants it."""

    def __init__(self, picture: Any, prepare: Prepare | None) -> None:
        """Check the picture's shape; BadInput if it has none or nothing in it."""
        shape = tuple(int(n) for n in getattr(picture, "shape", ()))
        if not 2 <= len(shape) <= MAX_DIMS + 1 or min(shape) < 1:
            raise BadInput(
                f"a picture of shape {shape}: expected (channels, length), (channels, height, width)"
                " or (channels, depth, height, width), 1 pixel or more each"
            )
        self.picture, self.prepare = picture, prepare
        self.shape = shape[1:]
        first = self._read([(0, 1)] * len(self.shape))
        self.channels = first.shape[0]

    def read(self, spans: Sequence[Span]) -> Pixels:
        """Return float32 (C, *t), what the spans read, mirrored and turned round as they say."""
        places = [_places(s, n) for s, n in zip(spans, self.shape, strict=True)]
        bounds = [(int(p.min()), int(p.max()) + 1) for p in places]
        pixels = self._read(bounds)
        for axis, (place, (low, high)) in enumerate(zip(places, bounds, strict=True), start=1):
            if spans[axis - 1].low < 0 or spans[axis - 1].high > self.shape[axis - 1]:
                pixels = np.take(pixels, place - low, axis)
            elif spans[axis - 1].mirrored:
                pixels = np.flip(pixels, axis)
            assert pixels.shape[axis] == len(place), (low, high)
        return pixels

    def _read(self, bounds: Sequence[tuple[int, int]]) -> Pixels:
        slices = (slice(None), *(slice(low, high) for low, high in bounds))
        pixels = np.asarray(self.picture[slices])
        wanted = tuple(high - low for low, high in bounds)
        prepared = pixels if self.prepare is None else np.asarray(self.prepare(pixels))
        if prepared.shape[1:] != wanted or prepared.dtype.kind not in "buif":
            raise BadInput(
                f"a prepared tile is {prepared.dtype} of shape {prepared.shape}:"
                f" expected numbers of shape (channels, {', '.join(map(str, wanted))})"
            )
        return prepared


def _places(span: Span, length: int) -> npt.NDArray[np.int64]:
    """Return the pixels that a span reads, mirrored at the borders, in the order of the span."""
    period = max(2 * (length - 1), 1)
    places = np.arange(span.low, span.high) % period
    places = np.where(places < length, places, period - places)
    return np.asarray(places[::-1] if span.mirrored else places)
