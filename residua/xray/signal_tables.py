"""The tables and the figure of the signal: sizes, growth, laws, and where number types give out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from residua.report.figures import thin
from residua.xray.followed import QUANTITIES, Followed
from residua.xray.growth import more_blocks, steps_of
from residua.xray.intervals import mean_interval
from residua.xray.moments import NOT_MEASURED, Place, Side, Sizes
from residua.xray.result import Column, Table

SIDES: tuple[tuple[Side, str], ...] = (("trunk", ""), ("branch", "branch_"))
DTYPES = ("float16", "bfloat16", "float32")

SIGNAL = (
    Column("place", "the unit, or the weight layer: its path in the network"),
    Column("stage", "a new stage begins wherever the resolution changes; counted from 0"),
    Column("second_moment", "E[v²] of the trunk, before an activation that follows", "value²"),
    Column("batch_variance", "variance of each coordinate over the samples, averaged", "value²"),
    Column("branch_second_moment", "E[v²] of the branch's end", "value²"),
    Column("branch_batch_variance", "batch variance of the branch's end", "value²"),
    Column("gradient_second_moment", "E[(dL/dv)²] of the trunk", "(loss/value)²"),
    Column("gradient_batch_variance", "batch variance of dL/dv of the trunk", "(loss/value)²"),
    Column("branch_gradient_second_moment", "E[(dL/dv)²] of the branch's end", "(loss/value)²"),
    Column("branch_gradient_batch_variance", "batch variance of the same", "(loss/value)²"),
    Column("source", "the line of code"),
)
GROWTH = (
    Column("quantity", "what grows; gradients are followed backward"),
    Column("over", "what the interval is over: blocks, batches or seeds"),
    Column("factor", "growth of the quantity, a block (or layer)"),
    Column("low", "lower end of the 95 % interval"),
    Column("high", "upper end of the 95 % interval"),
    Column("n", "blocks, batches or seeds"),
)
LAWS = (
    Column("quantity", "what is compared with the law"),
    Column(
        "law",
        "constant, doubling, explosion (batch norm), linear, factor (fitted), share (residual)",
    ),
    Column("factor", "the law's growth, a block; none: it changes with depth"),
    Column("gain", "linear: what a block adds; share: c of 1 + c · branch / trunk"),
    Column("r2", "R² of the logarithm inside the stages; 0 of the constant law by definition"),
    Column("misfit", "root mean square of ln(measured step / the law's)"),
    Column("holds", "the law's mean growth lies in the measured interval over blocks"),
    Column("chosen", "the law with the least AIC of those that hold"),
)
RANGE = (
    Column("quantity", "values forward, or their gradients backward: root of the second moment"),
    Column("dtype", "number type"),
    Column(
        "overflow", "block at which it passes the largest number; none: never by the law", "block"
    ),
    Column("underflow", "block at which it falls below the smallest normal number", "block"),
    Column("how", "measured, or foretold from the law"),
)


def signal_rows(places: Sequence[Place], sizes: Sizes) -> Iterator[dict[str, Any]]:
    """Yield the sizes at every place."""
    for place in places:
        row: dict[str, Any] = {"place": place.name, "stage": place.stage, "source": place.source}
        for way, prefix in (("forward", ""), ("gradient", "gradient_")):
            found = sizes.forward if way == "forward" else sizes.gradient
            for side, before in SIDES:
                moment, variance = found.get((place.index, side), NOT_MEASURED)
                row[f"{before}{prefix}second_moment"] = None if math.isnan(moment) else moment
                row[f"{before}{prefix}batch_variance"] = None if math.isnan(variance) else variance
        yield row


def growth_rows(
    followed: Mapping[str, Followed], over: Mapping[str, list[Sizes]], places: int
) -> Iterator[dict[str, Any]]:
    """Yield the growth of every quantity, its interval over blocks, batches and seeds."""
    for name, what in followed.items():
        rate = what.growth.rate
        if rate is None:
            continue
        estimates = [("blocks", rate)]
        way, which = QUANTITIES[name]
        for kind, found in over.items():
            curves = [
                s.curve("gradient" if way == "backward" else way, "trunk", which, places)
                for s in found
            ]
            means = [float(steps.mean()) for c in curves if len(steps := steps_of(c, what.chains))]
            if means:
                estimates.append((kind, mean_interval(means)))
        for kind, rate in estimates:
            yield {
                "quantity": name,
                "over": kind,
                "factor": as_factor(rate.value),
                "low": as_factor(rate.low),
                "high": as_factor(rate.high),
                "n": rate.n,
            }


def as_factor(value: float) -> float:
    """Return exp(value), infinite where a float cannot hold it."""
    return math.exp(value) if value < 700 else math.inf


def law_rows(followed: Mapping[str, Followed]) -> Iterator[dict[str, Any]]:
    """Yield every law beside every quantity."""
    for name, what in followed.items():
        for fit in what.growth.fits:
            yield {
                "quantity": name,
                "law": fit.law,
                "factor": fit.factor,
                "gain": fit.gain,
                "r2": fit.r2,
                "misfit": fit.misfit,
                "holds": fit.holds,
                "chosen": fit.law == what.growth.law,
            }


def range_rows(followed: Mapping[str, Followed], places: Sequence[Place]) -> list[dict[str, Any]]:
    """Say at which block, counted from 1 in the direction of travel, each number type gives out."""
    rows = []
    for quantity, name in (("values", "second_moment"), ("gradients", "gradient_second_moment")):
        what = followed[name]
        order = [p.index for p in places if p.unit is None or p.unit.parent is None]
        order = order[::-1] if quantity == "gradients" else order
        for dtype in DTYPES:
            limits = torch.finfo(getattr(torch, dtype))
            over, under = float(limits.max) ** 2, float(limits.tiny) ** 2
            row: dict[str, Any] = {"quantity": quantity, "dtype": dtype}
            reached = _reached(what.curve, order, over, under)
            row["how"] = "measured" if any(reached) else "foretold"
            row["overflow"], row["underflow"] = reached
            if not any(reached):
                row["overflow"] = _foretold(what, order, over)
                row["underflow"] = _foretold(what, order, under)
            rows.append(row)
    return rows


def _reached(
    curve: Sequence[float], order: Sequence[int], over: float, under: float
) -> tuple[int | None, int | None]:
    """Return the first blocks that are above `over` or no numbers, and below `under` but not zero."""
    measured = [(n, curve[i]) for n, i in enumerate(order, 1) if not math.isnan(curve[i])]
    above = next((n for n, value in measured if value > over), None)
    below = next((n for n, value in measured if 0 < value < under), None)
    return above, below


def _foretold(what: Followed, order: Sequence[int], bound: float) -> int | None:
    last = order[-1]
    now = what.curve[last]
    more = more_blocks(what.growth, now, bound)
    # beyond a million blocks a law says nothing about any network
    return math.ceil(len(order) + more) if more < 1e6 else None


def figure(places: Sequence[Place], table: Table, way: str) -> Mapping[str, Any]:
    """Describe the sizes by depth; way: forward or backward."""
    prefix = "gradient_" if way == "backward" else ""
    names = {
        f"{prefix}second_moment": "trunk, second moment",
        f"{prefix}batch_variance": "trunk, batch variance",
        f"branch_{prefix}second_moment": "branch, second moment",
    }
    data = []
    for colour, (name, label) in enumerate(names.items(), 1):
        # a logarithmic axis has no place for zero
        values = [None if v is None or not 0 < v < math.inf else v for v in table[name]]
        if any(v is not None for v in values):
            xs, ys = thin([float(p.index + 1) for p in places], values)
            line = {"color": f"var(--series-{colour})", "width": 2}
            trace = {"type": "scatter", "mode": "lines+markers" if len(xs) < 60 else "lines"}
            data.append(trace | {"name": label, "x": xs, "y": ys, "line": line})
    what = "weight layer" if places[0].unit is None else "unit"
    unit = "(loss / value)²" if way == "backward" else "value²"
    label = "gradient" if way == "backward" else "signal"
    layout = {
        "xaxis": {"title": {"text": f"{what}, from the input"}},
        "yaxis": {"title": {"text": f"{label} ({unit})"}, "type": "log"},
    }
    return {"data": data, "layout": layout, "height": 320, "label": f"Size of the {label} by depth"}
