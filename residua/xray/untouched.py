"""The user's model comes back as it was, bit for bit, whatever happens inside.

    with untouched(model):
        ...  # perturb weights, move statistics, hook, switch modes, raise, press Ctrl-C

Parameters, buffers, gradients, requires_grad, modes, hooks, the tree of modules and the states of the random
generators (Python's, NumPy's, torch's on every device) are put back.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

# of nn.Module: what register_* methods, assignments and train() change
_DICTIONARIES = (
    "_parameters",
    "_buffers",
    "_modules",
    "_non_persistent_buffers_set",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put the model and the random states back at the end; inside, no parameter has a gradient."""
    modules = [(module, _state(module)) for module in model.modules()]
    tensors = [(t, t.data, t.detach().clone()) for t in _tensors(model)]
    parameters = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    drawn = _random_states()
    try:
        for parameter, _, _ in parameters:
            parameter.grad = None  # so that backward passes do not add to the user's
        yield
    finally:
        for module, (training, members) in modules:
            module.training = training
            for name, copy in members.items():
                members_now = getattr(module, name)
                members_now.clear()
                members_now.update(copy)
        with torch.no_grad():
            for tensor, data, values in tensors:
                tensor.data = data
                if not (data.is_meta or _same_bits(data, values)):
                    data.copy_(values)
        for parameter, gradient, wanted in parameters:
            parameter.requires_grad_(wanted)
            parameter.grad = gradient
        _set_random_states(drawn)


def _state(module: nn.Module) -> tuple[bool, dict[str, Any]]:
    members = {name: getattr(module, name) for name in _DICTIONARIES}
    # A scripted module's parts cannot be exchanged, and are no dictionaries.
    return module.training, {
        name: value.copy() for name, value in members.items() if isinstance(value, (dict, set))
    }


def _tensors(model: nn.Module) -> Iterator[torch.Tensor]:
    """Yield parameters and buffers, each once, those of shared modules too."""
    yield from model.parameters()
    yield from model.buffers()


def _same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Say whether two tensors are equal, NaN counting as equal to NaN."""
    return bool(torch.equal(left, right)) or bool(
        left.is_floating_point() and torch.allclose(left, right, 0.0, 0.0, equal_nan=True)
    )


def _random_states() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda, mps


def _set_random_states(states: tuple[Any, ...]) -> None:
    python, numpy, cpu, cuda, mps = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    if mps is not None:
        torch.mps.set_rng_state(mps)
