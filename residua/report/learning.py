"""What every report of a training says of its course: curves, the settings as text, the check of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from residua.report.figures import Clock, Figure, Row, curve, mark_steps, points, time_figure
from residua.report.html import plain
from residua.report.numbers import finite, plural


def learning_figures(
    clock: Clock,
    history: Sequence[Row],
    steps: Sequence[Row],
    warnings: Sequence[Row],
    *,
    score: str,
    label: str,
) -> dict[str, Figure]:
    """Draw loss, score ("accuracy"), learning rate and speed over the training, where there are any.

    score: the column of the history that is drawn as "accuracy", a share; label: what that figure shows.
    """
    faint: dict[str, Any] = {
        "mode": "lines",
        "opacity": 0.45,
        "line": {"color": "var(--series-1)", "width": 1},
    }
    step_loss = curve(clock, "each step", *points(steps, "loss"), "--series-1", **faint)
    train = curve(clock, "training", *points(history, "train_loss"), "--series-1")
    held_out = curve(clock, "validation", *points(history, "val_loss"), "--series-2")
    scores = curve(clock, "validation", *points(history, score), "--series-2")
    rates = steps if any("lr" in row for row in steps) else history
    rate = curve(clock, "learning rate", *points(rates, "lr"), "--series-3")
    fine: dict[str, Any] = {"line": {"color": "var(--series-4)", "width": 1}}
    seen = points(steps, "pictures_per_second")
    speed = curve(clock, "pictures/s", *seen, "--series-4", **fine)
    marks = mark_steps(clock, steps_of(warnings))
    drawn = {
        "loss": time_figure([step_loss, train, held_out], "Loss over training", marks=marks),
        "accuracy": time_figure([scores], label, share=True),
        "rate": time_figure([rate], "Learning rate over training", height=200),
        "speed": time_figure([speed], "Pictures a second over training", height=200),
    }
    if drawn["speed"] is not None:
        drawn["speed"]["layout"]["yaxis"]["rangemode"] = "tozero"
    if drawn["accuracy"] is not None:
        drawn["accuracy"]["layout"]["yaxis"].pop("rangemode")
    return {name: figure for name, figure in drawn.items() if figure is not None}


def steps_of(rows: Sequence[Row]) -> list[float]:
    """Return the steps that the rows name."""
    return [step for row in rows if (step := finite(row.get("step"))) is not None]


def not_finite(steps: Sequence[Row]) -> list[int]:
    """Return the steps whose recorded loss is not a finite number."""
    return [
        int(step)
        for row in steps
        if "loss" in row
        and finite(row["loss"]) is None
        and (step := finite(row.get("step"))) is not None
    ]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return a configuration as YAML, nothing for an empty one."""
    if not settings:
        return ""
    return yaml.safe_dump(plain(settings), sort_keys=False, allow_unicode=True).rstrip()


def check_text(check: object) -> str:
    """Return what the check of the data found, as text."""
    if isinstance(check, Mapping):
        parts = [
            f"{plural(len(v), k.rstrip('s'))}: {'; '.join(map(str, v))}"
            for k, v in check.items()
            if isinstance(v, list | tuple) and v
        ]
        return "\n".join(parts)
    return str(check or "")
