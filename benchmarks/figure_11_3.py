"""The chapter's figure 11.3, shattered gradients: what makes it come out, and what does not.

    python benchmarks/figure_11_3.py [--seeds 20] [--points 256] [--width 200] [--out FILE.png] [--json]

One scalar in, one scalar out, `width` units a layer, the input on [-2, 2): the gradient dy/dx over x, and its
autocorrelation over the shift of x (the mean left in, divided by that of shift zero, as the book's notebook
does), beside those of white and brown noise (residua.xray.laws.noise). Prince, Understanding Deep Learning,
figure 11.3 and notebook 11.1; Balduzzi et al. 2017, figures 1 and 2.

Glorot initialisation alone, which the caption names, does not give the figure. Without centring the layers
make all inputs alike (c -> 1, residua.xray.laws.correlation): two inputs then share almost all active
units, and their gradients stay alike. Mean-centred over the inputs, or batch-normalised, each layer halves
their share again: the gradient of 24 layers is white at a shift of 1/64. Statistics are held fixed in the
gradient: each input's derivative is that of its own output.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from _common import caption, machine
from rich.console import Console
from rich.table import Table

from residua.xray.intervals import mean_interval
from residua.xray.laws.correlation import gradient_correlations
from residua.xray.laws.noise import autocorrelation, noise_autocorrelation

Array = npt.NDArray[Any]
Layer = Literal["as it is", "centred", "normed"]

LOW, HIGH = -2.0, 2.0
SHIFTS = (1 / 64, 1 / 8, 1 / 2)  # of x, in the table
EPS = 1e-5


@dataclass(frozen=True)
class Case:
    """A way of making the network; gain: variance of weights times width, of biases likewise."""

    name: str
    gain: float = 1.0
    bias: float = 1.0
    layer: Layer = "as it is"
    residual: bool = False


GLOROT = Case("Glorot")
CASES = (
    GLOROT,
    Case("He", gain=2.0),
    Case("He, no biases", gain=2.0, bias=0.0),
    Case("Glorot, centred", layer="centred"),
    Case("Glorot, batch norm", layer="normed"),
    Case("He, residual, norm first", gain=2.0, layer="normed", residual=True),
)
CENTRED = CASES[3]
DEPTHS = (1, 24, 50)


def gradient(case: Case, layers: int, seed: int, width: int = 200, points: int = 256) -> Array:
    """Return dy/dx (points,) of one network at evenly spaced x in [-2, 2)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights, biases = math.sqrt(case.gain / width), math.sqrt(case.bias / width)
    x = torch.linspace(LOW, HIGH, points + 1, dtype=torch.float64)[:-1, None].requires_grad_()
    h = normal(1, width) * weights * x + normal(width) * biases
    if case.residual:
        for _ in range(layers):
            h = h + over_inputs(h, case.layer).relu() @ (normal(width, width) * weights)
    else:
        h = over_inputs(h, case.layer).relu()
        for _ in range(layers - 1):
            h = h @ (normal(width, width) * weights) + normal(width) * biases
            h = over_inputs(h, case.layer).relu()
    y = h @ (normal(width, 1) * weights)
    return torch.autograd.grad(y.sum(), x)[0][:, 0].numpy()


def over_inputs(h: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Centre or normalise each unit over the inputs (points, width), with fixed statistics."""
    if layer == "as it is":
        return h
    var, mean = torch.var_mean(h.detach(), 0, correction=0)
    return h - mean if layer == "centred" else (h - mean) / (var + EPS).sqrt()


def autocorrelations(case: Case, layers: int, seeds: int, width: int, points: int) -> Array:
    """Return the autocorrelation (seeds, points) of each network's gradient."""
    return np.stack(
        [autocorrelation(gradient(case, layers, s, width, points)) for s in range(seeds)]
    )


def lag(shift: float, points: int) -> int:
    """Return a shift of x in steps between points."""
    return max(1, round(shift * points / (HIGH - LOW)))


def measure(seeds: int, width: int, points: int) -> list[dict[str, Any]]:
    """Return a row for every case and depth: mean autocorrelation and 95 % interval at each shift."""
    rows = []
    for case in CASES:
        for layers in DEPTHS:
            found = autocorrelations(case, layers, seeds, width, points)
            row: dict[str, Any] = {"case": case.name, "layers": layers, "n": seeds, "shifts": {}}
            for shift in SHIFTS:
                estimate = mean_interval(found[:, lag(shift, points)])
                row["shifts"][str(shift)] = [estimate.value, estimate.low, estimate.high]
            row["curve"] = found.mean(0).tolist()
            rows.append(row)
    return rows


def draw(rows: list[dict[str, Any]], width: int, points: int, path: Path) -> None:
    """Write the figure: gradients of the first seed above, autocorrelations below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = [case for case in CASES if case.bias > 0]
    figure = Figure(figsize=(3.1 * len(shown), 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(shown))
    x = np.linspace(LOW, HIGH, points, endpoint=False)
    half = points // 2
    shifts = np.arange(half) * (HIGH - LOW) / points
    for column, case in enumerate(shown):
        for axis, layers in zip(axes[:2, column], (1, 50), strict=True):
            axis.plot(x, gradient(case, layers, 0, width, points), linewidth=0.8)
            axis.set_title(f"{case.name}, {layers} layer{'s' * (layers > 1)}", fontsize=9)
            axis.set_xlabel("input x")
        axis = axes[2, column]
        for row in rows:
            if row["case"] == case.name:
                axis.plot(shifts, row["curve"][:half], label=f"{row['layers']} layers")
        for noise, style in (("white", "k:"), ("brown", "k--")):
            mean, _ = noise_autocorrelation(noise, points)
            axis.plot(shifts, mean[:half], style, linewidth=1, label=f"{noise} noise")
        axis.set(ylim=(-0.3, 1.05), xlabel="shift of x")
    for axis, label in zip(axes[:, 0], ("dy/dx", "dy/dx", "autocorrelation"), strict=True):
        axis.set_ylabel(label)
    axes[2, 0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def table(rows: list[dict[str, Any]]) -> Table:
    """Lay out the rows."""
    out = Table(title=f"autocorrelation of dy/dx, mean and 95 % interval, n = {rows[0]['n']} seeds")
    for heading in ("network", "layers", *(f"shift {shift:g}" for shift in SHIFTS)):
        out.add_column(heading)
    for row in rows:
        cells = [f"{v:.3f} ({low:.3f} .. {high:.3f})" for v, low, high in row["shifts"].values()]
        out.add_row(row["case"], str(row["layers"]), *cells)
    return out


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--points", type=int, default=256)
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--out", type=Path, help="write the figure to this PNG file")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="it needs no other")
    parser.add_argument("--quick", action="store_true", help="3 seeds of 64 points and 50 units")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.points, options.width = 3, 64, 50
    rows = measure(options.seeds, options.width, options.points)
    laws = {
        "as it is": gradient_correlations(50)[0],
        "centred": gradient_correlations(50, centred=True)[0],
    }
    facts = machine(torch.device(options.device))
    if options.out is not None:
        draw(rows, options.width, options.points, options.out)
    if options.json:
        print(json.dumps({"rows": rows, "laws": laws, "machine": facts}))
        return
    console = Console()
    console.print(table(rows))
    console.print(
        "the law for two unrelated inputs of 50 wide layers without biases: their gradients correlate"
        f" by {laws['as it is']:.1e}, centred by {laws['centred']:.1e}"
    )
    console.print(caption(facts))


if __name__ == "__main__":
    main()
