"""Batch norms that keep one batch's mean and variance for later passes on other inputs.

Inside `subject.running("detached")` the first pass notes each norm's statistics, in the order of the calls,
and later passes use them: the network is then one fixed function of each sample, on whatever inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from residua.xray.statistics import BatchNormCalls, batch_moments


class FrozenNorms(BatchNormCalls):
    """Note the statistics of every call of F.batch_norm in training, or use those noted."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.next = 0
        self.noting = True

    @contextmanager
    def note(self) -> Iterator[None]:
        """Note the statistics of the pass that happens inside."""
        self.noted, self.noting = [], True
        with self:
            yield

    @contextmanager
    def use(self) -> Iterator[None]:
        """Use the noted statistics in one pass, which happens inside."""
        self.next, self.noting = 0, False
        with self:
            yield

    def moments(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the noted statistics of this call, or the batch's, which are noted if that is the task."""
        if not self.noting and self.next < len(self.noted):
            found = self.noted[self.next]
            self.next += 1
            if len(found[0]) == input.shape[1]:
                return found
        found = batch_moments(input)
        if self.noting:
            self.noted.append(found)
        return found
