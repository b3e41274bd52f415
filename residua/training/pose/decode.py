"""From heatmaps to joints: the highest pixel, and where between the pixels the peak is.

    taylor   u + d,  d = -H^-1 g,  of log p at the highest pixel u      Zhang et al. 2020 (DARK)
    quarter  u + sign(p(u + 1) - p(u - 1)) / 4                          Newell et al. 2016
    soft     sum of p u / sum of p over the 3 x 3 around the peak       a local soft-argmax

log p of a Gaussian is a parabola, so `taylor` finds its centre exactly, where `quarter` is off by up to a
quarter of a pixel of the heatmap and `soft` is drawn towards the pixel. As in DARK a blur comes before, which
keeps a Gaussian one and takes out noise: half the error at noise of 5 % of the peak (see the tests, by which
`taylor` with a blur is the default). Near the border a blur would see what is not there, and is left out.

Heatmaps (B, J, H, W); joints (B, J, 2) in pixels of the picture that the network saw; confidence (B, J), the
height of the peak, about 1 where the network is sure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from residua.training.pose.affine import Floats, moved
from residua.training.pose.targets import SIGMA, STRIDE, from_heatmap

Method = Literal["taylor", "quarter", "soft"]
METHODS: tuple[Method, ...] = ("taylor", "quarter", "soft")
_LEAST = 1e-6  # of a probability whose logarithm is taken
_FARTHEST = 1.0  # pixels from the highest one; half a pixel is all that a Gaussian needs


def decode(
    maps: torch.Tensor, *, method: Method = "taylor", stride: int = STRIDE, blur: float = SIGMA
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return joints (B, J, 2) in pixels of the picture, and their confidence (B, J), float32.

    blur: standard deviation of a Gaussian, in pixels of the heatmap, laid over the maps before `taylor`;
    0 for none.
    Raises ValueError for another method.
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
    maps = maps.float()
    width = maps.shape[3]
    confidence, place = maps.flatten(2).max(dim=2)
    peak = torch.stack([place % width, place // width], dim=-1)  # (B, J, 2), x and y
    refine = {"taylor": _taylor, "quarter": _quarter, "soft": _soft}[method]
    places = refine(maps, peak)
    if blur and method == "taylor":
        size = torch.tensor([width, maps.shape[2]], device=maps.device)
        clear = _reach(blur) + 1  # of the stencil's outermost pixel, and of the blur around that
        far = ((peak >= clear) & (peak < size - clear)).all(dim=-1, keepdim=True)
        places = torch.where(far, _taylor(blurred(maps, blur), peak), places)
    return from_heatmap(places, stride), confidence


def _stencil(maps: torch.Tensor, peak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the 3 x 3 values (B, J, 3, 3) around each peak, and its middle, kept one pixel inside."""
    batch, joints, height, width = maps.shape
    x = peak[..., 0].clamp(min(1, width - 1), max(width - 2, 0))
    y = peak[..., 1].clamp(min(1, height - 1), max(height - 2, 0))
    near = torch.arange(-1, 2, device=maps.device)
    rows = (y[..., None] + near).clamp(0, height - 1)
    columns = (x[..., None] + near).clamp(0, width - 1)
    index = rows[..., :, None] * width + columns[..., None, :]
    values = maps.flatten(2).gather(2, index.flatten(2)).view(batch, joints, 3, 3)
    return values, torch.stack([x, y], dim=-1)


def _taylor(maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    values, middle = _stencil(maps, peak)
    p = values.clamp(min=_LEAST).log()
    dx = (p[..., 1, 2] - p[..., 1, 0]) / 2
    dy = (p[..., 2, 1] - p[..., 0, 1]) / 2
    dxx = p[..., 1, 2] - 2 * p[..., 1, 1] + p[..., 1, 0]
    dyy = p[..., 2, 1] - 2 * p[..., 1, 1] + p[..., 0, 1]
    dxy = (p[..., 2, 2] - p[..., 2, 0] - p[..., 0, 2] + p[..., 0, 0]) / 4
    area = dxx * dyy - dxy * dxy
    is_peak = (dxx < 0) & (area > 0)
    area = torch.where(is_peak, area, torch.ones_like(area))
    step = torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / area[..., None]
    # A parabola that opens upwards, or whose top is far away, says nothing: the pixel stays.
    good = is_peak & ((middle + step - peak).abs() <= _FARTHEST).all(dim=-1)
    return torch.where(good[..., None], middle + step, peak.to(step))


def _quarter(maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    values, middle = _stencil(maps, peak)
    across = values[..., 1, 2] - values[..., 1, 0]
    down = values[..., 2, 1] - values[..., 0, 1]
    step = torch.stack([across, down], dim=-1).sign() / 4
    return peak + torch.where(middle == peak, step, torch.zeros_like(step))  # none at the border


def _soft(maps: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    values, middle = _stencil(maps, peak)
    values = values.clamp(min=_LEAST)
    values = values / values.sum(dim=(2, 3), keepdim=True)
    near = torch.arange(-1.0, 2.0, device=maps.device)
    across, down = (values.sum(dim=2) * near).sum(-1), (values.sum(dim=3) * near).sum(-1)
    return middle + torch.stack([across, down], dim=-1)


def _reach(sigma: float) -> int:
    return max(1, round(3 * sigma))


def blurred(maps: torch.Tensor, sigma: float = SIGMA) -> torch.Tensor:
    """Lay a Gaussian of `sigma` pixels over the maps (B, J, H, W); the border is repeated."""
    reach = _reach(sigma)
    near = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-(near**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = maps.flatten(0, 1)[:, None]
    planes = F.pad(planes, (reach,) * 4, mode="replicate")
    planes = F.conv2d(F.conv2d(planes, kernel[None, None, None]), kernel[None, None, :, None])
    return planes.view(maps.shape)


def mirrored(maps: torch.Tensor, mirror: Sequence[int]) -> torch.Tensor:
    """Return the heatmaps (B, J, H, W) of the mirrored picture's mirror image: left is right again.

    Columns are reversed and the maps of partners exchanged; applied twice it changes nothing.
    """
    partner = torch.as_tensor(mirror, device=maps.device)
    return maps.flip(3).index_select(1, partner)


def flip_test(
    model: Callable[[torch.Tensor], torch.Tensor], pictures: torch.Tensor, mirror: Sequence[int]
) -> torch.Tensor:
    """Return the mean of the heatmaps of pictures (B, C, H, W) and of their mirror images (B, J, h, w).

    No column is shifted: where the width is a multiple of the stride, pixel j of a heatmap and pixel
    w - 1 - j of the mirrored one lie on one place (Huang et al. 2020).
    """
    return (model(pictures) + mirrored(model(pictures.flip(3)), mirror)) / 2


def in_picture(joints: torch.Tensor, maps: Floats) -> Floats:
    """Return joints (B, J, 2) in pixels of the whole pictures, from those of crops; maps (B, 2, 3)."""
    return moved(joints.detach().cpu().numpy().astype(np.float64), maps)
