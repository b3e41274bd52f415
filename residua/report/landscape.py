"""The page and the figures of a loss landscape: a surface to turn, contours, a profile with its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from residua.report.figures import STAGE_COLOURS, Figure, log_ticks
from residua.report.html import render_page
from residua.report.numbers import count, plural, significant

Array = NDArray[np.float64]
LOGARITHMIC = 10.0  # ratio of the largest to the smallest loss from which heights are logarithms
SCALE = [[i / (STAGE_COLOURS - 1), f"var(--stage-{i})"] for i in range(STAGE_COLOURS)]
MOST_SURFACES = 6  # that get contours of their own on the page
RINGS = 26  # radii of the profile, at most
DIGITS = 5
NORM_WORDS = {
    "frozen": "running statistics, as in evaluation, held while the weights move",
    "recalibrated": "statistics taken anew at every point",
    "batch": "the statistics of each batch, as in training",
}


@dataclass
class LandscapeFacts:
    """What the page shows; arrays as in residua.xray.landscape.Landscape.

    rows, columns: of the table of surfaces. facts: directions, norms, seed, pictures, points, evaluated,
    interpolated, controls, seconds, name, command.
    """

    x: Array
    y: Array
    loss: Array
    error: Array
    evaluated: NDArray[np.bool_]
    accuracy: Array
    spread: Array
    path: Array | None = None
    rows: Sequence[Mapping[str, Any]] = field(default_factory=list)
    columns: Sequence[tuple[str, str]] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_line(self) -> bool:
        """Whether there is one direction only."""
        return len(self.y) == 1

    @property
    def logarithmic(self) -> bool:
        """Whether losses are shown on a logarithmic scale."""
        known = self.loss[np.isfinite(self.loss)]
        return bool(known.size and 0 < LOGARITHMIC * known.min() < known.max())

    def method(self) -> list[str]:
        """Return sentences on how it was measured."""
        facts = self.facts
        kind = {
            "random": "Random directions, scaled filter by filter to the norm of the weights; biases and"
            " norm parameters do not move.",
            "pca": "The first two principal components of a trajectory of weights, of length 1.",
            "to": "The line from this network (0) to the other (1); norm parameters move along.",
        }.get(str(facts.get("directions")), "")
        norms = NORM_WORDS.get(str(facts.get("norms")), "")
        said = [
            kind,
            f"Norms use {norms}." if norms else "",
            self._pictures(),
            self._interpolation(),
        ]
        return [sentence for sentence in said if sentence]

    def _pictures(self) -> str:
        pictures = self.facts.get("pictures")
        if not pictures:
            return ""
        return (
            f"Every point is the mean over the same {plural(int(pictures), 'picture')}; its standard error"
            " says how far another such sample would move it."
        )

    def _interpolation(self) -> str:
        interpolated, evaluated = self.facts.get("interpolated"), self.facts.get("evaluated")
        if not interpolated:
            return ""
        controls = self.facts.get("controls") or {}
        checked = ""
        if controls.get("points"):
            checked = (
                f" {plural(controls['points'], 'random point')}, foretold before they were evaluated, were"
                f" off by {significant(controls['error'])} (root mean square; foretold:"
                f" {significant(controls['stated'])})."
            )
        return (
            f"{count(evaluated)} points were evaluated and {count(interpolated)} interpolated; what that"
            f" leaves unsure is in their standard errors.{checked}"
        )


def landscape_page(facts: LandscapeFacts) -> str:
    """Return the page as HTML text: one file, nothing loaded from the network."""
    figures = page_figures(facts)
    context = {
        "facts": facts.facts,
        "title": f"Loss landscape of {facts.facts.get('name') or 'a network'}",
        "method": facts.method(),
        "notes": facts.notes,
        "rows": facts.rows,
        "columns": facts.columns,
        "contours": [name for name in figures if name.startswith("contour")],
        "is_line": facts.is_line,
        "versions": facts.versions,
        "created": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    return render_page("landscape.html.j2", context, figures)


def page_figures(facts: LandscapeFacts) -> dict[str, Figure]:
    """Return the figures by name."""
    if facts.is_line:
        return {"line": line_figure(facts)}
    figures = {"surface": surface_figure(facts)}
    for pair in range(min(len(facts.loss), MOST_SURFACES)):
        figures[f"contour-{pair}"] = contour_figure(facts, pair)
    if facts.path is None:
        figures["profile"] = profile_figure(facts)
    return figures


def _heights(facts: LandscapeFacts, pair: int) -> list[list[float | None]]:
    """Return what is drawn: losses, or their common logarithms; None where not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = np.log10(facts.loss[pair]) if facts.logarithmic else facts.loss[pair]
    return [_numbers(row) for row in drawn]


def _numbers(values: Array) -> list[float | None]:
    return [float(f"{v:.{DIGITS}g}") if np.isfinite(v) else None for v in values]


def _ticks(facts: LandscapeFacts) -> Figure:
    """Return the ticks of an axis of heights, at round losses."""
    if not facts.logarithmic:
        return {}
    known = facts.loss[np.isfinite(facts.loss)]
    ticks = log_ticks(float(known.min()), float(known.max()))
    return {
        "tickmode": "array",
        "tickvals": [float(np.log10(tick)) for tick in ticks],
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _about(facts: LandscapeFacts, pair: int) -> list[list[str]]:
    """Return what is said of each point when it is pointed at."""
    return [
        [
            f"loss {loss:.4g} ± {error:.2g}{'' if evaluated else ', interpolated'}"
            for loss, error, evaluated in zip(*row, strict=True)
        ]
        for row in zip(facts.loss[pair], facts.error[pair], facts.evaluated[pair], strict=True)
    ]


def surface_figure(facts: LandscapeFacts, pair: int = 0) -> Figure:
    """Describe the surface of a pair of directions, to be turned."""
    trace = {
        "type": "surface",
        "x": _numbers(facts.x),
        "y": _numbers(facts.y),
        "z": _heights(facts, pair),
        "text": _about(facts, pair),
        "colorscale": SCALE,
        "showscale": False,
        "hovertemplate": "(%{x:.3g}, %{y:.3g})<br>%{text}<extra></extra>",
        "contours": {"z": {"show": True, "usecolormap": True, "project": {"z": True}}},
    }
    axis = {"gridcolor": "var(--rule)", "color": "var(--muted)", "showspikes": False}
    scene = {
        "xaxis": axis | {"title": {"text": "along d₁"}},
        "yaxis": axis | {"title": {"text": "along d₂"}},
        "zaxis": axis | {"title": {"text": "loss"}} | _ticks(facts),
        "dragmode": "turntable",
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        "camera": {"eye": {"x": 1.25, "y": -1.25, "z": 0.9}},
    }
    layout = {"scene": scene, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}}
    label = "The loss as a surface over two directions in the space of weights"
    return {"data": [trace], "layout": layout, "height": 560, "label": label}


def contour_figure(facts: LandscapeFacts, pair: int) -> Figure:
    """Describe the contours of a pair's surface, the points that were evaluated, and a trajectory."""
    bar = {"title": {"text": "loss"}, "thickness": 12, "outlinewidth": 0} | _ticks(facts)
    contours = {
        "type": "contour",
        "x": _numbers(facts.x),
        "y": _numbers(facts.y),
        "z": _heights(facts, pair),
        "text": _about(facts, pair),
        "colorscale": SCALE,
        "ncontours": 24,
        "contours": {"coloring": "heatmap"},
        "line": {"width": 0.6, "color": "var(--paper)"},
        "colorbar": bar,
        "hovertemplate": "(%{x:.3g}, %{y:.3g})<br>%{text}<extra></extra>",
    }
    data: list[Figure] = [contours]
    if not facts.evaluated[pair].all():
        rows, columns = np.nonzero(facts.evaluated[pair])
        marker = {"size": 2.5, "color": "var(--paper)", "opacity": 0.8}
        data.append(_dots(facts.x[columns], facts.y[rows], "markers", marker=marker))
    if facts.path is not None:
        ends = np.vstack([facts.path, np.zeros((1, 2))])
        line = {"color": "var(--series-2)", "width": 2}
        marker = {"size": 6, "color": "var(--series-2)"}
        data.append(_dots(ends[:, 0], ends[:, 1], "lines+markers", line=line, marker=marker))
    layout = {
        "xaxis": {"title": {"text": "along d₁"}, "constrain": "domain"},
        "yaxis": {"title": {"text": "along d₂"}, "scaleanchor": "x", "constrain": "domain"},
        "showlegend": False,
    }
    label = f"Contours of the loss, pair {pair} of directions"
    return {"data": data, "layout": layout, "height": 460, "label": label}


def _dots(x: Array, y: Array, mode: str, **more: Any) -> Figure:
    trace = {"type": "scatter", "mode": mode, "x": _numbers(x), "y": _numbers(y)}
    return trace | {"hoverinfo": "skip"} | more


def rings(facts: LandscapeFacts) -> tuple[Array, list[Array]]:
    """Return radii (R,) and for each pair the mean loss on the ring around each (R,); nan for empty rings."""
    across, along = np.meshgrid(facts.x, facts.y)
    radius = np.hypot(across, along)
    most = min(np.abs(facts.x).max(), np.abs(facts.y).max())
    many = min(RINGS, len(facts.x) // 2 + 1)  # a ring is no narrower than the grid
    width = most / max(many - 1, 1)
    ring = np.where(radius <= most + width / 2, np.round(radius / width), -1).astype(int)
    means = [
        np.array([loss[ring == k].mean() if (ring == k).any() else np.nan for k in range(many)])
        for loss in facts.loss
    ]
    return width * np.arange(many), means


def profile_figure(facts: LandscapeFacts) -> Figure:
    """Describe the mean loss at each distance from the network, a line for each pair of directions."""
    radii, means = rings(facts)
    data = []
    for pair, mean in enumerate(means):
        known = np.isfinite(mean)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": f"pair {pair}",
                "x": _numbers(radii[known]),
                "y": _numbers(mean[known]),
                "line": {"color": f"var(--stage-{pair % STAGE_COLOURS})", "width": 2},
                "hovertemplate": "%{y:.4g}",
            }
        )
    axis: Figure = {"title": {"text": "mean loss on the ring"}}
    if facts.logarithmic:
        axis["type"] = "log"
    layout = {
        "xaxis": {"title": {"text": "distance from the network, sqrt(a² + b²)"}},
        "yaxis": axis,
        "hovermode": "x unified",
        "showlegend": len(data) > 1,
    }
    label = "Mean loss over distance, one line a pair of directions"
    return {"data": data, "layout": layout, "height": 320, "label": label}


def line_figure(facts: LandscapeFacts) -> Figure:
    """Describe the loss along one direction with its standard error, a line for each direction."""
    data = []
    for pair, loss in enumerate(facts.loss):
        colour = f"var(--series-{pair % 4 + 1})"
        error = {
            "type": "data",
            "array": _numbers(facts.error[pair, 0]),
            "thickness": 1,
            "width": 0,
        }
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"direction {pair}",
                "x": _numbers(facts.x),
                "y": _numbers(loss[0]),
                "error_y": error | {"color": colour},
                "line": {"color": colour, "width": 2},
                "marker": {"size": 4},
                "hovertemplate": "%{y:.4g}",
            }
        )
    axis: Figure = {"title": {"text": "loss"}}
    if facts.logarithmic:
        axis["type"] = "log"
    words = (
        "from this network (0) to the other (1)"
        if facts.facts.get("directions") == "to"
        else "along d₁"
    )
    layout = {
        "xaxis": {"title": {"text": words}},
        "yaxis": axis,
        "hovermode": "x unified",
        "showlegend": len(data) > 1,
    }
    return {"data": data, "layout": layout, "height": 420, "label": "The loss along a line"}


def contour_picture(file: IO[bytes], facts: LandscapeFacts) -> None:
    """Write a PNG: contours of every surface side by side, or the lines with their standard errors."""
    from matplotlib.figure import Figure as Canvas

    shown = 1 if facts.is_line else min(len(facts.loss), MOST_SURFACES)
    canvas = Canvas(figsize=(5.2 * shown, 4.4), layout="constrained", dpi=160)
    for pair, axes in enumerate(np.atleast_1d(canvas.subplots(1, shown))):
        if facts.is_line:
            for loss, error in zip(facts.loss, facts.error, strict=True):
                axes.errorbar(facts.x, loss[0], yerr=np.nan_to_num(error[0]), linewidth=1.2)
            axes.set_ylabel("loss")
            if facts.logarithmic:
                axes.set_yscale("log")
        else:
            _contours(canvas, axes, facts, pair)
        axes.set_xlabel("along d1")
    canvas.savefig(file, format="png", metadata={"Software": None})


def _contours(canvas: Any, axes: Any, facts: LandscapeFacts, pair: int) -> None:
    heights = np.ma.masked_invalid(np.array(_heights(facts, pair), dtype=np.float64))
    filled = axes.contourf(facts.x, facts.y, heights, levels=30, cmap="viridis")
    axes.contour(facts.x, facts.y, heights, levels=15, colors="white", linewidths=0.4)
    words = "log10 loss" if facts.logarithmic else "loss"
    canvas.colorbar(filled, ax=axes, label=words)
    if facts.path is not None:
        ends = np.vstack([facts.path, np.zeros((1, 2))])
        axes.plot(ends[:, 0], ends[:, 1], "o-", color="tab:orange", markersize=3)
    axes.set_aspect("equal", adjustable="box")
    axes.set_ylabel("along d2")
