"""A run on masks with random weights: its answers mean nothing, and every class is among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from residua.training.cards import Normalisation, SegmentationCard
from residua.training.folder import RunFolder, write_model
from residua.training.segmentation.run import SegmentationRun

CELLS = ("background", "cell", "border")


def made_run(
    path: Path,
    *,
    classes: tuple[str, ...] = CELLS,
    dims: int = 2,
    seed: int = 0,
    spacing: tuple[float, ...] | None = None,
    flips: tuple[int, ...] = (),
    axis: int | None = None,
) -> SegmentationRun:
    """Write a small U-Net for grey pictures of 8 bits, its classes equally likely on noise."""
    options: dict[str, Any] = {"width": 4, "depth": 2}
    card = SegmentationCard(
        "unet" if dims == 2 else "unet3d",
        options,
        classes,
        1,
        (16,) * dims,
        (0,) * dims,
        Normalisation((0.4,), (0.2,)),
        tuple(range(len(classes))),
        None,
        spacing,
        flips,
        False,
        axis,
    )
    torch.manual_seed(seed)
    model = card.build().eval()
    weight, bias = list(model.parameters())[-2:]
    with torch.no_grad():
        scores = model(torch.randn(2, 1, *(32,) * dims))
        each = [(-1, *[1] * (dims + 1)), (0, *range(2, 2 + dims))]
        weight /= scores.std(each[1]).reshape(each[0])
        bias -= scores.mean(each[1])
        bias /= scores.std(each[1])
    path.mkdir(parents=True)
    folder = RunFolder(path)
    write_model(folder.model, model, card, {})
    folder.write_config({"task": "segmentation"})
    return SegmentationRun(folder, "cpu")


def noise(*sides: int, seed: int = 0) -> np.ndarray:
    """Return noise uint8 (*sides) on which each class of such a run is as likely as any."""
    found = np.random.default_rng(seed).normal(0.4 * 255, 0.2 * 255, sides)
    return found.clip(0, 255).astype(np.uint8)
