"""U-Nets whose encoder is a network of one of our classification families.

    e_0, e_1, ..., e_n = the encoder's maps, finest first
    y = e_n;  y = f_k([e_k, enlarge(y)]), k = n - 1, ..., 0;  scores = head(f(enlarge(y)))

The recursion of Ronneberger, Fischer, Brox 2015, figure 1, written out, because the encoder stays one module
under the name `encoder`, with the weights that `create_model(NAME, features_only=True)` has. e_0 is the map
before the stem's pooling, where it pools. enlarge: each pixel twice, to exactly the size of e_k (a ResNet's
maps halve upward, a DenseNet's downward); by nearest neighbour where a family does not halve. Decoder widths
are 16, 32, ... from the finest, as in segmentation_models.pytorch.

Shapes: (N, C, H, W) -> (N, classes, H, W), any H, W that the encoder takes. Training differs as the
encoder's parts and the norm.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from residua.models.levels import check_picture
from residua.models.network import Network
from residua.models.registry import create_model, record, register
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.merges.decode import Decode
from residua.nn.norms import Norm, make_norm
from residua.nn.recompute import Lean
from residua.nn.updown import fit

PAPER = "Ronneberger, Fischer, Brox 2015, U-Net"
FINEST = 16  # channels of the decoder at the picture's size
POOLING = ("pad", "pool")  # what parts of a stem that halve again are called
PROBE = 64  # pixels a side of the picture that shows which maps there are


def enlarge(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return a map (N, C, H, W) of this size, each pixel twice where it is half as large.

    >>> enlarge(torch.tensor([[[[1.0, 2.0]]]]), [1, 3]).tolist()
    [[[[1.0, 1.0, 2.0]]]]
    """
    factors = []
    for have, want in zip(x.shape[2:], size, strict=True):
        if abs(2 * have - want) > 1 and have != want:
            return functional.interpolate(x, tuple(size), mode="nearest")
        factors.append(1.0 if have == want else 2.0)
    if max(factors) > 1.0:
        x = functional.interpolate(x, scale_factor=tuple(factors), mode="nearest")
    return fit(x, size)


class EncoderUNet(nn.Module):
    """The encoder, the decoder's steps, coarsest first, and the head: (N, C, H, W) -> (N, classes, H, W)."""

    last_layers: ClassVar[tuple[str, ...]] = ("head.conv.*",)

    def __init__(
        self, encoder: Network, steps: Sequence[nn.Module], last: nn.Module, head: nn.Module
    ):
        super().__init__()
        self.encoder = encoder
        self.decoder = nn.ModuleList(steps)
        self.last = last
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Score every pixel."""
        check_picture(x, 2)
        *skips, y = maps(self.encoder, x)
        for step, skip in zip(self.decoder, reversed(skips), strict=True):
            y = step(skip, enlarge(y, skip.shape[2:]))
        scores: torch.Tensor = self.head(self.last(enlarge(y, x.shape[2:])))
        return scores


def maps(encoder: Network, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the encoder's maps, finest first: before the stem's pooling if it pools, and of each stage."""
    found: list[torch.Tensor] = []
    for name, part in encoder.stem.named_children():
        if name in POOLING and not found:
            found.append(x)
        x = part(x)
    for stage in encoder.stages:
        x = stage(x)
        found.append(x)
    return [*found[:-1], encoder.tail(x)]


def _block(channels: int, width: int, norm: Norm) -> nn.Sequential:
    """Return two of conv, norm, relu: (N, channels, H, W) -> (N, width, H, W)."""
    parts = OrderedDict[str, nn.Module]()
    for k, cin in enumerate((channels, width), start=1):
        parts[f"conv{k}"] = norm.conv(cin, width, 3)
        if norm.layer is not None:
            parts[f"norm{k}"] = norm.layer(width)
        parts[f"act{k}"] = norm.act()
    return Lean(parts)


def encoder_unet(
    *,
    encoder: str,
    num_classes: int,
    in_channels: int,
    norm: str | None = None,
    recompute: bool = False,
    init: str = "he",
    fan: Fan = "fan_in",
) -> EncoderUNet:
    """Build a U-Net over an encoder.

    Args:
        encoder: the name of a classification model. norm: one of `residua.nn.NORMS`, everywhere; None:
            the encoder's own, and batch norm in the decoder.
        recompute: keep no activations inside of the decoder's steps.
        init, fan: of the decoder, see `residua.nn.initialise`.
    """
    known = record(encoder)
    options: dict[str, Any] = {"in_channels": in_channels, "features_only": True}
    if known.task != "classification" or "features_only" not in known.options():
        raise ValueError(f"encoder {encoder!r} is no classification model that gives its maps")
    if norm is not None:
        options["norm"] = norm
    with torch.device("meta"):
        probe = create_model(encoder, **options).eval()
        side = max(PROBE, known.smallest)
        if not isinstance(probe, Network):
            raise ValueError(f"encoder {encoder!r} has no stem and stages to take maps from")
        *skips, y = (m.shape for m in maps(probe, torch.empty(1, in_channels, side, side)))
    body = create_model(encoder, **options)
    assert isinstance(body, Network)
    how = make_norm(norm or "batch")
    steps, channels = [], y[1]
    for k, skip in reversed(list(enumerate(skips, start=1))):
        steps.append(Decode(_block(skip[1] + channels, FINEST * 2**k, how), again=recompute))
        channels = FINEST * 2**k
    last = _block(channels, FINEST, how)
    head = nn.Sequential(OrderedDict(conv=how.conv(FINEST, num_classes, 1, bias=True)))
    network = EncoderUNet(body, steps, last, head)
    for part in (network.decoder, last, head):
        initialise(part, init, fan)
    return network


# name: (encoder, parameters, multiply-adds)
NETWORKS = {
    "resnet34_unet": ("resnet34", 24_436_258, 7_806_648_320),
    "resnet50_unet": ("resnet50", 32_520_994, 10_625_220_608),
    "densenet121_unet": ("densenet121", 13_607_522, 8_383_365_120),
}


def _register(name: str, counts: tuple[int, int], **how: Any) -> None:
    register(
        name,
        encoder_unet,
        family="encoder_unet",
        paper=PAPER,
        parameters=counts[0],
        multiply_adds=counts[1],
        input_size=256,
        num_classes=2,
        task="segmentation",
        **how,
    )


for name, (encoder, *counts) in NETWORKS.items():
    _register(name, (counts[0], counts[1]), preset={"encoder": encoder})
_register("encoder_unet", (14_328_098, 5_390_729_216), preset={}, defaults={"encoder": "resnet18"})
