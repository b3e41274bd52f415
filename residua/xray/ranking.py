"""Findings in the order in which a person should read them, each thing said once.

    severity, then confidence, then how far the measured number is from what the law expects

The distance is |ln(measured / expected)| where both are positive, else |measured - expected| in units of
the interval's half width or of |expected|. A law that is a bound has no distance; what is not finite is
farthest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from residua.xray.findings import Evidence, Finding

SEVERITIES = ("severe", "warning", "note")
CONFIDENCES = ("high", "medium", "low")


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings, the worst first; one check in many places is one finding.

    Findings of one check and one severity become the worst of them, with the places and lines of all, in
    the order in which they were found.
    """
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.check, finding.severity), []).append(finding)
    return sorted((_merged(group) for group in groups.values()), key=_rank)


def deviation(finding: Finding) -> float:
    """Return how far the finding's evidence is from its law, at most over its numbers."""
    return max((_distance(evidence) for evidence in finding.evidence), default=0.0)


def _rank(finding: Finding) -> tuple[int, int, float]:
    return (
        SEVERITIES.index(finding.severity),
        CONFIDENCES.index(finding.confidence),
        -deviation(finding),
    )


def _merged(group: list[Finding]) -> Finding:
    worst = min(group, key=_rank)
    where = tuple(dict.fromkeys(place for finding in group for place in finding.where))
    lines = tuple(dict.fromkeys(line for finding in group for line in finding.lines))
    more = len(where) - len(worst.where)
    what = worst.what
    if more > 0:
        what += f" The same in {more} more place{'s' if more > 1 else ''}."
    return replace(worst, what=what, where=where, lines=lines)


def _distance(evidence: Evidence) -> float:
    measured, expected = evidence.measured, evidence.expected
    if not math.isfinite(measured):
        return math.inf
    if expected is None or not math.isfinite(expected):
        return 0.0
    if measured > 0 and expected > 0:
        return abs(math.log(measured / expected))
    low, high = evidence.interval or (0.0, 0.0)
    unit = (high - low) / 2 or abs(expected) or 1.0
    return abs(measured - expected) / unit
