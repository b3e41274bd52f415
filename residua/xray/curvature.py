"""Curvature of the loss: the Hessian's extreme eigenvalues, its trace and its spectral density.

    H = d^2 L / dw^2 over all trainable parameters;  L: mean over batches of the loss

Extremes: Lanczos from the gradient, which in networks lies mostly in the space of the largest eigenvalues
(Gur-Ari, Roberts & Dyer 2018), so that few products suffice; the largest Ritz value is never above the
largest eigenvalue, and an eigenvalue lies within its residual. Trace: Hutchinson's signs on what that
subspace leaves over. Density: stochastic Lanczos quadrature, bars over probes (Ghorbani et al. 2019;
Yao et al. 2020).
Gradient descent with step eta and momentum m is unstable along eigenvectors with eigenvalue above
2 (1 + m) / eta (Cohen, Kaur, Li, Kolter & Talwalkar 2021).

Units: eigenvalues are in loss per squared weight. statistics: "batch" (as in training, the default),
"detached" or "running" (as in evaluation): they give different Hessians, and the result names its own.
Cost in gradients: about 1.5 a batch, and 2.5 a batch and product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from residua.errors import BadInput, ResiduaError
from residua.xray.hessian import Hessian
from residua.xray.lanczos import Krylov, lanczos
from residua.xray.objective import Batch, Objective
from residua.xray.parts import LEAST, first_samples
from residua.xray.quadrature import Density, density, negative_share, trace
from residua.xray.result import Column, Result, Table
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject

STEPS = {"quick": 1, "normal": 2}  # products that effort allows for the extremes

_EIGENVALUES = [
    Column(
        "value", "Ritz value: the Rayleigh quotient of a vector in the subspace", "loss/weight²"
    ),
    Column(
        "residual", "an eigenvalue of the Hessian lies within this of the value", "loss/weight²"
    ),
    Column("start", "where Lanczos began: the gradient, or random signs"),
]
_DENSITY = [
    Column("eigenvalue", "where", "loss/weight²"),
    Column(
        "density",
        "share of eigenvalues per unit, smoothed by a Gaussian of `width`",
        "weight²/loss",
    ),
    Column("error", "standard error over probes", "weight²/loss"),
]


def curvature(
    subject: Subject,
    *,
    statistics: Statistics = "batch",
    steps: int | None = None,
    probes: int = 0,
    depth: int = 10,
    batches: Sequence[Batch] | None = None,
    dtype: torch.dtype | None = None,
    learning_rate: float | None = None,
    momentum: float = 0.0,
    width: float | None = None,
    keep_graph: bool = True,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """Measure the Hessian of the loss at the present weights.

    Args:
        steps: of Lanczos from the gradient; None: what the effort allows (1 quick, 2 normal) on the
            first half of the batch. More steps tighten the residuals; each holds one vector of the
            weights' size.
        probes: random starts for trace and density; 0: neither. depth: steps of each.
        batches: (inputs, targets) pairs over which the loss is averaged; None: the subject's.
        dtype: torch.float64 for double precision; None: the model's, at least single.
        learning_rate, momentum: of plain gradient descent, if it is known: for the bound of stability.
        width: of the density's Gaussian, in units of the eigenvalues; None: spread / depth.
        keep_graph: False: less memory, a product costs twice as much.

    Raises:
        BadInput: steps or depth below 1, probes below 0, no trainable parameter.
        ResiduaError: the loss or its gradient is not finite.
    """
    if steps is None:
        steps = STEPS[subject.effort]
        if batches is None:  # a product costs several gradients: half a batch halves it
            subject = first_samples(subject, max(LEAST, subject.samples // 2))
    if min(steps, depth) < 1 or probes < 0:
        raise BadInput(
            f"steps {steps} and depth {depth} must be 1 or more, probes {probes} not negative"
        )
    with subject.running(statistics):
        hessian = Hessian(Objective(subject, batches, dtype), keep_graph)
        if not (math.isfinite(hessian.loss) and bool(hessian.gradient.isfinite().all())):
            raise ResiduaError(
                f"the loss is {hessian.loss:g} with a gradient that is not finite: no curvature"
            )
        extreme, runs = _runs(subject, hessian, steps, probes, depth, progress)
    result = Result("curvature", _facts(subject, hessian, extreme, runs))
    result.summary |= {
        "statistics": statistics,
        "learning_rate": learning_rate,
        "momentum": momentum,
    }
    result.tables["eigenvalues"] = _eigenvalues(extreme, runs)
    result.notes = _notes(result.summary)
    if runs:
        spectrum = density(runs, width)
        result.summary |= _random_facts(runs, extreme) | {"width": spectrum.width}
        result.tables["density"] = _density_table(spectrum)
        result.figures["density"] = _figure(result.tables["density"], learning_rate, momentum)
    return result


def _runs(
    subject: Subject,
    hessian: Hessian,
    steps: int,
    probes: int,
    depth: int,
    progress: Callable[[float, str], None] | None,
) -> tuple[Krylov, list[Krylov]]:
    """Run Lanczos from the gradient and from every probe."""
    total = steps + probes * depth

    def tick() -> None:
        if progress is not None:
            progress(min(1.0, hessian.products / total), "Hessian-vector products")

    generator = torch.Generator().manual_seed(subject.seed)
    size, like = len(hessian.gradient), hessian.gradient

    def signs() -> torch.Tensor:
        return (torch.randint(0, 2, (size,), generator=generator) * 2 - 1).to(like)

    start = hessian.gradient if bool(hessian.gradient.any()) else signs()
    extreme = lanczos(hessian, start, steps, tick)
    return extreme, [lanczos(hessian, signs(), depth, tick) for _ in range(probes)]


def _facts(
    subject: Subject, hessian: Hessian, extreme: Krylov, runs: Sequence[Krylov]
) -> dict[str, Any]:
    """Return the numbers that need no chance: extremes with residuals, curvature along the gradient."""
    highest = max([extreme, *runs], key=lambda run: float(run.values[-1]))
    lowest = min([extreme, *runs], key=lambda run: float(run.values[0]))
    norm = float(hessian.gradient.norm())
    return {
        "loss": hessian.loss,
        "gradient_norm": norm,
        "largest": float(highest.values[-1]),
        "largest_residual": float(highest.residuals[-1]),
        "smallest": float(lowest.values[0]),
        "smallest_residual": float(lowest.residuals[0]),
        "along_gradient": float(extreme.diagonal[0]) if norm else None,
        "parameters": len(hessian.gradient),
        "batches": len(hessian.objective),
        "samples": subject.samples,
        "products": hessian.products,
        "probes": len(runs),
        "method": hessian.method,
        "precision": str(hessian.objective.dtype).removeprefix("torch."),
    }


def _random_facts(runs: Sequence[Krylov], extreme: Krylov) -> dict[str, Any]:
    estimate, error = trace(runs, extreme)
    below = negative_share(runs)
    return {
        "trace": estimate.value,
        "trace_error": error,
        "trace_interval": estimate.interval,
        "negative_share": below.value,
        "negative_share_interval": (max(0.0, below.low), min(1.0, below.high)),
    }


def _eigenvalues(extreme: Krylov, runs: Sequence[Krylov]) -> Table:
    table = Table("Ritz values of the Hessian", _EIGENVALUES)
    for start, run in [("gradient", extreme), *(("signs", run) for run in runs)]:
        for value, residual in zip(run.values.tolist(), run.residuals.tolist(), strict=True):
            table.rows.append({"value": value, "residual": residual, "start": start})
    return table


def _density_table(spectrum: Density) -> Table:
    errors = [None] * len(spectrum.grid) if spectrum.error is None else spectrum.error.tolist()
    table = Table("Spectral density of the Hessian", _DENSITY)
    for where, height, error in zip(
        spectrum.grid.tolist(), spectrum.density.tolist(), errors, strict=True
    ):
        table.rows.append({"eigenvalue": where, "density": height, "error": error})
    return table


def _notes(facts: Mapping[str, Any]) -> list[str]:
    notes = [
        f"The Hessian is that of the loss with {facts['statistics']} statistics in the norms, over"
        f" {facts['batches']} batch(es) of {facts['samples']}, in {facts['precision']},"
        f" by {facts['products']} products ({facts['method']}).",
        "The largest value is a lower bound of the largest eigenvalue, the smallest an upper bound of the"
        " smallest; an eigenvalue lies within each value's residual.",
    ]
    if facts["probes"] == 0:
        notes.append("Trace and density need random starts: `probes=10` measures them.")
    return notes


def stability_bound(learning_rate: float, momentum: float = 0.0) -> float:
    """Return the largest curvature along which gradient descent does not diverge: 2 (1 + m) / eta.

    >>> stability_bound(0.1), round(stability_bound(0.1, 0.9), 9)
    (20.0, 38.0)
    """
    return 2.0 * (1.0 + momentum) / learning_rate


def _figure(table: Table, learning_rate: float | None, momentum: float) -> Mapping[str, Any]:
    """Describe the density with a band of two standard errors, and the bound of stability."""
    xs, ys = table["eigenvalue"], table["density"]
    errors = [error or 0.0 for error in table["error"]]
    floor = max(ys) * 1e-8  # what is below cannot be told from nothing on a logarithmic axis
    band = [max(y + 2 * e, floor) for y, e in zip(ys, errors, strict=True)]
    low = [max(y - 2 * e, floor) for y, e in zip(ys, errors, strict=True)]
    edge = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    data: list[dict[str, Any]] = [
        edge | {"x": xs, "y": low, "showlegend": False},
        edge | {"x": xs, "y": band, "fill": "tonexty", "name": "two standard errors"},
        {
            "type": "scatter",
            "mode": "lines",
            "name": "density",
            "x": xs,
            "y": [max(y, floor) for y in ys],
            "line": {"color": "var(--series-1)", "width": 2},
        },
    ]
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "eigenvalue (loss / weight²)"}},
        "yaxis": {"title": {"text": "density (weight² / loss)"}, "type": "log"},
    }
    if learning_rate:
        bound = stability_bound(learning_rate, momentum)
        layout["shapes"] = [
            {"type": "line", "x0": bound, "x1": bound, "y0": 0, "y1": 1, "yref": "paper"}
        ]
    return {
        "data": data,
        "layout": layout,
        "height": 320,
        "label": "Spectral density of the Hessian",
    }
