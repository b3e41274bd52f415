"""timm's ResNets with SiLU in the place of ReLU, and stems that stride twice.

    y = silu(s(x) + f(x)),    silu(z) = z sigmoid(z)

    ts    stem of 24, 32, 64 channels; 26: of ResNeXt's groups of 32 channels, with the pooling;
          32 and 33: 2, 3, 3, 2 blocks, the stem's last convolution for the pooling; se: squeeze and
          excitation inside of each branch, before its last convolution
    33    a 1x1 convolution to 1280 channels before the mean
    51q   stem of four, 16 to 128 channels; 2, 4, 6, 4 blocks in groups of 32 channels, depthwise in the last
          stage; a 1x1 convolution to 2048 before the mean
    61q   1, 4, 6, 4 blocks: a 3x3 and a 1x1 convolution in the first, two 3x3 in each of the others

The last two stages of 32, 33, 51q and 61q are 1536 channels wide. Wightman 2021, PyTorch Image Models,
byobnet.py: there is no paper.
"""

from typing import Any

from residua.models.depths import register_residual
from residua.nn.blocks import BottleneckBlock, DepthwiseBlock, EdgeBlock

PAPER = "Wightman 2021, PyTorch Image Models (no paper)"

NARROW = (64, 128, 256, 512)  # before expansion
WIDE = (64, 128, 384, 384)
TIERED = {
    "stem": "tiered_strided",
    "block": BottleneckBlock,
    "depths": (2, 3, 3, 2),
    "widths": WIDE,
}
NEXT = {
    "stem": "tiered",
    "block": BottleneckBlock,
    "depths": (2, 2, 2, 2),
    "widths": NARROW,
    "group_size": 32,
}
INSIDE = {"attention": "se", "attention_at": "inside"}
FEATURES = {"classifier": "wide(1280)"}

# name: pixels, what makes it, parameters and multiply-adds at 1000 classes
NETWORKS: dict[str, tuple[int, dict[str, Any], tuple[int, int]]] = {
    "resnext26ts": (256, NEXT, (10_297_952, 2_405_515_264)),
    "seresnext26ts": (256, NEXT | INSIDE, (10_388_064, 2_405_603_328)),
    "resnet32ts": (256, TIERED, (17_963_616, 4_607_012_864)),
    "resnet33ts": (256, TIERED | FEATURES, (19_676_256, 4_732_585_984)),
    "seresnet33ts": (256, TIERED | FEATURES | INSIDE, (19_779_200, 4_732_686_336)),
    "resnet51q": (
        224,
        {
            "stem": "quad2",
            "stem_width": 128,
            "block": (*[BottleneckBlock] * 3, DepthwiseBlock),
            "depths": (2, 4, 6, 4),
            "widths": WIDE,
            "group_size": 32,
            "classifier": "wide(2048)",
        },
        (35_696_920, 4_860_790_784),
    ),
    "resnet61q": (
        256,
        {
            "stem": "quad",
            "stem_width": 128,
            "block": (EdgeBlock, *[BottleneckBlock] * 2, DepthwiseBlock),
            "depths": (1, 4, 6, 4),
            "widths": WIDE,
            "group_size": 32,
            "spatial": 2,
            "classifier": "wide(2048)",
        },
        (36_846_968, 7_763_083_264),
    ),
}

for _name, (_pixels, _made, _both) in NETWORKS.items():
    register_residual(
        _name,
        _made,
        _both,
        family="resnet_silu",
        paper=PAPER,
        input_size=_pixels,
        activation="silu",
    )
