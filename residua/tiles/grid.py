"""Where tiles lie along one dimension: what each reads, and what of its output is kept.

    exact   cores [i c, (i + 1) c), c a multiple of the network's stride s; each reads its core, a halo as
            wide as the network sees, and what is missing to a multiple of s: so every pixel that is kept
            has the neighbours and the phase of strides that it has in the whole picture
    blend   tiles of one size, overlapping; the last one is shifted to end where the picture ends

A network without padding gives m pixels fewer on either side, and reads as many more: beyond the picture,
where it is mirrored (Ronneberger, Fischer, Brox 2015, figure 2). At a border of the picture a tile ends
where the picture ends, so that padding inside the network happens where it happens for the whole.

Numbers are pixels of the picture; a mirrored network's reads are those of the mirrored picture.
"""

from __future__ import annotations

from dataclasses import dataclass

from residua.tiles.geometry import Geometry
from residua.tiles.weights import Floats, shares


@dataclass(frozen=True)
class Span:
    """One tile in one dimension: reads [low, high), of its output [skip, skip + end - start) is kept.

    low and high may lie outside of the picture, which is mirrored there. Where `mirrored`, what was read
    is turned round before the network sees it, and so is its output after it was cut.
    """

    low: int
    high: int
    skip: int
    start: int
    end: int
    mirrored: bool = False


@dataclass(frozen=True)
class Axis:
    """The tiles of one dimension of `length` pixels, and, where needed, those of the mirrored picture.

    share: of each tile, its share of what is kept, or None where each pixel is kept once.
    """

    length: int
    spans: tuple[Span, ...]
    mirrored: tuple[Span, ...]
    share: tuple[Floats, ...] | None

    @property
    def margin(self) -> int:
        """Pixels that the network's output is smaller on either side."""
        return -self.spans[0].low

    @property
    def window(self) -> int:
        """The most pixels that a tile reads."""
        return max(span.high - span.low for span in self.spans + self.mirrored)

    @property
    def kept(self) -> int:
        """The most pixels of a tile that are kept."""
        return max(span.end - span.start for span in self.spans)


@dataclass(frozen=True)
class Sight:
    """What a `Geometry` says of one dimension, and whether the picture is mirrored along it too."""

    halo: tuple[int, int]
    stride: int
    margin: int
    remainder: int | None
    mirrored: bool = False

    @classmethod
    def of(cls, geometry: Geometry, axis: int, mirrored: bool) -> Sight:
        """Return the sight of one dimension."""
        remainder = geometry.remainder[axis] if geometry.remainder else None
        return cls(
            geometry.halo[axis], geometry.stride[axis], geometry.margin[axis], remainder, mirrored
        )

    def legal(self, size: int) -> int:
        """Return the least side of `size` pixels or more that the network takes."""
        if self.remainder is None:
            return size
        return size + (self.remainder - size) % self.stride

    def whole(self, length: int) -> int:
        """Return the side of an input that covers `length` pixels at once."""
        return self.legal(length + 2 * self.margin)

    def aligned(self, size: int) -> int:
        """Return the least side that ends at a step of the network."""
        return size + ((self.remainder or 0) - size) % self.stride

    def window(self, core: int) -> int:
        """Return the side of an inner tile that keeps `core` pixels."""
        before, after = self.halo
        # Seen from the other side of the picture, a core may begin between two steps.
        between = self.stride - 1 if self.mirrored else 0
        lead = _up(before + between, self.stride)
        return self.aligned(core + lead + after + 2 * self.margin)

    def core(self, window: int) -> int:
        """Return the most pixels that an inner tile of this side keeps; 0 if none."""
        core = (window - self.window(0)) // self.stride * self.stride
        return max(core + self.stride if self.window(core + self.stride) <= window else core, 0)


def exact_axis(length: int, core: int, sight: Sight) -> Axis:
    """Return tiles that keep `core` pixels each, a multiple of the stride (or the whole length)."""
    starts = range(0, length, core)
    cores = [(start, min(start + core, length)) for start in starts]
    mirrored = []
    for start, end in cores if sight.mirrored else []:
        there = _exact_span(length, length - end, length - start, sight)
        low, high = length - there.high, length - there.low
        mirrored.append(Span(low, high, there.skip, start, end, mirrored=True))
    return Axis(
        length, tuple(_exact_span(length, a, b, sight) for a, b in cores), tuple(mirrored), None
    )


def _exact_span(length: int, start: int, end: int, sight: Sight) -> Span:
    before, after = sight.halo
    first = max(start - before, 0) // sight.stride * sight.stride  # of the tile's output
    need = sight.aligned(end + after - first + 2 * sight.margin)
    side = min(need, sight.whole(length) - first)
    return Span(first - sight.margin, first - sight.margin + side, start - first, start, end)


def blend_axis(length: int, tile: int, overlap: float, sight: Sight, blend: str) -> Axis:
    """Return overlapping tiles that read `tile` pixels each."""
    margin = sight.margin
    size = tile - 2 * margin
    step = max(round(size * (1 - overlap)), 1)
    last = max(length - size, 0)
    starts = [*range(0, last, step), last]
    spans, mirrored = [], []
    for start in starts:
        end = min(start + size, length)
        spans.append(Span(start - margin, start - margin + tile, 0, start, end))
        skip = size - (end - start)
        mirrored.append(
            Span(start - margin, start - margin + tile, skip, start, end, mirrored=True)
        )
    return Axis(length, tuple(spans), tuple(mirrored), tuple(shares(starts, size, length, blend)))


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
