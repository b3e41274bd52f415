"""Verdict on smoothness: does one step of gradient descent at the learning rate raise the loss?

    L(w - eta g) <= L(w) - eta (1 - eta beta / 2) |g|^2     (the descent lemma; Nesterov 2004, section 1.2.3)

where the gradient is beta-smooth along the step: below 2 / beta every step lowers the loss. Given only where
a learning rate is known, from measured losses of this network on this batch.
"""

from __future__ import annotations

import math

from residua.xray.findings import Evidence, Finding
from residua.xray.intervals import mean_interval
from residua.xray.result import Result
from residua.xray.subject import Subject


def check(subject: Subject, result: Result) -> list[Finding]:
    """Judge the step of one learning rate on the network as it was given."""
    rate = result.summary["learning_rate"]
    rows = [
        row
        for row in result.tables["steps"].rows
        if row["multiple"] == 1.0 and row["seed"] is None and row["distance"] > 0
    ]
    if not rate or not rows:
        return []
    changes = [row["loss_change"] for row in rows]
    if not all(math.isfinite(change) for change in changes):
        evidence = Evidence("loss after one step", math.inf, "finite", n=len(rows), over="batches")
        return [_finding(rate, "to overflow", "severe", evidence)]
    found = mean_interval(changes)
    if found.value <= 0.0 or (found.n > 1 and found.low <= 0.0):
        return []
    beta = max(row["beta"] for row in rows)
    evidence = Evidence(
        f"change of the loss in one step ({result.summary['statistics']} statistics)",
        found.value,
        f"falls where the step is below 2 / beta = {2 / beta:.2g}, effective beta {beta:.3g}",
        expected=sum(row["straight_line"] for row in rows) / len(rows),
        interval=found.interval if found.n > 1 else None,
        n=found.n,
        over="batches",
    )
    return [_finding(rate, "up", "warning", evidence)]


def _finding(rate: float, where_to: str, severity: str, evidence: Evidence) -> Finding:
    return Finding(
        "overshoot",
        "severe" if severity == "severe" else "warning",
        "high" if evidence.n > 1 else "medium",
        f"One step of gradient descent at the learning rate {rate:g} drives the loss {where_to}.",
        evidence=(evidence,),
        remedy="Begin with a smaller learning rate (warm-up), or make the loss smoother with norms.",
    )
