"""The two figures of the analysis "shattered": by depth, and along lines."""

from __future__ import annotations

import math
from typing import Any

from residua.xray.result import Table


def _trace(name: str, x: list[Any], y: list[Any], colour: str, **line: Any) -> dict[str, Any]:
    ys = [None if v is None or not math.isfinite(v) else float(f"{v:.5g}") for v in y]
    return {
        "type": "scatter",
        "mode": "lines+markers" if not line else "lines",
        "name": name,
        "x": x,
        "y": ys,
        "line": {"color": f"var({colour})", "width": 2, **line},
        "marker": {"color": f"var({colour})", "size": 5},
    }


def line_figure(table: Table) -> dict[str, Any]:
    """Draw the autocorrelation along lines beside those of white and brown noise."""
    if not len(table):
        return {"data": [], "layout": {}}
    x = table["shift"]
    data = [
        _trace("all coordinates", x, table["coordinates"], "--series-1"),
        _trace("projected on the line", x, table["projected"], "--series-2"),
        _trace("white noise", x, table["white"], "--series-3", dash="dot"),
        _trace("brown noise", x, table["brown"], "--series-4", dash="dash"),
    ]
    layout = {
        "xaxis": {"title": {"text": "shift (share of the line)"}},
        "yaxis": {"title": {"text": "autocorrelation of the gradient"}},
    }
    return {"data": data, "layout": layout, "label": "Gradient along lines between samples"}


def depth_figure(table: Table) -> dict[str, Any]:
    """Draw the correlation by depth beside the laws: dashed the arc-cosine ones, dotted the published."""
    x = table["most"]
    data = [_trace("measured", x, table["correlation"], "--series-1")]
    data[0]["text"] = table["place"]
    for name, label, colour in (
        ("arc_plain", "plain, arc-cosine", "--series-2"),
        ("arc_residual", "residual, arc-cosine", "--series-3"),
        ("arc_normed", "residual with norm, arc-cosine", "--series-4"),
    ):
        data.append(_trace(label, x, table[name], colour, dash="dash"))
    for name, label, colour in (
        ("plain", "2^-L", "--series-2"),
        ("residual", "(3/4)^L", "--series-3"),
        ("normed", "1/sqrt L", "--series-4"),
    ):
        data.append(_trace(label, x, table[name], colour, dash="dot"))
    layout = {
        "xaxis": {
            "title": {"text": "activations from here to the output"},
            "autorange": "reversed",
        },
        "yaxis": {"title": {"text": "correlation of two samples' gradients"}},
    }
    return {
        "data": data,
        "layout": layout,
        "label": "Correlation of two samples' gradients by depth",
    }
