"""Evidence as a small picture: a dot for what was measured, its interval, a mark for what a law expects.

Positions are shares 0 .. 1 of the picture's width; the scale is logarithmic where all numbers are positive
and lie apart by more than `SPREAD`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from residua.report.numbers import finite

SPREAD = 20.0  # ratio beyond which a linear scale would hide the smaller numbers
MARGIN = 0.08  # of the width, left free on both sides


def dot_and_interval(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return {measured, expected, low, high, scale}; None where there is one number only, or none.

    >>> drawn = dot_and_interval({"measured": 2.0, "expected": 1.0, "interval": (1.5, 2.5)})
    >>> drawn["scale"], drawn["expected"], drawn["high"]
    ('linear', 0.08, 0.92)
    """
    low, high = (finite(value) for value in evidence.get("interval") or (None, None))
    numbers = {
        "measured": finite(evidence.get("measured")),
        "expected": finite(evidence.get("expected")),
        "low": low,
        "high": high,
    }
    known = [value for value in numbers.values() if value is not None]
    if numbers["measured"] is None or len(set(known)) < 2:
        return None
    if math.isinf(max(known) - min(known)):  # beyond what a float can tell apart
        return None
    logarithmic = min(known) > 0 and max(known) / min(known) > SPREAD
    first, last = (math.log(v) if logarithmic else v for v in (min(known), max(known)))

    def place(value: float) -> float:
        share = ((math.log(value) if logarithmic else value) - first) / (last - first)
        return round(MARGIN + (1 - 2 * MARGIN) * share, 4)

    placed = {key: None if value is None else place(value) for key, value in numbers.items()}
    return {**placed, "scale": "logarithmic" if logarithmic else "linear"}
