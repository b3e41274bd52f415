"""Figures of the report pages, described as plain data that the page's script hands to plotly.

A figure is a dict with `data` and `layout` as plotly has them, and three additions that the script
resolves in the browser: a colour "var(--name)" is read from the style sheet, so that figures follow
a change between light and dark; a trace's `x_by` holds the same x in steps, epochs and minutes; a
heat map's `cells` is a sparse list (row, column, count), so that 1,000 classes stay small.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

from residua.report.numbers import finite

Figure = dict[str, Any]
Row = Mapping[str, Any]

MOST_POINTS = 2000  # of one curve; more cannot be told apart on a screen
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
            unit: list(steps)
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
    if logarithmic and min(values) > 0:
        spread = max(values) / min(values)
        axis |= {"type": "log", "dtick": 1 if spread > 30 else "D2", "exponentformat": "power"}
        for trace in drawn:
            trace["hovertemplate"] = "%{y:.3g}"
    if share:
        axis["tickformat"] = ".3~%" if max(values) - min(values) < 0.02 else ".0%"
        for trace in drawn:
            trace["hovertemplate"] = "%{y:.2%}"
    layout = {"yaxis": axis, "hovermode": "x unified", "showlegend": len(drawn) > 1}
    return {"data": drawn, "layout": layout, "height": height, "label": label, "marks": list(marks)}


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
    cells = sorted(
        (place[truth], place[answer], number)
        for (truth, answer), number in counts.items()
        if truth in place and answer in place
    )
    return {
        "kind": "confusion",
        "label": f"Confusion matrix of {len(shown)} classes",
        "names": [names[label] for label in shown],
        "totals": [totals[label] for label in shown],
        "cells": cells,
        "data": [],
        "layout": {},
        "height": 0,  # as wide as it is high: the script decides
    }


def reliability_figure(bins: Sequence[Row]) -> Figure | None:
    """Describe the reliability diagram: accuracy over confidence, with the diagonal of honesty."""
    full = [
        (confidence, accuracy, finite(row.get("count")))
        for row in bins
        if (confidence := finite(row.get("confidence"))) is not None
        and (accuracy := finite(row.get("accuracy"))) is not None
        and finite(row.get("count")) != 0
    ]
    if not full:
        return None
    most = max((number or 0 for _, _, number in full), default=0) or 1
    diagonal = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": "var(--muted)", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
        "name": "honest",
    }
    dots = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [row[0] for row in full],
        "y": [row[1] for row in full],
        "customdata": [row[2] for row in full],
        "line": {"color": "var(--accent)", "width": 2},
        "marker": {
            "color": "var(--accent)",
            "size": [7 + 15 * ((row[2] or 0) / most) ** 0.5 for row in full],
            "line": {"color": "var(--paper)", "width": 1.5},
        },
        "hovertemplate": "says %{x:.1%}, right %{y:.1%}<br>%{customdata:,} pictures<extra></extra>",
        "name": "this network",
    }
    layout = {
        "xaxis": {"range": [0, 1.03], "tickformat": ".0%", "title": {"text": "confidence"}},
        "yaxis": {"range": [0, 1.05], "tickformat": ".0%", "title": {"text": "right"}},
        "showlegend": False,
    }
    label = "Reliability diagram: accuracy over confidence"
    return {"data": [diagonal, dots], "layout": layout, "height": 340, "label": label}
