"""Batch renormalisation: batch norm, corrected toward what evaluation will do.

    y = gamma ((x - mean_B) / sigma_B * r + d) + beta
    r = clip(sigma_B / sigma, 1 / r_max, r_max)     d = clip((mean_B - mean) / sigma, -d_max, d_max)

mean_B, sigma_B = sqrt(var_B + eps) over (N, H, W) of the batch; mean, sigma of the running averages. No
gradient flows through r and d. Within the limits y is exactly what evaluation gives.
Ioffe 2017, Batch renormalization, section 3, algorithm 1. Shapes: (N, C, ...) -> (N, C, ...).

r_max = 1, d_max = 0 (plain batch norm) for the first 5,000 steps, then both grow evenly, r_max to 3 at
step 40,000 and d_max to 5 at step 25,000 (section 4). A shorter run needs a shorter schedule, as in
"renorm(3, 5, 100, 800, 500)"; steps are counted in the buffer `num_batches_tracked`.

Training: as above; the averages move as in batch norm (unbiased variances, as torch keeps them, where
Ioffe averages sigma_B). Evaluation: batch norm by the running averages.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
norm=renorm 53.1 %, 1.49 (accuracy, time of a step).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from residua.nn.norms.statistics import RunningNorm, batch_moments, is_single, moments_of


class BatchRenorm(RunningNorm):
    """Batch renormalisation: (N, C, ...) -> (N, C, ...).

    r_max, d_max: limits at the end. start: steps without correction. r_end, d_end: steps at which the
    limits are reached. ValueError unless r_max >= 1, d_max >= 0, 0 <= start <= r_end, d_end.
    """

    def __init__(
        self,
        channels: int,
        r_max: float = 3.0,
        d_max: float = 5.0,
        start: int = 5_000,
        r_end: int = 40_000,
        d_end: int = 25_000,
    ) -> None:
        super().__init__(channels)
        if r_max < 1 or d_max < 0 or not 0 <= start <= min(r_end, d_end):
            given = (r_max, d_max, start, r_end, d_end)
            raise ValueError(
                f"renorm{given}: expected r_max >= 1, d_max >= 0, start <= r_end, d_end"
            )
        self.r_max, self.d_max = r_max, d_max
        self.start, self.r_end, self.d_end = start, r_end, d_end

    def limits(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return r_max and d_max of the step that comes next."""
        assert self.num_batches_tracked is not None
        past = (self.num_batches_tracked - self.start).to(moments_of(self)[0].dtype)
        r = (past / max(self.r_end - self.start, 1)).clamp(0, 1)
        d = (past / max(self.d_end - self.start, 1)).clamp(0, 1)
        return 1 + (self.r_max - 1) * r, self.d_max * d

    def correction(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return r and d of a batch, each (C,), without gradient."""
        mean, var = moments_of(self)
        batch_mean, batch_var = batch_moments(x.detach())
        sigma = (var + self.eps).sqrt()
        r_max, d_max = self.limits()
        r = ((batch_var + self.eps).sqrt() / sigma).clamp(1 / r_max, r_max)
        return r, ((batch_mean - mean) / sigma).clamp(-d_max, d_max)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the batch, with the correction, in training."""
        if not self.training or is_single(x):
            return super().forward(x)
        r, d = self.correction(x)
        weight, bias = self.weight * r, self.weight * d + self.bias  # gamma (x r + d) + beta
        momentum = self.count_step()
        return functional.batch_norm(x, *moments_of(self), weight, bias, True, momentum, self.eps)
