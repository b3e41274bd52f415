"""Lesions: delete, exchange and reorder the units of a network and measure what that costs.

    delete     y = shortcut(x) in place of merge(shortcut(x), branch(x))     (Veit et al. 2016, section 4.1)
    several    d units drawn at random, the mean and spread over draws       (section 4.2)
    reorder    n exchanges of two alike units drawn at random; how far the order is from the first: Kendall's
               rank correlation tau, 1 as it was, 0 unrelated                (section 4.3)

In a plain network, which has no shortcut, a weight layer that keeps the shape is deleted together with its
norm and activation: y = x. Units are alike where their layers and shapes are; exchanging them exchanges all
their numbers.

Norms use running statistics, as in evaluation, where training has moved them; else the batch's own, which the
result names. Costs: a forward pass for every lesion.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import nn

from residua.errors import BadInput
from residua.xray.deletion import Part, deleted, parts_of
from residua.xray.exchange import Arrangement, swapped
from residua.xray.lesion_tables import CURVE, DELETIONS, REORDERINGS, figures
from residua.xray.result import Result, Table
from residua.xray.scores import Scores, changes, error_difference, interval, rate_interval, score
from residua.xray.statistics import Statistics, statistics_learned
from residua.xray.subject import Subject


@dataclass(frozen=True)
class Plan:
    """How many lesions: single deletions, shares of all units deleted at once, exchanges, draws of each."""

    single: int
    shares: tuple[float, ...] = ()
    swaps: tuple[int, ...] = ()
    draws: int = 0


PLANS = {"quick": Plan(3), "normal": Plan(6, (0.1, 0.25, 0.5), (1, 8), 2)}


def lesions(
    subject: Subject,
    *,
    statistics: Statistics | None = None,
    single: int | None = None,
    counts: Sequence[int] | None = None,
    swaps: Sequence[int] | None = None,
    draws: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """Delete and reorder units, and measure loss, error and output on the subject's batch.

    Args:
        statistics: of the norms; None: "running" where training has moved them, else "batch".
        single: how many units to delete alone, evenly over the depth; None: by effort (6, quick 3).
        counts: how many units to delete at once, for the curve; None: by effort.
        swaps: how many exchanges a reordering makes; None: by effort.
        draws: random draws for each of `counts` and `swaps`; None: by effort (2, quick 0).

    Raises:
        BadInput: there is nothing to delete, with the reason; numbers below 1 or above the number of units.
    """
    lab = _Lab(subject, statistics or usual_statistics(subject.model), progress)
    if not lab.parts:
        raise BadInput(f"there is nothing to delete: {subject.anatomy.reason}")
    plan = PLANS[subject.effort]
    n = len(lab.parts)
    single = min(plan.single, n) if single is None else single
    counts = [max(2, round(share * n)) for share in plan.shares] if counts is None else counts
    swaps = plan.swaps if swaps is None else swaps
    draws = plan.draws if draws is None else draws
    if not all(1 <= number <= n for number in (single, *counts)) or min((draws, *swaps)) < 0:
        raise BadInput(f"lesions are counted from 1 to the {n} units that there are")
    counts = sorted({count for count in counts if count <= n})
    lab.total = 1 + single + draws * (len(counts) + len(swaps))
    with subject.running(lab.statistics), torch.no_grad():
        lab.begin()
        deletions = list(lab.single(single))
        curve = lab.curve(deletions, counts, draws)
        reorderings = list(lab.reorderings(swaps, draws))
    return _result(subject, lab, deletions, curve, reorderings)


def usual_statistics(model: nn.Module) -> Statistics:
    """Return "running", or "batch" where running averages are still those of a fresh network: 0 and 1."""
    return "batch" if statistics_learned(model) is False else "running"


@dataclass
class _Lab:
    """The network in operation: every method runs it, inside `subject.running`."""

    subject: Subject
    statistics: Statistics
    progress: Callable[[float, str], None] | None
    parts: list[Part] = field(default_factory=list)
    total: int = 1
    runs: int = 0
    groups: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parts = parts_of(self.subject.anatomy)
        self.draw = random.Random(self.subject.seed)
        self.base = Scores(torch.empty(0))

    def begin(self) -> None:
        """Measure the network as it is."""
        self.base = self._run("as it is")

    def _run(self, what: str, lesion: AbstractContextManager[None] | None = None) -> Scores:
        if self.progress is not None:
            self.progress(self.runs / self.total, what)
        self.runs += 1
        if lesion is None:
            return score(self.subject, self.subject.forward())
        with lesion:
            return score(self.subject, self.subject.forward())

    def single(self, count: int) -> Iterator[dict[str, Any]]:
        """Delete single parts, evenly over the depth."""
        last = len(self.parts) - 1
        for at in sorted({round(last * i / max(1, count - 1)) for i in range(count)}):
            part = self.parts[at]
            found = self._run(f"without {part.name}", deleted(self.subject.anatomy, [part]))
            row = {"part": part.name, "number": at + 1, "stage": part.stage, "source": part.source}
            yield row | _damage(self.base, found)

    def curve(
        self, single: Sequence[Mapping[str, Any]], counts: Sequence[int], draws: int
    ) -> list[dict[str, Any]]:
        """Delete several parts at once; the first row is of none, the second of the single deletions."""
        rows = [_spread({"deleted": 0}, [_numbers(self.base, self.base)])]
        rows.append(_spread({"deleted": 1}, single))
        for count in counts if draws else ():
            if count == 1:
                continue
            found = []
            for _ in range(draws):
                parts = self.draw.sample(self.parts, count)
                lesion = deleted(self.subject.anatomy, parts)
                found.append(_numbers(self.base, self._run(f"without {count} units", lesion)))
            rows.append(_spread({"deleted": count}, found))
        return rows

    def reorderings(self, swaps: Sequence[int], draws: int) -> Iterator[dict[str, Any]]:
        """Exchange alike units."""
        if not (self.subject.anatomy.units and swaps and draws):
            return
        arrangement = Arrangement(self.subject.anatomy)
        self.groups = arrangement.groups
        if not self.groups:
            return
        first = list(range(len(arrangement.units)))
        for count in swaps:
            for _ in range(draws):
                order = first
                for _ in range(count):
                    order = swapped(order, arrangement.groups, self.draw)
                arrangement.arrange(order)
                found = self._run(f"{count} exchanges")
                arrangement.arrange(first)
                tau = float(kendalltau(first, order).statistic)
                yield {"swaps": count, "tau": tau} | _numbers(self.base, found)


def _numbers(base: Scores, found: Scores) -> dict[str, float | None]:
    """Return change, loss and error of a lesion; None where they are not known or not finite."""
    change = float(changes(base, found).mean())
    loss = found.loss
    return {
        "change": change if math.isfinite(change) else None,
        "loss": loss if loss is not None and math.isfinite(loss) else None,
        "error": found.error,
    }


def _damage(base: Scores, found: Scores) -> dict[str, Any]:
    """Return the numbers of a single deletion with intervals of the differences."""
    row: dict[str, Any] = dict(_numbers(base, found))
    estimates = {
        "change": interval(changes(base, found)),
        "loss_rise": interval(found.losses, base.losses),
        "error_rise": error_difference(base, found),
    }
    if found.loss is not None and base.loss is not None and math.isfinite(found.loss):
        row["loss_rise"] = found.loss - base.loss
    for name, estimate in estimates.items():
        if estimate is not None:
            row |= {
                name: estimate.value,
                f"{name}_low": estimate.low,
                f"{name}_high": estimate.high,
            }
    return row


def _spread(row: dict[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean, standard deviation, least and most of the lesions' numbers."""
    row["draws"] = len(found)
    for name in ("change", "loss", "error"):
        values = [each[name] for each in found if each.get(name) is not None]
        if values:
            row[name] = fmean(values)
            row[f"{name}_sd"] = stdev(values) if len(values) > 1 else None
            row[f"{name}_least"], row[f"{name}_most"] = min(values), max(values)
    return row


def _result(
    subject: Subject,
    lab: _Lab,
    deletions: list[dict[str, Any]],
    curve: list[dict[str, Any]],
    reorderings: list[dict[str, Any]],
) -> Result:
    result = Result("lesions")
    result.tables["deletions"] = Table("Single deletions", DELETIONS, deletions)
    result.tables["curve"] = Table("Several deleted at once", CURVE, curve)
    if reorderings:
        result.tables["reorderings"] = Table("Units exchanged", REORDERINGS, reorderings)
    result.summary = _summary(subject, lab, deletions)
    result.figures = figures(result.tables, str(result.summary["by"]))
    result.notes = _notes(subject, lab, deletions, reorderings)
    return result


def _summary(subject: Subject, lab: _Lab, deletions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state before, and which single deletions cost most and least."""
    base = lab.base
    by = "error" if base.errors is not None else "loss" if base.loss is not None else "change"
    key = "loss_rise" if base.loss is not None else "change"

    def cost(row: Mapping[str, Any]) -> float:
        found = row.get(key)
        return math.inf if found is None else float(found)

    ranked = sorted(deletions, key=cost, reverse=True)
    facts: dict[str, Any] = {
        "statistics": lab.statistics,
        "parts": "units" if subject.anatomy.units else "layers",
        "number": len(lab.parts),
        "samples": subject.samples,
        "by": by,
        "loss": base.loss,
        "error": base.error,
        "carries": [row["part"] for row in ranked[:3]],
        "least": [row["part"] for row in ranked[::-1][:3]],
        "largest_change": max(
            (row["change"] for row in deletions if row["change"] is not None), default=None
        ),
        "smallest_change": min(
            (row["change"] for row in deletions if row["change"] is not None), default=None
        ),
    }
    if base.errors is not None:
        wrong = int(base.errors.sum())
        facts["error_interval"] = rate_interval(wrong, subject.samples)
        facts["chance"] = 1 - 1 / base.output.shape[1]
        facts["better_than_chance"] = facts["error_interval"][1] < facts["chance"]
        rises = [row["error_rise"] for row in deletions if row.get("error_rise") is not None]
        facts["largest_error_rise"] = max(rises, default=None)
    return facts


def _notes(
    subject: Subject,
    lab: _Lab,
    deletions: Sequence[Mapping[str, Any]],
    reorderings: Sequence[Mapping[str, Any]],
) -> list[str]:
    notes = [f"Norms use {lab.statistics} statistics; {subject.samples} samples; one network."]
    if lab.statistics == "batch":
        notes.append("Its running averages are those of a fresh network: the batch's own are used.")
    if len(deletions) < len(lab.parts):
        notes.append(
            f"{len(deletions)} of {len(lab.parts)} were deleted alone, evenly over the depth."
        )
    if not subject.anatomy.units:
        notes.append(
            "No residual units: layers that keep the shape are deleted, with their norm and activation."
        )
    if not reorderings:
        reason = "a quick look does not" if subject.effort == "quick" else "none was asked for"
        if lab.subject.anatomy.units and lab.total > 1 + len(deletions):
            reason = "no two units are alike in layers and shapes, or they share their numbers"
        elif not subject.anatomy.units:
            reason = "layers that are no units are not exchanged"
        notes.append(f"Nothing was reordered: {reason}.")
    if any(row["change"] is None for row in deletions):
        notes.append("Some deletions make the output infinite: their numbers are left out.")
    return notes
