"""Verdicts on units: more dead channels than fresh weights give, and squashing functions at their bounds.

    dead       symmetric weights make a channel surely dead as often as surely on: of d dead and o on,
               d ~ Binomial(d + o, 1/2), exactly, whatever the inputs; and of C channels the share
               of `far_share` is surely dead, c the correlation of samples (laws/dead.py)
    saturated  Gaussian pre-activations of unit variance (Glorot & Bengio 2010) put 0.8 % of tanh beyond 0.99;
               where it is more than half, a typical unit passes under 2 % of its gradient

Only `surely` dead channels count, so that rare features of a trained network, which a small batch does not
show, are none.
"""

from __future__ import annotations

from typing import Any

from scipy import stats

from residua.xray.findings import Evidence, Finding
from residua.xray.laws.dead import LEVEL
from residua.xray.result import Result
from residua.xray.subject import Subject

CHANCE = 1e-3  # of a false verdict in a whole network
MOSTLY = 0.5  # a typical value, the median, is at a bound
FRESH = 0.0081  # P(|z| > atanh 0.99), z ~ N(0, 1)


def check(subject: Subject, result: Result) -> list[Finding]:
    """Judge every activation."""
    rows = result.tables["activations"].rows
    found = []
    for row in rows:
        found += _dead(row, CHANCE / len(rows)) + _saturated(row)
    return found


def _dead(row: dict[str, Any], chance: float) -> list[Finding]:
    """Compare the surely dead channels with the surely on, and with the law of fresh weights."""
    dead = row.get("surely_dead")
    if not dead or row["surely_law"] is None:
        return []
    on, channels, law = row["surely_on"], row["channels"], row["surely_law"]
    lopsided = stats.binom.sf(dead - 1, dead + on, 0.5) < chance
    beyond = dead > on and stats.binom.sf(dead - 1, channels, law) < chance
    if not (lopsided or beyond):
        return []
    interval = stats.binomtest(dead, channels).proportion_ci(LEVEL, "exact")
    evidence = Evidence(
        "share of channels that are surely dead",
        dead / channels,
        "symmetric weights: T(-k sqrt((n-1)(1-c)/(1+(n-1)c))), and as many surely on"
        f" (here {on} against {dead} dead)",
        expected=law,
        interval=(float(interval.low), float(interval.high)),
        n=channels,
        over=f"channels, each on {row['samples']} samples",
    )
    waste = dead / channels >= 0.1
    return [
        Finding(
            "dead_channels",
            "warning" if waste else "note",
            "high" if lopsided else "medium",
            f"{dead} of {channels} channels of {row['activation']} are never on: they give nothing and learn"
            " nothing.",
            where=(row["module"],),
            lines=(row["source"],) if row["source"] else (),
            evidence=(evidence,),
            remedy="Draw their weights anew with biases zero, and train with a lower learning rate or a norm;"
            " or prune them: the output stays the same.",
        )
    ]


def _saturated(row: dict[str, Any]) -> list[Finding]:
    """Report a squashing function that is mostly at its bounds."""
    share = row["saturated_share"]
    if share is None or share <= MOSTLY or row["dead"] is not None:
        return []
    gate = " It gates another value, and may be closed on purpose." if row["gate"] else ""
    evidence = Evidence(
        "share of values at a bound",
        share,
        "Gaussian pre-activations of unit variance: P(|tanh| > 0.99) = 0.8 %",
        expected=FRESH,
        n=row["channels"] * row["values"],
        over=f"values of {row['samples']} samples",
    )
    return [
        Finding(
            "saturated",
            "note" if row["gate"] else "warning",
            "high",
            f"{share:.0%} of the values of {row['activation']} ({row['operation']}) are at a bound, where the"
            f" gradient vanishes.{gate}",
            where=(row["module"],),
            lines=(row["source"],) if row["source"] else (),
            evidence=(evidence,),
            remedy="Draw the weights before it with a smaller variance (Glorot), or normalise before it.",
        )
    ]
