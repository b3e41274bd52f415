"""What networks with an answer a pixel are compared with where nobody knows the truth, and at what size.

    masks     squares of classes drawn at random, CELLS a side; loss: cross-entropy of every pixel
    joints    places drawn at random in the picture; loss: that of heatmaps (Newell et al. 2016)
    size      the largest multiple of MULTIPLE at which a picture costs no more than a ResNet-50's at 224
              pixels, of networks that would take any size; no less than they take, no more than their paper

Losses take one output or the list that training gives, as training itself does. Masks have regions, because
gradients of labels that change with every pixel cancel in all coarser maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from residua.models.registry import Record
from residua.training.pose.targets import pose_loss
from residua.training.segmentation.losses import supervised_loss

CELLS = 4
MULTIPLE = 32  # networks halve up to five times
COST = 4.1e9  # multiply-adds of a ResNet-50 at 224 pixels (He et al. 2015, table 1)

Outputs = torch.Tensor | Sequence[torch.Tensor]


def usual_side(record: Record) -> int:
    """Return the side of a picture to look at a network with, if none is given."""
    if record.task == "classification":
        return record.input_size
    side = record.input_size * (COST / record.multiply_adds) ** (1 / record.dims)
    return min(record.input_size, max(int(side) // MULTIPLE * MULTIPLE, MULTIPLE, record.smallest))


def pixel_cross_entropy(output: Outputs, masks: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of scores (N, K, *S), or of a list of them, against masks (N, *S)."""
    return supervised_loss("cross_entropy", output, masks)


def heatmap_error(output: Outputs, joints: torch.Tensor) -> torch.Tensor:
    """Return the loss of heatmaps (N, J, h, w), or of a list of them, against joints (N, J, 3)."""
    return pose_loss(output, joints)


def drawn_masks(scores: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return masks (N, *S) of squares of classes for scores (N, K, *S); one score tells two classes."""
    n, classes, *size = scores.shape
    masks = torch.randint(max(classes, 2), (n, *(CELLS,) * len(size)), generator=generator)
    for axis, side in enumerate(size, start=1):
        masks = masks.index_select(axis, torch.arange(side) * CELLS // side)
    return masks.to(scores.device)


def drawn_joints(
    heatmaps: torch.Tensor, picture: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Return labelled joints (N, J, 3) in a picture (height, width), for heatmaps (N, J, h, w)."""
    n, joints = heatmaps.shape[:2]
    places = torch.rand(n, joints, 2, generator=generator) * torch.tensor(
        [picture[1] - 1.0, picture[0] - 1.0]
    )
    return torch.cat([places, torch.ones(n, joints, 1)], 2).to(heatmaps.device)
