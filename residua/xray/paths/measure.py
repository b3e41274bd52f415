"""Which of the 2^K paths through a network's residual units carry its gradient.

    y = prod_i (S_i + B_i) x:   one path for each choice of shortcut or branch at every unit
    share w_k = |g_k| / sum_j |g_j|,   effective depth = sum_k k w_k

counting.py has the number of paths, lengths.py the exact gradient g_k by path length, sampled.py the estimate
of Veit, Wilber & Belongie 2016 (Residual Networks Behave Like Ensembles of Relatively Shallow Networks),
who drew single paths. The gradient is that of the loss (or of what `Subject.scalar` takes for it) by the
trunk's input, the value that the first unit reads; a stage's is by the stage's input.

statistics: "running" in a trained network, as in evaluation; "detached" (the batch's, held fixed) at
initialisation, where the averages have not been learned; "batch" lets the gradient flow through the
statistics as training does, and is as exact, for all lengths share one forward pass.
Cost: K + 1 backward passes by the inputs alone a sample, and a third more for the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod, sqrt
from typing import Any

import torch

from residua.errors import BadInput, ResiduaError
from residua.xray.anatomy import Anatomy
from residua.xray.intervals import mean_interval
from residua.xray.paths.counting import Nesting, nesting
from residua.xray.paths.exact import Part, Spectrum, effective, spectra
from residua.xray.paths.figures import figures
from residua.xray.paths.forward import Handlers, Samples, dominates
from residua.xray.paths.lengths import Lengthen
from residua.xray.paths.sampled import MOST_LENGTHS, Drawn, sampled, why_not
from residua.xray.paths.tables import (
    lengths_table,
    most_of,
    sampled_facts,
    stages_table,
    units_left,
)
from residua.xray.result import Result
from residua.xray.statistics import Statistics, statistics_learned
from residua.xray.subject import Subject

SAMPLES = {"quick": 1, "normal": 2}
DRAWS = {"quick": 0, "normal": 2}  # paths of each length
FEW_LENGTHS = 6  # of which paths are drawn where the effort decides, evenly spaced
MEMORY = 2.0  # GiB for stacked gradients
HELD = 4  # gradients of the largest size that a backward pass holds at a time, with copies

Progress = Callable[[float, str], None]


def paths(
    subject: Subject,
    *,
    statistics: Statistics | None = None,
    samples: int | None = None,
    draws: int | None = None,
    lengths: int | None = None,
    memory: float = MEMORY,
    progress: Progress | None = None,
) -> Result:
    """Count the paths through the residual units and measure the gradient by path length.

    Args:
        statistics: of the norms; None: "running" if they were learned, else "detached".
        samples: of the batch; None: what the effort allows (1 quick, 2 normal). Each is run alone, with
            statistics "batch" all together.
        draws: single paths of each length to draw, as Veit et al. do; None: 0 quick, 2 normal.
        lengths: how many path lengths are told apart, the last being "and longer"; None: all, as far as
            `memory` (GiB, of stacked gradients) allows.

    Raises:
        BadInput: no residual units; a count below 1; a loss that does not depend on the trunk.
        ResiduaError: the loss or a gradient is not finite.
    """
    anatomy = subject.anatomy
    if not anatomy.units:
        raise BadInput(
            f"there are no residual units, hence no paths to tell apart: {anatomy.reason}"
        )
    samples = SAMPLES[subject.effort] if samples is None else samples
    most = FEW_LENGTHS if draws is None else MOST_LENGTHS
    draws = DRAWS[subject.effort] if draws is None else draws
    if samples < 1 or draws < 0 or (lengths is not None and lengths < 1):
        raise BadInput(
            f"samples {samples} and lengths {lengths} must be 1 or more, draws {draws} not negative"
        )
    learned = statistics_learned(subject.model)
    statistics = statistics or ("detached" if learned is False else "running")
    nest = nesting(anatomy)
    together = samples if statistics == "batch" else 1
    room = lengths or _room(anatomy, subject.samples, together, memory)
    parts = parts_of(anatomy, nest, room)
    tell = partial(_tell, progress, len(parts) * samples)
    with subject.running(statistics):
        taken = Samples(subject, statistics, samples)
        measured = _measure(taken, parts, tell)
        reason = "none were asked for" if draws == 0 else why_not(nest)
        drawn: list[Drawn] = []
        if not reason:
            drawn = sampled(
                taken, parts[0], draws, subject.seed, lambda s: tell("sampled paths", s), most
            )
        idle = _idle(taken, parts[0]) if _past_branches(measured[0]) else []
    result = Result("paths", _facts(parts, measured, nest))
    result.summary |= {"statistics": statistics, "learned": learned, "idle": idle}
    result.summary |= sampled_facts(parts[0], drawn)
    result.tables["lengths"] = lengths_table(parts[0], measured[0], drawn)
    result.tables["stages"] = stages_table(parts, measured)
    result.tables["deletion"] = units_left(nest)
    result.figures = figures(result, parts)
    result.notes = _notes(result.summary, parts[0], anatomy, reason, drawn)
    return result


def parts_of(anatomy: Anatomy, nest: Nesting, room: int) -> list[Part]:
    """Return the whole trunk and, where there are several, its stages."""
    graph = anatomy.graph
    assert graph is not None
    stages = sorted({unit.stage for unit in nest.trunk})
    rows = [("whole", nest.trunk)]
    if len(stages) > 1:
        rows += [(str(s), [u for u in nest.trunk if u.stage == s]) for s in stages]
    parts = []
    for name, units in rows:
        start = nest.start(units)
        merge = units[-1].sites.merge
        assert merge is not None
        end = merge.index if name != "whole" and dominates(graph, start, merge.index) else None
        counts = nest.paths(units)
        told = min(len(counts), room)
        parts.append(Part(name, units, nest.family(units), start, end, counts, told))
    return parts


def _room(anatomy: Anatomy, samples: int, together: int, memory: float) -> int:
    """Return how many stacked gradients fit into memory (GiB)."""
    assert anatomy.graph is not None
    largest = max(prod(node.shape) for node in anatomy.graph.nodes) / samples * together
    return max(2, int(memory * 2**30 / (HELD * 4 * largest)))


def _tell(progress: Progress | None, steps: int, what: str, done: float) -> None:
    if progress is not None:
        share = done / (steps + 1) if what != "sampled paths" else (steps + done) / (steps + 1)
        progress(min(1.0, share), what)


def _measure(
    samples: Samples, parts: Sequence[Part], tell: Callable[[str, float], None]
) -> list[list[Spectrum]]:
    """Return for each part the spectra of the samples."""
    lengthen = Lengthen()
    found: list[list[Spectrum]] = [[] for _ in parts]
    nodes = [n for part in parts for n in (part.start, part.end) if n is not None]
    done = 0
    for group in samples.groups:
        number = group.stop - group.start
        with samples.forward(group, parts[0].start, nodes, Handlers(lengthen, lengthen)) as kept:
            for part, rows in zip(parts, found, strict=True):
                if part.start in kept.values:
                    rows += spectra(kept, part, number, lengthen)
                done += number
                tell("gradient by path length", done)
    if not all(torch.isfinite(torch.tensor([s.total for s in rows])).all() for rows in found):
        raise ResiduaError("the gradient is not finite: it cannot be told apart by path length")
    return found


def _past_branches(spectra: Sequence[Spectrum]) -> bool:
    """Say whether some gradient arrives, and all of it past the branches."""
    return any(s.total for s in spectra) and not any(any(s.norms[1:]) for s in spectra)


def _idle(samples: Samples, whole: Part) -> list[str]:
    """Return the units whose branch parameters get no gradient either: they cannot begin to learn.

    A last layer that starts at zero lets nothing pass, but gets a gradient itself.
    """
    wanted = {name for unit in whole.units for name in unit.parameters}
    parameters = {n: p for n, p in samples.subject.model.named_parameters() if n in wanted}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    alive: set[str] = set()
    plain = Handlers(lambda _, value: value)
    for group in samples.groups:
        with samples.forward(group, whole.start, [], plain) as kept:
            found = torch.autograd.grad(
                kept.scalar, list(parameters.values()), allow_unused=True, materialize_grads=True
            )
        alive |= {name for name, g in zip(parameters, found, strict=True) if bool(g.any())}
    return [u.name for u in whole.units if u.parameters and not alive & set(u.parameters)]


def _facts(
    parts: Sequence[Part], measured: Sequence[Sequence[Spectrum]], nest: Nesting
) -> dict[str, Any]:
    """Return the numbers that verdicts read."""
    whole, spectra_ = parts[0], measured[0]
    total = sum(whole.paths)
    shares = [s.shares for s in spectra_ if s.shares is not None]
    facts: dict[str, Any] = {
        "units": len(whole.units),
        "trunk_units": len(nest.trunk),
        "paths": float(total) if total < 1e300 else str(total),
        "longest": len(whole.paths) - 1,
        "lengths_told_apart": whole.lengths,
        "mean_path_length": _mean_length(whole.paths),
        "samples": len(spectra_),
        "deviation": max((s.deviation for rows in measured for s in rows), default=0.0),
        "effective_depth": None,
    }
    if not shares:
        return facts
    depths = [effective(share) for share in shares]
    mean = [sum(column) / len(shares) for column in zip(*shares, strict=True)]
    signed = [effective(s.signed) for s in spectra_ if s.signed is not None]
    facts |= {
        "effective_depth": sum(depths) / len(depths),
        "effective_depth_interval": mean_interval(depths).interval if len(depths) > 1 else None,
        "signed_depth": sum(signed) / len(signed) if signed else None,
        "shortcut_share": mean[0],
        "cancellation": sqrt(
            prod((sum(s.norms) / s.total) ** (2 / len(shares)) for s in spectra_ if s.total)
        ),
    }
    facts |= most_of(whole, mean)
    return facts


def _mean_length(counts: Sequence[int]) -> float:
    return sum(k * n for k, n in enumerate(counts)) / sum(counts)


def _notes(
    facts: Mapping[str, Any], whole: Part, anatomy: Anatomy, reason: str, drawn: Sequence[Drawn]
) -> list[str]:
    alone = (
        "all together: the gradient flows through their common mean and variance"
        if facts["statistics"] == "batch"
        else "each alone"
    )
    notes = [
        f"Norms use {facts['statistics']} statistics. The gradient is by the input of the first unit, over"
        f" {facts['samples']} sample(s), {alone}; no path was sampled for it. It differs from an ordinary"
        f" backward pass by {facts['deviation']:.1g} of its norm at most.",
        "Three quantities differ: |g_k| of the sum over all paths of a length; |g_k| per path; and the mean"
        " norm of single paths (Veit et al. 2016), which cannot cancel.",
    ]
    if whole.lengths < len(whole.paths):
        notes.append(
            f"Lengths of {whole.lengths - 1} and more are told as one, to fit into memory: effective depth"
            " is then a lower bound. `memory` or `lengths` change that; the stages have their own."
        )
    if facts["effective_depth"] is None:
        notes.append(
            "No gradient arrives at the trunk: what follows it gives none, as a last layer of zeros."
        )
    if drawn:
        notes.append(f"Single paths: {len(drawn)} lengths, drawn for the first sample.")
    elif reason:
        notes.append(f"No single paths were followed: {reason}.")
    return [*notes, anatomy.reason] if anatomy.reason else notes
