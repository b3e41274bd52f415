"""Verdicts on paths: branches that take no part, and a trained network that is shallower than it looks.

    prod_i (S_i + t B_i): with B_i = 0 for all i every gradient is that of the one path of shortcuts, k = 0
    branches as strong as shortcuts: lengths are binomial, K/2 +- 1.96 sqrt(K)/2 for 95 % of the paths

Branches that start at zero (SkipInit, a last norm of zeros) let nothing pass by design, but learn at once: no
verdict while their own parameters get a gradient. At initialisation a short effective depth is what batch
norm makes (the trunk grows, each branch adds less), so the second verdict is for learned statistics alone;
Veit, Wilber & Belongie 2016 found it in every residual network that they trained: a note, no fault.
"""

from __future__ import annotations

from math import sqrt

from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject


def check(subject: Subject, result: Result) -> list[Finding]:
    """Return what the shares of gradient by path length say."""
    facts = result.summary
    if facts["effective_depth"] is None:
        return []
    if facts["idle"]:
        return [_idle(subject, result)]
    return _shallow(result)


def _idle(subject: Subject, result: Result) -> Finding:
    facts = result.summary
    units = [unit for unit in subject.anatomy.units if unit.name in set(facts["idle"])]
    evidence = Evidence(
        "share of the gradient that passes no branch",
        facts["shortcut_share"],
        "below 1 wherever a branch has a derivative: prod (S + B) (Veit et al. 2016, equation 2)",
        n=facts["samples"],
        over="samples",
    )
    return Finding(
        "idle_branches",
        "severe",
        "high",
        f"All gradient goes past the branches, and {len(units)} of {facts['units']} get none for their own"
        " parameters: they cannot learn.",
        where=tuple(unit.name for unit in units),
        lines=tuple(unit.source for unit in units),
        evidence=(evidence,),
        remedy="Start the branches anew; look at their activations and biases for units that are dead.",
    )


def _shallow(result: Result) -> list[Finding]:
    facts = result.summary
    units, depth = facts["trunk_units"], facts["effective_depth"]
    lowest = units / 2 - 1.96 * sqrt(units) / 2
    interval = facts["effective_depth_interval"]
    in_a_row = facts["longest"] == units
    if not facts["learned"] or not in_a_row or (interval[1] if interval else depth) >= lowest:
        return []
    evidence = Evidence(
        f"effective depth ({facts['statistics']} statistics)",
        depth,
        f"branches as strong as shortcuts: binomial, 95 % of {units} units' paths are {lowest:.1f} or longer",
        expected=units / 2,
        interval=interval,
        n=facts["samples"],
        over="samples",
    )
    return [
        Finding(
            "shallow_paths",
            "note",
            "high" if interval else "medium",
            f"The gradient comes from short paths: {facts['most_share']:.0%} of it from those through"
            f" {facts['most_from']} to {facts['most_to']} of the {units} units,"
            f" {facts['most_paths_share']:.2g} of all paths.",
            evidence=(evidence,),
            remedy="Nothing is broken; lesions show which units could be left out.",
        )
    ]
