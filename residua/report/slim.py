"""Keep a page small: numbers to the digits that can be seen, long curves thinned, long tables cut.

A network of 1,000 units has tables of 1,000 rows and curves of 1,000 points in every analysis. All of them
together stay within a budget of bytes; what was cut is said beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

DIGITS = 5  # significant digits of a number in a figure or a table
FIGURES = 450_000  # bytes of all figures
TABLES = 350_000  # bytes of all rows of tables
CURVE = 2_000  # points of a curve before thinning
FEWEST = 50
_TEXTS = {"name", "text", "hovertext", "ticktext", "customdata", "labels", "title", "x", "y"}


def rounded(value: Any) -> Any:
    """Return plain values with numbers rounded and what is not finite as None.

    >>> rounded({"x": [1 / 3, float("inf"), 2], "name": "a"})
    {'x': [0.33333, None, 2], 'name': 'a'}
    """
    if isinstance(value, Mapping):
        return {str(key): rounded(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # numpy's and torch's arrays and scalars
        return rounded(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, str | bool | int) or value is None:
        return value
    if isinstance(value, Sequence | set | frozenset):
        return [rounded(item) for item in value]
    return str(value)


def inert(value: Any, key: str = "") -> Any:
    """Return a figure whose texts are texts: plotly reads a little HTML in them, and names may hold some.

    Line breaks stay. Templates of hovering are ours and stay as they are.

    >>> inert({"name": "<b>x</b>", "hovertemplate": "%{y}<extra></extra>", "text": ["a<br>b"]})
    {'name': '&lt;b&gt;x&lt;/b&gt;', 'hovertemplate': '%{y}<extra></extra>', 'text': ['a<br>b']}
    """
    if isinstance(value, dict):
        return {name: inert(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [inert(item, key) for item in value]
    if isinstance(value, str) and key in _TEXTS:
        text = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return text.replace("&lt;br&gt;", "<br>")
    return value


def thinned(figure: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Return a figure whose curves have at most `most` points, every k-th of them.

    >>> thinned({"data": [{"x": [0, 1, 2, 3], "y": [0, 1, 4, 9], "name": "a"}]}, most=2)
    {'data': [{'x': [0, 2], 'y': [0, 4], 'name': 'a'}], 'thinned': 2}
    """
    longest = max((_points(trace) for trace in figure["data"]), default=0)
    if longest <= most:
        return dict(figure)
    every = -(-longest // most)
    traces = [_each(t, _points(t), every) if _points(t) > most else t for t in figure["data"]]
    return {**figure, "data": traces, "thinned": every}


def _points(trace: Mapping[str, Any]) -> int:
    """Return how many points a curve has; 0 for what is no curve, such as a heat map."""
    y = trace.get("y")
    return len(y) if isinstance(y, list) and "z" not in trace else 0


def _each(value: Any, length: int, every: int) -> Any:
    """Take every k-th item of all lists that belong to the points of a curve."""
    if isinstance(value, dict):
        return {key: _each(item, length, every) for key, item in value.items()}
    if isinstance(value, list) and len(value) == length:
        return value[::every]
    return value


def slim_figures(figures: Mapping[str, Mapping[str, Any]], budget: int = FIGURES) -> dict[str, Any]:
    """Return the figures, small enough together for one page."""
    plain = {name: inert(rounded(figure)) for name, figure in figures.items()}
    most = CURVE
    small = {name: thinned(figure, most) for name, figure in plain.items()}
    while _bytes(small) > budget and most > FEWEST:
        most //= 2
        small = {name: thinned(figure, most) for name, figure in plain.items()}
    return small


def slim_rows(
    tables: Mapping[str, list[list[Any]]], budget: int = TABLES
) -> dict[str, list[list[Any]]]:
    """Return the rows of tables, cut at the same length everywhere so that all fit together."""
    plain: dict[str, list[list[Any]]] = {name: rounded(rows) for name, rows in tables.items()}
    most = max((len(rows) for rows in plain.values()), default=0)
    small = plain
    while (size := _bytes(small)) > budget and most > FEWEST:
        most = max(FEWEST, int(0.95 * most * budget / size))
        small = {name: rows[:most] for name, rows in plain.items()}
    return small


def _bytes(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
