"""Heatmaps to learn, and a loss for which predicting nothing is never a small loss.

    g_j(u) = exp(-|u - u_j|^2 / (2 sigma^2))                     sigma = 1 pixel of the heatmap
    loss   = mean over labelled joints of  sum_u w (p - g)^2 / sum_u w g^2,   w = 1 + positive g

The target is that of Newell et al. 2016, 64 x 64 for a picture of 256 x 256; u_j is not rounded to a pixel
(Zhang et al. 2020, unbiased encoding). As a plain mean over pixels, the network that answers 0 everywhere
has a loss of pi / 4096 = 0.0008 and looks trained; here it has a loss of 1, and so has any that predicts
nothing. The sum of w g^2 is taken in closed form, pi sigma^2 (1 + 2 positive / 3), and so does not depend on
where the joint is.

`positive` lets the few pixels at the joint weigh against the thousands around it: without it a network
spends its first hundreds of steps at a loss of 1, answering nothing (tests/training/pose/test_learning.py).
A target is still the optimum.

Losses of the stacks of an hourglass are summed (training mode gives a list); in evaluation there is one.

Heatmap pixel (i, j) is centred on position 4 j + 1.5, 4 i + 1.5 of the picture (stride 4): position 0 is the
first pixel's centre, so that a mirrored heatmap is the heatmap of the mirrored picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

STRIDE = 4
SIGMA = 1.0  # pixels of the heatmap
POSITIVE = 40.0  # times more that a pixel at the joint weighs than one of the background
_FLAT = 0.05  # of a target's peak, which is 1: a map that nowhere rises so far says nothing


def to_heatmap(places: torch.Tensor, stride: int = STRIDE) -> torch.Tensor:
    """Return positions in pixels of the heatmap from positions in pixels of the picture.

    >>> to_heatmap(torch.tensor([1.5, 5.5])).tolist()
    [0.0, 1.0]
    """
    return (places - (stride - 1) / 2) / stride


def from_heatmap(places: torch.Tensor, stride: int = STRIDE) -> torch.Tensor:
    """Return positions in pixels of the picture from positions in pixels of the heatmap."""
    return places * stride + (stride - 1) / 2


def heatmaps(
    joints: torch.Tensor, size: tuple[int, int], *, stride: int = STRIDE, sigma: float = SIGMA
) -> torch.Tensor:
    """Return the target (B, J, *size) of joints (B, J, 3) in pixels of the picture; 0 if not labelled.

    size is (height, width) of the heatmap. A Gaussian is the product of one over rows and one over
    columns, made on the joints' device.
    """
    places = to_heatmap(joints[..., :2].float(), stride)
    rows, columns = (torch.arange(n, device=joints.device, dtype=torch.float32) for n in size)
    across = torch.exp(-((columns - places[..., :1]) ** 2) / (2 * sigma**2))  # (B, J, W)
    down = torch.exp(-((rows - places[..., 1:]) ** 2) / (2 * sigma**2))  # (B, J, H)
    down = down * (joints[..., 2:] > 0)
    return down[..., :, None] * across[..., None, :]


def pose_loss(
    outputs: torch.Tensor | Sequence[torch.Tensor],
    joints: torch.Tensor,
    *,
    stride: int = STRIDE,
    sigma: float = SIGMA,
    positive: float = POSITIVE,
) -> torch.Tensor:
    """Return the loss of heatmaps (B, J, H, W), or the sum over a list of them, as a number.

    joints (B, J, 3) in pixels of the picture. Joints that are not labelled count for nothing; the loss
    of a batch without any is 0. An output of a coarser grid has its own target, of a larger stride.
    Raises ValueError where outputs and joints do not fit.
    """
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    finest = max(output.shape[-1] for output in outputs)
    total = torch.zeros((), device=joints.device)
    for output in outputs:
        if output.dim() != 4 or output.shape[:2] != joints.shape[:2]:
            raise ValueError(
                f"heatmaps of shape {tuple(output.shape)} for joints of shape {tuple(joints.shape)};"
                " expected (B, J, H, W) and (B, J, 3)"
            )
        own = stride * finest // output.shape[-1]
        total = total + _loss(output.float(), joints, own, sigma, positive)
    return total


def _loss(
    output: torch.Tensor, joints: torch.Tensor, stride: int, sigma: float, positive: float
) -> torch.Tensor:
    target = heatmaps(joints, (output.shape[2], output.shape[3]), stride=stride, sigma=sigma)
    squares = (output - target).square()
    if positive:
        squares = squares * (1 + positive * target)
    of_nothing = math.pi * sigma**2 * (1 + 2 * positive / 3)
    labelled = (joints[..., 2] > 0).float()
    return (squares.sum(dim=(2, 3)) * labelled).sum() / of_nothing / labelled.sum().clamp(min=1)


def collapsed(maps: torch.Tensor) -> torch.Tensor:
    """Tell which joints' heatmaps say nothing: bool (J,) from (B, J, H, W).

    Either no map of the batch rises anywhere by a twentieth of a target's peak above its mean, or (from
    two pictures on) all have their peak at one and the same pixel, as the top left corner, where
    `argmax` of a constant is.
    """
    flat = maps.float().flatten(2)
    top, place = flat.max(dim=2)
    return collapsed_peaks(place, top - flat.mean(dim=2))


def collapsed_peaks(places: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """Tell which joints have collapsed, bool (J,), from their answers over many pictures.

    places (N, J) or (N, J, 2): where each peak is; heights (N, J): how far it rises.
    """
    silent = ~(heights >= _FLAT).any(dim=0)  # NaN is no answer either
    same = (places == places[:1]).all(dim=0)
    if same.dim() == 2:
        same = same.all(dim=1)
    return silent | (same if len(places) > 1 else torch.zeros_like(silent))
