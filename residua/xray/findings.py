"""A finding: what is wrong, where, how that is known, how sure, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["severe", "warning", "note"]
Confidence = Literal["high", "medium", "low"]


@dataclass(frozen=True)
class Evidence:
    """A measured number beside what a law expects of a healthy network.

    law: the equation and its source, in words. expected: its value here, or None where the law is a
    bound. interval: of `measured`, 95 %, over `n` measurements (batches, seeds or units: `over`).
    """

    quantity: str
    measured: float
    law: str
    expected: float | None = None
    interval: tuple[float, float] | None = None
    n: int = 1
    over: str = ""


@dataclass(frozen=True)
class Change:
    """What the remedy did to a copy of this very model: the same quantity before and after."""

    quantity: str
    before: float
    after: float


@dataclass
class Finding:
    """One verdict.

    check: the name of the check, by which findings are merged. what: one sentence that a newcomer
    understands. where: module paths; lines: "file.py:12" where known. severity: severe (will not
    train, or the result is wrong), warning (costs accuracy or speed), note (worth knowing).
    remedy: one sentence; prescription: its name for `residua.prescribe`, where there is one.
    """

    check: str
    severity: Severity
    confidence: Confidence
    what: str
    where: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    remedy: str = ""
    prescription: str | None = None
    change: Change | None = None
    analysis: str = field(default="")

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        return asdict(self)
