"""Looking at every picture of a split once, without training on it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import nn

from residua.data.batches import Batches, to_input
from residua.training.classification.measures import Predictions


@torch.no_grad()
def predict_all(
    fabric: Fabric,
    model: nn.Module,
    batches: Batches,
    mean: torch.Tensor,
    std: torch.Tensor,
    *,
    flip: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Predictions:
    """Return the predictions for every picture of `batches`, in the order of their index.

    flip: average the probabilities with those of the mirrored picture. Over several ranks each looks
    at its own share and all return the whole; no picture counts twice. The mode of every module
    (training or evaluation) is given back as it was.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    parts = []
    for batch in batches.iterate(0, batches.steps_per_epoch):
        x = to_input(batch.pictures, mean, std)
        with fabric.autocast():
            scores = model(x).float()
            if flip:
                mirrored = model(x.flip(3)).float()
                # The log of the mean probability; no probability underflows on the way.
                both = torch.logaddexp(scores.log_softmax(1), mirrored.log_softmax(1))
                scores = both - math.log(2.0)
        parts.append(Predictions.of(scores, batch.labels, batch.indices))
        if progress:
            progress(len(batch.indices))
    for module, mode in modes.items():
        module.training = mode
    if fabric.world_size > 1:
        gathered: list[list[Predictions]] = [[] for _ in range(fabric.world_size)]
        torch.distributed.all_gather_object(gathered, parts)
        parts = [part for share in gathered for part in share]
    return Predictions.joined(parts)
