"""The units of other libraries' networks, where their packages can be imported, are those of the papers."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch

from residua.xray.anatomy import anatomy

# name: units, as the papers' tables of blocks have them (two a block of a transformer), and the input's side
TORCHVISION = {
    "resnet18": (8, 64),
    "resnet50": (3 + 4 + 6 + 3, 64),
    "resnext50_32x4d": (3 + 4 + 6 + 3, 64),
    "wide_resnet50_2": (3 + 4 + 6 + 3, 64),
    "densenet121": (6 + 12 + 24 + 16, 64),
    "mobilenet_v2": (1 + 2 + 3 + 2 + 2, 64),
    "efficientnet_b0": (1 + 1 + 2 + 2 + 3, 64),
    "convnext_tiny": (3 + 3 + 9 + 3, 64),
    "vit_b_16": (2 * 12, 224),
    "swin_t": (2 * (2 + 2 + 6 + 2), 224),
    "vgg11_bn": (0, 64),
    "squeezenet1_0": (0, 64),
}
TIMM = {
    "resnet50": (16, 64),
    "resnet50d": (16, 64),
    "resnetv2_50": (16, 64),
    "seresnet50": (16, 64),
    "nf_resnet50": (16, 64),
    "densenet121": (58, 64),
    "efficientnet_b0": (9, 64),
    "convnext_atto": (2 + 2 + 6 + 2, 64),
    "vit_tiny_patch16_224": (2 * 12, 224),
    "deit3_small_patch16_224": (2 * 12, 224),
    "swin_tiny_patch4_window7_224": (2 * (2 + 2 + 6 + 2), 224),
    "mixer_s32_224": (2 * 8, 224),
    "beit_base_patch16_224": (2 * 12, 224),
}


def imported(name: str) -> ModuleType:
    """Import a library whose compiled operators may be missing: none of them is called here."""
    try:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                library.define(f"{operator}(Tensor dets, Tensor scores, float limit) -> Tensor")
        imported.kept = library  # type: ignore[attr-defined]
        return importlib.import_module(name)
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"{name} cannot be imported: {error}")


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name: str) -> None:
    models = imported("torchvision.models")
    units, side = TORCHVISION[name]
    assert len(anatomy(getattr(models, name)(), torch.randn(2, 3, side, side)).trunk) == units


@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = imported("timm")
    units, side = TIMM[name]
    assert len(anatomy(timm.create_model(name), torch.randn(2, 3, side, side)).trunk) == units
