"""Verdict on lesions: units of a trained network that could go.

    error without the unit: its rise surely below the sampling error of the error rate itself
    loss without the unit:  does not surely rise, where it is known sample by sample

Both at 95 %; on N samples a rise of up to 3 / N can go unseen and counts as possible. Said of single
deletions: a residual network bears the loss of any one of many units (Veit et al. 2016), not of all of them.
Nothing is said of a network that does no better than chance, in which no unit has anything to do yet.
"""

from __future__ import annotations

from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject


def check(subject: Subject, result: Result) -> list[Finding]:
    """Name the units whose deletion changes nothing beyond noise."""
    facts = result.summary
    if not facts.get("better_than_chance") or facts["parts"] != "units":
        return []
    noise = (facts["error_interval"][1] - facts["error_interval"][0]) / 2
    idle = [
        row
        for row in result.tables["deletions"].rows
        if row.get("error_rise_high") is not None
        and row["error_rise_high"] <= noise
        and row.get("loss_rise_low", 0.0) <= 0
    ]
    return [
        Finding(
            "could_go",
            "note",
            "medium",
            f"Deleting {row['part']} alone changes nothing beyond noise on these {facts['samples']} samples.",
            (row["part"],),
            (row["source"],) if row["source"] else (),
            (
                Evidence(
                    "error_rise",
                    row["error_rise"],
                    f"no rise beyond the error rate's own sampling error, {noise:.3g}",
                    0.0,
                    (row["error_rise_low"], row["error_rise_high"]),
                    facts["samples"],
                    "samples",
                ),
            ),
            remedy="Cut one such unit, measure again, and only then the next.",
        )
        for row in idle
    ]
