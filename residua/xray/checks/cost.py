"""Verdicts on cost: a unit that takes most of it, pixels that nothing sees, outputs that see little.

    of K units, one takes over half of the memory or time          an even share is 1 / K
    receptive field < jump                                         some input pixels reach no output
    dense output: receptive field < picture                        context beyond the field is not used
                                                                   (Araujo, Norris & Sim 2019)

A network that pools or flattens its last map sees the whole picture there, whatever the field.
"""

from __future__ import annotations

from residua.xray.findings import Evidence, Finding
from residua.xray.result import Result
from residua.xray.subject import Subject

MOST = 0.5  # of the whole: halving this unit alone is worth more than all the others
FEWEST_UNITS = 4  # below, one of them takes half without being unusual
FEWEST_PASSES = (
    3  # in all of which a unit takes over half of the time: one may be a hiccup of the machine
)


def check(subject: Subject, result: Result) -> list[Finding]:
    """Judge memory and time of the units, and the receptive field."""
    return _heavy(result) + _blind(result) + _short(result)


def _heavy(result: Result) -> list[Finding]:
    rows = [row for row in result.tables["parts"].rows if row["unit"]]
    trunk = [row for row in rows if row["trunk"]]
    if len(trunk) < FEWEST_UNITS:
        return []
    found = []
    for row in rows:
        memory = Evidence("share of kept bytes", row["kept_share"], _even(trunk), 1 / len(trunk))
        time = Evidence(
            "share of the forward pass's time",
            row["time_share"],
            _even(trunk),
            1 / len(trunk),
            interval=(row["time_share_low"], row["time_share_high"]),
            n=result.summary["repeats"],
            over=f"passes, {result.summary['machine']}",
        )
        heavy = [memory] if row["kept_share"] > MOST else []
        slow = time.n >= FEWEST_PASSES and row["time_share_low"] > MOST
        heavy += [time] if slow else []
        if heavy:
            found.append(
                Finding(
                    "heavy_unit",
                    "note",
                    "high",
                    f"The unit {row['part']} takes {heavy[0].measured:.0%} of the network's"
                    f" {'memory' if heavy[0] is memory else 'time'}.",
                    where=(row["part"],),
                    lines=(row["source"],) if row["source"] else (),
                    evidence=tuple(heavy),
                    remedy="Reduce its width or resolution first; recompute it in the backward pass if memory"
                    " is short.",
                )
            )
    return found


def _even(trunk: list[dict[str, object]]) -> str:
    return f"{len(trunk)} units of equal cost: 1 / K each"


def _blind(result: Result) -> list[Finding]:
    facts = result.summary
    if facts["field"] is None:
        return []
    pairs = zip(facts["field"], facts["field_jump"], strict=True)
    worst = max(pairs, key=lambda pair: pair[1] / pair[0])
    size, jump = worst
    if size >= jump:
        return []
    return [
        Finding(
            "blind_pixels",
            "warning",
            "high",
            f"Some input pixels reach no output: every output sees {size} in a row, and the next one begins"
            f" {jump:g} further.",
            where=(facts["field_at"],),
            lines=(facts["field_source"],) if facts["field_source"] else (),
            evidence=(
                Evidence(
                    "receptive field over jump",
                    size / jump,
                    "at least 1, so that neighbouring fields touch (Araujo, Norris & Sim 2019)",
                    expected=1.0,
                ),
            ),
            remedy="Give strided layers kernels of at least their stride, or pool before them.",
        )
    ]


def _short(result: Result) -> list[Finding]:
    facts = result.summary
    if facts["field"] is None or not facts["dense"]:
        return []
    pairs = list(zip(facts["field"], facts["picture"], strict=True))
    size, side = min(pairs, key=lambda pair: pair[0] / pair[1])
    if size >= side:
        return []
    return [
        Finding(
            "short_field",
            "note",
            "high",
            f"Each output position sees {size} of {side} pixels in a row: what lies further away cannot"
            " change it.",
            where=(facts["field_at"],),
            lines=(facts["field_source"],) if facts["field_source"] else (),
            evidence=(
                Evidence(
                    "theoretical receptive field over the picture's side",
                    size / side,
                    "1 where an output must see the whole picture; less is enough for local tasks",
                    expected=1.0,
                ),
            ),
            remedy="If the task needs the wider context: more levels, dilation, or a global branch.",
        )
    ]
