"""What one position of a map sees of the picture, and how each kind of layer changes that.

    position p of a map sees the picture from  low + jump p  to  high + jump p

    window      low -= before jump;  high += (dilation (kernel - 1) - before) jump;  jump *= stride
    spread      transposed convolution: q = stride i + dilation k - before, so that
                low -= (dilation (kernel - 1) - before) jump / stride;  high += before jump / stride;
                jump /= stride
    join        the least low, the greatest high, of maps of one jump

Araujo, Norris & Sim 2019, sections 2 and 4. Bounds, never too narrow: a tile that reaches this far beyond
the pixels that are kept gives them what the whole picture gives them.

Numbers are in pixels of the picture, one for each spatial dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Field:
    """What each position of a map sees; `axes` are the map's spatial dimensions, where they are followed."""

    low: Numbers
    high: Numbers
    jump: Numbers
    axes: tuple[int, ...] = ()

    @classmethod
    def of_picture(cls, dims: int) -> Field:
        """Return the field of the picture (B, C, *S) itself: each position sees itself."""
        return cls((0.0,) * dims, (0.0,) * dims, (1.0,) * dims, tuple(range(2, 2 + dims)))

    @property
    def size(self) -> tuple[int, ...]:
        """Pixels that one position sees, in each dimension."""
        return tuple(math.floor(h - b + 1e-6) + 1 for b, h in zip(self.low, self.high, strict=True))

    def window(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        before: Sequence[int],
        dilation: Sequence[int],
    ) -> Field:
        """Return the field after a convolution or a pool, `before` of whose window lie before."""
        each = list(zip(self.jump, kernel, stride, before, dilation, strict=True))
        after = [(d * (k - 1) - b) * j for j, k, _, b, d in each]
        return Field(
            _plus(self.low, [-b * j for j, _, _, b, _ in each]),
            _plus(self.high, after),
            tuple(j * s for j, _, s, _, _ in each),
            self.axes,
        )

    def spread(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        before: Sequence[int],
        dilation: Sequence[int],
    ) -> Field:
        """Return the field after a transposed convolution."""
        each = list(zip(self.jump, kernel, stride, before, dilation, strict=True))
        return Field(
            _plus(self.low, [-(d * (k - 1) - b) * j / s for j, k, s, b, d in each]),
            _plus(self.high, [b * j / s for j, _, s, b, _ in each]),
            tuple(j / s for j, _, s, _, _ in each),
            self.axes,
        )

    def resized(self, factor: Sequence[float], before: float, after: float) -> Field:
        """Return the field after `factor` times as many positions.

        Position q reads from q / factor - before to q / factor + after of the map.
        """
        return Field(
            _plus(self.low, [-before * j for j in self.jump]),
            _plus(self.high, [after * j for j in self.jump]),
            tuple(j / f for j, f in zip(self.jump, factor, strict=True)),
            self.axes,
        )

    def shifted(self, axis: int, by: int, step: int = 1) -> Field:
        """Return the field of a map from its position `by` on (negative: padded), every `step`."""
        low, high, jump = list(self.low), list(self.high), list(self.jump)
        low[axis] += by * jump[axis]
        high[axis] += by * jump[axis]
        jump[axis] *= step
        return Field(tuple(low), tuple(high), tuple(jump), self.axes)

    def joined(self, other: Field) -> Field:
        """Return the field of two maps that are added or concatenated; ValueError if they differ."""
        same = all(math.isclose(a, b) for a, b in zip(self.jump, other.jump, strict=True))
        if not same or self.axes != other.axes:
            raise ValueError("maps of different scales are joined")
        low = tuple(map(min, self.low, other.low))
        return Field(low, tuple(map(max, self.high, other.high)), self.jump, self.axes)


def _plus(numbers: Sequence[float], more: Sequence[float]) -> Numbers:
    return tuple(a + b for a, b in zip(numbers, more, strict=True))
