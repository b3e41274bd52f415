"""Normalisation by name: a layer for activations, a kind of convolution, or both.

    make_norm("batch")                  a layer after (v2: before) each convolution
    make_norm("ghost(32)")              the same, with a number of its own
    make_norm("weight")                 no layer; convolutions that normalise their weights
    make_norm("group+standardised")     both: group norm over weight-standardised convolutions
    make_norm("none")                   neither; convolutions then have biases
    make_norm("batch", dims=3)          the same for volumes (N, C, D, H, W); dims=1 for lines (N, C, L)

Every network builds its convolutions, norms and activations through one `Norm`, so that a norm by another
name is another norm everywhere: in stem, branches, shortcuts and tail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import nn
from torch.nn.modules.conv import _ConvNd

from residua.nn.activations import make_activation
from residua.nn.names import split, unknown, with_numbers
from residua.nn.norms.batch import batch_norm
from residua.nn.norms.evonorm import EvoNorm
from residua.nn.norms.filter_response import FilterResponseNorm, ThresholdedFilterResponseNorm
from residua.nn.norms.ghost import GhostBatchNorm
from residua.nn.norms.group import group_norm, instance_norm, layer_norm
from residua.nn.norms.position import PositionNorm
from residua.nn.norms.renorm import BatchRenorm
from residua.nn.norms.standardised import ScaledStandardisedConv2d, StandardisedConv2d
from residua.nn.norms.sync import SyncBatchNorm
from residua.nn.norms.weight import WeightNormConv2d

Convolution = _ConvNd  # nn.Conv1d, nn.Conv2d or nn.Conv3d
PLAIN: dict[int, Callable[..., Convolution]] = {
    1: nn.Conv1d,
    2: nn.Conv2d,
    3: nn.Conv3d,
}  # by dimensions

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
    "filter_response_tlu": ThresholdedFilterResponseNorm,
    "evonorm": EvoNorm,
}

# name: subclass of nn.Conv2d that normalises its own weights; there are none of 1 or 3 dimensions
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
    """How a network normalises: `layer(channels)` (None: no layer) and the kind of convolution.

    dims: spatial dimensions of the maps. flat: of volumes, convolve and stride in each slice by itself.
    activation: one of `residua.nn.ACTIVATIONS`. activates: whether the layer is an activation as well.
    """

    name: str
    layer: Callable[[int], nn.Module] | None
    convolution: Callable[..., Convolution] = nn.Conv2d
    dims: int = 2
    flat: bool = False
    activation: str = "relu"
    activates: bool = False

    def act(self, inplace: bool = True) -> nn.Module:
        """Return what follows a norm layer: the activation, nothing where the layer is one itself."""
        return nn.Identity() if self.activates else make_activation(self.activation, inplace)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool | None = None,
        padding: int | None = None,
    ) -> Convolution:
        """Return a convolution, by default "same": (N, C, *S) -> (N, C', *ceil(S / stride)).

        bias: None gives it one where no norm layer follows. padding: zeros a side, None: kernel // 2.
        """
        padding = kernel // 2 if padding is None else padding
        return self.convolution(
            in_channels,
            out_channels,
            self.each(kernel),
            stride=self.each(stride),
            padding=self.each(padding, along=0),
            groups=groups,
            bias=self.layer is None if bias is None else bias,
        )

    def each(self, number: int, along: int = 1) -> tuple[int, ...]:
        """Return a number for each dimension; where slices are apart, `along` for the first one.

        >>> make_norm("batch").each(3), make_norm("batch", 3).slicewise().each(3)
        ((3, 3), (1, 3, 3))
        """
        rest = (number,) * (self.dims - 1)
        return (along if self.flat else number, *rest)

    def slicewise(self) -> Norm:
        """Return the same that leaves the slices of volumes apart; ValueError unless of 3 dimensions."""
        if self.dims != 3:
            raise ValueError(f"only volumes have slices to leave apart, not maps of {self.dims}-D")
        return replace(self, flat=True)


def make_norm(name: str, dims: int = 2, activation: str = "relu") -> Norm:
    """Return the norm of that name for maps of 1, 2 or 3 spatial dimensions, and what activation follows it.

    Raises ValueError for an unknown name, listing those there are; for two layers or two kinds of
    convolution; for numbers that the layer does not take; for "standardised" without a layer; for
    a kind of convolution in other than two dimensions; for an activation other than ReLU after a layer
    that is one itself.
    """
    make_activation(activation)  # an unknown name shows here
    if dims not in PLAIN:
        raise ValueError(f"maps of {dims} dimensions: expected 1, 2 or 3")
    layer: Callable[[int], nn.Module] | None = None
    convolution, activates = PLAIN[dims], False
    for part in name.split("+"):
        kind, _ = split(part)
        if kind in LAYERS and layer is None:
            layer = _layer_maker(kind, part, dims)
            # an unfit number shows here, not in the middle of a network
            activates = getattr(layer(4), "activates", False)
        elif part.strip() in CONVOLUTIONS and convolution is PLAIN[dims]:
            if dims != 2:
                raise ValueError(f"norm {name!r}: {part.strip()} convolutions are 2-D only")
            convolution = CONVOLUTIONS[part.strip()]
        elif kind in LAYERS or part.strip() in CONVOLUTIONS:
            twice = "layers" if kind in LAYERS else "kinds of convolution"
            raise ValueError(f"norm {name!r} names two {twice}: at most one of each goes together")
        elif name != "none":
            raise ValueError(unknown("norm", name, NORMS))
    if convolution is CONVOLUTIONS[NEEDS_LAYER] and layer is None:
        raise ValueError(f"norm {name!r} needs a layer after it, as in 'group+{NEEDS_LAYER}'")
    if activates and activation != "relu":
        raise ValueError(
            f"norm {name!r} is an activation itself: {activation!r} does not go with it"
        )
    return Norm(name, layer, convolution, dims, activation=activation, activates=activates)


def _layer_maker(kind: str, text: str, dims: int) -> Callable[[int], nn.Module]:
    # The others take maps of any number of dimensions.
    make = partial(batch_norm, dims=dims) if kind == "batch" else LAYERS[kind]
    if "(" not in text:
        return make
    return lambda channels: with_numbers("norm", text, make, channels)


def is_norm(module: nn.Module) -> bool:
    """Return whether a module is a normalisation layer of torch's, a subclass of one, or ours."""
    kinds = (
        nn.modules.batchnorm._NormBase,
        nn.GroupNorm,
        nn.LayerNorm,
        FilterResponseNorm,
        ThresholdedFilterResponseNorm,
        EvoNorm,
    )
    return isinstance(module, kinds)
