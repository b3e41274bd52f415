"""Dead, always-on and saturated units: every channel of every activation, wherever it is in the code.

    dead        off for every sample and position of the batch: the channel is constant, its gradient zero
    always on   linear for every sample and position: there the network does not bend
    saturated   at a bound for every sample and position: |tanh| > 0.99, ReLU6 at 6

Activations come from the graph of the forward pass, so that a ReLU module used five times gives five rows,
and functional, in-place and written-out ones are there too (see nonlinear.py for the edges of each).
How sure: a channel silent on n samples fires on a share of at most 1 - 0.05^(1/n) of them (95 %; about 3/n);
positions of one sample are not independent, so the bound over samples is the safe one. `surely dead`
channels lie so far below zero that they fire on under 5 % by Cantelli's inequality too. The law of a
fresh layer is in laws/dead.py.

Shapes: x (N, C, ...) after a convolution, (N, ..., C) after a linear layer. statistics: "batch" (as in
training, the default) or "running" (as in evaluation), where fresh running averages normalise nothing.
Cost: one forward pass and a few reductions of each activation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from residua.errors import BadInput
from residua.xray.laws.dead import (
    dead_share,
    far_margin,
    far_share,
    firing_bound,
    shared_correlation,
)
from residua.xray.nonlinear import Activation, find_activations, regions
from residua.xray.result import Column, Result, Table
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject, copied, tensors_in
from residua.xray.trace import Graph, Reach, interpose, record

MOST_LISTED = 64  # channels that a row names

COLUMNS = (
    Column("activation", "The module that ran it; #k: the k-th in this module."),
    Column("operation", "What it is; a written-out form by the name of what it computes."),
    Column("source", "The line of code that calls it."),
    Column("gate", "Its output multiplies another value."),
    Column("channels", "Channels, C."),
    Column("values", "Values of a channel in the batch: samples times positions."),
    Column("dead", "Channels that are off for every value; None: this function is never off."),
    Column("always_on", "Channels that are linear for every value."),
    Column("saturated", "Channels that are at a bound for every value."),
    Column("dead_share", "Dead channels over channels."),
    Column("off_share", "Values that are off, over all values of the batch."),
    Column("saturated_share", "Values at a bound, over all values of the batch."),
    Column(
        "law",
        "Share of dead channels that symmetric fresh weights give at most: E[Phi(sqrt(c/(1-c)) t)^n] over"
        " n samples of correlation c (laws/dead.py).",
    ),
    Column("correlation", "c of the law, from the channels' means and mean squares."),
    Column(
        "bound",
        "95 % upper bound on the share of samples on which a dead channel fires: 1 - 0.05^(1/n).",
    ),
    Column(
        "values_bound",
        "The same per value, if positions were independent, which they are not: the optimistic bound.",
    ),
    Column(
        "surely_dead",
        "Dead channels whose mean is further below the edge than chance puts it, in their own standard"
        " deviations: they fire on under 5 % (Cantelli).",
    ),
    Column("surely_on", "Always-on channels as far on the other side."),
    Column("surely_law", "Share of surely dead channels that fresh weights give (laws/dead.py)."),
    Column("dead_channels", f"Their numbers, the first {MOST_LISTED}."),
    Column("not_finite", "Values of x that are NaN or infinite."),
)


def activations(subject: Subject, *, statistics: Statistics = "batch") -> Result:
    """Count dead, always-on and saturated channels of every activation on the subject's batch.

    Raises BadInput where the network takes another way each time it runs.
    """
    graph = subject.anatomy.graph
    assert graph is not None
    with subject.running(statistics), torch.no_grad():
        try:
            found, counts = _measured(subject, graph)
        except BadInput:  # in training it does other operations than in evaluation
            inputs = copied(subject.inputs)
            graph = record(subject.model, lambda: subject.forward(inputs), tensors_in(inputs))
            torch.manual_seed(subject.seed)
            found, counts = _measured(subject, graph)
    rows = _rows(found, counts)
    table = Table("Activations", COLUMNS, rows)
    result = Result(
        "activations", _summary(rows, statistics, subject.samples), {"activations": table}
    )
    result.notes.append(
        f"Pre-activations on {statistics} statistics, {subject.samples} samples; random layers are off."
    )
    if graph.hidden:
        result.notes.append(f"Activations inside {', '.join(graph.hidden)} are not seen.")
    if any(row["dead"] is not None for row in rows):
        result.figures["dead"] = _figure(rows)
    return result


def _measured(
    subject: Subject, graph: Graph
) -> tuple[list[Activation], list[dict[str, torch.Tensor]]]:
    """Run once and count at every activation."""
    found = find_activations(graph)
    counts: list[dict[str, torch.Tensor]] = [{} for _ in found]

    def reach(i: int) -> Reach:
        def given(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
            counts[i] = _count(found[i], tensors)
            return tensors

        return Reach(found[i].node, given=given)

    with interpose(subject.model, graph, [reach(i) for i in range(len(found))]):
        subject.forward()
    return found, counts


def _count(activation: Activation, tensors: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return for each channel (C,) how many values are off, linear, saturated; mean and mean square."""
    x = tensors[activation.argument]
    size = x.numel() // max(x.shape[activation.channel], 1)

    def by_channel(t: torch.Tensor) -> torch.Tensor:  # (N, C, positions)
        return t.movedim(activation.channel, 1).flatten(2) if t.dim() > 2 else t.unsqueeze(-1)

    counts = {
        name: by_channel(mask).sum(-1).sum(0)
        for name, mask in regions(activation, tensors).items()
        if mask is not None
    }
    if "off" in counts and "linear" not in counts and activation.edges.high is None:
        counts["linear"] = size - counts["off"]
    wide = x if activation.other is None else x - tensors[activation.other]
    wide = by_channel(wide - activation.edges.off if activation.edges.off else wide).float()
    mean = wide.sum(-1).double().sum(0) / size
    square = torch.linalg.vector_norm(wide, dim=-1).double().square().sum(0) / size
    counts |= {"mean": mean, "variance": (square - mean.square()).clamp_min(0)}
    counts |= {"values": torch.tensor(size), "samples": torch.tensor(len(x))}
    if not bool(mean.isfinite().all()):
        counts["not_finite"] = (~wide.isfinite()).sum()
    return counts


def _rows(found: list[Activation], counts: list[dict[str, torch.Tensor]]) -> list[dict[str, Any]]:
    many = Counter(a.node.module for a in found)
    seen: Counter[str] = Counter()
    rows = []
    for activation, count in zip(found, counts, strict=True):
        module = activation.node.module
        seen[module] += 1
        name = module or "the model"
        rows.append(
            {
                "activation": f"{name} #{seen[module]}" if many[module] > 1 else name,
                "module": module,
                "operation": activation.op,
                "source": activation.node.source,
                "gate": activation.gate,
                **_row(count),
            }
        )
    return rows


def _row(count: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Return the numbers of one activation from its channels' counts."""
    mean, variance = (count[k].double().cpu().numpy() for k in ("mean", "variance"))
    values, samples = int(count["values"]), int(count["samples"])
    channels = len(mean)
    off, linear, saturated, other = (
        count[k].cpu().numpy() if k in count else None
        for k in ("off", "linear", "saturated", "other")
    )
    on = np.zeros(channels, bool) if linear is None else linear == values
    if other is not None:
        on |= other == values
    row: dict[str, Any] = {
        "channels": channels,
        "values": values,
        "samples": samples,
        "always_on": int(on.sum()) if linear is not None else None,
        "saturated": int((saturated == values).sum()) if saturated is not None else None,
        "saturated_share": _share(saturated, values),
        "off_share": _share(off, values),
        "bound": firing_bound(samples),
        "values_bound": firing_bound(values),
        "not_finite": int(count.get("not_finite", torch.tensor(0))),
        "dead": None,
    }
    if off is not None:
        dead = off == values
        finite = bool(np.isfinite(mean).all() and np.isfinite(variance).all())
        correlation = shared_correlation(mean, mean**2 + variance) if finite else None
        margin = far_margin(samples)
        far = margin * np.sqrt(variance)
        row |= {
            "dead": int(dead.sum()),
            "dead_share": float(dead.mean()),
            "correlation": correlation,
            "law": None if correlation is None else dead_share(correlation, samples),
            "surely_dead": int((dead & (mean < 0) & (-mean >= far)).sum()),
            "surely_on": int((on & (mean > 0) & (mean >= far)).sum()),
            "surely_law": None if correlation is None else far_share(correlation, margin, samples),
            "dead_channels": np.flatnonzero(dead)[:MOST_LISTED].tolist(),
        }
    return row


def _share(counts: Any, values: int) -> float | None:
    return None if counts is None else float(counts.mean() / values)


def _summary(rows: list[dict[str, Any]], statistics: str, samples: int) -> dict[str, Any]:
    with_off = [row for row in rows if row["dead"] is not None]
    channels = sum(row["channels"] for row in with_off)
    dead = sum(row["dead"] for row in with_off)
    return {
        "activations": len(rows),
        "channels": sum(row["channels"] for row in rows),
        "dead": dead,
        "dead_share": dead / channels if channels else None,
        "surely_dead": sum(row["surely_dead"] for row in with_off),
        "always_on": sum(row["always_on"] or 0 for row in rows),
        "saturated": sum(row["saturated"] or 0 for row in rows),
        "samples": samples,
        "statistics": statistics,
    }


def _figure(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Describe the share of dead and always-on channels by depth, beside the law."""
    shown = [(i, row) for i, row in enumerate(rows) if row["dead"] is not None]
    xs = [i for i, _ in shown]
    names = [row["activation"] for _, row in shown]
    lines = [
        ("dead", [row["dead_share"] for _, row in shown], "var(--series-1)", "solid"),
        (
            "always on",
            [(row["always_on"] or 0) / row["channels"] for _, row in shown],
            "var(--series-2)",
            "solid",
        ),
        (
            "dead, fresh weights, at most",
            [row["law"] for _, row in shown],
            "var(--series-1)",
            "dot",
        ),
    ]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if dash == "solid" else "lines",
            "name": name,
            "x": xs,
            "y": ys,
            "text": names,
            "line": {"color": colour, "width": 2, "dash": dash},
        }
        for name, ys, colour, dash in lines
    ]
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "activation, in the order of the forward pass"}},
            "yaxis": {"title": {"text": "share of channels"}, "rangemode": "tozero"},
        },
        "height": 320,
        "label": "Dead and always-on channels by depth",
    }
