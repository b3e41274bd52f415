"""ResNet v2: y = shortcut(x) + branch(relu(norm(x))), the activation before the weights.

He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks, fig. 4e. A block that changes
shape activates before the fork, so its projection sees the activated input. No norm in the stem; one
norm and ReLU after the last block.
"""

from residua.models.depths import register_depths

PAPER = "He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
IMAGENET = {
    18: (11_687_720, 1_814_073_344),
    34: (21_795_880, 3_663_761_408),
    50: (25_549_352, 4_089_184_256),
    101: (44_541_480, 7_801_405_440),
    152: (60_185_128, 11_513_626_624),
    200: (64_666_152, 15_007_481_856),
}

# depth: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    20: (269_722, 40_551_040),
    32: (464_154, 68_862_592),
    44: (658_586, 97_174_144),
    56: (853_018, 125_485_696),
    110: (1_727_962, 252_887_680),
    164: (1_703_258, 247_646_720),
    1001: (10_327_706, 1_490_995_712),
    1202: (19_421_274, 2_829_238_912),
}

register_depths(
    "resnetv2_{}",
    "preact_resnet{}_cifar",
    PAPER,
    IMAGENET,
    CIFAR,
    family="resnetv2",
    order="preactivation",
)
