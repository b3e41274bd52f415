"""Verdicts on singularities: units that vanish, that double others, that depend on others.

A warning where units are singular to working precision; a note where they are nearer to it than random
weights of the same shape come once in 1 / FALSE_ALARM networks (laws/random_weights.py). Layers and norms
that are zero altogether are so by design (zero-initialised branches, Fixup, SkipInit): no verdict. Mirrored
units are a design, too. Trained weights need not look random: a note is worth knowing, no fault.
"""

from __future__ import annotations

from typing import Any

from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject

MOST_PLACES = 20
_SOURCE = "Orhan & Pitkow 2018"


def check(subject: Subject, result: Result) -> list[Finding]:
    """Judge vanishing units, norms' factors, duplicate units and dependent units."""
    layers = [row for row in result.tables["layers"].rows if not row["zero"]]
    found = [
        _eliminated(layers, "eliminated", "incoming", "units have no incoming weights"),
        _eliminated(layers, "unread", "outgoing", "input channels are read with vanishing weights"),
        _silent(result),
        _duplicates(layers),
        _near(layers),
        _dependent(layers),
    ]
    return [finding for finding in found if finding is not None]


def _eliminated(rows: list[dict[str, Any]], count: str, name: str, what: str) -> Finding | None:
    bad = [row for row in rows if row[count]]
    if not bad:
        return None
    worst = min(bad, key=lambda row: float(row[name]))
    return Finding(
        "elimination",
        "warning",
        "high",
        f"{_sum(bad, count)} {what}: they carry no signal and learn slowly or never.",
        where=_places(bad, "layer"),
        evidence=(
            Evidence(
                f"shortest {name} weights of {worst['layer']}, relative to the median",
                worst[name],
                f"random weights: chi-squared; beyond chance below {worst[f'{name}_bound']:.3g}",
                expected=worst[f"{name}_law"],
                n=worst["units"],
                over="units",
            ),
        ),
        remedy="Initialise these units anew, or remove them.",
    )


def _silent(result: Result) -> Finding | None:
    bad = [row for row in result.tables["scales"].rows if row["eliminated"]]
    if not bad:
        return None
    worst = min(bad, key=lambda row: float(row["smallest"]))
    return Finding(
        "elimination_by_norm",
        "warning",
        "high",
        f"{_sum(bad, 'eliminated')} channels are multiplied by a vanishing factor in their norm.",
        where=_places(bad, "norm"),
        evidence=(
            Evidence(
                f"smallest factor of {worst['norm']}, relative to the median",
                worst["smallest"],
                f"an eliminated channel passes neither signal nor gradient ({_SOURCE})",
                n=worst["channels"],
                over="channels",
            ),
        ),
        remedy="Set these factors to those of their neighbours, or prune the channels.",
    )


def _duplicates(rows: list[dict[str, Any]]) -> Finding | None:
    bad = [row for row in rows if row["duplicates"]]
    if not bad:
        return None
    worst = max(bad, key=lambda row: int(row["duplicates"]))
    return Finding(
        "overlap",
        "warning",
        "high",
        f"{_sum(bad, 'duplicates')} pairs of units are one unit twice: they compute the same and,"
        " where they are read alike, learn the same.",
        where=_places(bad, "layer"),
        evidence=(_cosine(worst),),
        remedy="Initialise one unit of each pair anew, with random weights.",
    )


def _near(rows: list[dict[str, Any]]) -> Finding | None:
    """Note layers with units shorter, or more alike, than chance makes them, but not singular."""
    short = [row for row in rows if row["near"] and not row["eliminated"]]
    alike = [row for row in rows if row["alike"] and not row["duplicates"]]
    if not short and not alike:
        return None
    evidence = []
    if short:
        worst = min(short, key=lambda row: row["incoming"] / row["incoming_bound"])
        evidence.append(
            Evidence(
                f"shortest incoming weights of {worst['layer']}, relative to the median",
                worst["incoming"],
                f"random weights: chi-squared; beyond chance below {worst['incoming_bound']:.3g}",
                expected=worst["incoming_law"],
                n=worst["units"],
                over="units",
            )
        )
    if alike:
        evidence.append(_cosine(max(alike, key=lambda row: row["cosine"] / row["cosine_bound"])))
    return Finding(
        "near_singular",
        "note",
        "medium",
        f"{_sum(short, 'near')} units are shorter, and {_sum(alike, 'alike')} pairs"
        " more alike, than random weights would be: learning along them is slower.",
        where=_places([row for row in rows if row in short or row in alike], "layer"),
        evidence=tuple(evidence),
    )


def _cosine(row: dict[str, Any]) -> Evidence:
    return Evidence(
        f"|cos| of the most alike units of {row['layer']}",
        abs(row["cosine"]),
        f"random weights: cos² ~ Beta(1/2, (d-1)/2); beyond chance above {row['cosine_bound']:.3g}",
        expected=row["cosine_law"],
        n=row["units"],
        over="units",
    )


def _dependent(rows: list[dict[str, Any]]) -> Finding | None:
    """Note dependent layers that neither duplicate nor mirrored units explain."""
    bad = [
        row
        for row in rows
        if row["singular"] is not None
        and row["singular"] < row["singular_bound"]
        and not row["duplicates"]
        and not row["mirrored"]
    ]
    if not bad:
        return None
    worst = min(bad, key=lambda row: row["singular"] / row["singular_bound"])
    return Finding(
        "dependence",
        "note",
        "medium",
        f"In {len(bad)} layer(s) the units' weights are nearer to linear dependence than chance brings them.",
        where=_places(bad, "layer"),
        evidence=(
            Evidence(
                f"smallest singular value of {worst['layer']}, units of length one",
                worst["singular"],
                f"random weights: Marchenko & Pastur; beyond chance below {worst['singular_bound']:.3g}",
                expected=worst["singular_law"],
                n=worst["units"],
                over="units",
            ),
        ),
        remedy="Fewer units would do in these layers.",
    )


def _sum(rows: list[dict[str, Any]], name: str) -> int:
    return sum(int(row[name]) for row in rows)


def _places(rows: list[dict[str, Any]], name: str) -> tuple[str, ...]:
    return tuple(str(row[name]) for row in rows[:MOST_PLACES])
