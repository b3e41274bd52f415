"""Figures of the report pages, described as plain data that the page's script hands to plotly.

A figure is a dict with `data` and `layout` as plotly has them, and three additions that the script
resolves in the browser: a colour "var(--name)" is read from the style sheet, so that figures follow
a change between light and dark; a trace's `x_by` holds the same x in steps, epochs and minutes; a
heat map's `cells` is a sparse list (row, column, count), so that 1,000 classes stay small.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from residua.report.numbers import finite

Figure = dict[str, Any]
Row = Mapping[str, Any]

MOST_POINTS = 2000  # of one curve; more cannot be told apart on a screen
GRID_CLASSES = 120  # beyond, a cell of the confusion matrix is smaller than can be seen
MOST_DOTS = 2000
STAGE_COLOURS = 8  # --stage-0 .. --stage-7 of the style sheet, shallow to deep


class Clock:
    """Where a step lies in epochs and minutes: linear between the rows of the history."""

    def __init__(self, history: Sequence[Row]) -> None:
        self.knots: dict[str, list[tuple[float, float]]] = {}
        for unit in ("epoch", "minutes"):
            known = {0.0: 0.0}
            for row in history:
                step, value = finite(row.get("step")), finite(row.get(unit))
                if step is not None and value is not None:
                    known[step] = value
            if len(known) > 1:
                self.knots[unit] = sorted(known.items())

    @property
    def units(self) -> list[str]:
        """The units that can be shown, the one to begin with first."""
        return [unit for unit in ("minutes", "epoch") if unit in self.knots] + ["step"]

    def at(self, unit: str, step: float) -> float:
        """Return the epoch or minute of a step; beyond the history, the last slope goes on."""
        knots = self.knots[unit]
        upper = min(max(bisect_left(knots, (step,)), 1), len(knots) - 1)
        (x0, y0), (x1, y1) = knots[upper - 1], knots[upper]
        return y0 + (y1 - y0) * (step - x0) / (x1 - x0) if x1 > x0 else y1

    def x_by(self, steps: Sequence[float]) -> dict[str, list[float]]:
        """Return the x of a curve in every unit, rounded to what a screen can show."""
        return {
            unit: [round(step) for step in steps]
            if unit == "step"
            else [float(f"{self.at(unit, step):.6g}") for step in steps]
            for unit in self.units
        }


def thin(
    xs: Sequence[float], ys: Sequence[float | None], most: int = MOST_POINTS
) -> tuple[list[float], list[float | None]]:
    """Reduce a curve to at most `most` points: means of equal runs, leaving out what is not finite.

    >>> thin([1, 2, 3, 4], [1.0, 3.0, None, 5.0], most=2)
    ([1.5, 3.5], [2.0, 5.0])
    """
    if len(xs) <= most:
        return list(xs), list(ys)
    run = -(-len(xs) // most)
    thin_xs: list[float] = []
    thin_ys: list[float | None] = []
    for start in range(0, len(xs), run):
        x_run = xs[start : start + run]
        y_run = [y for y in ys[start : start + run] if y is not None]
        thin_xs.append(sum(x_run) / len(x_run))
        thin_ys.append(sum(y_run) / len(y_run) if y_run else None)
    return thin_xs, thin_ys


def points(rows: Sequence[Row], key: str) -> tuple[list[float], list[float | None]]:
    """Return steps and values of one column, in the order of the steps; not finite reads None."""
    pairs = [
        (step, finite(row.get(key)))
        for row in rows
        if (step := finite(row.get("step"))) is not None
    ]
    pairs.sort(key=lambda pair: pair[0])
    return [step for step, _ in pairs], [value for _, value in pairs]


def curve(
    clock: Clock,
    name: str,
    xs: Sequence[float],
    ys: Sequence[float | None],
    colour: str,
    **more: Any,
) -> Figure | None:
    """Return one line over training time, or None when it holds no finite value."""
    if not any(y is not None for y in ys):
        return None
    xs, ys = thin(xs, ys)
    few = len(xs) <= 60
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers" if few else "lines",
        "name": name,
        "x_by": clock.x_by(xs),
        "y": [None if y is None else float(f"{y:.6g}") for y in ys],
        "line": {"color": f"var({colour})", "width": 2},
        "marker": {"color": f"var({colour})", "size": 5 if len(xs) > 1 else 9},
        "hovertemplate": "%{y:.4g}",
    }
    trace.update(more)
    return trace


def time_figure(
    traces: Sequence[Figure | None],
    label: str,
    *,
    height: int = 280,
    logarithmic: bool = False,
    share: bool = False,
    marks: Sequence[Figure] = (),
) -> Figure | None:
    """Put curves over training time into one figure; None when there is nothing to draw.

    marks: what `mark_steps` returned; thin upright lines at steps where something happened.
    """
    drawn = [trace for trace in traces if trace is not None]
    if not drawn:
        return None
    values = [y for trace in drawn for y in trace["y"] if y is not None]
    axis: Figure = {"rangemode": "tozero" if share else "normal"}
    if logarithmic and 0 < 3 * min(values) < max(values):
        ticks = log_ticks(min(values), max(values))
        axis |= {"type": "log", "tickmode": "array", "tickvals": ticks}
        axis["ticktext"] = [_power(tick) for tick in ticks]
    if share:
        if max(values) == min(values):
            axis["range"] = [0, 1]  # of one point alone nothing says how much is shown around it
        axis["tickformat"] = ".3~%" if 0 < max(values) - min(values) < 0.02 else ".0%"
        for trace in drawn:
            trace["hovertemplate"] = "%{y:.2%}"
    layout = {"yaxis": axis, "hovermode": "x unified", "showlegend": len(drawn) > 1}
    return {"data": drawn, "layout": layout, "height": height, "label": label, "marks": list(marks)}


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers for a logarithmic axis: powers of ten, with 2 and 5 on a short one.

    >>> log_ticks(0.1, 3), log_ticks(1e-4, 2)
    ([0.1, 0.2, 0.5, 1.0, 2.0], [0.0001, 0.001, 0.01, 0.1, 1.0])
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, (last - first) // 6)

    def ticks(digits: tuple[int, ...]) -> list[float]:
        values = [float(f"{d}e{power}") for power in range(first, last + 1, every) for d in digits]
        return [value for value in values if low / 1.05 <= value <= high * 1.05]

    return powers if len(powers := ticks((1,))) > 2 else ticks((1, 2, 5))


def _power(tick: float) -> str:
    """Write a tick: plain from 0.001 to 1,000, else as a power of ten."""
    if 1e-3 <= tick < 1e4:
        return f"{tick:g}"
    digit, power = f"{tick:.0e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if digit == "1" else f"{digit}·10{raised}"


def mark_steps(clock: Clock, steps: Sequence[float]) -> list[Figure]:
    """Describe upright lines at these steps (at most 20), in every unit of time."""
    return [
        {unit: xs[0] for unit, xs in clock.x_by([step]).items()} for step in sorted(set(steps))[:20]
    ]


def stage_colour(index: int, total: int) -> str:
    """Return the colour of a stage: from first to last along one scale."""
    return f"--stage-{round(index * (STAGE_COLOURS - 1) / max(total - 1, 1))}"


def confusion_figure(
    counts: Mapping[tuple[int, int], int],
    totals: Sequence[int],
    names: Sequence[str],
    shown: Sequence[int],
) -> Figure:
    """Describe the confusion matrix of the classes `shown`.

    counts: (truth, answer) -> pictures, non-zero cells only; totals: pictures of each true class.
    """
    place = {label: position for position, label in enumerate(shown)}
    cells = [
        (place[truth], place[answer], number)
        for (truth, answer), number in counts.items()
        if truth in place and answer in place
    ]
    wrong = sorted((cell for cell in cells if cell[0] != cell[1]), key=lambda cell: -cell[2])
    most = MOST_DOTS if len(shown) > GRID_CLASSES else len(wrong)
    return {
        "kind": "confusion",
        "label": f"Confusion matrix of {len(shown)} classes",
        "names": [names[label] for label in shown],
        "totals": [totals[label] for label in shown],
        "cells": sorted([cell for cell in cells if cell[0] == cell[1]] + wrong[:most]),
        "dots": len(shown) > GRID_CLASSES,  # cells too small to see are drawn as dots
        "drawn": min(most, len(wrong)),
        "left_out": max(0, len(wrong) - most),
        "data": [],
        "layout": {},
        "height": 0,  # as wide as it is high: the script decides
    }


def _full_bins(bins: Sequence[Row]) -> list[tuple[float, float, float]]:
    """Return (confidence, accuracy, pictures) of the bins that hold pictures."""
    return [
        (confidence, accuracy, number)
        for row in bins
        if (confidence := finite(row.get("confidence"))) is not None
        and (accuracy := finite(row.get("accuracy"))) is not None
        and (number := finite(row.get("count")))
    ]


def reliability_figure(bins: Sequence[Row]) -> Figure | None:
    """Describe the reliability diagram: accuracy over confidence, with the diagonal of honesty."""
    full = _full_bins(bins)
    if not full:
        return None
    most = max(number for _, _, number in full)
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    dots = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [said for said, _, _ in full],
        "y": [right for _, right, _ in full],
        "customdata": [number for _, _, number in full],
        "line": {"color": "var(--accent)", "width": 2},
        "marker": {
            "color": "var(--accent)",
            "opacity": 1,
            "size": [7 + 15 * (number / most) ** 0.5 for _, _, number in full],
            "line": {"color": "var(--paper)", "width": 1.5},
        },
        "hovertemplate": "says %{x:.1%}, right %{y:.1%}<br>%{customdata:,} pictures<extra></extra>",
    }
    layout = {
        "xaxis": {"range": [0, 1.03], "tickformat": ".0%", "title": {"text": "confidence"}},
        "yaxis": {"range": [0, 1.05], "tickformat": ".0%", "title": {"text": "accuracy"}},
        "showlegend": False,
    }
    label = "Reliability diagram: accuracy over confidence"
    return {"data": [diagonal, dots], "layout": layout, "height": 340, "label": label}


def sureness_figure(bins: Sequence[Row]) -> Figure | None:
    """Describe how many pictures were answered with which confidence."""
    full = _full_bins(bins)
    if not full:
        return None
    bars = {
        "type": "bar",
        "x": [said for said, _, _ in full],
        "y": [number for _, _, number in full],
        "width": 0.7 / max(len(bins), 1),
        "marker": {"color": "var(--accent)", "opacity": 0.8},
        "hovertemplate": "says %{x:.1%}: %{y:,} pictures<extra></extra>",
    }
    layout = {
        "xaxis": {"range": [0, 1.03], "tickformat": ".0%", "title": {"text": "confidence"}},
        "yaxis": {"tickformat": ",", "title": {"text": "pictures"}},
        "showlegend": False,
    }
    label = "How many pictures were answered with which confidence"
    return {"data": [bars], "layout": layout, "height": 340, "label": label}
