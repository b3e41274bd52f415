"""The report of a training that segments: scores class by class, and pictures with layers to look through.

`SegmentationReport` is plain data (no torch); any part may be left out and the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from residua.report.figures import Figure, confusion_figure
from residua.report.html import render_page, write_page
from residua.report.numbers import finite, percent, plural, tidy
from residua.report.overlays import (
    IGNORED,
    INVENTED,
    MISSED,
    MISTAKEN,
    OPEN,
    Layer,
    Rgba,
    class_colours,
    error_layer,
    fitted,
    mask_layer,
    picture_layer,
    slices_shown,
    uncertainty_layer,
)
from residua.report.reading import split_word
from residua.report.task import (
    Facts,
    TaskReport,
    given_interval,
    more_scores,
    scored_on,
    shared_context,
    shown_score,
    spacing_text,
    task_headline,
)
from residua.report.task_words import SEGMENTATION_DEFINITIONS

MOST_CASES = 48
CASES_SHOWN = 12  # before "more"
LARGEST_MATRIX = 40  # classes
SCORES = ("iou", "dice", "precision", "recall")


@dataclass
class SegmentationReport(TaskReport):
    """What happened in one training of a segmentation; every field may be left at its default.

    classes: names in the order of the class numbers; background: the number of the class that is
        background, None where there is none.
    confusion: counts of pixels, rows are the truth, in the order of `classes`.
    per_class: rows {name, iou, dice, precision, recall, support}; left empty, they follow from `confusion`.
    summary: {iou, dice, pixel_accuracy, loss, split ("val" or "test"), n, interval (low, high),
        more: [{name, value, what, share}]}; iou, dice and pixel_accuracy, left out, follow from
        `confusion`. n counts pictures, or volumes where the cases are volumes.
    boundary: {boundary_f1, surface_dice, mean_distance, hd95, missed, tolerance, unit, pictures, left_out,
        per_class rows {name, and the first five}}. objects: {f1, mean_ap, pq, sq, precision, recall, true,
        predicted, pictures, left_out, per_class rows of them}. rand: {rand, split, merge, pictures}.
    cases: rows {name, picture (H, W[, C]) or (D, H, W[, C]), truth, prediction (H, W) or (D, H, W) of class
        numbers (255: left open), uncertainty (the same shape, 0..1; may be left out), score (0..1), text}.
        The page shows the worst first, 48 at most.
    data: what `TaskReport` says and {dims (2 or 3), reasons [text: why 2-D or 3-D], shares {class: share
        of the training pixels}, spacing (z, y, x), unit}.
    """

    classes: Sequence[str] = field(default_factory=list)
    background: int | None = 0
    confusion: Sequence[Sequence[int]] = field(default_factory=list)
    per_class: Sequence[Facts] = field(default_factory=list)
    summary: Facts = field(default_factory=dict)
    boundary: Facts = field(default_factory=dict)
    objects: Facts = field(default_factory=dict)
    rand: Facts = field(default_factory=dict)
    cases: Sequence[Facts] = field(default_factory=list)


def write_segmentation_report(path: Path, facts: SegmentationReport) -> None:
    """Write the page to `path`, whole or as it was before: one HTML file that needs no network.

    Raises ResiduaError when it cannot be written, ValueError for a case whose shapes do not agree.
    """
    write_page(path, segmentation_page(facts))


def segmentation_page(facts: SegmentationReport) -> str:
    """Return the page as HTML text."""
    context, figures = shared_context(facts)
    names = [str(name) for name in facts.classes]
    rows = [_row(row) for row in facts.per_class or scores_of_classes(facts.confusion, names)]
    summary = _summary(facts, rows)
    matrix = _matrix(facts.confusion, names)
    if matrix is not None:
        figures["confusion"] = matrix
    colours = class_colours(_number_of_classes(facts), facts.background)
    things = ("volume", "volumes") if _are_volumes(facts.cases) else ("picture", "pictures")
    inside = [f"mean Dice {percent(summary.get('dice'))}"] if "dice" in summary else []
    does = f"segments {plural(len(names), 'class', 'classes')} with a mean IoU of"
    cases = _cases(facts, colours)
    choices = _choices(cases)
    context |= {
        "headline": task_headline(
            facts, does, summary.get("iou"), inside + scored_on(summary, *things)
        ),
        "summary": summary,
        "split": split_word(summary.get("split")),
        "things": things,
        "interval": given_interval(summary),
        "more_scores": more_scores(summary),
        "rows": rows,
        "absent": [row["name"] for row in rows if row["absent"]],
        "within": _within(facts.boundary),
        "matrix": _percentages(facts.confusion, names),
        "cases": cases,
        "layer_choices": choices,
        "chosen_layer": "prediction" if ("prediction",) * 2 in choices else choices[-1][0],
        "cases_shown": CASES_SHOWN,
        "left_out": max(0, len(facts.cases) - MOST_CASES),
        "legend": _legend(names, colours),
        "error_legend": _error_legend(facts.background),
        "has_open": any(
            (np.asarray(c["truth"]) == IGNORED).any() for c in facts.cases if "truth" in c
        ),
        "open_colour": _css(OPEN),
        "shares": _shares(facts.data, names, colours),
        "spacing": spacing_text(facts.data.get("spacing"), str(facts.data.get("unit") or "")),
        "definitions": SEGMENTATION_DEFINITIONS,
    }
    return render_page("segmentation.html.j2", context, figures, ["overlays.js"])


def _within(boundary: Facts) -> str:
    """Return the distance within which a surface counts as found, with its unit."""
    tolerance = finite(boundary.get("tolerance"))
    return "" if tolerance is None else f"{tidy(tolerance)} {boundary.get('unit') or ''}".strip()


def scores_of_classes(
    confusion: Sequence[Sequence[int]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return {name, iou, dice, precision, recall, support} of each class from counts of pixels.

    A score whose denominator is 0 is None: nothing there could be right or wrong.

    >>> scores_of_classes([[2, 2], [0, 4]], ["a", "b"])[1]["recall"]
    1.0
    """
    counts = _counts(confusion)
    if counts is None:
        return []
    hits, truth, answers = counts.diagonal(), counts.sum(1), counts.sum(0)

    def share(part: float, whole: float) -> float | None:
        return float(part / whole) if whole else None

    return [
        {
            "name": names[k] if k < len(names) else f"class {k}",
            "iou": share(hits[k], truth[k] + answers[k] - hits[k]),
            "dice": share(2 * hits[k], truth[k] + answers[k]),
            "precision": share(hits[k], answers[k]),
            "recall": share(hits[k], truth[k]),
            "support": int(truth[k]),
        }
        for k in range(len(counts))
    ]


def _counts(confusion: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """Return the matrix as numbers, or None where there is none or it holds no pixel."""
    counts = np.asarray([[finite(v) or 0.0 for v in row] for row in confusion], np.float64)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1]
    return counts if square and counts.sum() else None


def _row(row: Facts) -> dict[str, Any]:
    """Return the scores of a class; one that occurs in neither truth nor answer is absent."""
    scores = {key: finite(row.get(key)) for key in SCORES}
    support = finite(row.get("support"))
    absent = not support and scores["iou"] is None
    return {"name": str(row.get("name") or ""), "support": support, "absent": absent, **scores}


def _summary(facts: SegmentationReport, rows: Sequence[Facts]) -> dict[str, Any]:
    """Return the summary, completed from the classes' scores and the matrix where it says nothing."""
    summary = {key: value for key, value in facts.summary.items() if value is not None}
    for key in ("iou", "dice"):
        known = [row[key] for row in rows if row[key] is not None and not row["absent"]]
        if finite(summary.get(key)) is None:
            summary.pop(key, None)
            if known:
                summary[key] = sum(known) / len(known)
    counts = _counts(facts.confusion)
    if counts is not None:
        summary.setdefault("pixel_accuracy", counts.trace() / counts.sum())
    return summary


def _percentages(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Facts:
    """Return {names, rows}: of each true class, the per cent of its pixels that went to each answer."""
    counts = _counts(confusion)
    if counts is None or len(counts) > LARGEST_MATRIX:
        return {}
    totals = np.maximum(counts.sum(1, keepdims=True), 1)
    shown = [names[k] if k < len(names) else f"class {k}" for k in range(len(counts))]
    return {
        "names": shown,
        "rows": (100 * counts / totals).tolist(),
        "pixels": counts.sum(1).tolist(),
    }


def _matrix(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Figure | None:
    """Describe the confusion of pixels, each row as per cent of its class."""
    table = _percentages(confusion, names)
    if not table:
        return None
    cells = {
        (truth, answer): round(value, 1)
        for truth, row in enumerate(table["rows"])
        for answer, value in enumerate(row)
        if round(value, 1)
    }
    every = range(len(table["names"]))
    figure = confusion_figure(cells, [100 for _ in every], table["names"], every)
    figure["label"] = (
        f"Confusion of pixels among {len(table['names'])} classes, per cent of the truth"
    )
    return figure


def _number_of_classes(facts: SegmentationReport) -> int:
    return max(len(facts.classes), len(facts.per_class), len(facts.confusion))


def _are_volumes(cases: Sequence[Facts]) -> bool:
    return any("truth" in case and np.ndim(case["truth"]) == 3 for case in cases)


def _cases(facts: SegmentationReport, colours: Sequence[Rgba]) -> list[dict[str, Any]]:
    """Return the cases ready for the page, worst first: their layers as pictures, their slices."""
    chosen = sorted(facts.cases, key=lambda case: shown_score(case.get("score")))[:MOST_CASES]
    layers = [_layers(case, colours, facts.background) for case in chosen]
    cases = []
    for case, own, uris in zip(chosen, layers, fitted(layers), strict=True):
        depth, height, width = own["picture"].pixels.shape[:3]
        cases.append(
            {
                "name": str(case.get("name") or ""),
                "score": finite(case.get("score")),
                "text": str(case.get("text") or ""),
                "layers": uris,
                "slices": [z + 1 for z in slices_shown(depth)],
                "depth": depth,
                "height": height,
                "width": width,
            }
        )
    return cases


def _layers(case: Facts, colours: Sequence[Rgba], background: int | None) -> dict[str, Layer]:
    """Return picture, truth, prediction, errors and uncertainty, those that the case has."""
    known = {
        key: case[key]
        for key in ("truth", "prediction", "uncertainty")
        if case.get(key) is not None
    }
    volume = any(np.ndim(value) == 3 for value in known.values())
    layers = {"picture": picture_layer(case["picture"], volume=volume)}
    for key in ("truth", "prediction"):
        if key in known:
            layers[key] = mask_layer(known[key], colours)
    if "truth" in known and "prediction" in known:
        layers["errors"] = error_layer(known["truth"], known["prediction"], background)
    if "uncertainty" in known:
        layers["uncertainty"] = uncertainty_layer(known["uncertainty"])
    shapes = {key: layer.pixels.shape[:3] for key, layer in layers.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"case {case.get('name')!r}: expected layers of one shape, not {shapes}")
    return layers


def _choices(cases: Sequence[Facts]) -> list[tuple[str, str]]:
    """Return value and words of each layer that a picture has."""
    known = {key for case in cases for key in case["layers"]}
    layers = [
        (key, key) for key in ("truth", "prediction", "errors", "uncertainty") if key in known
    ]
    return [("picture", "picture only"), *layers]


def _css(colour: Rgba) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour[:3])


def _legend(names: Sequence[str], colours: Sequence[Rgba]) -> list[dict[str, str]]:
    """Return name and colour of each class that is coloured."""
    pairs = zip(names, colours, strict=False)
    return [{"name": name, "colour": _css(colour)} for name, colour in pairs if colour[3]]


def _error_legend(background: int | None) -> list[dict[str, str]]:
    mistaken = {"name": "one class taken for another", "colour": _css(MISTAKEN)}
    if background is None:
        return [mistaken]
    return [
        {"name": "missed: background where there is a class", "colour": _css(MISSED)},
        {"name": "invented: a class where there is background", "colour": _css(INVENTED)},
        mistaken,
    ]


def _shares(data: Facts, names: Sequence[str], colours: Sequence[Rgba]) -> list[dict[str, Any]]:
    """Return {name, share, colour} of each class of the training data."""
    given = data.get("shares") or {}
    if not isinstance(given, Mapping):
        given = dict(zip(names, given, strict=False))
    by_name = dict(zip(names, colours, strict=False))
    return [
        {
            "name": str(name),
            "share": finite(share),
            "colour": _css(colour) if (colour := by_name.get(str(name), OPEN))[3] else "",
        }
        for name, share in given.items()
    ]
