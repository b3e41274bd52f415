"""The residual units of the network as a table: what the analysis `anatomy` reports.

    paths = product over the trunk's units of (paths of the shortcut + paths of the branch)

Veit et al. 2016, section 3; sides without units inside are one path each, so K units in a row make 2^K paths
(paths/counting.py).
"""

from __future__ import annotations

from residua.errors import BadInput
from residua.xray.paths.counting import nesting
from residua.xray.result import Column, Result, Table
from residua.xray.subject import Subject

COLUMNS = (
    Column("unit", "The module that holds the unit: its path in the network."),
    Column("stage", "A new stage begins wherever the resolution changes; counted from 0."),
    Column(
        "merge", "How shortcut and branch are joined: add, concatenate, or gate (a learned factor)."
    ),
    Column(
        "shortcut",
        "What is on the way around the branch: identity; projection (one convolution or linear layer);"
        " zero_pad; copied (the channels again and again); pooled; scaled (times a number); dropout; block"
        " (several layers).",
    ),
    Column("branch", "The layers of the branch, in order."),
    Column("after", "Norm and activation that follow the merge."),
    Column(
        "order", "The name of this order of layers in He et al. 2016b, figure 4, where it has one."
    ),
    Column("shape", "Shape of the merged value, the batch first.", "(N, C, H, W)"),
    Column("inside", "The unit whose branch holds this one."),
    Column("source", "The line of code that merges."),
)


def structure(subject: Subject) -> Result:
    """Return a row for each residual unit, and how many units, stages and paths there are.

    Raises BadInput where there are no units, with the reason.
    """
    anatomy = subject.anatomy
    if not anatomy.units:
        raise BadInput(anatomy.reason)
    names = [unit.name for unit in anatomy.units]
    rows = [
        {
            "unit": unit.name,
            "stage": unit.stage,
            "merge": unit.merge,
            "shortcut": unit.shortcut,
            "branch": " ".join(unit.branch),
            "after": " ".join(unit.after),
            "order": unit.order,
            "shape": "×".join(map(str, unit.shape)),
            "inside": None if unit.parent is None else names[unit.parent],
            "source": unit.source,
        }
        for unit in anatomy.units
    ]
    nest = nesting(anatomy)
    paths = nest.number(nest.trunk)
    summary = {
        "units": len(rows),
        "stages": len(anatomy.stages),
        "paths": float(paths) if paths < 1e300 else str(paths),
    }
    notes = [anatomy.reason] if anatomy.reason else []
    return Result("anatomy", summary, {"units": Table("Residual units", COLUMNS, rows)}, {}, notes)
