"""The signal along the depth: how large the values are forward and the gradients backward, and by which law.

    second moment E[v^2]; batch variance: of each coordinate over the samples             (moments.py)
    growth: mean of ln(m_k / m_(k-1)) over the blocks of a stage, 95 % interval           (growth.py)
    depth at which the root of the second moment passes what a number type holds, by the law

Measured at every residual unit, at the merge before an activation that follows it, and at the end of its
branch; in networks without units at every weight layer's output. Norms use the batch's statistics as in
training (the default), or "detached" or "running" ones: frozen statistics of a fresh network are 0 and 1, and
many healthy networks then overflow.

Laws: He et al. 2015b; Prince, Understanding Deep Learning, section 11.4; Yang et al. 2019 (the gradient
behind batch norm). Intervals are over blocks, over batches (the subject's further ones, or parts of its
batch, with the norms' statistics of the smaller part) and over seeds (where the subject can be rebuilt).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from residua.errors import BadInput
from residua.xray.followed import Followed, follow, normed
from residua.xray.growth import NO_LAW
from residua.xray.moments import Place, Sizes, measure, places_of
from residua.xray.parts import parts_of_batch
from residua.xray.result import Result, Table
from residua.xray.signal_tables import (
    GROWTH,
    LAWS,
    RANGE,
    SIGNAL,
    as_factor,
    figure,
    growth_rows,
    law_rows,
    range_rows,
    signal_rows,
)
from residua.xray.statistics import Statistics
from residua.xray.subject import Subject

SEEDS = {"quick": 0, "normal": 3}
PARTS = {"quick": 0, "normal": 4}


def signal(
    subject: Subject,
    *,
    statistics: Statistics = "batch",
    seeds: int | None = None,
    parts: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """Measure the signal at every unit, its growth, the law that it follows, and where it overflows.

    Args:
        statistics: of the norms.
        seeds: freshly built twins to measure; None: by effort (normal 3, quick 0).
        parts: into how many parts the batch is cut where the subject has no other batches; None: by
            effort (normal 4, quick 0); parts of fewer than 4 samples are not made.

    Raises:
        BadInput: no graph of the network could be had, or it has neither units nor weight layers.
    """
    anatomy = subject.anatomy
    places = places_of(anatomy)
    if not places:
        raise BadInput(f"there is nowhere to measure the signal: {anatomy.reason}")
    seeds = SEEDS[subject.effort] if seeds is None else seeds
    seeds = seeds if subject.rebuild is not None else 0
    others = list(parts_of_batch(subject, PARTS[subject.effort] if parts is None else parts))
    tell = progress or (lambda done, what: None)
    passes = 1 + len(others) + seeds
    main = measure(subject, anatomy, places, statistics)
    over: dict[str, list[Sizes]] = {"batches": [], "seeds": []}
    for i, (other, backward) in enumerate(others):
        tell((1 + i) / passes, "signal of another batch")
        over["batches"].append(measure(other, anatomy, places, statistics, backward=backward))
    for seed in range(seeds):
        tell((1 + len(others) + seed) / passes, "signal of another seed")
        assert subject.rebuild is not None
        twin = subject.rebuild(subject.seed + 1 + seed).to(subject.device)
        other = replace(subject, model=twin)
        over["seeds"].append(measure(other, anatomy, places, statistics))
    return _result(subject, places, main, over, statistics)


def _result(
    subject: Subject,
    places: Sequence[Place],
    main: Sizes,
    over: Mapping[str, list[Sizes]],
    statistics: Statistics,
) -> Result:
    followed = follow(subject, places, main)
    result = Result("signal")
    result.tables["signal"] = Table("Signal", SIGNAL, list(signal_rows(places, main)))
    result.tables["growth"] = Table(
        "Growth", GROWTH, list(growth_rows(followed, over, len(places)))
    )
    result.tables["laws"] = Table("Laws", LAWS, list(law_rows(followed)))
    result.tables["range"] = Table("Range of numbers", RANGE, range_rows(followed, places))
    result.summary = _summary(subject, places, followed, over, statistics)
    result.figures = {
        "signal": figure(places, result.tables["signal"], "forward"),
        "gradient": figure(places, result.tables["signal"], "backward"),
    }
    result.notes = _notes(subject, places, result.summary, over)
    return result


def _summary(
    subject: Subject,
    places: Sequence[Place],
    followed: Mapping[str, Followed],
    over: Mapping[str, list[Sizes]],
    statistics: Statistics,
) -> dict[str, Any]:
    trunk = [p.index for p in places if p.unit is None or p.unit.parent is None]
    facts: dict[str, Any] = {
        "statistics": statistics,
        "places": "units" if subject.anatomy.units else "weight layers",
        "depth": len(trunk),
        "samples": subject.samples,
        "batches": 1 + len(over["batches"]),
        "seeds": len(over["seeds"]),
        "dtype": str(next(subject.model.parameters(), torch.empty(0)).dtype).removeprefix("torch."),
        "norms": normed(subject),
    }
    for name, what in followed.items():
        rate = what.growth.rate
        facts[f"{name}_growth"] = None if rate is None else as_factor(rate.value)
        facts[f"{name}_growth_interval"] = (
            None if rate is None else tuple(map(as_factor, rate.interval))
        )
        facts[f"{name}_law"] = what.growth.law
        facts[f"{name}_exponential"] = what.growth.exponential
        facts[f"{name}_steps"] = what.growth.steps
        facts[f"{name}_one_a_block"] = what.growth.one_a_block
        if (fit := what.growth.fit) is not None:
            facts[f"{name}_r2"] = fit.r2
            facts[f"{name}_gain"] = fit.gain
        explosion = what.laws.get("explosion")
        if explosion is not None:
            facts[f"{name}_explosion_law"] = explosion
    values = [followed["second_moment"].curve[i] for i in trunk]
    facts["first_unmeasurable"] = next(
        (
            places[i].name
            for i, v in zip(trunk, values, strict=True)
            if math.isinf(v) or math.isnan(v)
        ),
        None,
    )
    facts["largest_rms"] = max((math.sqrt(v) for v in values if math.isfinite(v)), default=None)
    facts["smallest_rms"] = min((math.sqrt(v) for v in values if math.isfinite(v)), default=None)
    return facts


def _notes(
    subject: Subject,
    places: Sequence[Place],
    facts: Mapping[str, Any],
    over: Mapping[str, list[Sizes]],
) -> list[str]:
    notes = [
        f"Norms use {facts['statistics']} statistics; {facts['samples']} samples;"
        f" {facts['depth']} {facts['places']} on the trunk."
    ]
    if not subject.anatomy.units:
        notes.append(
            f"No residual units: {subject.anatomy.reason}. Measured at the weight layers' outputs."
        )
    if facts["second_moment_law"] == NO_LAW:
        notes.append("Too few units follow one another in a stage to tell one law from another.")
    if not facts["gradient_second_moment_steps"]:
        notes.append("The gradient's growth is not known: it is zero or not finite at the units.")
    if over["batches"]:
        where = "further batches" if subject.more_inputs else "parts of the batch"
        notes.append(f"The interval over batches is over {len(over['batches'])} {where}.")
        if subject.more_inputs and subject.targets is not None:
            notes.append(
                "The further batches have no targets: gradients are of the first batch alone."
            )
    elif subject.effort == "quick":
        notes.append("A quick look measures one batch: intervals are over blocks alone.")
    return notes
