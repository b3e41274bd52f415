"""The loss along a line or over a plane around a network's weights.

    L(a, b) = loss(w + a d1 + b d2)

Li, Xu, Taylor, Studer, Goldstein 2018, Visualizing the Loss Landscape of Neural Nets, equation 1. Directions
are in `directions`, what a loss and its standard error are in `losses` (frozen, recalibrated or batch
statistics: three different surfaces), which points are evaluated and which interpolated in `plane`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from residua.errors import BadInput
from residua.xray.landscape.directions import (
    Component,
    State,
    cosine,
    principal,
    random_direction,
    towards,
)
from residua.xray.landscape.landscape import Landscape
from residua.xray.landscape.losses import Measure, Meter, Norms
from residua.xray.landscape.plane import Array, Explorer, Filled, Grid, controls_summary
from residua.xray.landscape.space import Direction, Space, movable
from residua.xray.landscape.storage import Store, ranks
from residua.xray.subject import Loss, Subject, tensors_in, unwrap

Progress = Callable[[float, str], None]
DIRECTIONS = ("random", "pca", "to")
MARGIN = 0.2  # of a trajectory's extent, on each side of it


def landscape(
    model: nn.Module | Subject,
    batches: Any = None,
    targets: Any = None,
    *,
    loss: Loss | None = None,
    directions: str = "random",
    trajectory: Sequence[State] = (),
    other: State | None = None,
    points: int = 51,
    span: tuple[float, float] | None = None,
    line: bool = False,
    norms: Norms = "frozen",
    calibration: Sequence[Any] = (),
    pairs: int = 1,
    seed: int = 0,
    tolerance: float = 0.5,
    quick: bool = True,
    bfloat16: bool = False,
    out: str | Path | None = None,
    facts: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Landscape:
    """Measure the loss over a plane, or along a line, around the weights of a network.

    Args:
        model: any module, or a Subject, whose batch and loss are then used.
        batches: inputs (N, ...), or a list of (inputs, targets) pairs; targets: of the inputs, (N,).
        loss: (outputs, targets) -> (N,), or one number a batch, whose error bar is then over batches.
        directions: "random", scaled filter by filter; "pca", of a trajectory; "to", towards another network.
        trajectory: state dicts, for "pca". other: the other network's state dict, for "to".
        points: on a side of the grid. span: first and last coordinate; default -1 .. 1, for "to" -0.5 .. 1.5,
            for "pca" the trajectory with a margin.
        line: along one random direction only ("to" is always a line).
        norms: "frozen", "recalibrated" or "batch". calibration: inputs; default: those of the batches.
        pairs: of random directions, each a surface; their spread says what one surface is worth.
        seed: decides the directions and which points are checked; recorded in the result.
        tolerance: by what share of the pictures' standard error interpolation may be off; 0: evaluate all.
        quick: fold norms, resize passes: the same numbers within rounding.
        bfloat16: run in half the precision, where 1e-2 relative is enough.
        out: folder for what is evaluated; the same call goes on from it, and ranks of torchrun share it.

    The model comes back untouched. Raises BadInput for anything that does not fit.
    """
    model, pictures, loss = _subject(model, batches, targets, loss)
    began = time.perf_counter()
    found = _directions(directions, model, trajectory, other, pairs, seed, line)
    grids = _grids(directions, points, span, found, line)
    measure = Measure(
        pictures, norms, loss, list(calibration) or [x for x, _ in pictures], quick, bfloat16
    )
    key = {
        "directions": directions,
        "line": line or directions == "to",
        "points": points,
        "span": [float(grids.x[0]), float(grids.x[-1]), float(grids.y[0]), float(grids.y[-1])],
        "norms": norms,
        "pairs": len(found.planes),
        "seed": seed,
        "tolerance": tolerance,
        "bfloat16": bfloat16,
        "quick": quick,
        "pictures": sum(len(tensors_in(x)[0]) for x, _ in pictures),
        "weights": _fingerprint(movable(model).values()),
        "data": _fingerprint(t for pair in pictures for t in tensors_in(pair)),
        "aim": _fingerprint(t for plane in found.planes for d in plane for t in d.values()),
    }
    rank, world = ranks()
    store = Store(None if out is None else Path(out), key, rank, world)
    surfaces = []
    for pair, plane in enumerate(found.planes):
        runner = _Runner(store, grids, measure, pair, len(found.planes), progress)
        with Space(model, plane).attached() as space, measure.of(space) as meter:
            runner.meter = meter
            surfaces.append(Explorer(grids, runner, tolerance, seed).fill())
    key["rank"], key["seconds"] = rank, time.perf_counter() - began
    return _result(grids, surfaces, found, key | (facts or {}), list(dict.fromkeys(measure.notes)))


class _Planes:
    """Directions of every surface, and what is known of them."""

    def __init__(self, planes: list[list[Direction]], component: Component | None = None) -> None:
        self.planes, self.component = planes, component


def _subject(
    model: nn.Module | Subject, batches: Any, targets: Any, loss: Loss | None
) -> tuple[nn.Module, list[tuple[Any, Any]], Loss | None]:
    """Return the module, its batches, and the loss."""
    if isinstance(model, Subject):
        if batches is None:
            batches, targets = model.inputs, model.targets
        loss = loss or model.loss
        model = model.model
    network = unwrap(model)
    if targets is None and isinstance(batches, (list, tuple)) and batches:
        pairs = [tuple(batch) for batch in batches]
        if any(len(pair) != 2 for pair in pairs):
            raise BadInput("batches: expected (inputs, targets) pairs")
    elif targets is None or batches is None:
        raise BadInput("a loss needs targets: give inputs and targets, or (inputs, targets) pairs")
    else:
        pairs = [(batches, targets)]
    if not any(tensors_in(pair) and len(tensors_in(pair)[0]) for pair in pairs):
        raise BadInput("there are no pictures to measure the loss on")
    return network, pairs, loss


def _directions(
    kind: str,
    model: nn.Module,
    trajectory: Sequence[State],
    other: State | None,
    pairs: int,
    seed: int,
    line: bool,
) -> _Planes:
    if kind not in DIRECTIONS:
        raise BadInput(f"directions {kind!r}: expected {', '.join(DIRECTIONS)}")
    if pairs < 1:
        raise BadInput(f"pairs {pairs}: expected 1 or more")
    if kind != "random" and pairs > 1:
        raise BadInput(f"pairs {pairs}: only random directions can be drawn again")
    if kind == "to":
        if other is None:
            raise BadInput('directions "to" needs the other network')
        return _Planes([[towards(model, other)]])
    if kind == "pca":
        component = principal(model, trajectory)
        return _Planes([component.directions], component)
    axes = range(1 if line else 2)
    return _Planes(
        [
            [random_direction(model, seed=seed, pair=pair, axis=axis) for axis in axes]
            for pair in range(pairs)
        ]
    )


def _grids(
    kind: str, points: int, span: tuple[float, float] | None, found: _Planes, line: bool
) -> Grid:
    if points < 2:
        raise BadInput(f"points {points}: expected 2 or more on a side")
    if span is not None and not (np.isfinite(span).all() and span[0] < span[1]):
        raise BadInput(f"range {span[0]:g}:{span[1]:g}: expected a smaller and a larger number")
    if found.component is not None and span is None:
        ends = np.vstack([found.component.path, np.zeros((1, 2))])
        low, high = ends.min(0), ends.max(0)
        margin = MARGIN * (high - low)
        sides = [(float(low[k] - margin[k]), float(high[k] + margin[k])) for k in range(2)]
    else:
        sides = [span or ((-0.5, 1.5) if kind == "to" else (-1.0, 1.0))] * 2
    x: Array
    y: Array
    x, y = (np.round(np.linspace(low, high, points), 12) + 0.0 for low, high in sides)
    return Grid(x, np.zeros(1) if line or kind == "to" else y)


def _fingerprint(tensors: Any) -> str:
    """Return a short digest of tensors' values, in their order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        values = values.float() if values.dtype == torch.bfloat16 else values
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


class _Runner:
    """Evaluates the points of a round: this rank's share, then waits for the others'."""

    def __init__(
        self, store: Store, grid: Grid, measure: Measure, pair: int, pairs: int, progress: Any
    ) -> None:
        self.store, self.grid, self.measure, self.progress = store, grid, measure, progress
        self.pair, self.pairs = pair, pairs
        self.total = grid.shape[0] * grid.shape[1]
        self.meter: Meter | None = None

    def __call__(
        self, name: str, decide: Callable[[], list[int]]
    ) -> tuple[list[int], np.ndarray[Any, np.dtype[np.float64]]]:
        assert self.meter is not None
        store, first = self.store, self.pair * self.total
        points = store.plan(f"pair-{self.pair}-{name}", decide)
        numbers = [first + point for point in points]
        try:
            for i in range(store.rank, len(points), store.world):
                if numbers[i] not in store.points:
                    self._tell(len(points), i, name)
                    where = self.grid.coordinates(points[i])[: len(self.meter.space.directions)]
                    store.put(numbers[i], self.meter.at(where))
        finally:
            store.flush()
        store.wait(numbers)
        self._tell(len(points), len(points), name)
        return points, np.stack([store.points[n] for n in numbers])

    def _tell(self, size: int, done: int, name: str) -> None:
        if self.progress is None:
            return
        first = name.endswith("-000")
        known = sum(1 for n in self.store.points if n // self.total == self.pair)
        share = min(known / self.total, 1.0) if first and size == self.total else 0.0
        text = f"surface {self.pair + 1} of {self.pairs}, {name}: {done:,} of {size:,} points"
        self.progress((self.pair + (share or 0.9 * done / max(size, 1))) / self.pairs, text)


def _result(
    grid: Grid, surfaces: list[Filled], found: _Planes, facts: dict[str, Any], notes: list[str]
) -> Landscape:
    shape = (len(surfaces), *grid.shape)
    values = np.stack([surface.values for surface in surfaces]).reshape(*shape, -1)
    facts["evaluated"] = int(sum(surface.evaluated.sum() for surface in surfaces))
    facts["interpolated"] = int(values[..., 0].size) - facts["evaluated"]
    facts["controls"] = controls_summary([row for s in surfaces for row in s.controls])
    facts["cosines"] = [cosine(*plane) for plane in found.planes if len(plane) == 2]
    path = None
    if found.component is not None:
        path = found.component.path
        facts["shares"] = found.component.shares
        facts["outside"] = found.component.outside.tolist()
    return Landscape(
        x=grid.x,
        y=grid.y,
        loss=values[..., 0],
        error=values[..., 1],
        paired=values[..., 2],
        accuracy=values[..., 3],
        evaluated=np.stack([s.evaluated for s in surfaces]).reshape(shape),
        interpolation=np.stack([s.interpolation for s in surfaces]).reshape(shape),
        path=path,
        facts=facts,
        notes=notes,
    )
