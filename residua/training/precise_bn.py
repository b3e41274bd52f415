"""Precise batch norm: statistics of many training batches under the final weights, not of a moving average.

The equation, and which variance it is, are in `residua.nn.norms.precise`.
"""

from __future__ import annotations

from torch import nn

from residua.data.batches import Batches
from residua.nn.norms import precise_statistics, running_norms
from residua.training.objective import Objective


def precise_bn(
    model: nn.Module,
    batches: Batches,
    n: int,
    objective: Objective,
    frozen: tuple[str, ...] = (),
) -> int:
    """Set the running statistics of every batch norm from n batches; return how many norms.

    The mode of every module is given back as it was. Norms under the module names in `frozen`, norms
    that do not track statistics, and networks without batch norm are left alone.
    """
    norms = {
        name: norm
        for name, norm in running_norms(model).items()
        if not any(f"{name}.".startswith(f"{prefix}.") for prefix in frozen)
    }
    if not norms or n < 1:
        return 0
    inputs = (objective.inputs(batch) for batch in batches.iterate(0, n))
    return precise_statistics(model, inputs, norms)
