"""Verdicts on shattered gradients: whitened beyond what the residual law of this depth allows.

Two tests, each against a law and its measured interval:

    close inputs    a network whose ways through it all pass (nearly) every activation, that is a plain one:
                    moved by a thousandth of the way to another sample, a gradient must keep at least half
                    of what a residual network of as many activations would keep (arc-cosine law, norm
                    first). Plain nets of 20 layers pass (0.94 of 1.00); of 44 and more, fail: a true finding.
    drowned trunk   a network with residual units: at most units where the law can be told from zero, two
                    samples' gradients must correlate at least half as much as the published residual law
                    allows: (1 + 2^-m) / 2 a unit, 1/2 an activation and 1/r a max pool on the trunk.
                    (Registered models: 0.9 of it or more.)

Never "severe": Balduzzi et al. 2017 and He et al. 2015 show that such networks train, but worse. The laws
are for initialisation: of a trained network a finding says how far training has moved it.
"""

from __future__ import annotations

from typing import Any

from residua.xray.findings import Evidence, Finding
from residua.xray.nonlinear_depth import Depths
from residua.xray.result import Result
from residua.xray.shattered import acts_plain, resolved
from residua.xray.subject import Subject

TOLERANCE = 0.5  # of the law, below which the whole interval must lie
CLOSE = 1e-3  # of the way to another sample
LEAST_PLACES = 2


def check(subject: Subject, result: Result) -> list[Finding]:
    """Return what is wrong with how gradients of different inputs relate."""
    summary = result.summary
    if summary["batch_norms"] and summary["statistics"] == "batch":
        return []  # the laws are for gradients from which the batch's mean is not taken off
    if acts_plain(Depths(summary["fewest"], summary["most"])):
        return _close(result)
    return _drowned(subject, result)


def _close(result: Result) -> list[Finding]:
    if "near" not in result.tables:
        return []
    for row in result.tables["near"].rows:
        if row["shift"] == CLOSE and row["high"] < TOLERANCE * row["arc_normed"]:
            return [_shattered(row, result.summary["most"])]
    return []


def _shattered(row: dict[str, Any], layers: int) -> Finding:
    evidence = Evidence(
        quantity="cosine of a sample's gradients before and after it moves 1/1000 of the way to another",
        measured=row["correlation"],
        law="arc-cosine recursion of a residual network with norms and as many activations"
        " (Cho & Saul 2009; Balduzzi et al. 2017)",
        expected=row["arc_normed"],
        interval=(row["low"], row["high"]),
        n=int(row["samples"]),
        over="samples",
    )
    return Finding(
        check="shattered gradients",
        severity="warning",
        confidence="high",
        what=f"Gradients change at random between inputs that are almost the same: with {layers} layers"
        " and no shortcuts around them they are shattered, and more depth will train worse, not better.",
        evidence=(evidence,),
        remedy="Add an identity shortcut around every two or three layers, or make the network shallower.",
    )


def _drowned(subject: Subject, result: Result) -> list[Finding]:
    rows = resolved(result.tables["depth"])
    below = [row for row in rows if row["high"] < TOLERANCE * row["least"]]
    if len(below) < max(LEAST_PLACES, len(rows) / 2):
        return []
    worst = min(below, key=lambda row: float(row["correlation"] / row["least"]))
    evidence = Evidence(
        quantity="share_of_law",
        measured=worst["correlation"] / worst["least"],
        law=f"correlation of two samples' gradients after {worst['place']}, over what a residual net keeps"
        " at least: (1 + 2^-m) / 2 a unit with m activations in its branch, 1/2 an activation on the trunk"
        " (Balduzzi et al. 2017)",
        expected=1.0,
        interval=(worst["low"] / worst["least"], worst["high"] / worst["least"]),
        n=subject.samples,
        over="samples",
    )
    places = tuple(row["place"] for row in below)
    lines = {unit.name: unit.source for unit in subject.anatomy.trunk}
    return [
        Finding(
            check="shattered gradients",
            severity="warning",
            confidence="medium",
            what="Gradients of different inputs lose their likeness faster than a residual network allows:"
            " the branches outweigh the shortcuts, and the network acts as a plain one.",
            where=places,
            lines=tuple(lines.get(place, "") for place in places),
            evidence=(evidence,),
            remedy="Make the branches small at the start: scale them by 1/sqrt(number of blocks), or begin"
            " with a learned factor of zero.",
            prescription="skip_init",
        )
    ]
