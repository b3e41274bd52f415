"""Verdicts on the signal: values or gradients that explode or vanish with depth, by an exponential law.

    explodes   m_K / m_0 > K + 1, stage by stage, at the lower end of b's interval
    vanishes   root of m_K / m_0 < 2^-10 at the upper end

b, the growth a block, must be an exponential (growth.py) that explains nine tenths of ln m. K + 1 is what a
healthy residual network with norms reaches in a stage of K steps: one unit a block, and each stage begins
anew behind its projection's norm. 2^-10 is the spacing of half-precision numbers
at 1: what is smaller is lost beside it.

A gradient may grow by a power of the depth in any residual network, and by 1.2112 a layer in any plain one
behind batch norm (Yang et al. 2019). The latter is a note where its root passes 2^10, for plain networks of
fewer than a hundred layers train in spite of it, only worse than residual ones (He et al. 2015, figure 1),
and a warning beyond float16's range of normal numbers, 65504 / 2^-14.

Severe: values that pass float16's largest number within the network's depth, or that are no numbers.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch

from residua.xray.findings import Evidence, Finding, Severity
from residua.xray.result import Result
from residua.xray.subject import Subject

Quantity = Literal["second_moment", "gradient_second_moment"]

LEAST_R2 = 0.9
_HALF = torch.finfo(torch.float16)
LOST = math.log(1 / float(_HALF.eps))  # 2^10
HALF_RANGE = math.log(float(_HALF.max) / float(_HALF.tiny))

_DOUBLES = "doubles a block: residual blocks without norm (Prince, section 11.4)"
_CONSTANT = "constant: each block keeps the second moment (He et al. 2015b)"
_EXPLODES = "grows by (pi / (pi - 1)) a layer behind batch norm (Yang et al. 2019)"


def check(subject: Subject, result: Result) -> list[Finding]:
    """Judge values and gradients."""
    return [
        finding
        for finding in (_values(subject, result), _gradients(subject, result))
        if finding is not None
    ]


def _values(subject: Subject, result: Result) -> Finding | None:
    facts = result.summary
    growth, where = _total(facts, "second_moment"), facts["first_unmeasurable"]
    if growth is not None and growth[0] > facts["second_moment_one_a_block"]:
        return _explosion(facts, _overflow(result) or where)
    if growth is not None and growth[1] / 2 < -LOST:
        return Finding(
            "signal_vanishes",
            "warning",
            "high",
            f"The values' second moment falls to {facts['second_moment_growth']:.3g} of itself with each"
            " block: the deep layers hardly see the input.",
            evidence=(_evidence(facts, "second_moment", _CONSTANT, 1.0),),
            remedy="Initialise the weights so that each layer keeps the second moment (He), or normalise.",
            prescription="reinitialise",
        )
    if where is not None:
        return Finding(
            "signal_overflows",
            "severe",
            "high",
            f"The values are no numbers from {where} on ({facts['statistics']} statistics).",
            (where,),
            evidence=(
                Evidence(
                    "largest_rms",
                    facts["largest_rms"] or math.inf,
                    f"below the largest number of {facts['dtype']}, before the first that is none",
                    n=facts["samples"],
                    over="samples",
                ),
            ),
            remedy="Normalise, scale the branches, or use a number type of a wider range.",
        )
    return None


def _explosion(facts: dict[str, Any], overflow: str | int | None) -> Finding:
    severity: Severity = "severe" if overflow is not None else "warning"
    doubles = facts["places"] == "units" and not facts["norms"]
    passes = (
        "" if overflow is None else f" and passes what half precision holds at {_named(overflow)}"
    )
    return Finding(
        "signal_explodes",
        severity,
        "high",
        f"The values' second moment grows by {facts['second_moment_growth']:.3g} with each block{passes}.",
        evidence=(
            _evidence(
                facts, "second_moment", _DOUBLES if doubles else _CONSTANT, 2.0 if doubles else 1.0
            ),
        ),
        remedy="Multiply by 1/sqrt 2 after each addition, or begin each branch at zero (SkipInit)."
        if doubles
        else "Initialise the weights so that each layer keeps the second moment (He), or normalise.",
        prescription="sqrt_half" if doubles else "reinitialise",
    )


def _gradients(subject: Subject, result: Result) -> Finding | None:
    facts = result.summary
    name: Quantity = "gradient_second_moment"
    growth = _total(facts, name)
    if growth is None:
        return None
    low, high = growth[0] / 2, growth[1] / 2  # of the root
    residual = facts["places"] == "units"
    step = "block" if residual else "layer"
    rate = math.sqrt(facts[f"{name}_growth"])
    if low > LOST:
        law = facts.get(f"{name}_explosion_law")
        explained = facts[f"{name}_law"] == "explosion"
        severity: Severity = "warning" if low > HALF_RANGE else "note"
        by_law = ", as the law of batch norm in plain networks says" if explained else ""
        return Finding(
            "gradient_explodes",
            severity,
            "high",
            f"The gradient grows by {rate:.3g} a {step} on its way back{by_law}.",
            evidence=(
                _evidence(facts, name, _EXPLODES, law)
                if law
                else _evidence(facts, name, _CONSTANT, 1.0),
            ),
            remedy="Put shortcuts around the layers."
            if not residual
            else "Scale the branches down.",
            prescription="sqrt_half" if residual and not facts["norms"] else None,
        )
    if high < -LOST:
        return Finding(
            "gradient_vanishes",
            "warning",
            "high",
            f"The gradient falls to {rate:.3g} of itself with each {step} on its way back: the first layers"
            " hardly learn.",
            evidence=(_evidence(facts, name, _CONSTANT, 1.0),),
            remedy="Initialise the weights for their activation (He), normalise, or add shortcuts.",
            prescription="reinitialise",
        )
    return None


def _total(facts: dict[str, Any], name: str) -> tuple[float, float] | None:
    """Return the interval of ln(m_K / m_0) inside the stages, where the growth is an exponential."""
    fit = facts.get(f"{name}_r2")
    if not facts[f"{name}_exponential"] or fit is None or fit < LEAST_R2:
        return None
    low, high = facts[f"{name}_growth_interval"]
    steps = facts[f"{name}_steps"]
    return steps * math.log(low) if low > 0 else -math.inf, steps * math.log(high)


def _overflow(result: Result) -> int | None:
    """Return the block, within the network's depth, at which values pass float16's largest number."""
    rows = result.tables["range"].rows
    block = next(
        r["overflow"] for r in rows if (r["quantity"], r["dtype"]) == ("values", "float16")
    )
    return block if block is not None and block <= result.summary["depth"] else None


def _named(place: str | int) -> str:
    return f"block {place}" if isinstance(place, int) else place


def _evidence(
    facts: dict[str, Any],
    name: Quantity,
    law: str,
    expected: float,
) -> Evidence:
    return Evidence(
        f"{name}_growth",
        facts[f"{name}_growth"],
        law,
        expected,
        facts[f"{name}_growth_interval"],
        facts[f"{name}_steps"],
        "blocks",
    )
