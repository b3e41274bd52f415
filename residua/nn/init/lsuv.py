"""LSUV: layer-sequential unit-variance initialisation, from a batch of pictures.

    1. every weight of a convolution or linear layer orthonormal, every bias 0
    2. layer by layer, in the order of execution: W <- W / sqrt(Var(output on the batch)), to tolerance

Mishkin, Matas 2016, All you need is a good init, algorithm 1 (tolerance 0.1, at most 10 rounds there).
The variance is taken over the batch, the channels and the positions together. Each layer is scaled while
the batch passes through it, so the next one sees what it will see: one forward pass does all layers, a
second one confirms.

The batch passes in evaluation mode, so nothing is dropped, but with batch norms normalising by the batch,
as they will in training. Works on any module, of ours or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from residua.nn.init.layers import Convolution, HasGain, scale_of
from residua.nn.init.orthogonal import orthogonal

ROUNDS = 10  # T_max of algorithm 1


@torch.no_grad()
def lsuv(module: nn.Module, batch: torch.Tensor, tolerance: float = 0.01) -> dict[str, float]:
    """Initialise every convolution and linear layer of `module` in place so that its output has variance 1.

    Args:
        module: anything that takes `batch`. Its mode, buffers and hooks come back as they were; weights
            that normalise themselves get the scale in their gain.
        batch: pictures, (N, C, H, W) for most modules. tolerance: of the variances.

    Returns:
        the variance of each layer's output on the batch, by name, in order of execution. A layer that is
        used more than once has that of its first use; one that is never used is orthonormal and left out.

    Raises:
        ValueError: a layer's output is constant or not finite, or its weight has no scale. After
            this or any other error the module is as it was.
    """
    layers: dict[nn.Module, str] = {
        m: k for k, m in module.named_modules() if isinstance(m, Convolution | nn.Linear)
    }
    before = {k: v.clone() for k, v in module.state_dict().items()}
    try:
        with _batch_statistics(module):
            for layer in layers:
                _orthonormal(layer)
            for _ in range(ROUNDS):
                variances = _round(module, layers, batch, tolerance)
                if all(abs(v - 1) <= tolerance for v in variances.values()):
                    return variances
        worst = max(variances, key=lambda name: abs(variances[name] - 1))
        raise ValueError(f"layer {worst!r} keeps an output variance of {variances[worst]:.3g}")
    except BaseException:
        module.load_state_dict(before)
        raise


def _orthonormal(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.orthogonal_(layer.weight)
    elif isinstance(layer, Convolution):
        orthogonal(layer, "fan_in", gain=1.0)
    if isinstance(layer, HasGain):
        layer.reset_gain()
    if isinstance(layer.bias, nn.Parameter):
        nn.init.zeros_(layer.bias)


def _round(
    module: nn.Module, layers: dict[nn.Module, str], batch: torch.Tensor, tolerance: float
) -> dict[str, float]:
    """Pass the batch once; return the variances as they came, scale those that are out of tolerance."""
    variances: dict[str, float] = {}

    def scale(layer: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        name = layers[layer]
        if name in variances:
            return None
        variance = variances[name] = output.double().var(correction=0).item()
        # Rounding alone leaves a constant output of value c with a variance of about (c eps)^2.
        floor = (output.abs().max().item() * torch.finfo(output.dtype).eps) ** 2
        if not floor < variance < float("inf"):
            raise ValueError(
                f"the output of layer {name!r} is constant or not finite: no scale fits it"
            )
        if abs(variance - 1) <= tolerance:
            return None
        scale_of(layer).div_(variance**0.5)
        scaled: torch.Tensor = output / variance**0.5
        return scaled

    handles = [layer.register_forward_hook(scale) for layer in layers]
    try:
        module(batch)
    finally:
        for handle in handles:
            handle.remove()
    return variances


@contextmanager
def _batch_statistics(module: nn.Module) -> Iterator[None]:
    """Evaluate with batch norms in training mode; modes and buffers come back."""
    modes = {m: m.training for m in module.modules()}
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.eval()
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.train()
    try:
        yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
