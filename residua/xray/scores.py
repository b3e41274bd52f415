"""How much worse a changed network is on the batch: in its loss, in its errors, in its output.

    change   |y' - y| / |y|, sample by sample: needs no targets
    loss     what the subject is trained on; sample by sample where it is the cross-entropy of logits
    error    the share of samples whose largest logit is not the target's

Differences are paired: the same samples before and after, so that their interval is that of the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from residua.xray.intervals import Estimate, mean_interval
from residua.xray.subject import Subject, tensors_in


@dataclass(frozen=True)
class Scores:
    """Of one forward pass; losses and errors by sample, (N,), or None. loss: the mean, or None."""

    output: torch.Tensor
    loss: float | None = None
    losses: torch.Tensor | None = None
    errors: torch.Tensor | None = None

    @property
    def error(self) -> float | None:
        """The error rate."""
        return None if self.errors is None else float(self.errors.mean())


def score(subject: Subject, output: Any) -> Scores:
    """Return the scores of an output on the subject's batch."""
    found = [t.detach().float() for t in tensors_in(output)]
    per_sample = [t.flatten(1) for t in found if t.dim() > 1 and len(t) == subject.samples]
    values = torch.cat(per_sample, 1) if per_sample else found[0].reshape(1, -1)
    if subject.targets is None:
        return Scores(values)
    logits, targets = found[0], subject.targets
    loss = float(subject.scalar(output))
    classes = (
        isinstance(targets, torch.Tensor)
        and logits.dim() == 2
        and targets.shape == logits.shape[:1]
        and not targets.is_floating_point()
    )
    if not classes:
        return Scores(values, loss)
    errors = (logits.argmax(1) != targets).double()
    losses = F.cross_entropy(logits, targets, reduction="none") if subject.loss is None else None
    return Scores(values, loss, losses, errors)


def changes(before: Scores, after: Scores) -> torch.Tensor:
    """Return |y' - y| / |y| of every sample, (N,); 0 / 0 is 0."""
    away = (after.output - before.output).double().norm(dim=1)
    size = before.output.double().norm(dim=1)
    return torch.where(away == 0, away, away / size)


def interval(after: torch.Tensor | None, before: torch.Tensor | None = None) -> Estimate | None:
    """Return the mean of a number a sample, or of its difference; None where it is not finite."""
    if after is None:
        return None
    values = after.double() if before is None else after.double() - before.double()
    return mean_interval(values.cpu().numpy()) if bool(values.isfinite().all()) else None


def error_difference(before: Scores, after: Scores) -> Estimate | None:
    """Return by how much the error rate rises, 95 %.

    Where no sample changes sides the interval is not nothing: with N samples a share of up to 3 / N can
    change unseen (the rule of three, Hanley & Lippman-Hand 1983).
    """
    found = interval(after.errors, before.errors)
    if found is None:
        return None
    unseen = 3 / found.n
    low, high = min(found.low, found.value - unseen), max(found.high, found.value + unseen)
    return Estimate(found.value, low, high, found.n)


def rate_interval(errors: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of an error rate (Wilson 1927).

    >>> [round(end, 3) for end in rate_interval(0, 100)]
    [0.0, 0.037]
    """
    z = 1.959964
    middle = (errors + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(errors * (n - errors) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)
