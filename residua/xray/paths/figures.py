"""The figures of the path analysis, after Veit et al. 2016, figure 6, with shares and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from residua.report.figures import stage_colour
from residua.xray.paths.exact import Part
from residua.xray.result import Result, Table

_LENGTH = {"title": {"text": "path length (units)"}}
_SHARE = {"tickformat": ".0%", "rangemode": "tozero"}


def figures(result: Result, parts: Sequence[Part]) -> dict[str, Mapping[str, Any]]:
    """Return the figures of what was measured."""
    table = result.tables["lengths"]
    drawn: dict[str, Mapping[str, Any]] = {"counts": _counts(table)}
    if result.summary["effective_depth"] is not None:
        drawn |= {"gradient": _gradient(table), "shares": _shares(table)}
        if len(result.tables["stages"]):
            drawn["stages"] = _stages(result.tables["stages"], len(parts) - 1)
    return drawn


def _line(
    x: Sequence[Any], y: Sequence[Any], name: str, colour: str, **more: Any
) -> dict[str, Any]:
    """Describe a curve; what a logarithmic axis cannot show is left out."""
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(x) <= 60 else "lines",
        "name": name,
        "x": list(x),
        "y": [None if v is None else float(f"{v:.4g}") for v in y],
        "line": {"color": f"var({colour})", "width": 2},
        **more,
    }


def _positive(values: Sequence[float | None]) -> list[float | None]:
    return [v if v is not None and 0 < v < float("inf") else None for v in values]


def _counts(table: Table) -> dict[str, Any]:
    bars = {
        "type": "bar",
        "x": table["length"],
        "y": [float(f"{share:.4g}") for share in table["paths_share"]],
        "marker": {"color": "var(--series-1)"},
    }
    layout = {
        "xaxis": _LENGTH,
        "yaxis": {"title": {"text": "share of all paths"}, **_SHARE},
        "showlegend": False,
    }
    return {"data": [bars], "layout": layout, "height": 280, "label": "Number of paths by length"}


def _gradient(table: Table) -> dict[str, Any]:
    x = table["length"]
    data = [
        _line(x, _positive(table["norm"]), "all paths of the length: |g_k|", "--series-1"),
        _line(x, _positive(table["norm_per_path"]), "per path: |g_k| / paths", "--series-2"),
    ]
    kept = [row for row in table.rows if row.get("sampled")]
    if kept:
        spread = [min(row["sampled_spread"] or 0.0, 0.9 * row["sampled"]) for row in kept]
        at = [row["length"] for row in kept]
        bars = {"type": "data", "array": spread}
        single = [row["sampled"] for row in kept]
        total = _positive([row["sampled_total"] for row in kept])
        data += [
            _line(at, single, "single paths, drawn: mean", "--series-3", error_y=bars),
            _line(at, total, "paths × mean of single paths", "--series-4"),
        ]
    layout = {
        "xaxis": _LENGTH,
        "yaxis": {
            "title": {"text": "norm (loss per unit of input)"},
            "type": "log",
            "exponentformat": "power",
        },
    }
    return {"data": data, "layout": layout, "height": 340, "label": "Gradient by path length"}


def _shares(table: Table) -> dict[str, Any]:
    x = table["length"]
    data: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": "gradient: |g_k| / sum",
            "x": x,
            "y": [float(f"{share:.4g}") for share in table["share"]],
            "marker": {"color": "var(--series-1)"},
        },
        _line(x, table["paths_share"], "paths", "--series-2"),
        _line(x, table["signed"], "part of the gradient, with sign", "--series-3"),
    ]
    kept = [r for r in table.rows if r.get("sampled_total") and r["sampled_total"] < float("inf")]
    if len(kept) == len(table.rows):  # a share needs every length
        whole = sum(row["sampled_total"] for row in kept)
        drawn = [row["sampled_total"] / whole for row in kept]
        data.append(_line(x, drawn, "paths × mean of single paths", "--series-4"))
    layout = {"xaxis": _LENGTH, "yaxis": {"title": {"text": "share"}, "tickformat": ".0%"}}
    return {
        "data": data,
        "layout": layout,
        "height": 340,
        "label": "Share of the gradient by length",
    }


def _stages(table: Table, stages: int) -> dict[str, Any]:
    data: list[dict[str, Any]] = []
    for stage in sorted(set(table["stage"])):
        rows = [row for row in table.rows if row["stage"] == stage and row["share"] is not None]
        colour = stage_colour(len(data), stages)
        x, y = [row["length"] for row in rows], [row["share"] for row in rows]
        data.append(_line(x, y, f"stage {stage}", colour))
    layout = {"xaxis": _LENGTH, "yaxis": {"title": {"text": "share of gradient"}, **_SHARE}}
    return {
        "data": data,
        "layout": layout,
        "height": 300,
        "label": "Share of the gradient in stages",
    }
