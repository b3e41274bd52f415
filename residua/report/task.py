"""What the reports of trainings have in common, whatever the task: their facts, curves, data and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from residua.report import reading
from residua.report.figures import Clock, Figure
from residua.report.learning import check_text, learning_figures, not_finite, settings_text
from residua.report.numbers import count, duration, finite, percent, significant, tidy

Facts = Mapping[str, Any]

SPLITS = {"train": "Training", "val": "Validation", "test": "Test"}
DRAWN = "drawn"


@dataclass
class TaskReport:
    """What happened in one training, whatever the task; every field may be left at its default.

    history: one row per evaluation {step, epoch, minutes, train_loss, val_loss, val_score, lr}.
    score_name: what `val_score` (the history's column `score`) is, such as "mean IoU"; it lies in 0..1.
    steps: one row per recorded step {step, loss, lr, pictures_per_second}.
    warnings: rows {step, text}.
    data: {name, location, counts {split: n}, check, notes, sizes {min, median, max: [height, width]},
        drawn (bool; true as well where the name says so)}.
    model: {name, parameters, multiply_adds, paper, options}.
    """

    score: ClassVar[str] = "val_score"

    title: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    device: str = ""
    duration_s: float | None = None
    data: Facts = field(default_factory=dict)
    model: Facts = field(default_factory=dict)
    recipe: Facts = field(default_factory=dict)
    history: Sequence[Facts] = field(default_factory=list)
    steps: Sequence[Facts] = field(default_factory=list)
    score_name: str = "score"
    warnings: Sequence[Facts] = field(default_factory=list)


def training_context(facts: TaskReport) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Return what the page of any training is rendered with, and the figures of its learning."""
    clock = Clock(facts.history)
    score = f"validation {facts.score_name}"
    figures = learning_figures(
        clock,
        facts.history,
        facts.steps,
        facts.warnings,
        score=facts.score,
        label=f"{score} over training".capitalize(),
    )
    names = [str(part) for part in (facts.model.get("name"), facts.data.get("name")) if part]
    context = {
        "facts": facts,
        "title": facts.title or " on ".join(names) or "Training report",
        "units": clock.units if len(clock.units) > 1 else [],
        "learning": reading.learning_sentences(facts.history, facts.score, score),
        "not_finite": not_finite(facts.steps),
        "recipe_yaml": settings_text(facts.recipe),
        "check": check_text(facts.data.get("check")),
    }
    return context, figures


def shared_context(facts: TaskReport) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Return what the pages of segmentation and pose are rendered with, and the figures of its learning."""
    context, figures = training_context(facts)
    context |= {
        "sizes": reading.size_sentence(facts.data.get("sizes")),
        "splits": {
            SPLITS.get(str(split), str(split)): int(finite(number) or 0)
            for split, number in (facts.data.get("counts") or {}).items()
        },
        "drawn": is_drawn(facts.data),
    }
    return context, figures


def is_drawn(data: Facts) -> bool:
    """Return whether the samples were drawn by a program: the data say so, or their name does.

    >>> is_drawn({"name": "cells (drawn)"}), is_drawn({"name": "my drawings"})
    (True, False)
    """
    return bool(data.get(DRAWN)) or f"({DRAWN})" in str(data.get("name") or "")


def task_headline(
    facts: TaskReport, does: str, figure: object, inside: Sequence[str]
) -> reading.Headline:
    """Say in one sentence what was reached, on what, how long it took and where.

    does: what the network does, up to the figure ("segments 3 classes with a mean IoU of"); figure: a
    share; inside: what stands in brackets after it.
    """
    subject = str(facts.model.get("name") or "") or "The network"
    took = (
        f"trained in {duration(facts.duration_s)}" if finite(facts.duration_s) is not None else ""
    )
    how = " ".join(part for part in (took, f"on {facts.device}" if facts.device else "") if part)
    if finite(figure) is None:
        if not facts.model.get("name") and not how:
            return reading.Headline("Nothing is recorded of this training yet.")
        return reading.Headline(f"{subject}{', ' + how if how else ''}: not evaluated yet.")
    brackets = f" ({', '.join(inside)})" if inside else ""
    return reading.Headline(
        f"{subject} {does} ", percent(figure), brackets + (f", {how}." if how else ".")
    )


def scored_on(summary: Facts, one: str, many: str) -> list[str]:
    """Say how many things were scored, and of which split; nothing where it is not known."""
    number = finite(summary.get("n"))
    if not number:
        return []
    kind = reading.split_word(summary.get("split"))
    return [f"{count(number)} {kind + ' ' if kind else ''}{one if number == 1 else many}"]


def given_interval(summary: Facts) -> tuple[float, float] | None:
    """Return summary["interval"], low and high, where both are numbers."""
    ends = [
        number for value in summary.get("interval") or () if (number := finite(value)) is not None
    ]
    return (ends[0], ends[1]) if len(ends) == 2 else None


def more_scores(summary: Facts) -> list[dict[str, str]]:
    """Return further scores of the task as text: rows {name, value, what} of summary["more"].

    A value within 0..1 is a share unless the row says `share: False`; what is no number is absent.
    """
    rows = []
    for row in summary.get("more") or ():
        share = row.get("share", True)
        value = percent(row.get("value")) if share else significant(row.get("value"))
        rows.append(
            {"name": str(row.get("name") or ""), "value": value, "what": str(row.get("what") or "")}
        )
    return rows


def spacing_text(spacing: object, unit: str) -> str:
    """Write a spacing (z, y, x) with its unit.

    >>> spacing_text((1.5, 0.5, 0.5), "mm")
    '1.5 × 0.5 × 0.5 mm'
    """
    values = [finite(v) for v in spacing] if isinstance(spacing, list | tuple) else []
    if not values or None in values:
        return ""
    return " × ".join(tidy(v) for v in values) + (f" {unit}" if unit else "")


def shown_score(value: object) -> float:
    """Return a score to sort by, worst first: what is no number comes last."""
    number = finite(value)
    return float("inf") if number is None else number
