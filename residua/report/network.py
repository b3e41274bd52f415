"""A residual network drawn: its units on the trunk, and the paths that the units open.

    unraveled   y_3 = y_2 + f_3(y_2), y_2 = y_1 + f_2(y_1), ... written out: 2^K paths (Veit et al. 2016,
                figure 1b); unit k stands there 2^(K-k) times
    by length   p(t) = product over the trunk's units of (1 + t q(t)), q: the same of the units inside the
                branch; the coefficient of t^n counts the paths through n branches. K units in a row:
                the binomial C(K, n).

Coordinates are pixels of an SVG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import groupby
from math import log10
from typing import Any

from residua.report.figures import Figure, stage_colour

Unit = Mapping[str, Any]

UNRAVELED = 5  # units up to which all 2^K paths are drawn
SINGLE = 120  # units up to which each has a box of its own
PER_LINE = 26  # boxes on a line of the trunk drawing
BOX, GAP, LINE = 22, 12, 58
LEFT = 30
ROW, COLUMN = 20, 92  # of the unraveled view
MOST_LENGTHS = 400  # bars of the histogram


def trunk_of(units: Sequence[Unit]) -> list[Unit]:
    """Return the units that lie in no other unit's branch."""
    return [unit for unit in units if unit.get("parent") is None]


def colour_of(units: Sequence[Unit]) -> dict[Any, str]:
    """Return a colour for each stage, shallow to deep."""
    stages = sorted({unit["stage"] for unit in units})
    return {stage: stage_colour(i, len(stages)) for i, stage in enumerate(stages)}


def trunk_drawing(units: Sequence[Unit], flagged: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the stages, each with the boxes to draw: a box a unit, or one for a run of equal units.

    flagged: unit name -> the worst severity of the findings that name it.
    """
    trunk = trunk_of(units)
    colours = colour_of(trunk)
    inside = {unit["index"] for unit in trunk}
    held: dict[Any, int] = dict.fromkeys(inside, 0)
    for unit in units:
        if unit.get("parent") in held:
            held[unit["parent"]] += 1
    drawn = []
    for stage, members in groupby(trunk, key=lambda unit: unit["stage"]):
        rows = list(members)
        runs = [[unit] for unit in rows] if len(trunk) <= SINGLE else _runs(rows, flagged)
        boxes = [_box(i, run, held, flagged) for i, run in enumerate(runs)]
        lines = -(-len(boxes) // PER_LINE)
        drawn.append(
            {
                "name": f"stage {stage}",
                "units": len(rows),
                "shape": "×".join(map(str, rows[0].get("shape", ())[1:])),
                "colour": colours[stage],
                "boxes": boxes,
                "width": LEFT + min(len(boxes), PER_LINE) * (BOX + GAP) + LEFT,
                "height": LINE * lines,
                "trunk": [LINE * i + 12 for i in range(lines)],
            }
        )
    return drawn


def _runs(rows: Sequence[Unit], flagged: Mapping[str, str]) -> list[list[Unit]]:
    """Put neighbours that look alike together."""

    def look(unit: Unit) -> tuple[Any, ...]:
        looks = (unit.get("merge"), unit.get("shortcut"), unit.get("text"), unit.get("shape"))
        return (*map(str, looks), flagged.get(unit["name"], ""))

    return [list(members) for _, members in groupby(rows, key=look)]


def _box(
    i: int, run: Sequence[Unit], held: Mapping[Any, int], flagged: Mapping[str, str]
) -> dict[str, Any]:
    first = run[0]
    worst = next((flagged[unit["name"]] for unit in run if unit["name"] in flagged), "")
    names = first["name"] if len(run) == 1 else f"{first['name']} … {run[-1]['name']}"
    about = [names, str(first.get("order") or ""), str(first.get("text") or "")]
    about.append(f"shortcut: {first.get('shortcut') or 'not known'}")
    if held.get(first["index"]):
        about.append(f"{held[first['index']]} units inside")
    return {
        "x": LEFT + (i % PER_LINE) * (BOX + GAP),
        "y": LINE * (i // PER_LINE) + 22,
        "about": "\n".join(line for line in about if line),
        "count": len(run),
        "merge": first.get("merge", "add"),
        "identity": first.get("shortcut") in ("identity", None),
        "flag": worst,
    }


def unraveled(units: Sequence[Unit]) -> dict[str, Any] | None:
    """Return boxes, lines and sums of the unraveled view; None for more units than can be read.

    Row r begins as one path; it goes through unit k where bit k of r is set, on its way to the output.
    """
    trunk = trunk_of(units)
    count = len(trunk)
    if not 1 <= count <= UNRAVELED or len(trunk) < len(units):
        return None
    colours = colour_of(trunk)
    boxes, lines, sums = [], [], []
    height = ROW * 2**count
    for k, unit in enumerate(trunk):
        step = 2**k
        x = 40 + COLUMN * k
        for top in range(0, 2**count, 2 * step):
            straight, through = ROW // 2 + ROW * top, ROW // 2 + ROW * (top + step)
            lines.append(f"M{x} {straight} H{x + COLUMN}")
            lines.append(f"M{x} {through} H{x + 70} V{straight}")
            boxes.append(
                {"x": x + 12, "y": through - 7, "name": unit["name"], "number": k + 1,
                 "colour": colours[unit["stage"]]}
            )  # fmt: skip
            sums.append((x + 70, straight))
    return {
        "width": 40 + COLUMN * count + 60,
        "height": height,
        "boxes": boxes,
        "lines": lines,
        "sums": sums,
        "paths": 2**count,
        "lengths": [(r, bin(r).count("1"), ROW // 2 + ROW * r) for r in range(2**count)],
    }


def paths_by_length(units: Sequence[Unit]) -> list[int]:
    """Return how many paths go through 0, 1, 2, ... branches, exactly.

    >>> paths_by_length([{"index": i, "parent": None} for i in range(4)])
    [1, 4, 6, 4, 1]
    >>> paths_by_length([{"index": 0, "parent": None}, {"index": 1, "parent": 0}])
    [1, 1, 1]
    """
    inside: dict[Any, list[Any]] = {}
    for unit in units:
        inside.setdefault(unit.get("parent"), []).append(unit["index"])

    def through(members: Sequence[Any]) -> list[int]:
        factors = ([1, *through(inside.get(member, ()))] for member in members)
        return reduce(_product, factors, [1])

    return through(inside.get(None, ()))


def _product(left: list[int], right: list[int]) -> list[int]:
    total = [0] * (len(left) + len(right) - 1)
    for i, b in enumerate(right):
        for j, a in enumerate(left):
            total[i + j] += a * b
    return total


def length_figure(counts: Sequence[int]) -> Figure:
    """Describe the share of all paths that have each length."""
    every = sum(counts)
    shares = [_share(count, every) for count in counts]
    shown = [n for n, share in enumerate(shares) if share > 1e-6]
    if len(shown) > MOST_LENGTHS:
        shown = shown[:: -(-len(shown) // MOST_LENGTHS)]
    bars = {
        "type": "bar",
        "x": shown,
        "y": [float(f"{shares[n]:.4g}") for n in shown],
        "marker": {"color": "var(--accent)", "opacity": 0.8},
        "hovertemplate": "%{x} branches: %{y:.3%} of the paths<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": "branches on the path"}},
        "yaxis": {"title": {"text": "share of all paths"}, "tickformat": ".1~%"},
        "showlegend": False,
    }
    label = "Share of the paths by their length"
    return {"data": [bars], "layout": layout, "height": 260, "label": label}


def _share(count: int, every: int) -> float:
    """Divide whole numbers that may be too large for floats.

    >>> _share(2**2000, 2**2001)
    0.5
    """
    shift = max(0, every.bit_length() - 1000)
    return (count >> shift) / (every >> shift)


def path_words(counts: Sequence[int]) -> str:
    """Say how many paths there are, and how long they are on average.

    >>> path_words([1, 4, 6, 4, 1])
    '16 paths from input to output, through 2 branches on average'
    """
    every = sum(counts)
    mean = sum(n * _share(count, every) for n, count in enumerate(counts))
    power = every.bit_length() - 1
    digits = len(str(every)) if power < 10_000 else int(power * log10(2)) + 1
    number = f"{every:,}" if digits <= 9 else f"about 10^{digits - 1}"
    if every == 1 << power and digits > 4:
        number = f"2^{power}" + (f" ({number})" if digits <= 9 else f", {number}")
    return f"{number} paths from input to output, through {mean:.4g} branches on average"


def flags(units: Sequence[Unit], findings: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the worst severity of the findings that name a unit or a module in it."""
    names = {unit["name"] for unit in units}
    found: dict[str, str] = {}
    for finding in findings:  # the worst first
        for place in finding.get("where", ()):
            parts = str(place).split(".")
            path = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            if unit := next((name for name in path if name in names), None):
                found.setdefault(unit, str(finding["severity"]))
    return found
