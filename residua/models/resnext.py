"""ResNeXt: a block's branch is a sum of C paths of one shape, computed as one grouped convolution.

    y = relu(s(x) + sum_i t_i(x))      t_i: conv1x1 to d channels, conv3x3, conv1x1; i = 1 .. C

Xie, Girshick, Dollar, Tu, He 2017, Aggregated Residual Transformations, equation 3 and figure 3, whose
three forms are in `residua.nn.aggregated`. "CxDd" in a name is cardinality C at d = D in the first stage; d
doubles with every stage. At 224 pixels 32x4d is table 1; 2x40d, 4x24d and 8x14d have like cost (tables 2
and 3), 2x64d and 64x4d twice that (table 4), 32x8d is torchvision's, 32x16d and 32x32d are of Mahajan et al.
2018, Exploring the Limits of Weakly Supervised Pretraining. 50d has stem and shortcuts of `models.resnet_cd`.

At 32 pixels (section 5.3): conv3x3 of 64 channels, three stages of 3 blocks with d = 64, 128, 256 and outputs
of 256, 512, 1024 channels, average, fc. Depth 29 counts the three layers of each block, the stem and fc.
"""

from residua.models.depths import imagenet_stages, register_residual
from residua.nn.blocks import BottleneckBlock

PAPER = "Xie et al. 2017, Aggregated Residual Transformations for Deep Neural Networks"

# (depth, cardinality, width): (parameters, multiply-adds) at 1000 classes and 224 pixels
IMAGENET = {
    (50, 2, 40): (25_425_000, 4_124_508_160),
    (50, 4, 24): (25_292_968, 4_159_832_064),
    (50, 8, 14): (25_603_016, 4_267_409_408),
    (50, 32, 4): (25_028_904, 4_230_479_872),
    (101, 2, 40): (44_456_296, 7_843_553_280),
    (101, 4, 24): (44_363_432, 7_885_701_120),
    (101, 8, 14): (45_104_328, 8_076_871_680),
    (101, 32, 4): (44_177_704, 7_969_996_800),
    (101, 32, 8): (88_791_336, 16_414_015_488),
    (101, 2, 64): (84_198_184, 15_123_087_360),
    (101, 64, 4): (83_455_272, 15_460_270_080),
    (101, 32, 16): (194_026_792, 36_163_289_088),
    (101, 32, 32): (468_530_472, 87_106_781_184),
}

# cardinality: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    8: (34_426_698, 5_387_266_048),
    16: (68_155_210, 10_688_866_304),
}

for (_depth, _cardinality, _width), _both in IMAGENET.items():
    register_residual(
        f"resnext{_depth}_{_cardinality}x{_width}d",
        imagenet_stages(_depth),
        _both,
        family="resnext",
        paper=PAPER,
        groups=_cardinality,
        base_width=_width,
    )

register_residual(
    "resnext50d_32x4d",
    imagenet_stages(50, "d"),
    (25_048_136, 4_470_120_448),
    family="resnext",
    paper=PAPER,
    groups=32,
    base_width=4,
)

for _cardinality, _both in CIFAR.items():
    register_residual(
        f"resnext29_{_cardinality}x64d_cifar",
        {
            "block": BottleneckBlock,
            "depths": (3, 3, 3),
            "widths": (64, 128, 256),
            "stem": "3x3",
        },
        _both,
        family="resnext",
        paper=PAPER,
        groups=_cardinality,
        base_width=64,
    )
