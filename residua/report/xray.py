"""The page of an x-ray: findings first, then the network drawn, then each analysis, then how to repeat it.

It takes plain values (no torch): what `residua.xray.XrayReport.page` returns. Any part may be absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from residua.report import network
from residua.report.evidence import dot_and_interval
from residua.report.html import render_page, write_page
from residua.report.numbers import count, duration, finite, measured
from residua.report.slim import slim_figures, slim_rows
from residua.report.words import Definition
from residua.report.xray_words import XRAY_DEFINITIONS

ROWS = 20  # of a table before "all rows"
HEIGHT = 320  # pixels of a figure that does not say
PLACES = 12  # places of a finding before "more"
Facts = Mapping[str, Any]


def write_xray_page(path: Path, facts: Facts) -> None:
    """Write the page of an x-ray to `path`: one HTML file that needs no network.

    Raises ResiduaError when it cannot be written.
    """
    write_page(path, xray_page(facts))


def xray_page(facts: Facts) -> str:
    """Return the page of an x-ray as HTML text.

    facts: name, headline, findings [as Finding.as_json], analyses [{name, help, seconds, summary, tables,
    figures, notes}], not_done [line], notes [line], facts {parameters, inputs, ...}, units [{index, name,
    source, stage, merge, shortcut, order, text, parent, shape}], no_units, seed, effort, command, versions,
    created, path_counts [paths through 0, 1, ... branches].
    """
    analyses = list(facts.get("analyses") or ())
    units = list(facts.get("units") or ())
    findings = list(facts.get("findings") or ())
    definitions = Definitions()
    figures = {
        _identifier(a["name"], name): _with_size(name, figure)
        for a in analyses
        for name, figure in (a.get("figures") or {}).items()
    }
    drawing = _drawing(units, findings, facts.get("path_counts") or ())
    if drawing:
        figures["paths-by-length"] = drawing["figure"]
    figures = slim_figures(figures)
    tables = _tables(analyses, definitions)
    context = {
        "name": facts.get("name") or "network",
        "headline": facts.get("headline") or "",
        "findings": [_finding(i, finding) for i, finding in enumerate(findings)],
        "tiles": _tiles(facts),
        "network": drawing,
        "no_units": facts.get("no_units") or "",
        "analyses": [_analysis(a, figures, tables, definitions) for a in analyses],
        "blocks": {
            table["data"]: table["rest"]
            for own in tables.values()
            for table in own
            if table["rest"]
        },
        "not_done": list(facts.get("not_done") or ()),
        "notes": list(facts.get("notes") or ()),
        "command": facts.get("command") or "",
        "versions": facts.get("versions") or {},
        "created": facts.get("created") or "",
        "device": (facts.get("facts") or {}).get("device", ""),
        "places_shown": PLACES,
        "definitions": definitions.all,
    }
    return render_page("xray.html.j2", context, figures)


class Definitions:
    """What can be clicked: the page's own words and the columns of its tables, each meaning once."""

    def __init__(self) -> None:
        self.all: dict[str, Definition] = dict(XRAY_DEFINITIONS)
        self._keys: dict[tuple[str, str], str] = {}

    def key(self, name: str, meaning: str, unit: str = "") -> str:
        """Return the key of a definition, the same for the same words."""
        words = (name, meaning)
        if words not in self._keys:
            self._keys[words] = f"column-{len(self._keys)}"
            text = f"{meaning} Unit: {unit}." if unit else meaning
            self.all[self._keys[words]] = Definition(name, text)
        return self._keys[words]


def short_line(line: str) -> str:
    """Return "file.py:12" with at most the two folders before it.

    >>> short_line("/home/somebody/work/nets/models/resnet.py:12")
    'nets/models/resnet.py:12'
    """
    return "/".join(Path(line).parts[-3:]) if line.count("/") > 2 else line


def spoken(name: str) -> str:
    """Return the name of a quantity as words.

    >>> spoken("second_moment_growth")
    'second moment growth'
    """
    return name.replace("_", " ")


def _finding(index: int, finding: Facts) -> dict[str, Any]:
    change = finding.get("change")
    return {
        **finding,
        "id": f"finding-{index + 1}",
        "lines": list(dict.fromkeys(short_line(str(line)) for line in finding.get("lines") or ())),
        "evidence": [_evidence(evidence) for evidence in finding.get("evidence") or ()],
        "change": change
        and {
            "quantity": spoken(change["quantity"]),
            "before": measured(change["before"]),
            "after": measured(change["after"]),
        },
    }


def _evidence(evidence: Facts) -> dict[str, Any]:
    low, high = evidence.get("interval") or (None, None)
    number = evidence.get("n") or 1
    return {
        "quantity": spoken(str(evidence["quantity"])),
        "measured": measured(evidence["measured"]),
        "interval": f"{measured(low)} to {measured(high)}" if low is not None else "",
        "expected": "" if evidence.get("expected") is None else measured(evidence["expected"]),
        "law": evidence.get("law") or "",
        "over": f"{number} {evidence['over']}" if number > 1 and evidence.get("over") else "",
        "drawn": dot_and_interval(evidence),
    }


def _tiles(facts: Facts) -> list[tuple[str, str]]:
    """Return (definition, text) of the facts that are known."""
    known = facts.get("facts") or {}
    shapes = {
        key: ", ".join("×".join(map(str, shape)) for shape in known.get(key) or ())
        for key in ("inputs", "outputs")
    }
    trunk = network.trunk_of(facts.get("units") or ())
    stages = len({unit["stage"] for unit in trunk})
    tiles = [
        ("parameters", count(known.get("parameters")) if "parameters" in known else ""),
        ("unit", count(len(facts.get("units") or ())) if facts.get("units") else "none"),
        ("stage", str(stages) if stages else ""),
        ("batch", shapes["inputs"]),
        ("outputs", shapes["outputs"]),
        ("pictures", str(known.get("pictures") or "")),
        ("targets", str(known.get("targets") or "")),
        ("gradient_of", str(known.get("gradient_of") or "")),
        ("effort", str(facts.get("effort") or "")),
        ("seed", str(facts["seed"]) if "seed" in facts else ""),
    ]
    return [(key, text) for key, text in tiles if text]


def _drawing(
    units: Sequence[Facts], findings: Sequence[Facts], path_counts: Sequence[int]
) -> dict[str, Any] | None:
    """Describe the network; paths that nobody counted are those of units on one trunk and inside branches."""
    if not units:
        return None
    counts = path_counts or network.paths_by_length(units)
    return {
        "stages": network.trunk_drawing(units, network.flags(units, findings)),
        "unraveled": network.unraveled(units) if sum(counts) == 2 ** len(units) else None,
        "figure": network.length_figure(counts),
        "words": network.path_words(counts),
        "single": len(network.trunk_of(units)) <= network.SINGLE,
        "inside": len(units) - len(network.trunk_of(units)),
    }


def _tables(analyses: Sequence[Facts], definitions: Definitions) -> dict[str, list[dict[str, Any]]]:
    """Return each analysis's tables: columns with their definitions, first rows, and the rest as data."""
    rows = {
        _identifier(a["name"], name): [
            [_told(column["name"], row.get(column["name"])) for column in table["columns"]]
            for row in table["rows"]
        ]
        for a in analyses
        for name, table in (a.get("tables") or {}).items()
    }
    slim = slim_rows(rows)
    found: dict[str, list[dict[str, Any]]] = {}
    for analysis in analyses:
        for name, table in (analysis.get("tables") or {}).items():
            key = _identifier(analysis["name"], name)
            columns = [
                (definitions.key(c["name"], c["meaning"], c.get("unit", "")), c["name"], kind)
                for c, kind in zip(table["columns"], _kinds(slim[key]), strict=False)
            ]
            found.setdefault(analysis["name"], []).append(
                {
                    "title": table["title"],
                    "columns": columns,
                    "rows": [[(v, cell(v)) for v in row] for row in slim[key][:ROWS]],
                    "rest": slim[key][ROWS:],
                    "kept": len(slim[key]),
                    "total": len(rows[key]),
                    "data": f"rows-{key}",
                }
            )
    return found


def _told(column: str, value: Any) -> Any:
    return short_line(value) if column == "source" and isinstance(value, str) else value


def _kinds(rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Yield "text" for a column whose first known value is text, else nothing; without end."""
    for column in zip(*rows, strict=True):
        known = next((value for value in column if value is not None), None)
        yield "text" if isinstance(known, str) else ""
    yield from repeat("")


def cell(value: Any) -> str:
    """Write the value of a table's cell.

    >>> cell(1024), cell(0.123456), cell([1, 2]), cell(None), cell("conv")
    ('1,024', '0.1235', '1, 2', '–', 'conv')
    """
    if isinstance(value, list):
        return ", ".join(cell(item) for item in value)
    return str(value) if isinstance(value, bool | str) else measured(value, 4)


def _analysis(
    analysis: Facts,
    figures: Mapping[str, Any],
    tables: Mapping[str, list[dict[str, Any]]],
    definitions: Definitions,
) -> dict[str, Any]:
    name = str(analysis["name"])
    meanings = {
        column["name"]: (column["name"], column["meaning"], column.get("unit", ""))
        for table in (analysis.get("tables") or {}).values()
        for column in table["columns"]
    }
    own = [_identifier(name, figure) for figure in analysis.get("figures") or {}]
    return {
        "id": _identifier("analysis", name),
        "name": spoken(name),
        "help": analysis.get("help") or "",
        "took": duration(analysis.get("seconds")) if analysis.get("seconds") else "",
        "numbers": [
            (spoken(key), _shown(value), definitions.key(*meanings[key]) if key in meanings else "")
            for key, value in (analysis.get("summary") or {}).items()
            if not isinstance(value, Mapping)
        ],
        "figures": [(figure, figures[figure]) for figure in own if figures[figure]["data"]],
        "tables": tables.get(name, []),
        "notes": list(analysis.get("notes") or ()),
    }


def _shown(value: Any) -> str:
    number = finite(value)
    return cell(value if number is None else number)


def _with_size(name: str, figure: Facts) -> dict[str, Any]:
    """Return a figure with the height and the label that the page needs."""
    title = (figure.get("layout") or {}).get("title") or ""
    said = title.get("text", "") if isinstance(title, Mapping) else title
    label = figure.get("label") or said or spoken(name)
    layout = {key: value for key, value in (figure.get("layout") or {}).items() if key != "title"}
    return {**figure, "layout": layout, "height": figure.get("height") or HEIGHT, "label": label}


def _identifier(*parts: str) -> str:
    """Return a name for HTML.

    >>> _identifier("signal", "growth <by> stage")
    'signal-growth--by--stage'
    """
    return re.sub(r"[^a-z0-9-]", "-", "-".join(parts).lower())
