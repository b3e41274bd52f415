"""The tables and figures of lesions: single deletions, error against number deleted, error against order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from residua.report.figures import thin
from residua.xray.result import Column, Table

Trace = dict[str, Any]

_LOW, _HIGH = "lower end of its 95 % interval over samples", "upper end"

DELETIONS = (
    Column("part", "the unit (or layer) that is deleted: its path in the network"),
    Column("number", "counted from the input"),
    Column("stage", "a new stage begins wherever the resolution changes; counted from 0"),
    Column("change", "|y' - y| / |y| of the network's output, mean over samples"),
    Column("change_low", _LOW),
    Column("change_high", _HIGH),
    Column("loss", "without the part"),
    Column("loss_rise", "loss without the part less the loss with it, on the same samples"),
    Column("loss_rise_low", _LOW),
    Column("loss_rise_high", _HIGH),
    Column("error", "share of samples whose largest logit is not the target's, without the part"),
    Column("error_rise", "by how much that rises, on the same samples"),
    Column("error_rise_low", "lower end of its 95 % interval; at least 3 / N wide on either side"),
    Column("error_rise_high", _HIGH),
    Column("source", "the line of code"),
)
_MEASURES = {
    "change": "|y' - y| / |y| of the output",
    "loss": "loss",
    "error": "error rate",
}
CURVE = (
    Column("deleted", "how many are deleted at once"),
    Column("draws", "random draws of which (of one: all that were deleted alone)"),
    *(
        Column(f"{name}{end}", f"{what}, {how}")
        for name, what in _MEASURES.items()
        for end, how in (
            ("", "mean over draws"),
            ("_sd", "standard deviation over draws"),
            ("_least", "least"),
            ("_most", "most"),
        )
    ),
)
REORDERINGS = (
    Column("swaps", "exchanges of two alike units, drawn at random"),
    Column("tau", "Kendall's rank correlation of the new order with the old one"),
    *(Column(name, what) for name, what in _MEASURES.items()),
)


def figures(tables: Mapping[str, Table], by: str) -> dict[str, Mapping[str, Any]]:
    """Describe the figures; by: which of change, loss and error is drawn."""
    found: dict[str, Mapping[str, Any]] = {}
    single, curve = tables["deletions"], tables["curve"]
    title = _MEASURES[by]
    xs, ys = thin([float(n) for n in single["number"]], single[by])
    bars: Trace = {"type": "bar", "x": xs, "y": ys, "name": title, "hoverinfo": "text+y"}
    bars |= {"marker": {"color": "var(--series-1)"}}
    bars |= {"text": single["part"]} if len(xs) == len(single) else {}
    found["deletions"] = _figure([bars], "deleted, from the input", title, "Single deletions")
    if len(curve) > 2:
        spread = [deviation or 0.0 for deviation in curve[f"{by}_sd"]]
        line: Trace = {
            "type": "scatter",
            "mode": "lines+markers",
            "x": curve["deleted"],
            "y": curve[by],
        }
        line |= {
            "line": {"color": "var(--series-1)", "width": 2},
            "name": "mean, standard deviation",
        }
        line |= {"error_y": {"type": "data", "array": spread}}
        found["curve"] = _figure([line], "number deleted", title, "Several deleted at once")
    if "reorderings" in tables:
        rows = tables["reorderings"]
        dots: Trace = {"type": "scatter", "mode": "markers", "x": rows["tau"], "y": rows[by]}
        dots |= {"marker": {"color": "var(--series-2)"}, "name": "a new order"}
        found["reorderings"] = _figure([dots], "Kendall's tau", title, "Units exchanged")
    return found


def _figure(data: Sequence[Mapping[str, Any]], x: str, y: str, label: str) -> Mapping[str, Any]:
    layout = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    return {"data": list(data), "layout": layout, "height": 320, "label": label}
