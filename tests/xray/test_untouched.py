"""The user's model and the random generators come back bit for bit from every analysis, whatever happens."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from residua.xray import Subject
from residua.xray.analyses import ANALYSES
from tests.xray.foreign import FunctionalNet

PICTURES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 5


class StopError(Exception):
    """Raised in the middle of a forward pass."""


class Awkward(FunctionalNet):
    """Batch norm, dropout and a frozen layer; fails in the forward pass number `fails`."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.passes, self.fails, self.failure = 0, -1, StopError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        y = super().forward(self.drop(self.norm(x)))
        if self.passes == self.fails:
            raise self.failure
        return y


def awkward() -> Awkward:
    torch.manual_seed(3)
    model = Awkward().train()
    model.blocks[1].eval()
    model.stem.bias.requires_grad_(False)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    model.norm.register_forward_hook(lambda *_: None)
    return model


def state(model: nn.Module) -> dict[str, Any]:
    """Return everything of a model and of the random generators that could change."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: t.detach().numpy().tobytes() for name, t in tensors.items()},
        "gradients": {
            n: None if p.grad is None else p.grad.sum().item() for n, p in tensors.items()
        },
        "places": {name: (id(t), t.data_ptr(), t.stride()) for name, t in tensors.items()},
        "requires_grad": {name: t.requires_grad for name, t in tensors.items()},
        "modes": {name: m.training for name, m in model.named_modules()},
        "modules": {name: id(m) for name, m in model.named_modules()},
        "hooks": {
            name: [len(v) for k, v in vars(m).items() if "hooks" in k]
            for name, m in model.named_modules()
        },
        "global hooks": len(nn.modules.module._global_forward_hooks),
        "random": (
            random.getstate(),
            np.random.get_state()[1].tobytes(),
            torch.get_rng_state().tolist(),
        ),
        "grad mode": torch.is_grad_enabled(),
    }


def subject(model: nn.Module) -> Subject:
    return Subject(model, PICTURES, LABELS, effort="quick")


@pytest.mark.parametrize("name", ANALYSES)
def test_after_an_analysis_and_its_verdicts(name: str) -> None:
    model = awkward()
    before = state(model)
    examined = subject(model)
    ANALYSES[name].check(examined, ANALYSES[name].run(examined))
    assert state(model) == before


@pytest.mark.parametrize("failure", [StopError, KeyboardInterrupt])
@pytest.mark.parametrize("name", ANALYSES)
def test_after_a_failure_inside_the_model(name: str, failure: type[BaseException]) -> None:
    model = awkward()
    ANALYSES[name].run(subject(model))
    passes = model.passes
    for fails in sorted({1, 2, passes // 2, passes} & set(range(1, passes + 1))):
        model = awkward()
        model.fails, model.failure = fails, failure
        before = state(model)
        with pytest.raises(failure):
            ANALYSES[name].run(subject(model))
        assert state(model) == before


def test_a_pass_that_fails_is_not_swallowed() -> None:
    model = awkward()
    model.fails = 1
    run: Callable[[Subject], object] = ANALYSES["signal"].run
    with pytest.raises(StopError):
        run(subject(model))
