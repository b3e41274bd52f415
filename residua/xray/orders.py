"""The order of norm, activation, weights and addition, by the names of He et al. 2016b, figure 4.

    a  original                  [conv norm relu conv norm] | add | relu
    b  norm_after_addition       [conv norm relu conv] | add | norm relu
    c  relu_before_addition      [conv norm relu conv norm relu] | add
    d  relu_only_preactivation   [relu conv norm relu conv norm] | add
    e  preactivation             [norm relu conv norm relu conv] | add

Where shapes change, e forks after its first norm and relu, and is then the same as b: such a unit takes the
name that most other units of the network have, and e's if there are none.

The first four say where norm and activation stand to the addition; where maps are concatenated there is none,
and such a unit has a name only in pre-activation order, as DenseNets have it (Huang et al. 2017, section 3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from residua.xray.units import Unit

WEIGHTS = {"conv", "linear", "attention", "recurrent", "opaque"}
_ACTS = {"relu", "activation", "gate"}


def name_orders(units: Sequence[Unit]) -> None:
    """Fill in `order` of every unit that has one of the five."""
    unclear = []
    for unit in units:
        unit.order = _order(unit)
        if unit.order == "unclear":
            unclear.append(unit)
    usual = Counter(unit.order for unit in units)
    for unit in unclear:
        both = ("preactivation", "norm_after_addition")
        unit.order = max(both, key=lambda name: usual[name])


def _letters(parts: Sequence[str]) -> str:
    """Spell a path in letters: W weights, N norm, A activation; the rest is left out."""
    return "".join(
        "W" if part in WEIGHTS else "N" if part == "norm" else "A" if part in _ACTS else ""
        for part in parts
    )


def _order(unit: Unit) -> str:
    branch, before, after = (_letters(p) for p in (unit.branch, unit.before, unit.after))
    if "N" not in branch + before + after or "W" not in branch:
        return ""
    if branch.startswith("NA"):
        return "preactivation" if branch.endswith("W") else ""
    if unit.merge == "concatenate":
        return ""
    if branch.startswith("A"):
        return "relu_only_preactivation" if branch.endswith("N") else ""
    if branch.startswith("W") and branch.endswith("NA"):
        return "relu_before_addition"
    if branch.startswith("W") and branch.endswith("N"):
        return "original" if after.startswith("A") else ""
    if branch.startswith("W") and branch.endswith("W") and "A" in branch and before.endswith("NA"):
        if unit.shortcut in ("projection", "zero_pad", "pooled", "block"):
            return "unclear"
        return "norm_after_addition" if after.startswith("NA") else ""
    return ""
