"""What was measured: a loss for every point of every surface, how sure it is, and the files of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residua.report.html import write_page
from residua.report.landscape import LandscapeFacts, contour_picture, landscape_page, page_figures
from residua.xray.facts import versions
from residua.xray.landscape.storage import whole
from residua.xray.landscape.vtk import write_vtk
from residua.xray.result import Column, Result, Table

Array = NDArray[np.float64]
COLUMNS = (
    Column("pair", "which pair of directions"),
    Column("centre", "loss of the network itself: the evaluated point nearest to (0, 0)"),
    Column("least", "smallest loss on the surface"),
    Column("most", "largest loss on the surface"),
    Column("error", "median standard error of a point: of the pictures and of interpolation"),
    Column("paired", "median standard error of a point's difference from the centre"),
    Column("evaluated", "points that were evaluated; the others are interpolated"),
)


@dataclass
class Landscape:
    """Surfaces over a grid; a line is a surface of one row.

    x (columns,), y (rows,): coordinates along the directions. loss, error, paired, accuracy, evaluated,
    interpolation: (pairs, rows, columns): mean loss; its standard error; that of the difference from the
    centre on the same pictures; share of right answers; whether evaluated; the part of the standard error
    that interpolation adds. path: (T, 2), where a trajectory lies. facts: how it was measured.
    """

    x: Array
    y: Array
    loss: Array
    error: Array
    paired: Array
    accuracy: Array
    evaluated: NDArray[np.bool_]
    interpolation: Array
    path: Array | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_line(self) -> bool:
        """Whether there is one direction only."""
        return len(self.y) == 1

    @cached_property
    def centre(self) -> tuple[int, int]:
        """(row, column) of the point nearest to (0, 0)."""
        return int(np.abs(self.y).argmin()), int(np.abs(self.x).argmin())

    @property
    def mean(self) -> Array:
        """Mean loss over pairs of directions (rows, columns)."""
        return np.asarray(self.loss.mean(0))

    @property
    def spread(self) -> Array:
        """Standard deviation of the loss between pairs of directions (rows, columns); nan for one pair."""
        if len(self.loss) < 2:
            return np.full(self.loss.shape[1:], np.nan)
        return np.asarray(self.loss.std(0, ddof=1))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each surface, as COLUMNS has them."""
        return [
            {
                "pair": pair,
                "centre": float(self.loss[pair][self.centre]),
                "least": _finite(np.min, self.loss[pair]),
                "most": _finite(np.max, self.loss[pair]),
                "error": _finite(np.median, self.error[pair]),
                "paired": _finite(np.median, self.paired[pair]),
                "evaluated": int(self.evaluated[pair].sum()),
            }
            for pair in range(len(self.loss))
        ]

    def result(self) -> Result:
        """Return summary, table and figures as the other analyses do."""
        rows = self.rows()
        summary = {key: self.facts.get(key) for key in ("norms", "directions", "seed", "pictures")}
        summary |= {"centre": rows[0]["centre"], "most": rows[0]["most"]}
        table = Table("Surfaces", COLUMNS, rows)
        notes = [*self.notes, *self.page_facts().method()]
        figures = page_figures(self.page_facts())
        return Result("landscape", summary, {"surfaces": table}, dict(figures), notes)

    def page_facts(self) -> LandscapeFacts:
        """Return what the page shows."""
        return LandscapeFacts(
            x=self.x,
            y=self.y,
            loss=self.loss,
            error=self.error,
            evaluated=self.evaluated,
            accuracy=self.accuracy,
            spread=self.spread,
            path=self.path,
            rows=self.rows(),
            columns=[(c.name, c.meaning) for c in COLUMNS],
            facts=self.facts,
            notes=self.notes,
            versions=versions(),
        )

    def save(self, folder: str | Path) -> list[Path]:
        """Write landscape.npz, landscape-PAIR.vtk, contour.png and landscape.html; return their paths.

        Each file is whole or absent. Heights in the VTK files are losses; what is not finite stays so.
        """
        folder = Path(folder)
        names = ("x", "y", "loss", "error", "paired", "accuracy", "evaluated", "interpolation")
        arrays: dict[str, Any] = {name: getattr(self, name) for name in names}
        if self.path is not None:
            arrays["path"] = self.path
        written = [folder / "landscape.npz"]
        with whole(written[0]) as file:
            np.savez(file, **arrays)
        for pair, loss in enumerate(self.loss):
            values = {
                "loss": loss,
                "standard_error": self.error[pair],
                "accuracy": self.accuracy[pair],
            }
            values["evaluated"] = self.evaluated[pair].astype(np.float64)
            written.append(folder / f"landscape-{pair}.vtk")
            with whole(written[-1]) as file:
                write_vtk(file, self.x, self.y, loss, values, f"loss landscape, pair {pair}")
        written.append(folder / "contour.png")
        with whole(written[-1]) as file:
            contour_picture(file, self.page_facts())
        written.append(folder / "landscape.html")
        write_page(written[-1], landscape_page(self.page_facts()))
        return written


def _finite(take: Any, values: Array) -> float | None:
    finite = values[np.isfinite(values)]
    return float(take(finite)) if finite.size else None
