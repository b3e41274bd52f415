"""What an analysis returns: tables whose columns say what they mean, numbers for verdicts, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, what it means (definition, equation, source), its unit."""

    name: str
    meaning: str
    unit: str = ""


@dataclass
class Table:
    """Rows of {column name: value}; a value is a number, text, None (not measured) or a list of them."""

    title: str
    columns: Sequence[Column]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[Any]:
        """Return a column's values, in the order of the rows."""
        if name not in {column.name for column in self.columns}:
            raise KeyError(
                f"no column {name!r}; there is {', '.join(c.name for c in self.columns)}"
            )
        return [row.get(name) for row in self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def as_json(self) -> dict[str, Any]:
        """Return title, columns with their meanings, and rows."""
        columns = [{"name": c.name, "meaning": c.meaning, "unit": c.unit} for c in self.columns]
        return {"title": self.title, "columns": columns, "rows": self.rows}


@dataclass
class Result:
    """What one analysis found.

    analysis: its name, which is its file's. summary: {name: number or text} that verdicts read.
    tables, figures: by name; a figure is {"data", "layout"} as residua.report.figures has it.
    notes: sentences on how it was measured and what could not be.
    """

    analysis: str
    summary: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    figures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return everything but the figures, which are drawn from the tables."""
        tables = {name: table.as_json() for name, table in self.tables.items()}
        return {"summary": self.summary, "tables": tables, "notes": self.notes}
