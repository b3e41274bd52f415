"""A plan of tiles for one picture: which, in which order, and how much memory they take.

    memory = batch x tile x (maps of the network that live at one time + what goes in and comes out)
           + slab: classes x rows of a tile x breadth of a strip x 4 bytes
           + the result, where it is kept in memory

Tiles are swept along the first dimension: a slab as high as a tile holds the sums; rows that no later tile
touches are written out and the slab moves on. Where a slab as broad as the picture is too much, the picture
is divided into strips along the other dimensions, each swept for itself; blended tiles on a border of two
strips are then computed for both. A sum has the same terms in the same order whatever the strips.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from residua.errors import BadInput
from residua.tiles.geometry import Geometry
from residua.tiles.grid import Axis, Sight, blend_axis, exact_axis

MB = 2**20
DEFAULT_MB = 2048
DEFAULT_TILE = {1: 8192, 2: 256, 3: 96}  # pixels a side, blending
DEFAULT_OVERLAP = 0.5  # Isensee et al. 2021: half a tile
DEFAULT_BATCH = 4
SCRATCH = 2.0  # times the maps: what convolutions may set aside while they compute
BYTES = {"float32": 4, "float16": 2, "classes": 1}
UNKNOWN_MAPS = 4096  # bytes of maps a pixel where the network cannot be followed: 16 of 64 channels


@dataclass(frozen=True)
class Strip:
    """For each dimension but the first: the tiles [first, last) and the pixels [start, end)."""

    tiles: tuple[tuple[int, int], ...]
    pixels: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Plan:
    """What `predict` will do. `reason` says in one line why tiles are exact, or why they are blended."""

    axes: tuple[Axis, ...]
    strips: tuple[Strip, ...]
    classes: int
    batch: int
    exact: bool
    reason: str
    network_bytes: int
    slab_bytes: int
    result_bytes: int

    @property
    def tile(self) -> tuple[int, ...]:
        """The most pixels that a tile reads, in each dimension."""
        return tuple(axis.window for axis in self.axes)

    @property
    def tiles(self) -> int:
        """Tiles that are computed, those of two strips twice."""
        rows = len(self.axes[0].spans)
        return rows * sum(math.prod(b - a for a, b in strip.tiles) for strip in self.strips)

    @property
    def steps(self) -> int:
        """Slabs after each of which a run that was killed can go on."""
        return len(self.strips) * len(self.axes[0].spans)

    def memory(self, in_memory: bool) -> int:
        """Return the bytes that the prediction needs beside the network's weights and the picture."""
        return self.network_bytes + self.slab_bytes + self.result_bytes * in_memory


@dataclass(frozen=True)
class Wish:
    """What the caller asked for; see `predict`."""

    classes: int
    tile: int | Sequence[int] | None = None
    overlap: float | None = None
    exact: bool | None = None
    blend: str = "gaussian"
    batch: int | None = None
    memory_mb: float | None = None
    dtype: str = "float32"
    flips: Sequence[int] = ()


def make_plan(
    shape: Sequence[int], geometry: Geometry, wish: Wish, *, channels: int, in_memory: bool
) -> Plan:
    """Return the plan for a picture of spatial `shape`.

    Raises BadInput, in one line, for a tile that is smaller than what the network sees, or one that is
    more than `memory_mb` holds.
    """
    result = math.prod(shape) * BYTES[wish.dtype] * (1 if wish.dtype == "classes" else wish.classes)
    budget = int((wish.memory_mb or DEFAULT_MB) * MB)
    if in_memory and result > budget / 2:
        raise BadInput(
            f"the result has {result / MB:,.0f} MB, more than half of memory_mb={budget / MB:,.0f}:"
            " name a file for it with out="
        )
    planner = _Planner(tuple(shape), geometry, wish, channels, budget - result * in_memory)
    return planner.plan(result)


class _Planner:
    def __init__(
        self, shape: tuple[int, ...], geometry: Geometry, wish: Wish, channels: int, budget: int
    ) -> None:
        self.shape, self.wish, self.budget = shape, wish, budget
        self.geometry = geometry
        self.sights = [Sight.of(geometry, i, i in wish.flips) for i in range(len(shape))]
        maps = geometry.bytes_a_pixel or UNKNOWN_MAPS
        # In: the picture as it is read and as it goes in. Out: scores, probabilities, their sum.
        self.bytes_a_pixel = maps * SCRATCH + 4 * (3 * channels + 3 * wish.classes)
        self.asked = None if wish.tile is None else _each(wish.tile, len(shape), "tile")

    def plan(self, result: int) -> Plan:
        """Choose exact or blended tiles, their size, the strips."""
        axes, reason = self._exact() if self.wish.exact is not False else (None, "as asked for")
        if axes is None and self.wish.exact:
            raise BadInput(f"exact tiles are not possible: {reason}")
        exact = axes is not None
        if axes is None:
            axes = self._blended(reason)
        tile = math.prod(axis.window for axis in axes) * self.bytes_a_pixel
        batch = self._batch(tile, axes)
        left = self.budget - int(tile * batch)
        strips = _strips(axes, self.wish.classes, left)
        return Plan(
            axes=axes,
            strips=strips,
            classes=self.wish.classes,
            batch=batch,
            exact=exact,
            reason=reason,
            network_bytes=int(tile * batch),
            slab_bytes=max(_slab(axes, strip, self.wish.classes) for strip in strips),
            result_bytes=result,
        )

    def _exact(self) -> tuple[tuple[Axis, ...] | None, str]:
        if not self.geometry.local:
            return None, self.geometry.why
        for n, stride in zip(self.shape, self.geometry.stride, strict=True):
            if self.geometry.resizes and n % stride:
                return (
                    None,
                    f"the network resizes maps to sizes, and {n} is no multiple of {stride}",
                )
        cores = self._asked_cores() if self.asked else self._fitting_cores()
        if isinstance(cores, str):
            return None, cores
        axes = zip(self.shape, cores, self.sights, strict=True)
        seen = max(max(*sight.halo, sight.margin) for sight in self.sights)
        return (
            tuple(exact_axis(n, core, sight) for n, core, sight in axes),
            f"the network is fully convolutional and sees at most {seen} pixels to a side",
        )

    def _asked_cores(self) -> list[int] | str:
        assert self.asked is not None
        cores = []
        for n, tile, sight in zip(self.shape, self.asked, self.sights, strict=True):
            core = n if tile >= sight.whole(n) else sight.core(tile)
            if core < 1:
                least = min(sight.window(sight.stride), sight.whole(n))
                return f"tile={tile} is too small for what the network sees: {least} or more"
            cores.append(min(core, n))
        return cores

    def _fitting_cores(self) -> list[int] | str:
        """Return the largest cores that fit; where they are most halo, why not."""
        pieces = [1] * len(self.shape)
        while True:
            cores = [
                n if k == 1 else min(-(-n // (k * s.stride)) * s.stride, n)
                for n, k, s in zip(self.shape, pieces, self.sights, strict=True)
            ]
            windows = [
                min(sight.whole(n), sight.window(core))
                for n, core, sight in zip(self.shape, cores, self.sights, strict=True)
            ]
            if math.prod(windows) * self.bytes_a_pixel <= self.budget * 0.6:
                break
            can = [i for i, s in enumerate(self.sights) if cores[i] > s.stride]
            if not can:
                return f"memory_mb={self.budget / MB:,.0f} does not hold one tile of {windows}"
            pieces[max(can, key=lambda i: cores[i])] += 1
        cut = sum(core < n for core, n in zip(cores, self.shape, strict=True))
        if self.wish.exact is None and cut and math.prod(windows) > 2**cut * math.prod(cores):
            return f"of the largest tile that fits in memory, {windows}, too little would be kept"
        return cores

    def _blended(self, reason: str) -> tuple[Axis, ...]:
        overlap = DEFAULT_OVERLAP if self.wish.overlap is None else self.wish.overlap
        tile = self.asked
        if tile is None:
            default = DEFAULT_TILE[len(self.shape)]
            tile = [
                min(s.legal(max(default, 2 * s.margin + 1)), s.whole(n))
                for n, s in zip(self.shape, self.sights, strict=True)
            ]
            while math.prod(tile) * self.bytes_a_pixel > self.budget * 0.6:
                largest = max(range(len(tile)), key=lambda i: tile[i])
                tile[largest] -= self.sights[largest].stride
                if tile[largest] <= 2 * self.sights[largest].margin:
                    raise BadInput(f"memory_mb={self.budget / MB:,.0f} does not hold one tile")
        for side, sight in zip(tile, self.sights, strict=True):
            if sight.legal(side) != side or side <= 2 * sight.margin:
                raise BadInput(
                    f"tile={side}: the network takes sides of {sight.remainder} plus a multiple of"
                    f" {sight.stride}, such as {sight.legal(max(side, 2 * sight.margin + 1))}"
                )
        each = zip(self.shape, tile, self.sights, strict=True)
        return tuple(blend_axis(n, t, overlap, s, self.wish.blend) for n, t, s in each)

    def _batch(self, tile: float, axes: tuple[Axis, ...]) -> int:
        across = math.prod(len(axis.spans) for axis in axes[1:])
        wanted = self.wish.batch or min(DEFAULT_BATCH, across)
        fitting = int(self.budget * 0.6 // tile)
        if fitting < (self.wish.batch or 1):
            sides = "x".join(str(axis.window) for axis in axes)
            raise BadInput(
                f"a batch of {self.wish.batch or 1} tiles of {sides} needs about"
                f" {(self.wish.batch or 1) * tile / 0.6 / MB:,.0f} MB, of which memory_mb leaves"
                f" {self.budget / MB:,.0f}: choose smaller tiles, a smaller batch or more memory"
            )
        return min(wanted, fitting)


def _each(value: int | Sequence[int], dims: int, name: str) -> list[int]:
    sides = [value] * dims if isinstance(value, int) else list(value)
    if len(sides) != dims or any(side < 1 for side in sides):
        raise BadInput(f"{name}={value}: expected a side, or {dims} sides, of 1 pixel or more")
    return sides


def _strips(axes: tuple[Axis, ...], classes: int, budget: int) -> tuple[Strip, ...]:
    """Divide the other dimensions than the first until a slab fits."""
    pieces = [1] * (len(axes) - 1)
    while True:
        strips = [
            Strip(tuple(t for t, _ in parts), tuple(p for _, p in parts))
            for parts in itertools.product(
                *(_pieces(axis, k) for axis, k in zip(axes[1:], pieces, strict=True))
            )
        ]
        needed = max(_slab(axes, strip, classes) for strip in strips)
        if needed <= budget:
            return tuple(strips)
        can = [i for i, axis in enumerate(axes[1:]) if pieces[i] < len(axis.spans)]
        if not can:
            raise BadInput(
                f"memory_mb is too little: the sums of one row of tiles need {needed / MB:,.0f} MB,"
                f" and {max(budget, 0) / MB:,.0f} MB are left: choose smaller tiles or more memory"
            )
        pieces[max(can, key=lambda i: len(axes[1 + i].spans) / pieces[i])] += 1


def _pieces(axis: Axis, n: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return the tiles and the pixels of n pieces of a dimension, cut where tiles begin."""
    count = len(axis.spans)
    cuts = [round(i * count / n) for i in range(n + 1)]
    pieces = []
    for first, last in itertools.pairwise(cuts):
        start = axis.spans[first].start
        end = axis.spans[last].start if last < count else axis.length
        touching = [i for i, s in enumerate(axis.spans) if s.start < end and s.end > start]
        pieces.append(((touching[0], touching[-1] + 1), (start, end)))
    return pieces


def _slab(axes: tuple[Axis, ...], strip: Strip, classes: int) -> int:
    breadth = math.prod(end - start for start, end in strip.pixels)
    return 4 * classes * axes[0].kept * breadth
