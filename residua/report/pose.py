"""The report of a training that finds joints: scores joint by joint, and skeletons over the pictures.

`PoseReport` is plain data (no torch); any part may be left out and the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from residua.report.figures import Figure, stage_colour
from residua.report.html import render_page, write_page
from residua.report.numbers import count, finite, tidy
from residua.report.overlays import fitted, picture_layer
from residua.report.reading import split_word
from residua.report.slim import inert
from residua.report.task import (
    Facts,
    TaskReport,
    given_interval,
    more_scores,
    scored_on,
    shared_context,
    shown_score,
    task_headline,
)
from residua.report.task_words import POSE_DEFINITIONS

MOST_CASES = 48
CASES_SHOWN = 12  # before "more"
THRESHOLD = 0.2  # of the headline's PCK, where the summary names none


@dataclass
class PoseReport(TaskReport):
    """What happened in one training of a pose; every field may be left at its default.

    joints: names, J of them; skeleton: pairs of joints, counted from 0.
    summary: {pck, threshold (0.2), pckh, oks_ap, oks_ap50, oks_ap75, oks_ar, oks_basis (what these rest
        on, or why there are none), loss, split ("val" or "test"), n (people), joints (labelled ones),
        more: [{name, value, what, share}]}.
    per_joint: rows {name, pck, error (median distance as a share of the torso), support}.
    curve: {thresholds [t], all [PCK at t], joints {name: [PCK at t]}}; joints may be left out.
    cases: rows {name, picture (H, W[, C]), truth (J, 3) x, y, 0|1|2, prediction (J, 2 or 3) x, y
        [confidence], size (the torso's length in pixels), score (0..1), text}. x and y count from the centre
        of the first pixel. The page shows the worst first, 48 at most.
    """

    joints: Sequence[str] = field(default_factory=list)
    skeleton: Sequence[tuple[int, int]] = field(default_factory=list)
    summary: Facts = field(default_factory=dict)
    per_joint: Sequence[Facts] = field(default_factory=list)
    curve: Facts = field(default_factory=dict)
    cases: Sequence[Facts] = field(default_factory=list)


def write_pose_report(path: Path, facts: PoseReport) -> None:
    """Write the page to `path`, whole or as it was before: one HTML file that needs no network.

    Raises ResiduaError when it cannot be written, ValueError for a case with another number of joints.
    """
    write_page(path, pose_page(facts))


def pose_page(facts: PoseReport) -> str:
    """Return the page as HTML text."""
    context, figures = shared_context(facts)
    threshold = finite(facts.summary.get("threshold")) or THRESHOLD
    curves = pck_figure(facts.curve, threshold)
    if curves is not None:
        figures["pck"] = curves
    rows = [
        {"name": str(row.get("name") or "")}
        | {key: finite(row.get(key)) for key in ("pck", "error", "support")}
        for row in facts.per_joint
    ]
    inside = scored_on(facts.summary, "person", "people")
    if labelled := finite(facts.summary.get("joints")):
        inside.append(f"{count(labelled)} joints")
    joints = f"finds {len(facts.joints)} joints" if facts.joints else "finds joints"
    context |= {
        "headline": task_headline(
            facts, f"{joints} with a PCK@{tidy(threshold)} of", facts.summary.get("pck"), inside
        ),
        "things": ("person", "people"),
        "threshold": tidy(threshold),
        "summary": facts.summary,
        "split": split_word(facts.summary.get("split")),
        "interval": given_interval(facts.summary),
        "more_scores": more_scores(facts.summary),
        "oks_basis": str(facts.summary.get("oks_basis") or ""),
        "rows": rows,
        "joint_words": _joint_words(rows),
        "curve_rows": _curve_rows(facts.curve),
        "cases": _cases(facts, threshold),
        "cases_shown": CASES_SHOWN,
        "left_out": max(0, len(facts.cases) - MOST_CASES),
        "definitions": POSE_DEFINITIONS,
    }
    return render_page("pose.html.j2", context, figures, ["overlays.js"])


def pck_figure(curve: Facts, threshold: float) -> Figure | None:
    """Describe PCK over the threshold: all joints together, thick, and each kind of joint."""
    xs = [finite(value) for value in curve.get("thresholds") or ()]
    lines = [("all joints", curve.get("all") or (), "--ink", 3.5)]
    kinds = list((curve.get("joints") or {}).items())
    lines += [(str(n), ys, stage_colour(i, len(kinds)), 1.3) for i, (n, ys) in enumerate(kinds)]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": xs,
            "y": [finite(y) for y in ys],
            "line": {"color": f"var({colour})", "width": width},
            "hovertemplate": "%{y:.1%}",
        }
        for name, ys, colour, width in lines
        if any(finite(y) is not None for y in ys)
    ]
    if not data or not any(x is not None for x in xs):
        return None
    mark = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": threshold, "x1": threshold}
    layout = {
        "xaxis": {"title": {"text": "threshold (share of the torso)"}, "rangemode": "tozero"},
        "yaxis": {"range": [0, 1.02], "tickformat": ".0%", "title": {"text": "PCK"}},
        "hovermode": "x unified",
        "showlegend": len(data) > 1,
        "shapes": [mark | {"line": {"color": "var(--muted)", "width": 1, "dash": "dot"}}],
    }
    figure = {"data": data, "layout": layout, "height": 420, "label": "PCK over the threshold"}
    drawn: Figure = inert(figure)
    return drawn


def _joint_words(rows: Sequence[Facts]) -> str:
    """Name the joints that are found best and least."""
    known = [row for row in rows if row["pck"] is not None]
    if len({row["pck"] for row in known}) < 2:
        return ""
    best, least = (pick(known, key=lambda row: row["pck"])["name"] for pick in (max, min))
    return f"Found best: {_words(best)}. Found least: {_words(least)}."


def _words(joint: str) -> str:
    return joint.replace("_", " ")


def _curve_rows(curve: Facts) -> list[tuple[float | None, float | None]]:
    pairs = zip(curve.get("thresholds") or (), curve.get("all") or (), strict=False)
    return [(finite(x), finite(y)) for x, y in pairs]


def _cases(facts: PoseReport, threshold: float) -> list[dict[str, Any]]:
    """Return the cases ready for the page, worst first: picture and lines to draw over it."""
    chosen = sorted(facts.cases, key=lambda case: shown_score(case.get("score")))[:MOST_CASES]
    layers = [{"picture": picture_layer(case["picture"], volume=False)} for case in chosen]
    cases = []
    for case, own, uris in zip(chosen, layers, fitted(layers), strict=True):
        height, width = own["picture"].pixels.shape[1:3]
        truth, answer = _points(case, "truth", facts), _points(case, "prediction", facts)
        size = finite(case.get("size"))
        cases.append(
            {
                "name": str(case.get("name") or ""),
                "score": finite(case.get("score")),
                "text": str(case.get("text") or ""),
                "uri": uris.get("picture", ""),
                "width": width,
                "height": height,
                "stroke": round(max(width, height) / 110, 2),
                "truth": _drawing(truth, facts, hidden=1),
                "prediction": _drawing(answer, facts),
                "misses": _misses(truth, answer, threshold * size if size else None),
            }
        )
    return cases


def _points(case: Facts, key: str, facts: PoseReport) -> npt.NDArray[np.float64]:
    """Return x, y and how sure or visible (J, 3); not finite or not labelled is nan, nan, 0."""
    if case.get(key) is None:
        return np.empty((0, 3))
    points = np.array(case[key], np.float64)
    if points.ndim != 2 or points.shape[1] not in (2, 3) or len(points) != len(facts.joints):
        raise ValueError(
            f"case {case.get('name')!r}: expected {key} of shape ({len(facts.joints)}, 3),"
            f" not {points.shape}"
        )
    if points.shape[1] == 2:
        points = np.column_stack([points, np.ones(len(points))])
    unknown = ~np.isfinite(points[:, :2]).all(1)
    if key == "truth":
        unknown |= points[:, 2] <= 0
    points[unknown] = np.nan, np.nan, 0
    points[:, :2] = (
        points[:, :2].round(1) + 0.5
    )  # the first pixel's centre lies half a pixel inside
    return points


def _side(*names: str) -> str:
    """Return the side that joints belong to: left, right or middle."""
    sides = {side for name in names for side in ("left", "right") if side in name.lower()}
    return sides.pop() if len(sides) == 1 else "middle"


def _drawing(
    points: npt.NDArray[np.float64], facts: PoseReport, hidden: int | None = None
) -> Facts:
    """Return bones {at [x1, y1, x2, y2], side} and dots {x, y, side, hidden} of one skeleton.

    hidden: the third number of a joint that is labelled but not seen.
    """
    if not len(points):
        return {}
    known = ~np.isnan(points[:, 0])
    names = [str(name) for name in facts.joints]
    bones = [
        {
            "at": [*points[a, :2].tolist(), *points[b, :2].tolist()],
            "side": _side(names[a], names[b]),
        }
        for a, b in facts.skeleton
        if max(a, b) < len(points) and known[a] and known[b]
    ]
    dots = [
        {"x": x, "y": y, "side": _side(name), "hidden": sure == hidden}
        for name, (x, y, sure), seen in zip(names, points.tolist(), known, strict=True)
        if seen
    ]
    return {"bones": bones, "dots": dots}


def _misses(
    truth: npt.NDArray[np.float64], answer: npt.NDArray[np.float64], reach: float | None
) -> list[list[float]]:
    """Return lines [x1, y1, x2, y2] from the truth to answers further away than `reach` pixels."""
    if reach is None or not len(truth) or not len(answer):
        return []
    far = np.hypot(*(truth[:, :2] - answer[:, :2]).T)
    return [[*truth[k, :2].tolist(), *answer[k, :2].tolist()] for k in np.flatnonzero(far > reach)]
