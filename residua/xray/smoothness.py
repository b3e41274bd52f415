"""How smooth the loss is along its own gradient: loss variation, predictiveness, effective beta.

    w(eta) = w - eta g,   g = dL/dw
    loss variation             L(w(eta)), its range over eta
    gradient predictiveness    |g(w(eta)) - g|
    effective beta-smoothness  the largest |g(w(eta)) - g| / |eta g| over eta

Santurkar, Tsipras, Ilyas & Madry 2018, "How does batch normalization help optimization?", figure 4 (norms
are l2). Beside them: the cosine of the two gradients, and what a straight line would give, -eta |g|^2.
On a quadratic with Hessian H they are -eta g.g + eta^2 g.Hg / 2, eta |Hg| and |Hg| / |g|.

Step sizes: multiples of the learning rate where one is given (units: squared weight per loss), else of the
step that moves the weights by a thousandth of their length, |eta g| = 0.001 |w|, so that networks can be
compared. statistics: "batch" (as in training, the default), "detached" or "running". With several batches
or seeds each has its own gradient and path; intervals are over these. Cost: one gradient a step, batch
and seed, and one more for the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from residua.errors import BadInput
from residua.xray.intervals import mean_interval
from residua.xray.objective import Batch, Objective
from residua.xray.result import Column, Result, Table
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject

MULTIPLES = {"quick": (1.0,), "normal": (1.0, 4.0)}
RELATIVE_STEP = 1e-3  # |eta g| / |w| where no learning rate is known
MEASURED = ("loss_change", "predictiveness", "beta", "cosine")

_STEPS = [
    Column("seed", "of the freshly built network; None: the network as it was given"),
    Column("batch", "which batch, from 0"),
    Column("multiple", "step size as a multiple of the unit step"),
    Column("step", "eta", "weight²/loss"),
    Column("distance", "|eta g|: how far the weights move", "weight"),
    Column("loss_change", "L(w - eta g) - L(w)", "loss"),
    Column("straight_line", "-eta |g|²: what the slope alone promises", "loss"),
    Column("predictiveness", "|g(w - eta g) - g(w)|, l2", "loss/weight"),
    Column("beta", "|g(w - eta g) - g(w)| / |eta g|; 0 for no step", "loss/weight²"),
    Column("cosine", "of the gradients before and after the step"),
]
_SPREAD = [
    Column("multiple", "step size as a multiple of the unit step"),
    *(
        Column(f"{name}{part}", f"{what} over batches and seeds: {name}")
        for name in MEASURED
        for part, what in (("", "mean"), ("_low", "95 % from"), ("_high", "95 % to"))
    ),
    Column("n", "batches and seeds measured"),
]

Row = dict[str, Any]


def smoothness(
    subject: Subject,
    *,
    statistics: Statistics = "batch",
    learning_rate: float | None = None,
    multiples: Sequence[float] | None = None,
    batches: Sequence[Batch] | None = None,
    seeds: Sequence[int] = (),
    dtype: torch.dtype | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """Measure the loss and its gradient at steps along the gradient.

    Args:
        learning_rate: of plain gradient descent, where it is known: the unit of the steps.
        multiples: of the unit step; None: 1 in quick, 1 and 4 in normal effort.
        batches: (inputs, targets) pairs; None: the subject's, one after the other, not averaged.
        seeds: freshly built twins to measure as well as the network itself; needs `subject.rebuild`.
        dtype: torch.float64 for double precision; None: the model's, at least single.

    Raises:
        BadInput: no multiple, a negative one or learning rate; seeds without a way to build a twin.
    """
    multiples = MULTIPLES[subject.effort] if multiples is None else multiples
    if not multiples or min(multiples) < 0 or (learning_rate is not None and learning_rate <= 0):
        raise BadInput("steps along the gradient must be one or more, and not negative")
    if seeds and subject.rebuild is None:
        raise BadInput("seeds need a function that builds the network anew (rebuild)")
    rows: list[Row] = []
    walks = [(None, subject), *((seed, _twin(subject, seed)) for seed in seeds)]
    for done, (seed, one) in enumerate(walks):
        if progress is not None:
            progress(done / len(walks), "steps along the gradient")
        with one.running(statistics):
            objective = Objective(one, batches, dtype)
            for index in range(len(objective)):
                walked = _walk(objective, index, multiples, learning_rate)
                rows += [{"seed": seed, "batch": index} | row for row in walked]
    result = Result("smoothness", _summary(rows))
    result.summary |= {"statistics": statistics, "learning_rate": learning_rate}
    result.tables["steps"] = Table("Steps along the gradient", _STEPS, rows)
    result.tables["spread"] = Table("Smoothness by step size", _SPREAD, _spread(rows, multiples))
    result.figures["smoothness"] = _figure(result.tables["spread"])
    unit = (
        f"the learning rate {learning_rate:g}"
        if learning_rate
        else f"the step that moves the weights by {RELATIVE_STEP:g} of their length"
    )
    result.notes.append(
        f"Multiples are of {unit}; {statistics} statistics in the norms; {len(rows)} steps measured."
    )
    return result


def _twin(subject: Subject, seed: int) -> Subject:
    assert subject.rebuild is not None
    model = subject.rebuild(seed).to(subject.device)
    return replace(subject, model=model, seed=seed)


def _walk(
    objective: Objective, index: int, multiples: Sequence[float], rate: float | None
) -> list[Row]:
    """Step from w by every multiple, each time from w; the weights are put back."""
    start = objective.flat(objective.parameters).clone()
    loss, gradient = objective.gradient(index)
    norm = float(gradient.norm())
    unit = rate or (RELATIVE_STEP * float(start.norm()) / norm if norm else 0.0)
    rows: list[Row] = []
    for multiple in multiples:
        step = multiple * unit
        objective.place(start - step * gradient)
        there, turned = objective.gradient(index)
        apart = float((turned - gradient).norm())
        lengths = norm * float(turned.norm())
        distance = step * norm
        rows.append(
            {
                "multiple": multiple,
                "step": step,
                "distance": distance,
                "loss_change": there - loss,
                "straight_line": -step * norm**2,
                "predictiveness": apart,
                "beta": apart / distance if distance else 0.0,
                "cosine": float(torch.dot(turned, gradient)) / lengths if lengths else None,
            }
        )
    objective.place(start)
    return rows


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Return, over batches and seeds, the mean of each one's range or maximum over steps."""
    paths: dict[tuple[Any, Any], list[Row]] = {}
    for row in rows:
        paths.setdefault((row["seed"], row["batch"]), []).append(row)

    def mean(of: Callable[[list[Row]], float]) -> dict[str, Any]:
        values = [value for path in paths.values() if math.isfinite(value := of(path))]
        if not values:
            return {"": None, "_interval": None}
        found = mean_interval(values)
        return {"": found.value, "_interval": found.interval if found.n > 1 else None}

    measures: dict[str, Callable[[list[Row]], float]] = {
        "loss_variation": lambda path: (
            max(0.0, *(row["loss_change"] for row in path))
            - min(0.0, *(row["loss_change"] for row in path))
        ),
        "predictiveness": lambda path: max(row["predictiveness"] for row in path),
        "effective_beta": lambda path: max(row["beta"] for row in path),
    }
    facts: dict[str, Any] = {
        "n": len(paths),
        "overflows": sum(not math.isfinite(row["loss_change"]) for row in rows),
    }
    for name, of in measures.items():
        facts |= {f"{name}{part}": value for part, value in mean(of).items()}
    return facts


def _spread(rows: Sequence[Row], multiples: Sequence[float]) -> list[Row]:
    """Return means and intervals by step size; None where nothing finite was measured."""
    table: list[Row] = []
    for multiple in multiples:
        here = [row for row in rows if row["multiple"] == multiple]
        line: Row = {"multiple": multiple, "n": len(here)}
        for name in MEASURED:
            values = [row[name] for row in here if row[name] is not None]
            values = [value for value in values if math.isfinite(value)]
            found = mean_interval(values) if values else None
            several = found is not None and found.n > 1
            line[name] = None if found is None else found.value
            line[f"{name}_low"] = found.low if found is not None and several else None
            line[f"{name}_high"] = found.high if found is not None and several else None
        table.append(line)
    return table


def _figure(table: Table) -> dict[str, Any]:
    """Describe loss change, predictiveness and beta against the step, with bars over batches."""
    data = []
    axes: dict[str, Any] = {}
    names = {
        "loss_change": "loss change (loss)",
        "predictiveness": "gradient change (loss / weight)",
        "beta": "beta (loss / weight²)",
    }
    for index, (name, title) in enumerate(names.items(), 1):
        axis = "" if index == 1 else str(index)
        bars = [
            None if high is None else high - value
            for value, high in zip(table[name], table[f"{name}_high"], strict=True)
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": title,
                "x": table["multiple"],
                "y": table[name],
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "line": {"color": f"var(--series-{index})", "width": 2},
                "error_y": {"type": "data", "array": bars},
            }
        )
        axes[f"xaxis{axis}"] = {"title": {"text": "step (multiple of the unit step)"}}
        axes[f"yaxis{axis}"] = {"title": {"text": title}}
    layout = axes | {"grid": {"rows": 1, "columns": 3, "pattern": "independent"}}
    layout["showlegend"] = False
    return {"data": data, "layout": layout, "height": 300, "label": "Smoothness along the gradient"}
