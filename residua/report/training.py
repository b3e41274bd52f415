"""The report of one training: everything that a person wants to see of a run, on one page.

`TrainingReport` is plain data (no torch); any part may be left out and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from residua.report import reading
from residua.report.figures import (
    Clock,
    Figure,
    confusion_figure,
    curve,
    mark_steps,
    reliability_figure,
    stage_colour,
    sureness_figure,
    time_figure,
)
from residua.report.html import picture_uri, render_page, write_page
from residua.report.learning import steps_of
from residua.report.numbers import finite, percent_range, plural
from residua.report.task import TaskReport, scored_on, task_headline, training_context
from residua.report.words import quantity

WHOLE_MATRIX = 40  # classes up to which the whole confusion matrix is readable with its names
CONFUSED_CLASSES = 20  # classes shown in the close-up beyond that
MATRIX_TABLE = 20  # classes up to which the matrix is also given as a table
CONFUSIONS = 10  # sentences about pairs
MISTAKES_SHOWN = 24  # pictures before "more"
SMALL_PICTURE = 96  # pixels of the longer side below which a picture is shown pixel by pixel


@dataclass
class TrainingReport(TaskReport):
    """What happened in one training of a classification; every field may be left at its default.

    history: one row per evaluation {step, epoch, minutes, train_loss, val_loss, val_accuracy, lr}.
    confusion: counts, rows are the truth, in the order of `classes`.
    per_class: rows {name, precision, recall, f1, support}.
    calibration: {ece, bins: [{confidence, accuracy, count}]}.
    mistakes: rows {name, picture (H, W, C) uint8, truth, predicted, confidence,
        truth_confidence}, worst first; truth and predicted are names or label numbers.
    summary: {accuracy, top5, loss, split ("val" or "test"), n, interval (low, high)}; shares lie
        in 0..1.
    recorder: {stages: [name], traces: {quantity: {steps, values: {stage: [...]}}}, and, if wanted,
        definitions: {quantity: text}, which replaces the page's own words on what is measured}.
    data: what `TaskReport` says, but counts {split: {class: n} or [n, ...]}, and {classes}.
    """

    score: ClassVar[str] = "val_accuracy"

    score_name: str = "accuracy"
    classes: Sequence[str] = field(default_factory=list)
    confusion: Sequence[Sequence[int]] = field(default_factory=list)
    per_class: Sequence[Mapping[str, Any]] = field(default_factory=list)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    mistakes: Sequence[Mapping[str, Any]] = field(default_factory=list)
    summary: Mapping[str, Any] = field(default_factory=dict)
    recorder: Mapping[str, Any] = field(default_factory=dict)


def write_training_report(path: Path, facts: TrainingReport) -> None:
    """Write the page of a training to `path`: one HTML file that needs no network.

    The file is written aside and renamed, so an older report stays whole until the new one is.
    Raises ResiduaError when it cannot be written.
    """
    write_page(path, training_page(facts))


def training_page(facts: TrainingReport) -> str:
    """Return the page of a training as HTML text."""
    context, figures = training_context(facts)
    matrix = reading.Matrix.of(facts.confusion, [str(name) for name in facts.classes])
    figures |= _matrix_figures(matrix)
    recorder = _recorder(facts, figures)
    bins = facts.calibration.get("bins") or ()
    for name, drawn in (("reliability", reliability_figure(bins)), ("sure", sureness_figure(bins))):
        if drawn is not None:
            figures[name] = drawn
    interval = reading.interval(facts.summary)
    inside = [percent_range(*interval)] if interval is not None else []
    context |= {
        "headline": task_headline(
            facts,
            f"recognises {plural(len(facts.classes), 'class', 'classes')} at",
            facts.summary.get("accuracy"),
            inside + scored_on(facts.summary, "picture", "pictures"),
        ),
        "split": reading.split_word(facts.summary.get("split")),
        "interval": interval,
        "matrix": matrix,
        "matrix_table": _matrix_table(matrix),
        "confusions": matrix.top(CONFUSIONS),
        "calibration": reading.calibration_sentence(facts.calibration),
        "class_words": reading.class_sentence(facts.per_class),
        "data": _data(facts),
        "mistakes": [_mistake(row, facts.classes) for row in facts.mistakes],
        "mistakes_shown": MISTAKES_SHOWN,
        "recorder": recorder,
    }
    return render_page("training.html.j2", context, figures)


def _matrix_figures(matrix: reading.Matrix) -> dict[str, Figure]:
    """Draw the whole matrix, and a close-up of the most confused classes where there are many."""
    if not matrix.pictures:
        return {}
    every = range(len(matrix.names))
    parts = (matrix.cells, matrix.totals, matrix.names)
    figures = {"confusion": confusion_figure(*parts, every)}
    if len(matrix.names) > WHOLE_MATRIX and matrix.mistakes:
        close = matrix.most_confused(CONFUSED_CLASSES)
        figures["confused"] = confusion_figure(*parts, close)
    return figures


def _matrix_table(matrix: reading.Matrix) -> list[list[int]]:
    """Return the counts row by row where a table of them is readable, else nothing."""
    size = len(matrix.names)
    if not matrix.pictures or size > MATRIX_TABLE:
        return []
    return [[matrix.cells.get((t, a), 0) for a in range(size)] for t in range(size)]


def _recorder(facts: TrainingReport, figures: dict[str, Figure]) -> list[dict[str, Any]]:
    """Draw each recorded quantity into `figures`; return its words and a table of its values."""
    clock = Clock(facts.history)
    stages = [str(stage) for stage in facts.recorder.get("stages") or ()]
    own_words = facts.recorder.get("definitions") or {}
    marks = mark_steps(clock, steps_of(facts.warnings))
    panels = []
    for key, trace in (facts.recorder.get("traces") or {}).items():
        values = {str(stage): series for stage, series in trace.get("values", {}).items()}
        names = [s for s in stages if s in values] + [s for s in values if s not in stages]
        steps, about = list(trace.get("steps", ())), quantity(key)
        series = {name: [finite(value) for value in values[name]] for name in names}
        curves = [
            curve(clock, name, steps, series[name], stage_colour(i, len(names)), mode="lines")
            for i, name in enumerate(names)
        ]
        drawn = time_figure(
            curves, about.name, logarithmic=about.logarithmic, share=about.share, marks=marks
        )
        if drawn is None:
            continue
        figures[f"recorder-{key}"] = drawn
        panels.append(
            {
                "figure": f"recorder-{key}",
                "about": about,
                "what": str(own_words.get(key) or about.what),
                "rows": [_span(name, series[name]) for name in names],
            }
        )
    return panels


def _span(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    if not known:
        return {"name": name, "first": None, "least": None, "most": None, "last": None}
    return {
        "name": name,
        "first": known[0],
        "least": min(known),
        "most": max(known),
        "last": known[-1],
    }


def _data(facts: TrainingReport) -> dict[str, Any]:
    """Return the counts of the data set as a table: classes by splits, and words about them."""
    names = [str(name) for name in facts.data.get("classes") or facts.classes]
    splits: dict[str, list[int]] = {}
    for split, counts in (facts.data.get("counts") or {}).items():
        if isinstance(counts, Mapping):
            names += [str(name) for name in counts if str(name) not in set(names)]
            by_name = {str(name): number for name, number in counts.items()}
            splits[str(split)] = [int(finite(by_name.get(name)) or 0) for name in names]
        else:
            splits[str(split)] = [int(finite(number) or 0) for number in counts]
    return {
        "names": names,
        "splits": splits,
        "most": {split: max(counts, default=0) or 1 for split, counts in splits.items()},
        "total": sum(sum(counts) for counts in splits.values()),
        "balance": reading.balance_sentence(names, splits.get("train", ())),
        "sizes": reading.size_sentence(facts.data.get("sizes")),
    }


def _mistake(row: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    """Return one wrong answer ready for the page."""
    picture = row.get("picture")
    side = 0 if picture is None else max(picture.shape[:2])
    return {
        "name": str(row.get("name") or ""),
        "uri": picture_uri(picture) if picture is not None and side else "",
        "small": side < SMALL_PICTURE,
        "truth": _class_name(row.get("truth"), classes),
        "predicted": _class_name(row.get("predicted"), classes),
        "confidence": finite(row.get("confidence")),
        "truth_confidence": finite(row.get("truth_confidence")),
    }


def _class_name(label: object, classes: Sequence[str]) -> str:
    """Return the name of a class given by name or by number."""
    if not isinstance(label, str) and (number := finite(label)) is not None:
        index = int(number)
        return classes[index] if 0 <= index < len(classes) else f"class {index}"
    return "" if label is None else str(label)
