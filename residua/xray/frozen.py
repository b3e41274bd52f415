"""Batch norms that keep one batch's mean and variance for later passes on other inputs.

Inside `subject.running("detached")` the first pass notes each norm's statistics, in the order of the calls,
and later passes use them: the network is then one fixed function of each sample, on whatever inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


class FrozenNorms(TorchFunctionMode):
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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        keywords = dict(kwargs or {})
        if func is F.batch_norm:
            return self._norm(*args, **keywords)
        return func(*args, **keywords)

    def _norm(
        self,
        input: torch.Tensor,
        running_mean: torch.Tensor | None,
        running_var: torch.Tensor | None,
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> torch.Tensor:
        if not training:
            return F.batch_norm(
                input, running_mean, running_var, weight, bias, False, momentum, eps
            )
        mean, var = self._statistics(input.detach())
        return F.batch_norm(input, mean, var, weight, bias, False, momentum, eps)

    def _statistics(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.noting and self.next < len(self.noted):
            found = self.noted[self.next]
            self.next += 1
            if len(found[0]) == input.shape[1]:
                return found
        over = [0, *range(2, input.dim())]
        var, mean = torch.var_mean(input.float(), over, correction=0)
        found = mean.to(input.dtype), var.to(input.dtype)
        if self.noting:
            self.noted.append(found)
        return found
