"""An average of the weights on the way, and parts of a network that stay as they are."""

from __future__ import annotations

import copy

import torch
from torch import nn

from residua.errors import BadInput
from residua.nn import is_norm


class Average:
    """An exponential moving average of a model's weights and statistics.

    a <- d a + (1 - d) w, d = min(decay, (1 + t) / (10 + t)) so that early steps are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.pairs = _floating(self.model), _floating(model)
        self.counters = _counters(self.model), _counters(model)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self.pairs, 1.0 - decay)
        for ours, theirs in zip(*self.counters, strict=True):
            ours.copy_(theirs)


def _floating(model: nn.Module) -> list[torch.Tensor]:
    return [t.detach() for t in model.state_dict(keep_vars=True).values() if t.is_floating_point()]


def _counters(model: nn.Module) -> list[torch.Tensor]:
    return [t for t in model.state_dict(keep_vars=True).values() if not t.is_floating_point()]


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> list[nn.Module]:
    """Stop gradients of the modules under these names; return the norms to keep in evaluation.

    Raises BadInput for a prefix that names nothing.
    """
    norms = []
    for prefix in prefixes:
        found = [m for name, m in model.named_modules() if name == prefix]
        if not found:
            names = ", ".join(name for name, _ in model.named_children())
            raise BadInput(f"freeze: the model has no module {prefix!r}; it has {names}, ...")
        found[0].requires_grad_(False)
        norms += [m for m in found[0].modules() if is_norm(m)]
    return norms
