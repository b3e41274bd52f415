"""Pictures of any number of axes as a network takes them: normalised, channels first."""

from __future__ import annotations

import torch

from residua.data.batches import to_input


def to_network(
    pictures: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return (x - mean) / std as float (B, C, *S), channels last; uint8 is divided by 255 first.

    pictures (B, *S, C) uint8 or float32; mean, std (C,) as `measure_pixels` gives them.
    """
    batch, *sides, channels = pictures.shape
    if pictures.dtype == torch.uint8:  # of any dimension: lines of W x C numbers
        lines = to_input(pictures.reshape(batch, -1, sides[-1], channels), mean, std, dtype)
        out = lines.permute(0, 2, 3, 1).view(pictures.shape)
    else:
        mean, std = (v.to(device=pictures.device, dtype=pictures.dtype) for v in (mean, std))
        out = ((pictures - mean) / std).to(dtype)
    return out.movedim(-1, 1)
