"""How many blocks a stage has at each depth, and which block.

224 pixels   He et al. 2015, table 1; 200 from He et al. 2016b; 270 to 420 from Bello et al. 2021;
             10, 14, 26, 201 and 269 as timm counts them
32 pixels    three stages of n blocks: depth 6n + 2 (basic) or 9n + 2 (bottleneck); 2002: 1000 blocks
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from residua.models.registry import register
from residua.models.residual import residual_network
from residua.nn.blocks import BasicBlock, BottleneckBlock

IMAGENET_BLOCKS: dict[int, tuple[int, int, int, int]] = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
    201: (3, 24, 36, 4),
    269: (3, 30, 48, 8),
    270: (4, 29, 53, 4),
    350: (4, 36, 72, 4),
    420: (4, 44, 87, 4),
}
IMAGENET_BASIC = (10, 18, 34)  # of basic blocks; the others are of bottlenecks
IMAGENET_WIDTHS = (64, 128, 256, 512)
CIFAR_WIDTHS = (16, 32, 64)
CIFAR_BOTTLENECKS = (164, 1001)  # He et al. 2016b, table 4
UNEVEN = {2002: (333, 334, 333)}  # 1000 blocks, which three does not divide

# He, T. et al. 2019, section 4 (c, d); GluonCV (s: a stem twice as wide); timm (t: a stem in three widths)
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "c": {"stem": "deep", "shortcut": "B"},
    "d": {"stem": "deep", "shortcut": "D"},
    "s": {"stem": "deep", "shortcut": "B", "stem_width": 128},
    "t": {"stem": "tiered", "shortcut": "D"},
}


def imagenet_stages(depth: int, variant: str = "") -> dict[str, Any]:
    """Return block, depths and widths of the 224-pixel network of that depth, and what its variant adds.

    variant: the letter after the depth in a name, one of `VARIANTS`.
    """
    return {
        "block": BasicBlock if depth in IMAGENET_BASIC else BottleneckBlock,
        "depths": IMAGENET_BLOCKS[depth],
        "widths": IMAGENET_WIDTHS,
        "stem": "7x7",
    } | VARIANTS[variant]


def cifar_stages(depth: int) -> dict[str, Any]:
    """Return block, depths and widths of the 32-pixel network of that depth.

    >>> cifar_stages(20)["depths"], cifar_stages(164)["depths"]
    ((3, 3, 3), (18, 18, 18))
    """
    bottleneck = depth in CIFAR_BOTTLENECKS
    even = ((depth - 2) // (9 if bottleneck else 6),) * 3
    return {
        "block": BottleneckBlock if bottleneck else BasicBlock,
        "depths": UNEVEN.get(depth, even),
        "widths": CIFAR_WIDTHS,
        "stem": "3x3",
    }


def cifar_shortcut(depth: int) -> str:
    """Return the paper's shortcut: A (zero-padding) for basic blocks, B for bottlenecks."""
    return "B" if depth in CIFAR_BOTTLENECKS else "A"


Counts = Mapping[int, tuple[int, int]]  # depth: (parameters, multiply-adds)


def register_residual(
    name: str,
    stages: Mapping[str, Any],
    counts: tuple[int, int],
    *,
    family: str,
    paper: str,
    input_size: int | None = None,
    num_classes: int | None = None,
    defaults: Mapping[str, Any] | None = None,
    **preset: Any,
) -> None:
    """Register a network of `residual_network`: its stages, what else makes it, its counts.

    A stem "3x3" is that of networks for 32 pixels and 10 classes, any other for 224 and 1000, where
    input_size and num_classes do not say otherwise.
    """
    preset = {"plain": False, **stages, **preset}
    small = preset["stem"] == "3x3"
    register(
        name,
        residual_network,
        family=family,
        paper=paper,
        parameters=counts[0],
        multiply_adds=counts[1],
        input_size=input_size or (32 if small else 224),
        num_classes=num_classes or (10 if small else 1000),
        preset=preset,
        defaults=defaults,
    )


def register_depths(
    large: str,
    small: str,
    paper: str,
    imagenet: Counts,
    cifar: Counts,
    *,
    family: str,
    order: str = "original",
    plain: bool = False,
) -> None:
    """Register a family at all its depths; `large` and `small` are names with {} for the depth."""
    defaults = {} if order == "original" else {"order": order}
    known: dict[str, Any] = {"family": family, "paper": paper, "plain": plain}
    for depth, counts in imagenet.items():
        register_residual(
            large.format(depth), imagenet_stages(depth), counts, defaults=defaults, **known
        )
    for depth, counts in cifar.items():
        shortcut = {} if plain else {"shortcut": cifar_shortcut(depth)}
        register_residual(
            small.format(depth), cifar_stages(depth), counts, defaults=defaults | shortcut, **known
        )
