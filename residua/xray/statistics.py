"""Whose mean and variance a batch norm uses, said explicitly: most published confusion comes from there.

    batch     those of the batch, as in training; the gradient flows through them
    detached  those of the batch, held fixed: the network is then one function of each sample
    running   the averages kept in training, as in evaluation

Holds for every call of torch's batch norm, by a module or by the function, in anybody's network.
Running averages never move. Norms that compute their statistics themselves (ghost, renorm) follow their
module's mode.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from residua.xray.modes import LastingMode

Statistics = Literal["batch", "detached", "running"]


class BatchNormCalls(LastingMode):
    """Rewrite calls of F.batch_norm: in training they use the mean and variance that `moments` gives."""

    @abstractmethod
    def moments(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return mean and variance (C,) for an input (N, C, ...); None: the batch's, with gradient."""

    def see(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the operation, batch norm on the statistics that are wanted."""
        return self._norm(*args, **kwargs) if func is F.batch_norm else func(*args, **kwargs)

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
        found = self.moments(input.detach())
        if found is None:
            return F.batch_norm(input, None, None, weight, bias, True, momentum, eps)
        return F.batch_norm(input, *found, weight, bias, False, momentum, eps)


class _OfTheBatch(BatchNormCalls):
    """The batch's own statistics, with their gradient or held fixed."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.detached = detached

    def moments(self, input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the batch's, if they are to be held fixed."""
        return batch_moments(input) if self.detached else None


def batch_moments(input: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of each channel, (N, C, ...) -> (C,), (C,), as batch norm takes them."""
    over = [0, *range(2, input.dim())]
    var, mean = torch.var_mean(input.float(), over, correction=0)
    return mean.to(input.dtype), var.to(input.dtype)


@contextmanager
def norm_statistics(model: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Run the model's norms on these statistics; dropout and other random layers are off.

    Sets modes: use inside `untouched`.
    """
    model.eval()
    if statistics == "running":
        yield
        return
    for module in model.modules():
        if not _is_random(module):
            module.training = True
    with _OfTheBatch(detached=statistics == "detached").lasting():
        yield


def _is_random(module: nn.Module) -> bool:
    """Say whether a layer draws numbers in training: dropout and stochastic depth, by their names."""
    name = type(module).__name__.lower()
    return "drop" in name or "shake" in name


def statistics_learned(model: nn.Module) -> bool | None:
    """Say whether the norms' running averages have moved; None where there are none."""
    found = [(n.rsplit(".", 1)[-1], b) for n, b in model.named_buffers()]
    start = {"running_mean": 0.0, "running_var": 1.0}
    moved = [bool((b != start[name]).any()) for name, b in found if name in start]
    return any(moved) if moved else None
