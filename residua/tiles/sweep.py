"""The sweep: the network runs over the tiles, and finished rows of the picture come out.

    sum(x) = sum over tiles i and flips f of  share_i(x) / F  f^-1(p(f(tile_i)))(x)

p: the network's scores as probabilities. The slab of sums is (rows, *breadth, classes). The shares of the
tiles on a pixel sum to one (`weights`), so what comes out is finished.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from residua.errors import BadInput, ResiduaError
from residua.tiles.grid import Span
from residua.tiles.plan import Plan, Strip
from residua.tiles.source import Source

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    # Of maps in channels-last order it is slower than turning them round first.
    "softmax": lambda scores: scores.contiguous().softmax(1),
    "sigmoid": torch.sigmoid,
    "none": lambda scores: scores,
}
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}


@dataclass(frozen=True)
class Look:
    """One run of the network: the place of a tile in the grid, and the dimensions that are mirrored."""

    place: tuple[int, ...]
    spans: tuple[Span, ...]

    @property
    def sides(self) -> tuple[int, ...]:
        """Pixels that it reads, in each dimension."""
        return tuple(span.high - span.low for span in self.spans)


@dataclass(frozen=True)
class Rows:
    """Finished pixels: probabilities (rows, *breadth, K) of the region; valid until the next ones."""

    step: int
    region: tuple[slice, ...]
    values: Tensor


class Sweep:
    """Runs a network over a picture as planned; iterate over `rows`."""

    def __init__(
        self,
        network: nn.Module,
        source: Source,
        plan: Plan,
        *,
        flips: tuple[int, ...],
        activation: str,
        precision: torch.dtype | None,
        on_tiles: Callable[[int], None],
    ) -> None:
        self.network, self.source, self.plan = network, source, plan
        weight = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
        self.device, self.dtype = weight.device, weight.dtype
        subsets = (itertools.combinations(flips, n) for n in range(len(flips) + 1))
        self.flips = list(itertools.chain.from_iterable(subsets))
        self.activation, self.precision = ACTIVATIONS[activation], precision
        self.on_tiles = on_tiles
        self._buffers: dict[tuple[int, ...], Tensor] = {}
        self._sums: Tensor | None = None

    def rows(self, done: int = 0) -> Iterator[Rows]:
        """Yield finished rows from step `done` on, strip after strip."""
        height = len(self.plan.axes[0].spans)
        for number, strip in enumerate(self.plan.strips):
            for row, region, values in self._strip(strip, done - number * height):
                yield Rows(number * height + row, region, values)

    def _strip(self, strip: Strip, done: int) -> Iterator[tuple[int, tuple[slice, ...], Tensor]]:
        axis = self.plan.axes[0]
        if done >= len(axis.spans):
            return
        starts = [span.start for span in axis.spans] + [axis.length]
        # Rows that are written reach into those that are not: their part is computed again.
        first = next(i for i, s in enumerate(axis.spans) if s.end > starts[max(done, 0)])
        breadth = [end - start for start, end in strip.pixels]
        slab = self._slab((self.plan.classes, axis.kept, *breadth))
        for row in range(first, len(axis.spans)):
            self._add_row(slab, row, strip)
            height = starts[row + 1] - starts[row]
            if row >= done:
                pixels = [(starts[row], starts[row + 1]), *strip.pixels]
                yield row, tuple(slice(a, b) for a, b in pixels), slab[:height]
            if row + 1 < len(axis.spans):
                _move_on(slab, height)

    def _slab(self, shape: tuple[int, ...]) -> Tensor:
        """Return zeros (rows, *breadth, K) for a shape (K, rows, *breadth), which is their order in memory.

        Strips share the memory: whoever still holds the last rows of one would keep a second slab alive.
        """
        if self._sums is None:
            largest = max(math.prod(b - a for a, b in s.pixels) for s in self.plan.strips)
            kept = self.plan.classes * self.plan.axes[0].kept
            self._sums = torch.empty(kept * largest, device=self.device)
        return self._sums[: math.prod(shape)].zero_().view(shape).movedim(0, -1)

    def _add_row(self, slab: Tensor, row: int, strip: Strip) -> None:
        """Add the tiles of one row to the slab, whose first row is where they start."""
        places = itertools.product([row], *(range(a, b) for a, b in strip.tiles))
        looks = [self._look(p, flip) for flip, p in itertools.product(self.flips, places)]
        origin = (self.plan.axes[0].spans[row].start, *(start for start, _ in strip.pixels))
        unsound = torch.zeros((), device=self.device)
        for _, alike in itertools.groupby(looks, lambda look: look.sides):
            for batch in _batched(list(alike), self.plan.batch):
                values = self._run(batch)
                unsound += values.sum().isnan()
                for look, value in zip(batch, values, strict=True):
                    self._add(slab, look, value, origin)
                self.on_tiles(len(batch))
        if unsound:
            raise ResiduaError(
                f"the network gave NaN for pixels of row {origin[0]:,} or after it; a half-precision"
                " network may overflow: try precision=None, or look for NaN in the picture"
            )

    def _look(self, place: tuple[int, ...], flip: tuple[int, ...]) -> Look:
        spans = [
            (axis.mirrored if number in flip else axis.spans)[i]
            for number, (axis, i) in enumerate(zip(self.plan.axes, place, strict=True))
        ]
        return Look(place, tuple(spans))

    def _run(self, looks: tuple[Look, ...]) -> Tensor:
        """Return the probabilities (B, K, *t') of tiles of one shape."""
        sides = looks[0].sides
        tiles = self._buffer((len(looks), self.source.channels, *sides))
        for tile, look in zip(tiles, looks, strict=True):
            np.copyto(tile.numpy(), self.source.read(look.spans), casting="unsafe")
        given = tiles.to(device=self.device, dtype=self.dtype, non_blocking=True)
        cast: Any = nullcontext()
        if self.precision is not None:
            cast = torch.autocast(self.device.type, self.precision)
        try:
            with cast:
                scores = self.network(given)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise BadInput(
                f"the network does not take a tile of shape {tuple(tiles.shape)}: {reason}"
            ) from error
        self._check(scores, len(looks), sides)
        return self.activation(scores.float())

    def _buffer(self, shape: tuple[int, ...]) -> Tensor:
        """Return memory for a batch; of one shape at a time, for it may be large."""
        if shape not in self._buffers:
            self._buffers.clear()
            order = FORMATS.get(len(shape) - 2, torch.contiguous_format)
            pinned = self.device.type == "cuda"
            made = torch.empty(shape, pin_memory=pinned)
            self._buffers[shape] = made.contiguous(memory_format=order)
        return self._buffers[shape]

    def _check(self, scores: Any, batch: int, sides: tuple[int, ...]) -> None:
        each = zip(sides, self.plan.axes, strict=True)
        wanted = (batch, self.plan.classes, *(side - 2 * axis.margin for side, axis in each))
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        if given != wanted:
            raise BadInput(
                f"the network gave {given} for tiles of {'x'.join(map(str, sides))}:"
                f" expected {wanted}, (batch, classes, *size)"
            )

    def _add(self, slab: Tensor, look: Look, value: Tensor, origin: tuple[int, ...]) -> None:
        """Add what is kept of one tile's probabilities (K, *t') to the slab, mirrored back."""
        cut, there, turned, shares = [], [], [], []
        for number, (span, axis) in enumerate(zip(look.spans, self.plan.axes, strict=True)):
            # A tile of a neighbouring strip adds what lies in this one.
            low = max(span.start, origin[number])
            high = min(span.end, origin[number] + slab.shape[number])
            lead, size = low - span.start, high - low
            skip = span.skip + (span.end - high if span.mirrored else lead)
            cut.append(slice(skip, skip + size))
            there.append(slice(low - origin[number], high - origin[number]))
            if span.mirrored:
                turned.append(number)
            if axis.share is not None:
                shares.append(axis.share[look.place[number]][lead : lead + size])
        kept = value[(slice(None), *cut)].movedim(0, -1)
        if turned:
            kept = kept.flip(turned)
        target = slab[tuple(there)]
        if shares:
            target.addcmul_(kept, self._product(shares), value=1 / len(self.flips))
        elif len(self.flips) > 1:
            target.add_(kept, alpha=1 / len(self.flips))
        else:
            target.copy_(kept)

    def _product(self, shares: list[Any]) -> Tensor:
        """Return the shares of all dimensions together, (*t, 1)."""
        product = np.ones((), np.float64)
        for share in shares:
            product = np.multiply.outer(product, share)
        return torch.from_numpy(product[..., None].astype(np.float32)).to(self.device)


def _batched(looks: list[Look], size: int) -> Iterator[tuple[Look, ...]]:
    for start in range(0, len(looks), size):
        yield tuple(looks[start : start + size])


def _move_on(slab: Tensor, rows: int) -> None:
    """Drop the first rows, and let empty ones follow at the end; without a second slab."""
    for start in range(rows, len(slab), rows):
        piece = slab[start : start + rows]
        slab[start - rows : start - rows + len(piece)] = piece
    slab[max(len(slab) - rows, 0) :] = 0
