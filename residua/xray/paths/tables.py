"""The tables of the path analysis: by length, by stage, and what a deletion leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from residua.xray.paths.counting import Nesting, per_path, share_between
from residua.xray.paths.exact import Part, Spectrum, effective, run_of
from residua.xray.paths.sampled import Drawn
from residua.xray.result import Column, Table

_GRADIENT = "loss per unit of the trunk's input"
_LENGTHS = [
    Column("length", "k, the number of branches that a path takes", "units"),
    Column("paths", "number of paths of this length, exact: C(K, k) for K units in a row"),
    Column("paths_share", "of all paths"),
    Column(
        "norm", "|g_k|: norm of the gradient's sum over all these paths, mean of samples", _GRADIENT
    ),
    Column("norm_spread", "standard deviation of |g_k| over samples", _GRADIENT),
    Column("norm_per_path", "|g_k| / number of paths", _GRADIENT),
    Column("share", "w_k = |g_k| / sum_j |g_j|, mean of samples"),
    Column("share_spread", "standard deviation of w_k over samples"),
    Column("signed", "s_k = <g_k, g> / |g|^2: part of the gradient itself; they sum to 1"),
    Column("sampled", "mean norm of single paths (Veit et al. 2016), of one sample", _GRADIENT),
    Column("sampled_spread", "standard deviation over the paths drawn", _GRADIENT),
    Column("draws", "single paths that were drawn"),
    Column(
        "sampled_total",
        "number of paths times `sampled`: Veit et al. 2016, figure 6, right",
        _GRADIENT,
    ),
]
_STAGES = [
    Column("stage", "counts from 0; a new one with every change of resolution"),
    Column("units", "units of the stage, those inside others included"),
    Column("paths", "number of paths through the stage, exact"),
    Column("length", "k, the number of the stage's branches that a path takes", "units"),
    Column("paths_share", "of the stage's paths"),
    Column("share", "w_k of the gradient by the stage's input, mean of samples"),
    Column("signed", "s_k of the gradient by the stage's input; they sum to 1"),
    Column("effective_depth", "sum_k k w_k of the stage, mean of samples", "units"),
]
_DELETION = [
    Column("deleted", "number of the trunk's units without a branch, the last ones first", "units"),
    Column("paths_left", "share of all paths: 2^-d where no unit lies in another"),
]


MOST = 0.95  # of the gradient: what `most_from` to `most_to` hold


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean, None of nothing."""
    return sum(values) / len(values) if values else None


def spread_of(values: Sequence[float]) -> float | None:
    """Return the standard deviation, None of fewer than two."""
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def lengths_table(whole: Part, spectra: Sequence[Spectrum], drawn: Sequence[Drawn]) -> Table:
    """Return a row for each path length."""
    table = Table("Paths and gradient by length", _LENGTHS)
    shares = [s.shares for s in spectra if s.shares is not None]
    signed = [s.signed for s in spectra if s.signed is not None]
    single = {d.length: d for d in drawn}
    for length, number in enumerate(whole.grouped):
        norms = [s.norms[length] for s in spectra]
        norm = mean_of(norms) or 0.0
        row: dict[str, Any] = {
            "length": length,
            "paths": number,
            "paths_share": number / sum(whole.paths),
            "norm": norm,
            "norm_spread": spread_of(norms),
            "norm_per_path": per_path(norm, number),
            "share": mean_of([s[length] for s in shares]),
            "share_spread": spread_of([s[length] for s in shares]),
            "signed": mean_of([s[length] for s in signed]),
        }
        if length in single and length < len(whole.paths):
            one = single[length]
            row |= {"sampled": one.mean, "sampled_spread": one.spread, "draws": len(one.norms)}
            row["sampled_total"] = one.contribution
        table.rows.append(row)
    return table


def stages_table(parts: Sequence[Part], measured: Sequence[Sequence[Spectrum]]) -> Table:
    """Return a row for each stage and length; one stage alone is the whole."""
    table = Table("Gradient by length within each stage", _STAGES)
    for part, spectra in list(zip(parts, measured, strict=True))[1:]:
        shares = [s.shares for s in spectra if s.shares is not None]
        signed = [s.signed for s in spectra if s.signed is not None]
        depth = mean_of([effective(share) for share in shares])
        for length, number in enumerate(part.grouped):
            table.rows.append(
                {
                    "stage": int(part.name),
                    "units": len(part.units),
                    "paths": sum(part.paths),
                    "length": length,
                    "paths_share": number / sum(part.paths),
                    "share": mean_of([s[length] for s in shares]),
                    "signed": mean_of([s[length] for s in signed]),
                    "effective_depth": depth,
                }
            )
    return table


def units_left(nest: Nesting) -> Table:
    """Return the share of paths that is left after deleting 1, 2, 3, ... units."""
    table = Table("Paths left after deletion", _DELETION)
    units = [unit.index for unit in nest.trunk]
    for deleted in range(min(len(units), 10) + 1):
        left = nest.share_left(set(units[len(units) - deleted :]))
        table.rows.append({"deleted": deleted, "paths_left": float(left)})
    return table


def most_of(whole: Part, shares: Sequence[float]) -> dict[str, Any]:
    """Return which lengths hold 95 % of the gradient, and what share of the paths these are."""
    first, last = run_of(shares, MOST)
    end = len(whole.paths) - 1 if last == whole.lengths - 1 else last
    return {
        "most_from": first,
        "most_to": end,
        "most_share": sum(shares[first : last + 1]),
        "most_paths_share": share_between(whole.paths, first, end),
    }


def sampled_facts(whole: Part, drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return effective depth and most of the gradient as Veit et al. 2016 have them, of all lengths."""
    totals = [d.contribution for d in drawn]
    if len(drawn) < len(whole.paths) or not 0 < sum(totals) < math.inf:
        return {}
    shares = [total / sum(totals) for total in totals]
    first, last = run_of(shares, MOST)
    return {
        "sampled_depth": effective(shares),
        "sampled_most_from": first,
        "sampled_most_to": last,
        "sampled_most_paths_share": share_between(whole.paths, first, last),
    }
