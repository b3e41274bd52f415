"""Normalisation by name: a layer for activations, a kind of convolution, or both.

    make_norm("batch")                  a layer after (v2: before) each convolution
    make_norm("ghost(32)")              the same, with a number of its own
    make_norm("weight")                 no layer; convolutions that normalise their weights
    make_norm("group+standardised")     both: group norm over weight-standardised convolutions
    make_norm("none")                   neither; convolutions then have biases

Every network builds its convolutions and norms through one `Norm`, so that a norm by another name is
another norm everywhere: in stem, branches, shortcuts and tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from residua.nn.names import split, unknown, with_numbers
from residua.nn.norms.batch import batch_norm
from residua.nn.norms.filter_response import FilterResponseNorm
from residua.nn.norms.ghost import GhostBatchNorm
from residua.nn.norms.group import group_norm, instance_norm, layer_norm
from residua.nn.norms.position import PositionNorm
from residua.nn.norms.renorm import BatchRenorm
from residua.nn.norms.standardised import ScaledStandardisedConv2d, StandardisedConv2d
from residua.nn.norms.sync import SyncBatchNorm
from residua.nn.norms.weight import WeightNormConv2d

# name: maker of a layer from the number of channels, and the numbers in the name's brackets
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "batch": batch_norm,
    "ghost": GhostBatchNorm,
    "renorm": BatchRenorm,
    "sync": SyncBatchNorm,
    "layer": layer_norm,
    "position": PositionNorm,
    "group": group_norm,
    "instance": instance_norm,
    "filter_response": FilterResponseNorm,
}

# name: subclass of nn.Conv2d that normalises its own weights
CONVOLUTIONS: dict[str, type[nn.Conv2d]] = {
    "weight": WeightNormConv2d,
    "standardised": StandardisedConv2d,
    "scaled_standardised": ScaledStandardisedConv2d,
}

NEEDS_LAYER = (
    "standardised"  # its outputs are many times as large as its inputs: see standardised.py
)

# what may be asked for without another; any layer goes with any kind of convolution as well
NORMS = (
    *LAYERS,
    *(name for name in CONVOLUTIONS if name != NEEDS_LAYER),
    f"group+{NEEDS_LAYER}",
    "none",
)


@dataclass(frozen=True)
class Norm:
    """How a network normalises: `layer(channels)` (None: no layer) and the kind of convolution."""

    name: str
    layer: Callable[[int], nn.Module] | None
    convolution: type[nn.Conv2d] = nn.Conv2d

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool | None = None,
    ) -> nn.Conv2d:
        """Return a "same" convolution, (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)).

        bias: None gives it one where no norm layer follows.
        """
        return self.convolution(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=self.layer is None if bias is None else bias,
        )


def make_norm(name: str) -> Norm:
    """Return the norm of that name.

    Raises ValueError for an unknown name, listing those there are; for two layers or two kinds of
    convolution; for numbers that the layer does not take; for "standardised" without a layer.
    """
    layer: Callable[[int], nn.Module] | None = None
    convolution: type[nn.Conv2d] = nn.Conv2d
    for part in name.split("+"):
        kind, _ = split(part)
        if kind in LAYERS and layer is None:
            layer = _layer_maker(kind, part)
            layer(4)  # an unfit number shows here, not in the middle of a network
        elif part.strip() in CONVOLUTIONS and convolution is nn.Conv2d:
            convolution = CONVOLUTIONS[part.strip()]
        elif kind in LAYERS or part.strip() in CONVOLUTIONS:
            twice = "layers" if kind in LAYERS else "kinds of convolution"
            raise ValueError(f"norm {name!r} names two {twice}: at most one of each goes together")
        elif name != "none":
            raise ValueError(unknown("norm", name, NORMS))
    if convolution is CONVOLUTIONS[NEEDS_LAYER] and layer is None:
        raise ValueError(f"norm {name!r} needs a layer after it, as in 'group+{NEEDS_LAYER}'")
    return Norm(name, layer, convolution)


def _layer_maker(kind: str, text: str) -> Callable[[int], nn.Module]:
    make = LAYERS[kind]
    if "(" not in text:
        return make
    return lambda channels: with_numbers("norm", text, make, channels)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation layer of torch's, a subclass of one, or ours."""
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, FilterResponseNorm)
    return isinstance(module, kinds)
