"""Gradients of single paths, drawn at random: the estimate of Veit, Wilber & Belongie 2016, figure 6.

    path p of length k: through the branch of k of the K units, past the branches of the others
    mean_k = mean over drawn paths of |g_p|;   contribution_k = C(K, k) mean_k

The mean of norms is another quantity than the norm of the sum over all paths (exact.py): single paths pull in
different directions, so C(K, k) mean_k is at least |g_k|, and often far above. Where there are no more
paths of a length than draws, all are taken, and the mean is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, islice
from random import Random

import torch

from residua.xray.paths.counting import Nesting, times_paths
from residua.xray.paths.exact import Part
from residua.xray.paths.forward import Handlers, Samples
from residua.xray.paths.lengths import stacked, through, weighed
from residua.xray.units import Unit

MOST_LENGTHS = 60  # beyond, evenly spaced ones are drawn


@dataclass
class Drawn:
    """The norms |g_p| of the paths of one length that were drawn."""

    length: int
    norms: list[float]
    paths: int

    @property
    def mean(self) -> float:
        """The mean norm of a path."""
        return sum(self.norms) / len(self.norms)

    @property
    def spread(self) -> float | None:
        """The standard deviation over paths; None of a single one."""
        if len(self.norms) < 2:
            return None
        squares = sum((norm - self.mean) ** 2 for norm in self.norms)
        return math.sqrt(squares / (len(self.norms) - 1))

    @property
    def contribution(self) -> float:
        """Veit et al.'s: the number of paths times the mean norm of one."""
        return times_paths(self.mean, self.paths)


def why_not(nest: Nesting) -> str:
    """Return why single paths cannot be followed through these units, or ""."""
    if not nest.in_a_row:
        return "units lie in other units or beside them"
    if any(unit.merge == "gate" for unit in nest.trunk):
        return "a gate is on shortcut and branch alike"
    if any(len(unit.sites.shortcut) > 1 for unit in nest.trunk):
        return "shortcuts are lists of earlier values"
    return ""


def sampled(
    samples: Samples,
    part: Part,
    draws: int,
    seed: int,
    tick: Callable[[float], None],
    most: int = MOST_LENGTHS,
) -> list[Drawn]:
    """Return the norms of up to `draws` paths of each of about `most` lengths, for the first sample."""
    chosen = _choose(len(part.trunk), draws, seed, most)
    place = {unit.index: i for i, unit in enumerate(part.trunk)}
    taken = torch.zeros(0)  # (paths, units) of the backward pass that is next

    def branch(unit: Unit, value: torch.Tensor) -> torch.Tensor:
        return through(value, lambda g: weighed(g, taken[:, place[unit.index]]))

    def shortcut(unit: Unit, value: torch.Tensor) -> torch.Tensor:
        return through(value, lambda g: weighed(g, 1 - taken[:, place[unit.index]]))

    handlers = Handlers(branch, shortcut=shortcut)
    norms: list[float] = []
    with samples.forward(samples.groups[0], part.start, [], handlers) as kept:
        value = kept.values[part.start]
        for first in range(0, len(chosen), part.lengths):
            rows = chosen[first : first + part.lengths]
            taken = torch.zeros(len(rows), len(part.trunk)).to(value)
            for row, path in enumerate(rows):
                taken[row, list(path)] = 1
            found = stacked(kept.scalar, value, torch.ones(len(rows)).to(kept.scalar))
            norms += [float(row.double().norm()) for row in found.detach()]
            tick((first + len(rows)) / len(chosen))
    by_length: dict[int, list[float]] = {}
    for path, norm in zip(chosen, norms, strict=True):
        by_length.setdefault(len(path), []).append(norm)
    return [Drawn(length, found, part.paths[length]) for length, found in by_length.items()]


def _choose(units: int, draws: int, seed: int, most: int) -> list[tuple[int, ...]]:
    """Draw paths of each length without putting back: tuples of the units whose branch they take."""
    random = Random(seed)
    steps = min(units, most)
    found: list[tuple[int, ...]] = []
    for length in sorted({round(i * units / steps) for i in range(steps + 1)}):
        if math.comb(units, length) <= draws:
            found += combinations(range(units), length)
            continue
        new: set[tuple[int, ...]] = set()
        while len(new) < draws:
            new.add(tuple(sorted(random.sample(range(units), length))))
        found += islice(sorted(new), draws)
    return found
