"""Running statistics: which norms keep them, and how to lend a model and give them back.

A norm that tracks statistics normalises by its batch in training, and by running averages in evaluation:

    running_mean <- (1 - momentum) running_mean + momentum mean
    running_var  <- (1 - momentum) running_var  + momentum var n / (n - 1)      n values a channel

Ioffe, Szegedy 2015, algorithm 2; torch's own and ours are all subclasses of torch's `_BatchNorm`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

# Of a norm: its mean and variance, each (C,).
Moments = tuple[torch.Tensor, torch.Tensor]


class RunningNorm(nn.BatchNorm2d):
    """Batch norm of maps of any number of dimensions, (N, C, ...) -> (N, C, ...): the base of ours.

    A single value a channel (one picture, one pixel) has no variance, and torch's own refuses it in
    training. Ours normalise it by the running statistics, as in evaluation, and move those not.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected a batch (N, C, ...), got {tuple(input.shape)}")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise: (N, C, ...) -> (N, C, ...)."""
        if self.training and not is_single(x):
            return super().forward(x)
        return self.as_in_evaluation(x)

    def as_in_evaluation(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise by the running statistics."""
        mean, var = moments_of(self)
        if self.training:  # autograd keeps them, and a later step moves them in place
            mean, var = mean.clone(), var.clone()
        return functional.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)

    def count_step(self) -> float:
        """Count a step; return the momentum that it moves the running statistics with."""
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


def is_single(x: torch.Tensor) -> bool:
    """Return whether (N, C, ...) holds a single value a channel."""
    return x.numel() == x.size(1)


def batch_moments(x: torch.Tensor) -> Moments:
    """Return mean and biased variance of each channel, (N, C, ...) -> (C,), (C,), float32 or wider."""
    wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
    var, mean = torch.var_mean(wide, [0, *range(2, x.dim())], correction=0)
    return mean, var


def tracks_statistics(module: nn.Module) -> bool:
    """Return whether a module is a batch norm, torch's or ours, that keeps running statistics."""
    return isinstance(module, _BatchNorm) and module.running_mean is not None


def running_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return every norm of a model that keeps running statistics, by its name, each once."""
    return {name: module for name, module in model.named_modules() if tracks_statistics(module)}


def moments_of(norm: nn.Module) -> Moments:
    """Return a norm's running mean and variance: the buffers themselves."""
    mean, var = norm.running_mean, norm.running_var
    assert isinstance(mean, torch.Tensor) and isinstance(var, torch.Tensor)
    return mean, var


@torch.no_grad()
def put_moments(norm: nn.Module, moments: Moments) -> None:
    """Copy mean and variance into a norm's running statistics."""
    for buffer, value in zip(moments_of(norm), moments, strict=True):
        buffer.copy_(value)


@contextlib.contextmanager
def lent(model: nn.Module, norms: Mapping[str, nn.Module]) -> Iterator[None]:
    """Lend a model in evaluation mode; give back every mode and these norms' statistics, bit for bit."""
    modes = {module: module.training for module in model.modules()}
    kept = {name: tuple(t.clone() for t in moments_of(norm)) for name, norm in norms.items()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for name, (mean, var) in kept.items():
            put_moments(norms[name], (mean, var))


@contextlib.contextmanager
def normalised_by_batch(
    norms: Mapping[str, nn.Module], hear: Callable[[str, int, Moments], None]
) -> Iterator[None]:
    """Make norms of a lent model normalise by their batch; hear(name, values a channel, moments).

    The batch's mean and biased variance are written to the running statistics just before the norm, in
    evaluation, reads them. So the scheme, its momentum, and a batch of one value make no difference.
    """

    def listen(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(norm: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            x = arguments[0].detach()
            moments = batch_moments(x)
            put_moments(norm, moments)
            hear(name, x.numel() // x.size(1), moments)

        return hook

    handles = [norm.register_forward_pre_hook(listen(name)) for name, norm in norms.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
