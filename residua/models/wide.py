"""Wide residual networks: fewer blocks, each of k times as many channels.

    32 pixels    conv3x3 (16), three stages of n pre-activation basic blocks at 16 k, 32 k, 64 k channels,
                 norm, relu, average, fc; WRN-d-k has d = 6n + 4 layers, the three projections among them
    224 pixels   ResNet-50 or -101 with twice as many channels in the 3x3 convolutions alone

Zagoruyko, Komodakis 2016, Wide Residual Networks, table 1. The first block of each stage changes its shape,
the first stage's too (16 -> 16 k, k > 1, without a stride), and so norm and ReLU come before the fork there.
`dropout=0.3` puts the paper's dropout (section 2.4; 0.3 on CIFAR) between the convolutions of every block,
after norm and ReLU. The 224-pixel ones are of the authors' "bottleneck width" variant, as in torchvision.
"""

from residua.models.depths import CIFAR_WIDTHS, imagenet_stages, register_residual
from residua.nn.blocks import BasicBlock

PAPER = "Zagoruyko, Komodakis 2016, Wide Residual Networks"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
IMAGENET = {
    50: (68_883_240, 11_398_021_120),
    101: (126_886_696, 22_753_050_624),
}

# (depth, k): (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    (16, 4): (2_748_890, 392_612_352),
    (16, 8): (10_961_370, 1_548_145_664),
    (22, 8): (17_158_106, 2_454_115_328),
    (28, 10): (36_479_194, 5_243_328_768),
    (28, 12): (52_517_850, 7_543_905_792),
    (40, 1): (563_930, 83_280_512),
    (40, 2): (2_243_546, 327_599_360),
    (40, 4): (8_949_210, 1_298_582_016),
    (40, 8): (35_748_314, 5_172_024_320),
}

for _depth, _both in IMAGENET.items():
    register_residual(
        f"wide_resnet{_depth}_2",
        imagenet_stages(_depth),
        _both,
        family="wide",
        paper=PAPER,
        base_width=128,
    )

for (_depth, _k), _both in CIFAR.items():
    register_residual(
        f"wrn{_depth}_{_k}_cifar",
        {
            "block": BasicBlock,
            "depths": ((_depth - 4) // 6,) * 3,
            "widths": tuple(_k * width for width in CIFAR_WIDTHS),
            "stem": "3x3",
            "stem_width": CIFAR_WIDTHS[0],
        },
        _both,
        family="wide",
        paper=PAPER,
        defaults={"order": "preactivation"},
    )
