"""Other libraries' layouts, a file a family: which one a checkpoint is in, which one a model has."""

from __future__ import annotations

from collections.abc import Iterable

from residua.models.layouts.byob import CLIP, CLIP_GAP, RESNET51Q, RESNET61Q, SILU
from residua.models.layouts.densenet import DENSENET, DENSENET_D
from residua.models.layouts.layout import Layout, Row
from residua.models.layouts.numbered import ALEXNET, VGG
from residua.models.layouts.resnet import (
    RESNET,
    RESNET_C,
    RESNET_D,
    RESNET_RS,
    SE_RESNET,
    TIMM,
    TORCHVISION,
)
from residua.models.layouts.resnetv2 import RESNETV2, RESNETV2_D

__all__ = [
    "LAYOUTS",
    "OURS",
    "RESNETV2",
    "TIMM",
    "TORCHVISION",
    "Layout",
    "Row",
    "layout_for",
    "layout_of",
]

OURS = Layout(
    models={"residua": ()},
    # a U-Net's first level, and a U-Net++'s, where the others have a stem
    mark=r"^(.*\.)?stem\.conv\.|^level\.encode\.|^encode\.0\.",
    rows=(),
)

# The first that recognises a file reads it.
LAYOUTS = (
    RESNETV2_D,
    RESNETV2,
    RESNET_RS,
    RESNET_D,
    RESNET_C,
    SE_RESNET,
    RESNET,
    CLIP,
    CLIP_GAP,
    RESNET61Q,
    RESNET51Q,
    SILU,
    DENSENET_D,
    DENSENET,
    ALEXNET,
    VGG,
    OURS,
)


def layout_of(names: Iterable[str]) -> Layout | None:
    """Return which layout a state dict's names are of, None if of none that is known.

    >>> layout_of(["conv1.weight", "layer1.0.conv1.weight"]).name
    'torchvision'
    """
    names = list(names)
    return next((layout for layout in LAYOUTS if layout.is_of(names)), None)


def layout_for(model: str, peer: str) -> Layout | None:
    """Return the layout in which that library holds the registered model, None if it does not.

    >>> layout_for("densenet121", "timm").name, layout_for("vgg16", "timm")
    ('torchvision', None)
    """
    return next((one for one in LAYOUTS if one.holds(model, peer)), None)
