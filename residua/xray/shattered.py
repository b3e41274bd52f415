"""Shattered gradients: do the gradients of two inputs, near or far, still have anything in common?

    by depth      R = mean over pairs of samples of cosine(g, g'), g the gradient at the input and each unit
    along lines   autocorrelation of g over t in x + t (x' - x), against white and brown noise
    near          cosine of g at x and at x + t (x' - x) for t = 1/1000 (and 1/10), against the laws

Balduzzi et al. 2017, "The shattered gradients problem"; Prince, Understanding Deep Learning, section 11.1.1.
The laws, published and arc-cosine, are in residua.xray.laws.correlation.

g is the gradient of one fixed random mixture of the outputs, the same for every sample (cotangents.py).
Along a line two ways, both named: "projected", the scalar g . (x' - x); "coordinates", the mean over all
coordinates of their autocovariances (the inner product of whole gradients), which errs less. The mean over
the line is left in, as the chapter's figure does; `centred` takes it off.

statistics: "detached" (the default; norms use the batch's mean and variance, which the lines keep, and the
network is one function of each sample), "running" (those kept in training), or "batch" (as in training: the
norm then takes the batch's mean off the gradient, so that gradients of different samples are pushed apart
whatever the network does: the cosines have a mean near -1/(N-1); lines are batches of their own, and what
moves alone, "near", has no batch and is left out).

A scalar input to a network without biases or norms cannot shatter: the network is linear on either side of 0.

Cost: in training steps on the batch about 1.5 (quick; of a plain network, which is judged near samples,
2) and 6.5 (normal).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from residua.errors import BadInput
from residua.xray.cotangents import cosines, rows
from residua.xray.gradient_probe import Place, Probe, joined
from residua.xray.intervals import Estimate, mean_interval, pairs_interval
from residua.xray.kinds import kind
from residua.xray.laws.correlation import gradient_correlations, published_correlation
from residua.xray.laws.noise import autocorrelation, noise_autocorrelation
from residua.xray.lines import between, random_line, why_no_line
from residua.xray.nonlinear_depth import Depths, depths_after
from residua.xray.result import Column, Result, Table
from residua.xray.shattered_figures import depth_figure, line_figure
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject, tensors_in

Progress = Callable[[float, str], None]

LINES = {"quick": (1, 0), "normal": (1, 1)}  # between two samples; along a random direction
POINTS = {"quick": 6, "normal": 8}  # of a line
NEAR = 8  # samples that are moved a little
PLAIN_SHARE = 0.75  # of all activations on the shortest way: more, and the network is a plain one
RESOLVED = (0.05, 0.4)  # of `least`
SHIFTS = {"quick": (1e-3,), "normal": (1e-3, 1e-1)}  # of the way to another sample

_DEPTH = [
    Column(
        "place", "where the gradient is taken: the input, or the value that a unit's merge gives"
    ),
    Column("fewest", "activations from here to the output, through the shortcuts", "layers"),
    Column("most", "activations from here to the output, through every branch", "layers"),
    Column("units", "residual units from here to the output", "units"),
    Column("correlation", "R: mean cosine of two samples' gradients, over all pairs of the batch"),
    Column("low", "of R's 95 % interval (jackknife over samples)"),
    Column("high", "of R's 95 % interval"),
    Column(
        "least",
        "the least that the published residual law allows: each unit after this place with m activations in"
        " its branch keeps (1 + 2^-m) / 2, each activation outside of branches 1/2, a max pool over r 1/r",
    ),
    Column("plain", "published for a plain network of `most` layers: 2^-L (Balduzzi et al. 2017)"),
    Column("residual", "published for `most` residual blocks of one layer: (3/4)^L"),
    Column("normed", "published for `most` residual blocks with norms: about 1/sqrt L"),
    Column(
        "arc_plain", "arc-cosine recursion from the inputs' correlation, plain (Cho & Saul 2009)"
    ),
    Column("arc_residual", "arc-cosine recursion, residual blocks of one layer"),
    Column("arc_normed", "arc-cosine recursion, residual blocks of one layer with a norm first"),
]
_LINES = [
    Column("lag", "points between the two gradients", "points"),
    Column("shift", "distance between them, as a share of the line's length"),
    Column("projected", "autocorrelation of the gradient along the line, mean of the lines"),
    Column("coordinates", "autocorrelation of all the gradient's coordinates, mean of the lines"),
    Column("white", "of white noise: mean"),
    Column("white_sd", "of white noise: standard deviation of one line"),
    Column("brown", "of brown noise (a random walk): mean"),
    Column("brown_sd", "of brown noise: standard deviation of one line"),
]
_NEAR = [
    Column("shift", "how far a sample is moved, as a share of the way to the next sample"),
    Column("inputs", "correlation of the two inputs (centred where the network has batch norms)"),
    Column("correlation", "mean cosine of the gradients before and after, over samples"),
    Column("low", "of its 95 % interval (t, over samples)"),
    Column("high", "of its 95 % interval"),
    Column("samples", "how many samples were moved", "samples"),
    Column("arc_plain", "arc-cosine recursion, plain network with as many activations"),
    Column("arc_residual", "arc-cosine recursion, residual blocks of one layer"),
    Column("arc_normed", "arc-cosine recursion, residual blocks of one layer with a norm first"),
]


def shattered(
    subject: Subject,
    *,
    statistics: Statistics = "detached",
    points: int | None = None,
    centred: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Measure how alike gradients of different inputs are, by depth and along lines.

    Args:
        statistics: of batch norms: "detached", "running" or "batch"; see the module's page.
        points: of a line; None: what the effort allows (6 quick, 8 normal).
        centred: take off the mean over the line before its autocorrelation.

    Raises:
        BadInput: fewer than 3 points; the model gives nothing that has a gradient for each sample.
    """
    points = POINTS[subject.effort] if points is None else points
    if points < 3:
        raise BadInput(f"a line needs 3 points or more, not {points}")
    tell = progress or (lambda share, what: None)
    graph = subject.anatomy.graph
    depths = depths_after(graph) if graph is not None else {}
    norms = graph is not None and any(n.op == "batch_norm" for n in graph.nodes)
    result = Result("shattered")
    with subject.running(statistics):
        probe = Probe(subject, statistics)
        tell(0.0, "gradients by depth")
        by_depth = probe.by_depth()
        reason = why_no_line(subject.inputs)
        if not reason:
            alone = subject.samples < 2 or (norms and statistics == "batch")
            judged = subject.effort == "normal" or acts_plain(depths.get(0, Depths()))
            near = [] if alone or not judged else list(_near(probe, norms))
            tell(0.5, "gradients along lines")
            lines = list(_lines(probe, points, centred))
    c = _correlation(subject.inputs, norms) if not reason else 0.0
    result.tables["depth"] = _depth_table(by_depth, probe.places, depths, c, norms)
    result.summary = _summary(subject, result.tables["depth"], statistics, norms, c)
    if reason:
        result.notes.append(f"No lines were drawn: {reason}.")
    else:
        most = result.summary["most"]
        result.tables["near"] = _near_table(near, most, norms)
        result.tables["lines"] = _line_table(lines, points, centred)
        result.summary |= _line_summary(result, len(lines), points)
        result.figures["lines"] = line_figure(result.tables["lines"])
    result.figures["depth"] = depth_figure(result.tables["depth"])
    if probe.lost:
        result.notes.append(f"Gradients were taken at the input only: {probe.lost}.")
    result.notes += _notes(subject, result.summary, centred)
    return result


def _near(probe: Probe, norms: bool) -> Iterator[tuple[float, float, Estimate]]:
    """Yield shift, correlation of the inputs and cosine of the gradients of samples moved a little."""
    subject = probe.subject
    count = min(NEAR, subject.samples)
    start = torch.arange(count)
    end = (start + 1) % subject.samples
    before = rows(joined([g[:count] for g in probe.first]))
    for shift in SHIFTS[subject.effort]:
        moved = between(subject.inputs, start, end, torch.full((count,), shift))
        after = rows(joined(probe.at(moved)))
        cosine = (before * after).sum(1).double().cpu().numpy()
        cosine = cosine[(before.norm(dim=1) > 0).cpu().numpy() & np.isfinite(cosine)]
        if len(cosine):
            yield shift, _alike(subject.inputs, moved, norms), mean_interval(cosine)


def _lines(probe: Probe, points: int, centred: bool) -> Iterator[tuple[Any, Any]]:
    """Yield the autocorrelation of each line: projected (points,), and of all coordinates (points,)."""
    subject = probe.subject
    pairs, directions = LINES[subject.effort]
    t = torch.linspace(0, 1, points)
    inputs = []
    for i in range(pairs if subject.samples > 1 else 0):
        start = torch.full((points,), 2 * i % subject.samples)
        end = torch.full((points,), (2 * i + 1) % subject.samples)
        inputs.append(between(subject.inputs, start, end, t))
    for i in range(directions or subject.samples == 1):
        inputs.append(random_line(subject.inputs, i, t, subject.seed + i))
    for line in inputs:
        gradients = joined(probe.at(line)).double().cpu().numpy()
        whole = torch.cat([x.flatten(1) for x in tensors_in(line)], 1).double().cpu().numpy()
        along = whole[-1] - whole[0]
        if gradients.shape[1] == len(along) and np.isfinite(gradients).all() and gradients.any():
            yield (
                autocorrelation(gradients @ along, centred=centred),
                autocorrelation(gradients, centred=centred),
            )


def _features(inputs: Any, mean_of: Any, centred: bool) -> torch.Tensor:
    """Return the samples as vectors (n, D), less the batch's mean of each channel where centred."""
    parts = []
    for x, batch in zip(tensors_in(inputs), tensors_in(mean_of), strict=True):
        over = [0, *range(2, x.dim())]
        mean = batch.double().mean(over, keepdim=True) if centred else 0.0
        parts.append((x.double() - mean).flatten(1))
    return torch.cat(parts, 1)


def _alike(inputs: Any, moved: Any, centred: bool) -> float:
    after = _features(moved, inputs, centred)
    before = _features(inputs, inputs, centred)[: len(after)]
    return float(torch.nn.functional.cosine_similarity(before, after).mean())


def _correlation(inputs: Any, centred: bool) -> float:
    """Return the mean correlation of two inputs, centred where the network's norms centre."""
    if len(tensors_in(inputs)[0]) < 2:
        return 0.0
    return pairs_interval(cosines(_features(inputs, inputs, centred)).cpu().numpy()).value


def _arcs(layers: int, c: float, norms: bool) -> dict[str, float]:
    """Return the arc-cosine laws at the input of a network of `layers` layers."""
    laws = {"arc_plain": "plain", "arc_residual": "residual", "arc_normed": "normed"}
    return {
        name: gradient_correlations(layers, c, form, centred=norms or form == "normed")[0]  # type: ignore[arg-type]
        for name, form in laws.items()
    }


def _depth_table(
    by_depth: dict[int, npt.NDArray[Any]],
    places: list[Place],
    depths: dict[int, Depths],
    c: float,
    norms: bool,
) -> Table:
    table = Table("Correlation of gradients by depth", _DEPTH)
    top = max((d.most for d in depths.values()), default=0)
    curves = {}
    for name, form in (
        ("arc_plain", "plain"),
        ("arc_residual", "residual"),
        ("arc_normed", "normed"),
    ):
        centred = norms or form == "normed"
        curves[name] = gradient_correlations(top, c, form, centred=centred)  # type: ignore[arg-type]
    for place in places:
        matrix = _of_samples_with_gradient(by_depth.get(place.index))
        if matrix is None or (place.index >= 0 and place.index not in depths):
            continue
        estimate = pairs_interval(matrix)
        here = depths.get(max(place.index, 0), Depths())
        row: dict[str, Any] = {
            "place": place.name,
            "fewest": here.fewest,
            "most": here.most,
            "units": place.units,
            "correlation": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "least": place.least * 0.5**here.fewest * here.chosen,
        }
        for form in ("plain", "residual", "normed"):
            row[form] = published_correlation(here.most, form)  # type: ignore[arg-type]
        row |= {name: curve[top - here.most] for name, curve in curves.items()}
        table.rows.append(row)
    return table


def _of_samples_with_gradient(matrix: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    """Leave out samples whose gradient is zero or not finite; None where no two are left."""
    if matrix is None:
        return None
    kept = np.diag(matrix) > 0.5  # 1 but for rounding; 0 where the gradient is 0
    return matrix[np.ix_(kept, kept)] if kept.sum() > 1 else None


def _summary(
    subject: Subject, depth: Table, statistics: Statistics, norms: bool, c: float
) -> dict[str, Any]:
    first = depth.rows[0] if depth.rows and depth.rows[0]["place"] == "input" else {}
    shares = [row["correlation"] / row["least"] for row in resolved(depth)]
    return {
        "statistics": statistics,
        "batch_norms": norms,
        "units": len(subject.anatomy.trunk),
        "fewest": first.get("fewest", 0),
        "most": first.get("most", 0),
        "inputs_correlation": c,
        "correlation": first.get("correlation"),
        "low": first.get("low"),
        "high": first.get("high"),
        "share_of_law": min(shares, default=None),
        "cannot_shatter": _cannot_shatter(subject, norms),
    }


def acts_plain(depths: Depths) -> bool:
    """Say whether the shortest way through passes nearly every activation: shortcuts do little."""
    return depths.most > 0 and depths.fewest >= PLAIN_SHARE * depths.most


def resolved(depth: Table) -> list[dict[str, Any]]:
    """Return the rows of units at which `least` can be told from zero, and a shortfall from chance."""
    low, high = RESOLVED
    return [row for row in depth.rows if row["place"] != "input" and low <= row["least"] <= high]


def _cannot_shatter(subject: Subject, norms: bool) -> bool:
    """Say whether the network is linear on either side of zero: one coordinate, no offset anywhere."""
    if sum(t[0].numel() for t in tensors_in(subject.inputs) if t.dim()) != 1 or norms:
        return False
    graph = subject.anatomy.graph
    normed = graph is None or any(kind([node]) == "norm" for node in graph.nodes)
    biases = [p for p in subject.model.parameters() if p.dim() == 1]
    return not normed and not any(bool(p.any()) for p in biases)


def _near_table(near: list[tuple[float, float, Estimate]], most: int, norms: bool) -> Table:
    table = Table("Gradients of a sample before and after it is moved a little", _NEAR)
    for shift, alike, estimate in near:
        table.rows.append(
            {
                "shift": shift,
                "inputs": alike,
                "correlation": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "samples": estimate.n,
                **_arcs(most, alike, norms),
            }
        )
    return table


def _line_table(lines: list[tuple[Any, Any]], points: int, centred: bool) -> Table:
    table = Table("Autocorrelation of the gradient along lines between inputs", _LINES)
    white, white_sd = noise_autocorrelation("white", points, centred=centred)
    brown, brown_sd = noise_autocorrelation("brown", points, centred=centred)
    if not lines:
        return table
    projected = np.mean([line[0] for line in lines], 0)
    whole = np.mean([line[1] for line in lines], 0)
    for lag in range(points):
        row = {
            "lag": lag,
            "shift": lag / (points - 1),
            "projected": float(projected[lag]),
            "coordinates": float(whole[lag]),
            "white": float(white[lag]),
            "white_sd": float(white_sd[lag]),
            "brown": float(brown[lag]),
            "brown_sd": float(brown_sd[lag]),
        }
        table.rows.append({k: v if math.isfinite(v) else None for k, v in row.items()})
    return table


def _line_summary(result: Result, lines: int, points: int) -> dict[str, Any]:
    found: dict[str, Any] = {"lines": lines, "points": points}
    if len(result.tables["lines"]):
        row = result.tables["lines"].rows[1]
        names = ("projected", "coordinates", "white_sd", "brown")
        found |= {f"lag1_{name}": row[name] for name in names}
    for row in result.tables["near"].rows:
        found[f"near_{row['shift']:g}"] = row["correlation"]
    return found


def _notes(subject: Subject, summary: dict[str, Any], centred: bool) -> list[str]:
    notes = []
    if summary["statistics"] == "batch" and summary["batch_norms"]:
        notes.append(
            "Batch norms ran as in training: their backward pass takes the batch's mean off the gradient,"
            f" which alone gives a correlation near {-1 / max(subject.samples - 1, 1):.3f}."
        )
    if summary["cannot_shatter"]:
        notes.append(
            "The input is one number and the network has neither biases nor norms: it is linear on either"
            " side of zero, and its gradient cannot shatter whatever its depth."
        )
    if summary["correlation"] is None and subject.samples > 1:
        notes.append(
            "No gradient reaches the inputs (a layer on the way is zero, as Fixup's head at the start), or it"
            " is not finite: there is nothing to compare."
        )
    notes.append(
        "The mean over the line was taken off before the autocorrelation."
        if centred
        else "The mean over the line was left in the autocorrelation, as in the chapter's figure 11.3."
    )
    if subject.anatomy.graph is None:
        notes.append(f"Gradients were taken at the input only: {subject.anatomy.reason}.")
    return notes
