"""A grid from coarse to fine: interpolate where the surface is predictable, evaluate where it is not.

    1. evaluate every fifth line of the grid, and both edges
    2. predict all other points (residua.xray.landscape.interpolation); where the prediction may be off by
       more than `tolerance` times the standard error that the pictures leave anyway, evaluate, worst first
    3. repeat until no such point is left

Every round also evaluates points drawn at random, whose predictions were made before: their errors show what
the predictions are worth. If they are larger than foretold, every later standard error grows by that
factor. At an interpolated point the stated standard error is that of the pictures and of the interpolation:

    se^2 = se_pictures^2 + se_interpolation^2
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residua.xray.landscape.interpolation import Surface
from residua.xray.landscape.losses import QUANTITIES

Array = NDArray[np.float64]
# (name of the round, what decides its points) -> values of the points, (n, quantities)
Run = Callable[[str, Callable[[], list[int]]], tuple[list[int], Array]]

COARSE = 5
CONTROLS = 8  # random points a round
LEAST_ROUND = 24
LOSS, ERROR, PAIRED, ACCURACY = range(len(QUANTITIES))


@dataclass(frozen=True)
class Grid:
    """Lines at x (columns) and y (rows); point number row * columns + column. A line has one row."""

    x: Array
    y: Array

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.y), len(self.x)

    def coordinates(self, point: int) -> tuple[float, float]:
        """Return (x, y) of a point."""
        row, column = divmod(point, len(self.x))
        return float(self.x[column]), float(self.y[row])

    def scaled(self, points: Sequence[int] | NDArray[np.int64]) -> Array:
        """Return coordinates in 0 .. 1, (n, 2)."""
        rows, columns = np.divmod(np.asarray(points, dtype=np.int64), len(self.x))
        return np.stack(
            [columns / max(len(self.x) - 1, 1), rows / max(len(self.y) - 1, 1)], axis=1
        ).astype(np.float64)

    def coarse(self) -> list[int]:
        """Return the points on every fifth line, edges and middle included."""
        lines = [_lines(n) for n in self.shape]
        return [int(row * len(self.x) + column) for row in lines[0] for column in lines[1]]


def _lines(n: int) -> Array:
    steps = 2 * -(-(n - 1) // (2 * COARSE))  # even: the middle is one of them
    return np.unique(np.round(np.linspace(0, n - 1, steps + 1)))


@dataclass
class Filled:
    """A grid with a value everywhere: values (points, quantities), which were evaluated, and how sure.

    interpolation: standard error of interpolation, 0 where evaluated. controls: (predicted, its standard
    error, found) of the random points.
    """

    values: Array
    evaluated: NDArray[np.bool_]
    interpolation: Array
    controls: list[tuple[float, float, float]] = field(default_factory=list)


class Explorer:
    """Fills one grid in rounds."""

    def __init__(self, grid: Grid, run: Run, tolerance: float, seed: int) -> None:
        """Take `run`, which evaluates points; tolerance 0 evaluates all."""
        self.grid, self.run, self.tolerance = grid, run, tolerance
        self.total = grid.shape[0] * grid.shape[1]
        self.seed = seed
        self.known: dict[int, Array] = {}
        self.latest: list[int] = []
        self.controls: list[tuple[float, float, float]] = []
        self.surprises: list[float] = []  # squared: errors over what the surface foretold
        self.unsure = 1.0  # by how much errors exceed what was foretold

    def fill(self) -> Filled:
        """Evaluate until the rest is predictable."""
        whole = self.tolerance <= 0 or min(self.grid.shape) == 1
        self._round(0, (lambda: list(range(self.total))) if whole else self.grid.coarse)
        number = 1
        while len(self.known) < self.total:
            values, interpolation, off = self._predicted()
            if not off.any():
                return self._filled(values, interpolation)
            self._round(number, partial(self._choose, off, interpolation, number))
            self._learn(values, interpolation)
            number += 1
        return self._filled(np.stack([self.known[i] for i in range(self.total)]), None)

    def _round(self, number: int, choose: Callable[[], list[int]]) -> None:
        points, values = self.run(f"round-{number:03d}", choose)
        self.latest = points
        self.known |= dict(zip(points, values, strict=True))

    def _predicted(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return values everywhere, the error of interpolation, and where that is too large."""
        points = np.array(sorted(self.known))
        values = np.full((self.total, len(QUANTITIES)), np.nan)
        values[points] = np.stack([self.known[int(i)] for i in points])
        error = np.full(self.total, np.inf)
        error[points] = 0.0
        good = points[np.isfinite(values[points][:, [LOSS, ERROR]]).all(1)]
        rest = np.array([i for i in range(self.total) if i not in self.known])
        rest = rest[_beside(self.grid, rest, points, np.isin(points, good))]
        if len(good) > 2 and len(rest):
            values[rest], error[rest] = self._interpolated(values[good], good, rest)
        error *= self.unsure
        with np.errstate(invalid="ignore"):
            off = ~(error <= self.tolerance * values[:, ERROR])
        off[points] = False
        return values, error, off

    def _interpolated(
        self, values: Array, good: NDArray[np.int64], rest: NDArray[np.int64]
    ) -> tuple[Array, Array]:
        """Interpolate losses and their errors as logarithms where they are positive."""
        logs = bool((values[:, [LOSS, ERROR]] > 0).all())
        known = np.nan_to_num(values)
        if logs:
            known[:, [LOSS, ERROR]] = np.log(known[:, [LOSS, ERROR]])
        found, error = Surface(self.grid.scaled(good), known).predict(self.grid.scaled(rest))
        if logs:
            found[:, [LOSS, ERROR]] = np.exp(found[:, [LOSS, ERROR]])
            error = error * found[:, LOSS]
        found[:, PAIRED] = np.maximum(found[:, PAIRED], 0.0)
        found[:, ACCURACY] = np.clip(found[:, ACCURACY], 0.0, 1.0)
        found[:, np.isnan(values).all(0)] = np.nan
        return found, error

    def _choose(self, off: NDArray[np.bool_], error: Array, number: int) -> list[int]:
        """Return the points of the next round: the worst that are no neighbours, and random ones."""
        size = max(LEAST_ROUND, len(self.known) // 4)
        order = [int(i) for i in np.argsort(-error, kind="stable") if off[i]]
        taken = np.zeros(self.grid.shape, dtype=bool)
        chosen: list[int] = []
        for point in order:
            row, column = divmod(point, self.grid.shape[1])
            if len(chosen) < size and not taken[row, column]:
                chosen.append(point)
                taken[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
        unknown = [i for i in range(self.total) if i not in self.known]
        drawn = np.random.default_rng([self.seed, number]).permutation(unknown)[:CONTROLS]
        return [int(i) for i in drawn] + [i for i in chosen if i not in set(drawn.tolist())]

    def _learn(self, values: Array, error: Array) -> None:
        """Compare the random points of this round, which come first, with what was foretold."""
        for point in self.latest[:CONTROLS]:
            if np.isfinite(error[point]) and np.isfinite(self.known[point][LOSS]):
                found = float(self.known[point][LOSS])
                predicted, stated = float(values[point, LOSS]), float(error[point])
                self.controls.append((predicted, stated, found))
                self.surprises.append(
                    ((predicted - found) * self.unsure / max(stated, 1e-300)) ** 2
                )
        if self.surprises:
            self.unsure = max(1.0, float(np.sqrt(np.mean(self.surprises))))

    def _filled(self, values: Array, interpolation: Array | None) -> Filled:
        evaluated = np.zeros(self.total, dtype=bool)
        evaluated[list(self.known)] = True
        if interpolation is None:
            interpolation = np.zeros(self.total)
        values = values.copy()
        for column in (ERROR, PAIRED):
            values[:, column] = np.hypot(values[:, column], interpolation)
        return Filled(values, evaluated, interpolation, self.controls)


def _beside(
    grid: Grid, rest: NDArray[np.int64], points: NDArray[np.int64], good: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Say of each point whether the evaluated one nearest to it is finite: only then it is predictable."""
    if good.all() or not len(rest):
        return np.ones(len(rest), dtype=bool)
    distance = np.linalg.norm(grid.scaled(rest)[:, None] - grid.scaled(points)[None], axis=2)
    return np.asarray(good[distance.argmin(1)])


def controls_summary(controls: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Return how many points were foretold, and the root mean square of error and of stated error."""
    if not controls:
        return {"points": 0, "error": None, "stated": None}
    rows = np.array(controls)
    return {
        "points": len(rows),
        "error": float(np.sqrt(np.mean(np.square(rows[:, 0] - rows[:, 2])))),
        "stated": float(np.sqrt(np.mean(np.square(rows[:, 1])))),
    }
