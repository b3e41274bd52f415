"""Whether weights are scale-free, by trying: scale them, and see whether output and gradients obey.

    f(a w) = f(w),  a g(a w) = g(w)

All are multiplied at once, every other by 2, the rest by 1/2, factors that change no bit of a mantissa. The
norms' eps is taken as 1e-30: with their own eps a network is scale-free only as far as eps is small beside
the variance. Where the output moves, those that move it are found by halving.

Statistics are the batch's: with running averages, after a norm has been fixed, no weight is scale-free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from residua.xray.modes import LastingMode
from residua.xray.scale_free import Roles
from residua.xray.subject import Subject, tensors_in

EPS = 1e-30
TOLERANCE = 1e-2  # relative; roundings of a deep network in single precision stay below
ROUNDINGS = 32  # that half precision is allowed, in units of its spacing at 1


class Checked:
    """Numbers of one backward pass, and of a second after scaling; tensors by the parameter's name."""

    def __init__(self) -> None:
        self.lengths: dict[str, float] = {}
        self.gradients: dict[str, float] = {}
        self.cosines: dict[str, float] = {}
        self.errors: dict[str, float] = {}
        self.output_change: float | None = None
        self.refuted: set[str] = set()
        self.tolerance = TOLERANCE


def check_free(subject: Subject, roles: Roles) -> Checked:
    """Measure gradients before and after scaling every candidate."""
    found = Checked()
    with subject.running("batch") as model, _Eps(EPS).lasting():
        parameters = dict(model.named_parameters())
        for p in parameters.values():
            p.requires_grad_(True)
            found.tolerance = max(found.tolerance, ROUNDINGS * torch.finfo(p.dtype).eps)
        output, gradients = _gradients(subject, parameters)
        for name, p in parameters.items():
            g = gradients[name]
            w = _wide(p.detach())
            found.lengths[name], found.gradients[name] = float(w.norm()), float(g.norm())
            both = found.lengths[name] * found.gradients[name]
            found.cosines[name] = float((w * g).sum()) / both if both else 0.0
        weights = {name: parameters[name] for name in roles.candidates}
        found.output_change, after = _scaled(subject, weights, output)
        if found.output_change > found.tolerance:  # the graph was wrong about some of them
            kept = _invariant(subject, weights, output, found.tolerance)
            found.refuted = set(weights) - set(kept)
            _, after = _scaled(subject, kept, output)
        for name, g in after.items():
            change, length = float((g - gradients[name]).norm()), found.gradients[name]
            found.errors[name] = change / length if length else 0.0 if change == 0 else math.inf
    return found


def _scaled(
    subject: Subject, weights: Mapping[str, nn.Parameter], output: torch.Tensor
) -> tuple[float, dict[str, torch.Tensor]]:
    """Return how much the output changes, relatively, and each a g(a w), with all weights scaled."""
    factors = {name: 2.0 if i % 2 else 0.5 for i, name in enumerate(weights)}
    with torch.no_grad():
        for name, a in factors.items():
            weights[name].mul_(a)
    torch.manual_seed(subject.seed)
    scaled, after = _gradients(subject, weights)
    with torch.no_grad():
        for name, a in factors.items():
            weights[name].div_(a)
    norm = float(output.norm())
    change = float((scaled - output).norm()) / norm if norm else 0.0
    return change, {name: a * after[name] for name, a in factors.items()}


def _invariant(
    subject: Subject, weights: dict[str, nn.Parameter], output: torch.Tensor, tolerance: float
) -> dict[str, nn.Parameter]:
    """Return those of the weights whose length the output does not depend on, by halving."""
    if _scaled(subject, weights, output)[0] <= tolerance:
        return weights
    if len(weights) == 1:
        return {}
    names = list(weights)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    left, right = ({n: weights[n] for n in half} for half in halves)
    kept = _invariant(subject, left, output, tolerance)
    return kept | _invariant(subject, right, output, tolerance)


def _gradients(
    subject: Subject, parameters: Mapping[str, nn.Parameter]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the output, flat, and every parameter's gradient, in single precision or wider."""
    with torch.enable_grad():
        output = subject.forward()
        wanted = list(parameters.values())
        gradients: tuple[torch.Tensor, ...] = ()
        if wanted:
            scalar = subject.scalar(output)
            gradients = torch.autograd.grad(scalar, wanted, materialize_grads=True)
    flat = torch.cat([_wide(t.detach()).flatten() for t in tensors_in(output)])
    return flat, {n: _wide(g) for n, g in zip(parameters, gradients, strict=True)}


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _Eps(LastingMode):
    """Give every call of torch's norms this eps."""

    places: Mapping[Any, int] = {  # where eps stands among the arguments
        F.batch_norm: 7,
        F.instance_norm: 7,
        F.layer_norm: 4,
        F.group_norm: 4,
        torch.group_norm: 4,
        torch.layer_norm: 4,
        F.rms_norm: 3,
    }

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def see(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do the operation, a norm with this eps."""
        place = self.places.get(func)
        if place is None:
            return func(*args, **kwargs)
        if len(args) > place:
            return func(*args[:place], self.eps, *args[place + 1 :], **kwargs)
        return func(*args, **(kwargs | {"eps": self.eps}))
