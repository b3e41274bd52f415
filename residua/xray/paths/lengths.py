"""The gradient by path length, exactly: every path of every length in one backward pass.

    prod_i (S_i + t B_i)^T g = sum_k t^k g_k,    backward through unit i:  g_k <- S_i^T g_k + B_i^T g_(k-1)

S_i and B_i are the derivatives of shortcut and branch (S_i = I where the shortcut is the identity). The
coefficients g_k are stacked cotangents of one backward pass; where a branch's value was made, the stack is
shifted by one: a path that goes there is one longer. Derived here from Veit et al. 2016, equation 2, whose
authors sample paths instead.

Shapes: value (*S) -> (lengths, *S). The last of the stack also takes all that is longer, so that nothing
is lost and sum_k g_k is the gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch.autograd.function import FunctionCtx

from residua.errors import ResiduaError
from residua.xray.units import Unit


class Lengthen:
    """A handler for branches and gates; backward, it makes paths through the units in `units` one longer.

    `units` may be changed between backward passes through one graph.
    """

    def __init__(self) -> None:
        self.units: Collection[int] = ()

    def __call__(self, unit: Unit, value: torch.Tensor) -> torch.Tensor:
        """Return the value."""
        return through(value, lambda g: shifted(g) if unit.index in self.units else g)


def through(value: torch.Tensor, backward: Callable[[Any], Any]) -> torch.Tensor:
    """Return the value, whose gradient will go through `backward`."""
    with torch._C.DisableTorchFunction():  # the copy is no operation of the network
        result: torch.Tensor = _Through.apply(value, backward)  # type: ignore[no-untyped-call]
    return result


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, backward: Callable[[Any], Any]) -> torch.Tensor:
        ctx.change = backward
        return value.clone()  # a network may add to it in place

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, None]:
        return ctx.change(gradient), None


class _Stacked(torch.autograd.Function):
    """An operation on the stack of cotangents, which is the dimension that vmap hides."""

    @staticmethod
    def forward(gradient: torch.Tensor, *options: Any) -> torch.Tensor:
        return gradient.clone()  # outside of vmap there is only what is zero in the whole stack

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: Any, output: Any) -> None:
        pass


class _Shift(_Stacked):
    @staticmethod
    def vmap(info: Any, in_dims: tuple[int, ...], stack: torch.Tensor) -> tuple[torch.Tensor, int]:
        old = stack.movedim(in_dims[0], 0)
        new = torch.cat([torch.zeros_like(old[:1]), old[:-1]])
        new[-1] += old[-1]
        return new, 0


class _Weigh(_Stacked):
    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int, ...], stack: torch.Tensor, weights: torch.Tensor
    ) -> tuple[torch.Tensor, int]:
        old = stack.movedim(in_dims[0], 0)
        return old * weights.to(old).view(-1, *[1] * (old.dim() - 1)), 0


def shifted(gradient: torch.Tensor) -> torch.Tensor:
    """Return, in a stacked backward pass, the stack moved on by one; the last two are added."""
    result: torch.Tensor = _Shift.apply(gradient)  # type: ignore[no-untyped-call]
    return result


def weighed(gradient: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return, in a stacked backward pass, each of the stack times its own weight: weights (P,)."""
    result: torch.Tensor = _Weigh.apply(gradient, weights)  # type: ignore[no-untyped-call]
    return result


def by_length(
    output: torch.Tensor, value: torch.Tensor, cotangent: torch.Tensor, lengths: int
) -> torch.Tensor:
    """Return the gradients (lengths, *value.shape) that arrive at `value` by paths of each length."""
    start = torch.zeros(lengths, *cotangent.shape).to(cotangent)
    start[0] = cotangent
    return stacked(output, value, start)


def stacked(output: torch.Tensor, value: torch.Tensor, cotangents: torch.Tensor) -> torch.Tensor:
    """Return the gradient at `value` for each of the cotangents (P, *output.shape) of `output`."""

    def one(cotangent: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(output, value, cotangent, retain_graph=True)[0]

    with warnings.catch_warnings():
        # an operation without a rule for stacks is done one by one: slower, and just as right
        warnings.filterwarnings("ignore", message="There is a performance drop")
        try:
            found: torch.Tensor = torch.func.vmap(one)(cotangents)
        except RuntimeError as error:
            line = " ".join(str(error).split())
            raise ResiduaError(
                f"torch cannot carry a stack of gradients back through this network: {line}"
            ) from error
    return found
