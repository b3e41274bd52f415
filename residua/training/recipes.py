"""The recipes by name, each a function that says where its numbers come from.

quick            the best accuracy that a wall-clock budget allows
he2015-cifar     He et al. 2015, section 4.2
wrn-cifar        Zagoruyko, Komodakis 2016, section 3
he2015-imagenet  He et al. 2015, section 3.4
rsb-a1, a2, a3   Wightman, Touvron, Jegou 2021, table 2
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from residua.errors import BadInput, nearest
from residua.training.recipe import Recipe, build, read_yaml


def quick() -> dict[str, Any]:
    """Best accuracy in a budget: one cycle whose length follows the clock, few distractions.

    One-cycle learning rate (Smith 2018), smoothed labels, an average of the weights, and answers
    averaged over a picture and its mirror image where training mirrored too.
    """
    return {
        "budget": "10m",
        "max_epochs": 60,
        "batch_size": "auto",
        "optimiser": {"lr": 0.4, "weight_decay": 5e-4},
        "schedule": {"name": "one_cycle", "peak": 0.2},
        "augmentation": {"crop_padding": 2, "padding_mode": "reflect"},
        "evaluation": {"flip": True},
        "label_smoothing": 0.1,
        "ema": 0.99,
        "precision": "auto",
    }


def he2015_cifar() -> dict[str, Any]:
    """64,000 steps of 128; lr 0.1, a tenth at 32,000 and 48,000; pad 4, crop, flip; decay on all."""
    return {
        "model": "resnet20_cifar",
        "steps": 64_000,
        "batch_size": 128,
        "optimiser": {
            "lr": 0.1,
            "weight_decay": 1e-4,
            "nesterov": False,
            "decay_norms_and_biases": True,
        },
        "schedule": {"name": "step", "milestones": (0.5, 0.75), "gamma": 0.1},
        "augmentation": {"crop_padding": 4},
    }


def wrn_cifar() -> dict[str, Any]:
    """200 epochs of 128; lr 0.1, a fifth at 60, 120, 160; Nesterov, decay 5e-4 on all."""
    return {
        "model": "wrn28_10_cifar",
        "epochs": 200,
        "batch_size": 128,
        "optimiser": {"lr": 0.1, "weight_decay": 5e-4, "decay_norms_and_biases": True},
        "schedule": {"name": "step", "milestones": (0.3, 0.6, 0.8), "gamma": 0.2},
        "augmentation": {"crop_padding": 4, "padding_mode": "reflect"},
    }


def he2015_imagenet() -> dict[str, Any]:
    """90 epochs of 256; lr 0.1, a tenth at 30 and 60; random crops of 224.

    The paper trains 600,000 steps (120 epochs) and divides on plateaus; 90 with fixed milestones is
    its public re-implementations' form (fb.resnet.torch), with scale and aspect augmentation.
    """
    return {
        "model": "resnet50",
        "epochs": 90,
        "size": 224,
        "batch_size": 256,
        "optimiser": {"lr": 0.1, "weight_decay": 1e-4, "decay_norms_and_biases": True},
        "schedule": {"name": "step", "milestones": (1 / 3, 2 / 3), "gamma": 0.1},
        "augmentation": {"random_resized_crop": (0.08, 1.0)},
        "precision": "auto",
    }


def _rsb(epochs: int, size: int, **values: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "model": "resnet50",
        "epochs": epochs,
        "size": size,
        "batch_size": 2048,
        "loss": "binary_cross_entropy",
        "target_threshold": 0.2,
        "schedule": {"name": "cosine", "warmup_epochs": 5, "warmup_start": 1e-4 / 5e-3},
        "evaluation": {"crop": 0.95, "size": 224},
        "precision": "auto",
    }
    return common | values


def rsb_a1() -> dict[str, Any]:
    """600 epochs at 224; 80.4 % on ImageNet with ResNet-50."""
    return _rsb(
        600,
        224,
        optimiser={"name": "lamb", "lr": 5e-3, "weight_decay": 0.01, "eps": 1e-6},
        augmentation={
            "random_resized_crop": (0.08, 1.0),
            "randaugment": (2, 7),
            "mixup": 0.2,
            "cutmix": 1.0,
            "repeats": 3,
        },
        label_smoothing=0.1,
        model_options={"stochastic_depth": 0.05},
    )


def rsb_a2() -> dict[str, Any]:
    """300 epochs at 224; 79.8 %."""
    return _rsb(
        300,
        224,
        optimiser={"name": "lamb", "lr": 5e-3, "weight_decay": 0.02, "eps": 1e-6},
        augmentation={
            "random_resized_crop": (0.08, 1.0),
            "randaugment": (2, 7),
            "mixup": 0.1,
            "cutmix": 1.0,
            "repeats": 3,
        },
        model_options={"stochastic_depth": 0.05},
    )


def rsb_a3() -> dict[str, Any]:
    """100 epochs at 160, evaluated at 224; 78.1 %."""
    return _rsb(
        100,
        160,
        optimiser={"name": "lamb", "lr": 8e-3, "weight_decay": 0.02, "eps": 1e-6},
        augmentation={
            "random_resized_crop": (0.08, 1.0),
            "randaugment": (2, 6),
            "mixup": 0.1,
            "cutmix": 1.0,
        },
    )


def _quick_maps(budget: str, lr: float, **values: Any) -> dict[str, Any]:
    common: dict[str, Any] = {
        "budget": budget,
        "optimiser": {"name": "adamw", "lr": lr, "weight_decay": 1e-2},
        "schedule": {"name": "one_cycle", "peak": 0.2},
        "evaluation": {"flip": True},
        "ema": 0.99,
        "precision": "auto",
        "clip_gradient": 5.0,
    }
    return common | values


def quick_segmentation() -> dict[str, Any]:
    """Masks in a budget: AdamW, one cycle, Dice and cross-entropy, patches bent and turned.

    The loss is that of Isensee et al. 2021 (nnU-Net), as are the patches around rarer classes.
    """
    return _quick_maps("10m", 2e-3, max_epochs=1000, batch_size=8, loss="dice+cross_entropy")


def quick_pose() -> dict[str, Any]:
    """Joints in a budget: AdamW, one cycle, people turned, scaled and mirrored."""
    return _quick_maps("30m", 1e-3, max_epochs=300, batch_size=16, loss="heatmaps")


QUICK: dict[str, Callable[[], dict[str, Any]]] = {
    "classification": quick,
    "segmentation": quick_segmentation,
    "pose": quick_pose,
}

RECIPES: dict[str, Callable[[], dict[str, Any]]] = {
    "quick": quick,
    "he2015-cifar": he2015_cifar,
    "wrn-cifar": wrn_cifar,
    "he2015-imagenet": he2015_imagenet,
    "rsb-a1": rsb_a1,
    "rsb-a2": rsb_a2,
    "rsb-a3": rsb_a3,
}


def load_recipe(name_or_path: str, task: str = "classification") -> Recipe:
    """Return a recipe by name, or from a YAML file whose optional `base` names the one it changes.

    Each task has its own "quick".
    """
    known = RECIPES | {"quick": QUICK[task]}
    if name_or_path in known:
        return build({"name": name_or_path, **known[name_or_path]()}, f"recipe {name_or_path}")
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        raise BadInput(
            f"unknown recipe {name_or_path!r}.{nearest(name_or_path, RECIPES)}"
            f" Recipes: {', '.join(RECIPES)}, or a .yaml file."
        )
    values = read_yaml(path)
    base = values.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or base not in RECIPES:
            raise BadInput(f"{path}: unknown base {base!r}.{nearest(str(base), RECIPES)}")
        values = _merged(known[base](), values)
    return build({"name": path.stem, **values}, str(path))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes` over it, section by section."""
    merged = dict(base)
    if any(key in changes for key in ("epochs", "steps", "budget")):
        for key in ("epochs", "steps", "budget"):
            merged.pop(key, None)
    for key, value in changes.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, dict)
        merged[key] = _merged(inner, value) if both else value  # type: ignore[arg-type]
    return merged
