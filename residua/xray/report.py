"""What an x-ray found: the object that `residua.xray` returns, as text, JSON, tables and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from residua.errors import BadInput, nearest
from residua.report.numbers import duration, measured, plural
from residua.xray.facts import versions
from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result, Table

PLACES = 3  # named in a line of text before "and N more"


@dataclass
class XrayReport:
    """Findings first, then everything that was measured.

    findings: ranked, the worst first. results: by analysis. not_done: a line for each analysis that could
    not be done, with the reason. facts: of the network and the batch. units: a row for each residual unit;
    no_units: why there are none. path_counts: how many paths go through 0, 1, 2, ... branches. seconds: by
    analysis.
    """

    name: str
    findings: list[Finding] = field(default_factory=list)
    results: dict[str, Result] = field(default_factory=dict)
    not_done: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    units: list[dict[str, Any]] = field(default_factory=list)
    no_units: str = ""
    path_counts: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    effort: str = "normal"
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=versions)
    created: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")

    @property
    def tables(self) -> dict[str, Table]:
        """Every table, by "analysis.table"."""
        return {
            f"{analysis}.{name}": table
            for analysis, result in self.results.items()
            for name, table in result.tables.items()
        }

    def table(self, name: str) -> Table:
        """Return a table by "analysis.table", or the first one of an analysis by "analysis"."""
        tables = self.tables
        if name in tables:
            return tables[name]
        if name in self.results and self.results[name].tables:
            return next(iter(self.results[name].tables.values()))
        known = [*self.results, *tables]
        raise BadInput(
            f"there is no table {name!r}.{nearest(name, known)} There are {', '.join(tables) or 'none'}."
        )

    def save(self, path: str | Path) -> Path:
        """Write the page, one HTML file that needs no network, and return its path."""
        from residua.report.xray import write_xray_page

        write_xray_page(Path(path), self.page())
        return Path(path)

    def page(self) -> Mapping[str, Any]:
        """Return what the page shows, in plain values."""
        from residua.xray.analyses import ANALYSES

        return {
            "name": self.name,
            "headline": self.headline,
            "findings": [finding.as_json() for finding in self.findings],
            "analyses": [
                {
                    "name": name,
                    "help": ANALYSES[name].help if name in ANALYSES else "",
                    "seconds": self.seconds.get(name),
                    "figures": result.figures,
                    **result.as_json(),
                }
                for name, result in self.results.items()
            ],
            **{
                key: getattr(self, key)
                for key in ("not_done", "notes", "facts", "units", "no_units", "seed", "effort")
            },
            **{
                key: getattr(self, key) for key in ("command", "versions", "created", "path_counts")
            },
        }

    def as_json(self) -> dict[str, Any]:
        """Return everything but the figures, which are drawn from the tables, and the counts of paths."""
        left_out = ("analyses", "path_counts")
        shown = {key: value for key, value in self.page().items() if key not in left_out}
        results = {name: result.as_json() for name, result in self.results.items()}
        return shown | {"analyses": results, "seconds": self.seconds}

    @property
    def headline(self) -> str:
        """The verdict in one sentence."""
        if not self.findings:
            return f"nothing found wrong by {plural(len(self.results), 'analysis', 'analyses')}"
        counts: Counter[str] = Counter(finding.severity for finding in self.findings)
        words = {"severe": "severe finding", "warning": "warning", "note": "note"}
        return ", ".join(plural(counts[s], word) for s, word in words.items() if counts[s])

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.headline}"]
        for finding in self.findings:
            lines += ["", *finding_lines(finding)]
        if self.not_done or self.notes:
            lines += ["", *(f"not done: {line}" for line in self.not_done), *self.notes]
        done = ", ".join(self.results) or "none"
        lines += ["", f"analyses: {done} ({duration(sum(self.seconds.values()))})"]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        items = "".join(
            f"<li><b>{finding.severity}</b> {escape(finding.what)}"
            f" <code>{escape(places(finding.where))}</code></li>"
            for finding in self.findings
        )
        head = f"<p><b>{escape(self.name)}</b>: {escape(self.headline)}</p>"
        return f"<div>{head}<ol>{items}</ol></div>" if items else f"<div>{head}</div>"


def places(where: tuple[str, ...]) -> str:
    """Write module paths in a line.

    >>> places(("a", "b", "c", "d", "e"))
    'a, b, c and 2 more'
    """
    named = ", ".join(where[:PLACES])
    return f"{named} and {len(where) - PLACES} more" if len(where) > PLACES else named


def evidence_text(evidence: Evidence) -> str:
    """Write measured, interval, and what the law expects, in a line."""
    text = f"{evidence.quantity.replace('_', ' ')} {measured(evidence.measured)}"
    if evidence.interval is not None:
        low, high = (measured(value) for value in evidence.interval)
        text += f" (95 % interval {low} to {high})"
    if evidence.expected is not None:
        text += f", expected {measured(evidence.expected)}"
    return f"{text}; {evidence.law}" if evidence.law else text


def finding_lines(finding: Finding) -> list[str]:
    """Return a finding as lines of text: verdict, places, evidence, remedy, what the remedy changed."""
    lines = [f"{finding.severity}: {finding.what} [{finding.confidence} confidence]"]
    if finding.where:
        lines.append(f"  where: {places(finding.where)}")
    if finding.lines:
        lines.append(f"  lines: {places(finding.lines)}")
    lines += [f"  evidence: {evidence_text(evidence)}" for evidence in finding.evidence]
    if finding.remedy:
        lines.append(f"  remedy: {finding.remedy}")
    if (change := finding.change) is not None:
        lines.append(
            f"  measured on a copy with {finding.prescription}: {change.quantity.replace('_', ' ')}"
            f" {measured(change.before)} becomes {measured(change.after)}"
        )
    return lines
