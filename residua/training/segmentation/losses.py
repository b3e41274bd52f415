"""Segmentation: the losses of a batch of score maps, and the weights that balance its classes.

With p = softmax(z), g = 1 where a pixel is of class k, w its weight, and sums over pixels:

    cross_entropy       L = -sum w w_t log p_t / sum w w_t, t the true class
    boundary            the same; w comes from border weights and must be given
                        (Ronneberger et al. 2015, eq. 1, as a mean instead of a sum)
    focal               L = -sum w w_t (1 - p_t)^gamma log p_t / sum w w_t   (Lin et al. 2017, eq. 4)
    dice                L = mean_k (1 - D_k), D_k = (2 sum w p g + s) / (sum w p + sum w g + s);
                        squared: p^2 and g^2 below (Milletari et al. 2016, section 3)
    tversky             L = mean_k (1 - T_k),
                        T_k = (TP + s) / (TP + alpha FP + beta FN + s)     (Salehi et al. 2017)
    focal_tversky       L = mean_k (1 - T_k)^(1 / focus)                   (Abraham & Khan 2019)
    dice+cross_entropy  L = dice + cross_entropy                           (Isensee et al. 2021)

Ignored pixels have w = 0: they count for nothing, and a batch of nothing else has loss 0, gradient 0. A
pixel of weight 2 counts as two pixels, in every loss.

The overlap D_k of a class that the truth does not hold is s / (sum p + s): nearly 0 whatever a network says
of an all-background picture, and blind. So such a class is left out of the mean, and the background is in
it: a wrong foreground pixel is missing from the background, and the background's D_0 falls with every one of
them. `background=False` leaves it out, as nnU-Net does, except where a picture holds nothing else.

Shapes: scores z (B, K, *S), targets (B, *S), weights of pixels (B, *S), of classes (K,). K = 1 is the logit
of class 1 against class 0. All is computed in float32 at least, also under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F

from residua.data.masks import IGNORED, MAX_CLASSES
from residua.training.recipe import SegmentationLoss

LOSSES: tuple[str, ...] = get_args(SegmentationLoss)
OVERLAPS = ("dice", "tversky", "focal_tversky")
LARGEST_WEIGHT = 50.0  # ENet's weights stay below 1 / ln 1.02 = 50.5 (Paszke et al. 2016)

_TINY = 1e-7  # below it a power smaller than 1 has no useful gradient


@dataclass(frozen=True)
class LossSpec:
    """A loss and its constants, which the module's equations name."""

    name: str = "dice+cross_entropy"
    smooth: float = 1e-5  # nnU-Net's; keeps a ratio finite, too small to be seen in one
    over_batch: bool = False  # one ratio a class over the batch, instead of one a picture
    squared: bool = False
    background: bool = True
    gamma: float = 2.0  # Lin et al. 2017, section 3.2
    alpha: float = 0.3  # of false positives; Salehi et al. 2017 found 0.3 and 0.7 best
    beta: float = 0.7  # of false negatives
    focus: float = 4 / 3  # Abraham & Khan 2019

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ValueError(f"no loss is called {self.name!r}; expected one of {LOSSES}")
        if min(self.smooth, self.gamma, self.alpha, self.beta) < 0 or self.focus <= 0:
            raise ValueError("expected constants of a loss that are not negative, and focus > 0")


def segmentation_loss(
    loss: str | LossSpec,
    scores: torch.Tensor,
    targets: torch.Tensor,
    *,
    class_weights: torch.Tensor | None = None,
    pixel_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of scores (B, K, *S) against targets (B, *S): a scalar.

    Raises ValueError for shapes that do not agree, and for "boundary" without weights of pixels.
    """
    spec = LossSpec(loss) if isinstance(loss, str) else loss
    _check(spec, scores, targets, class_weights, pixel_weights)
    with torch.autocast(scores.device.type, enabled=False):
        if scores.dtype in (torch.float16, torch.bfloat16):
            scores = scores.float()
        if scores.shape[1] == 1:  # softmax of (0, z) is (1 - sigmoid z, sigmoid z)
            scores = torch.cat([torch.zeros_like(scores), scores], 1)
        counted = targets != IGNORED
        weight = counted.to(scores.dtype)
        if pixel_weights is not None:
            weight = weight * pixel_weights.to(weight)
        if class_weights is not None:
            class_weights = class_weights.to(scores)
        scores = scores.flatten(2)
        targets = targets.masked_fill(~counted, 0).flatten(1).long()
        total = torch.zeros((), dtype=scores.dtype, device=scores.device)
        if spec.name not in OVERLAPS:
            gamma = spec.gamma if spec.name == "focal" else 0.0
            total = total + _entropy(scores, targets, weight.flatten(1), class_weights, gamma)
        if spec.name in (*OVERLAPS, "dice+cross_entropy"):
            total = total + _overlap(spec, scores, targets, weight.flatten(1), class_weights)
        return total


def _check(
    spec: LossSpec,
    scores: torch.Tensor,
    targets: torch.Tensor,
    class_weights: torch.Tensor | None,
    pixel_weights: torch.Tensor | None,
) -> None:
    expected = (scores.shape[0], *scores.shape[2:])
    if targets.shape != expected:
        raise ValueError(
            f"expected targets {expected} for these scores, not {tuple(targets.shape)}"
        )
    if scores.shape[1] > MAX_CLASSES:
        raise ValueError(f"expected {MAX_CLASSES} classes at most, not {scores.shape[1]}")
    if pixel_weights is not None and pixel_weights.shape != expected:
        raise ValueError(f"expected weights of pixels {expected}, not {tuple(pixel_weights.shape)}")
    classes = max(scores.shape[1], 2)
    if class_weights is not None and class_weights.shape != (classes,):
        raise ValueError(f"expected {classes} weights of classes, not {tuple(class_weights.shape)}")
    if spec.name == "boundary" and pixel_weights is None:
        raise ValueError("the loss 'boundary' needs weights of pixels, from the borders of objects")


def _entropy(
    scores: torch.Tensor,  # (B, K, N)
    targets: torch.Tensor,  # (B, N), no pixel ignored
    weight: torch.Tensor,  # (B, N)
    class_weights: torch.Tensor | None,  # (K,)
    gamma: float,
) -> torch.Tensor:
    entropy = F.cross_entropy(scores, targets, reduction="none")
    if class_weights is not None:
        weight = weight * class_weights[targets]
    if gamma:
        entropy = (-torch.expm1(-entropy)).clamp_min(_TINY) ** gamma * entropy
    return (entropy * weight).sum() / _or_one(weight.sum())


def _overlap(
    spec: LossSpec,
    scores: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    class_weights: torch.Tensor | None,
) -> torch.Tensor:
    p = scores.softmax(1)
    g = torch.zeros_like(p, requires_grad=False).scatter_(1, targets[:, None], weight[:, None])
    # Products of vectors: no map of p g or p w is kept for the way back.
    hit = torch.linalg.vecdot(p, g)  # (B, K)
    said = torch.linalg.vecdot(p * p if spec.squared else p, weight[:, None])
    true = g.sum(2)
    if spec.over_batch:
        hit, said, true = hit.sum(0), said.sum(0), true.sum(0)
    lost = 1 - _ratio(spec, hit, said, true)
    if spec.name == "focal_tversky":
        lost = lost.clamp_min(_TINY) ** (1 / spec.focus)
    use = _used(true > 0, spec.background).to(lost.dtype)
    if class_weights is not None:
        use = use * class_weights
    return (lost * use).sum() / _or_one(use.sum())


def _ratio(
    spec: LossSpec, hit: torch.Tensor, said: torch.Tensor, true: torch.Tensor
) -> torch.Tensor:
    """Return the overlap, in 0 .. 1; 1 where there is nothing at all."""
    if spec.name in ("dice", "dice+cross_entropy"):
        above, below = 2 * hit, said + true
    else:
        above, below = hit, hit + spec.alpha * (said - hit) + spec.beta * (true - hit)
    return (above + spec.smooth) / (below + spec.smooth).clamp_min(torch.finfo(below.dtype).tiny)


def _used(present: torch.Tensor, background: bool) -> torch.Tensor:
    """Return which classes (..., K) the mean is over, of those that are present."""
    if background:
        return present
    foreground = present[..., 1:]
    alone = present[..., :1] & ~foreground.any(-1, keepdim=True)
    return torch.cat([alone, foreground], -1)


def _or_one(total: torch.Tensor) -> torch.Tensor:
    """Return a divisor: 1 where there is nothing to divide."""
    return torch.where(total > 0, total, torch.ones_like(total))


# -- several outputs ----------------------------------------------------------------------------------


def supervised_loss(
    loss: str | LossSpec,
    outputs: torch.Tensor | Sequence[torch.Tensor],
    targets: torch.Tensor,
    *,
    class_weights: torch.Tensor | None = None,
    pixel_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the loss of a network's output, or the weighted mean over its outputs, the answer last.

    Targets (B, *S) are cropped to the centre of the answer's size, which is smaller than S in a
    network of valid convolutions, and shrunk to the nearest pixel for coarser outputs. Outputs of
    equal size weigh the same; every next coarser size weighs half of the one before (Isensee et al.
    2021). Raises ValueError for an output larger than the answer, or than the targets.
    """
    maps = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    size = tuple(maps[-1].shape[2:])
    targets = centre(targets, size)
    weights = None if pixel_weights is None else centre(pixel_weights, size)
    total = torch.zeros((), device=targets.device)
    for share, scores in zip(output_weights([m.shape[2:] for m in maps]), maps, strict=True):
        at = tuple(scores.shape[2:])
        total = total + share * segmentation_loss(
            loss,
            scores,
            nearest(targets, at),
            class_weights=class_weights,
            pixel_weights=None if weights is None else nearest(weights, at),
        )
    return total


def output_weights(sizes: Sequence[Sequence[int]]) -> list[float]:
    """Return the weights of outputs by their sizes, the answer's last; they sum to 1.

    >>> output_weights([(8, 8), (16, 16), (32, 32)])
    [0.14285714285714285, 0.2857142857142857, 0.5714285714285714]
    >>> output_weights([(32, 32), (32, 32)])
    [0.5, 0.5]
    """
    shapes = [tuple(size) for size in sizes]
    if any(a > b for shape in shapes for a, b in zip(shape, shapes[-1], strict=True)):
        raise ValueError(f"expected no output larger than the last, not {shapes}")
    finest_first = sorted(set(shapes), key=lambda s: (sum(s), s), reverse=True)
    raw = [0.5 ** finest_first.index(shape) for shape in shapes]
    return [weight / sum(raw) for weight in raw]


def centre(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return the centre (B, *size) of maps (B, *S); ValueError where they are smaller."""
    for axis, (have, want) in enumerate(zip(maps.shape[1:], size, strict=True), start=1):
        if want > have:
            raise ValueError(f"expected an output of {tuple(maps.shape[1:])} at most, not {size}")
        maps = maps.narrow(axis, (have - want) // 2, want)
    return maps


def nearest(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return maps (B, *S) at another size: every pixel takes the value at its own centre."""
    for axis, (have, want) in enumerate(zip(maps.shape[1:], size, strict=True), start=1):
        if have != want:
            at = torch.arange(want, device=maps.device)
            maps = maps.index_select(
                axis, ((2 * at + 1) * have).div(2 * want, rounding_mode="floor")
            )
    return maps


# -- balance ------------------------------------------------------------------------------------------


def class_weights(
    shares: Sequence[float] | torch.Tensor,
    rule: Literal["median_frequency", "inverse_sqrt"] = "median_frequency",
    limit: float = LARGEST_WEIGHT,
) -> torch.Tensor:
    """Return weights of classes, float32 (K,), from their shares of the pixels.

        median_frequency  w_k = median of the shares / share_k   (Eigen & Fergus 2015)
        inverse_sqrt      w_k = 1 / sqrt(share_k), scaled so that a pixel weighs 1 on average

    Classes without a pixel are left out of median and scale, and weigh as much as the heaviest
    other. No weight exceeds `limit`.

    >>> class_weights([0.5, 0.25, 0.25, 0.0]).tolist()
    [0.5, 1.0, 1.0, 1.0]
    """
    share = torch.as_tensor(shares, dtype=torch.float64)
    if share.ndim != 1 or not bool((share >= 0).all()) or not float(share.sum()) > 0:
        raise ValueError(f"expected shares of pixels that are not negative, not {shares}")
    share = share / share.sum()
    seen = share > 0
    if rule == "median_frequency":
        raw = share[seen].quantile(0.5) / share[seen]
    elif rule == "inverse_sqrt":
        raw = share[seen].rsqrt() / share[seen].sqrt().sum()
    else:
        raise ValueError(f"expected 'median_frequency' or 'inverse_sqrt', not {rule!r}")
    weights = torch.full_like(share, float(raw.max()))
    weights[seen] = raw
    return weights.clamp_max(limit).float()
