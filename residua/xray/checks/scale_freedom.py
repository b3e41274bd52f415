"""Verdicts on scale: biases that do nothing, L2 and learning rate where they are told.

    bias before a norm       the norm subtracts each channel's mean, and the bias with it: gradient 0
    scale-free, no L2        |w|^4 = |w_0|^4 + 2 eta^2 G^2 t: the effective rate falls (laws/equilibrium.py)
    L2 on gains and biases   He et al. 2019 (Bag of tricks, section 3.1) leave them out
    step longer than w       eta |g| > |w|: one step turns the weights by more than 45 degrees

The last three only where learning rate and weight decay were told.
"""

from __future__ import annotations

from typing import Any

from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject

STEPS = 10_000  # of a run of unknown length: 26 epochs of CIFAR in batches of 128


def check(subject: Subject, result: Result) -> list[Finding]:
    """Judge biases before norms, and L2 and learning rate if they are known."""
    return _idle(result) + _undecayed(result) + _decayed_norms(result) + _long_steps(result)


def _idle(result: Result) -> list[Finding]:
    found = []
    for name, facts in result.summary["idle_biases"].items():
        module = name.rpartition(".")[0]
        evidence: tuple[Evidence, ...] = ()
        if facts["gradient"] is not None and facts["norm_gradient"]:
            evidence = (
                Evidence(
                    "gradient of this bias over that of the norm's own",
                    facts["gradient"] / facts["norm_gradient"],
                    "0: a norm that subtracts each channel's mean takes a bias before it away",
                    expected=0.0,
                ),
            )
        found.append(
            Finding(
                "bias_before_norm",
                "note",
                "high",
                f"The bias of {module or 'a layer'} has no effect: {facts['norms'][0]} subtracts it.",
                where=(module,),
                lines=(facts["source"],) if facts["source"] else (),
                evidence=evidence,
                remedy="Build the layer with bias=False; the norm has a bias of its own.",
            )
        )
    return found


def _undecayed(result: Result) -> list[Finding]:
    facts = result.summary
    if facts["learning_rate"] is None or facts["weight_decay"] != 0:
        return []
    run = facts["steps"] or STEPS
    rows = [row for row in result.tables["weights"].rows if row["confirmed"]]
    falls = [row for row in rows if row["steps_until_half"] < run]
    if not falls:
        return []
    worst = min(falls, key=lambda row: row["steps_until_half"])
    return [
        Finding(
            "effective_rate_falls",
            "note",
            "medium",
            f"Without weight decay the effective learning rate of {len(falls)} of {len(rows)} scale-free"
            f" weights halves within the run; that of {worst['weight']} within"
            f" {worst['steps_until_half']:.0f} steps.",
            where=tuple(row["weight"].rpartition(".")[0] for row in falls),
            lines=_lines(falls),
            evidence=(
                Evidence(
                    "steps until the effective rate has halved",
                    worst["steps_until_half"],
                    "3 |w|^2 / (2 eta^2 |g|^2 / (1 - m)^2), from <w, g> = 0",
                    expected=float(run),
                    over="present gradient",
                ),
            ),
            remedy="Give these weights weight decay, or know that their learning rate decays by itself.",
        )
    ]


def _decayed_norms(result: Result) -> list[Finding]:
    decay = result.summary["weight_decay"]
    rows = [row for row in result.tables["groups"].rows if row["group"] in ("norms", "biases")]
    if not decay or result.summary["learning_rate"] is None or not rows:
        return []
    if all(row["group"] != "norms" for row in rows):
        return []
    names = [name for row in rows for name in row["names"]]
    half_life = rows[0]["half_life"]
    return [
        Finding(
            "decayed_norms",
            "note",
            "medium",
            f"Weight decay on {len(names)} gains and biases shrinks the branches that they scale, not the"
            " capacity: it is commonly left out.",
            evidence=(
                Evidence(
                    "steps in which L2 alone halves them",
                    half_life,
                    "ln 2 (1 - m) / (eta lambda); no decay on norms and biases: He et al. 2019, section 3.1",
                ),
            ),
            remedy="Put norms' parameters and biases into a group without weight decay.",
        )
    ]


def _long_steps(result: Result) -> list[Finding]:
    if result.summary["learning_rate"] is None:
        return []
    rows = [row for row in result.tables["weights"].rows if row["confirmed"]]
    long = [row for row in rows if row["turn"] > 1]
    if not long:
        return []
    worst = max(long, key=lambda row: row["turn"])
    largest = result.summary["learning_rate"] / worst["turn"]
    return [
        Finding(
            "long_steps",
            "warning",
            "medium",
            f"A step of learning rate {result.summary['learning_rate']:g} is longer than the weights"
            f" {worst['weight']} themselves: they turn by more than 45 degrees at once.",
            where=tuple(row["weight"].rpartition(".")[0] for row in long),
            lines=_lines(long),
            evidence=(
                Evidence(
                    "eta |g| / |w|",
                    worst["turn"],
                    "well below 1: the tangent of the angle by which a step turns scale-free weights",
                    expected=1.0,
                    over="present gradient",
                ),
            ),
            remedy=f"Warm up from a learning rate below {largest:.2g}.",
        )
    ]


def _lines(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(row["source"] for row in rows if row["source"]))
