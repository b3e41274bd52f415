"""Verdict on curvature: is the step too long for the sharpest direction?

    largest eigenvalue > 2 (1 + m) / eta     (Cohen et al. 2021: gradient descent then diverges along it)

The measured value is a lower bound of the largest eigenvalue, so a verdict never rests on an overestimate; it
holds for gradient descent on this very batch (a mean over more samples is as sharp at most). With norms
it is a note only: weights before a norm grow with every step, and the curvature falls with their square
(Arora, Li & Lyu 2019, "Theoretical analysis of auto rate-tuning by batch normalization").
"""

from __future__ import annotations

from residua.xray.curvature import stability_bound
from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject
from residua.xray.weights import is_norm


def check(subject: Subject, result: Result) -> list[Finding]:
    """Compare sharpness with the bound of the learning rate, where one is known."""
    facts = result.summary
    rate, momentum = facts["learning_rate"], facts["momentum"]
    if not rate:
        return []
    bound = stability_bound(rate, momentum)
    sharpness = facts["largest"]
    if sharpness <= bound:
        return []
    largest_rate = 2 * (1 + momentum) / sharpness
    evidence = Evidence(
        "largest Hessian eigenvalue (Ritz value, a lower bound)",
        sharpness,
        "stable below 2 (1 + momentum) / learning rate (Cohen et al. 2021)",
        expected=bound,
        n=facts["samples"] * facts["batches"],
        over=f"samples, {facts['statistics']} statistics",
    )
    return [
        Finding(
            "sharp",
            "note" if any(is_norm(module) for module in subject.model.modules()) else "warning",
            "medium",
            f"The learning rate {rate:g} is too large for the sharpest direction of the loss: gradient"
            f" descent is unstable there above {largest_rate:.2g}.",
            evidence=(evidence,),
            remedy=f"Warm the learning rate up from below {largest_rate:.2g}, or normalise.",
        )
    ]
