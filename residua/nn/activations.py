"""Activations by name: what follows a norm, a convolution without one, or an addition.

    relu   max(x, 0)               Nair, Hinton 2010
    silu   x sigmoid(x)            Elfwing, Uchibe, Doya 2018; "swish" in Ramachandran, Zoph, Le 2017
    gelu   x Phi(x)                Hendrycks, Gimpel 2016; Phi the normal distribution's function

Any shape -> the same. Training and evaluation are the same. ReLU works in place where nobody else reads its
input; the others need theirs again for the gradient.

Measured (python benchmarks/parts.py, docs/parts.md): after 200 steps a ResNet-20 recognises 53.1 %; with
activation=silu 52.9 %, 1.05; activation=gelu 52.4 %, 1.19 (accuracy, time of a step; one seed, seeds differ
by 2).
"""

from __future__ import annotations

from torch import nn

from residua.nn.names import unknown

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


def make_activation(name: str, inplace: bool = True) -> nn.Module:
    """Return the activation of that name; ValueError lists the names there are."""
    if name not in ACTIVATIONS:
        raise ValueError(unknown("activation", name, ACTIVATIONS))
    return nn.ReLU(inplace=inplace) if name == "relu" else ACTIVATIONS[name]()
