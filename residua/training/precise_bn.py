"""Precise batch norm: statistics of many training batches under the final weights, not of a moving average.

mean = (1/n) sum_i mean_i,   var = (1/n) sum_i var_i      over n batches (Wu, Johnson 2021, sec. 3)
"""

from __future__ import annotations

import torch
from torch import nn

from residua.data.batches import Batches, to_input


@torch.no_grad()
def precise_bn(
    model: nn.Module,
    batches: Batches,
    n: int,
    mean: torch.Tensor,
    std: torch.Tensor,
    frozen: tuple[str, ...] = (),
) -> int:
    """Set the running statistics of every batch norm from n batches; return how many norms.

    The mode of every module is given back as it was. Norms under the module names in `frozen`, norms
    that do not track statistics, and networks without batch norm are left alone.
    """
    norms = [
        m
        for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        and m.track_running_stats
        and not any(f"{name}.".startswith(f"{prefix}.") for prefix in frozen)
    ]
    if not norms or n < 1:
        return 0
    modes = {m: m.training for m in model.modules()}
    momenta = {m: m.momentum for m in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    try:
        for batch in batches.iterate(0, n):
            model(to_input(batch.pictures, mean, std))
    finally:
        for norm in norms:
            norm.momentum = momenta[norm]
        for module, mode in modes.items():
            module.training = mode
    return len(norms)
