"""ResNet v2: y = shortcut(x) + branch(relu(norm(x))), the activation before the weights.

He, Zhang, Ren, Sun 2016, Identity Mappings in Deep Residual Networks, fig. 4e. A block that changes
shape activates before the fork, so its projection sees the activated input. No norm in the stem; one
norm and ReLU after the last block.

resnetv2_50d and its like have the deep stem of ResNet-D and its pooled shortcuts, 50t the stem in three
widths: see `models.resnet_cd`. resnetv2_50d_gn has group norm of 32 groups, resnetv2_50d_evos EvoNorm-S0 and
resnetv2_50d_frn filter response norm, both in the place of norm and ReLU. They are timm's.
"""

from residua.models.depths import imagenet_stages, register_depths, register_residual

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

# (depth, variant): the same
VARIANTS = {
    (18, "d"): (11_706_952, 2_053_713_920),
    (34, "d"): (21_815_112, 3_903_401_984),
    (50, "d"): (25_568_584, 4_328_824_832),
    (101, "d"): (44_560_712, 8_041_046_016),
    (152, "d"): (60_204_360, 11_753_267_200),
    (50, "t"): (25_566_048, 4_297_213_952),
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

for (_depth, _variant), _both in VARIANTS.items():
    register_residual(
        f"resnetv2_{_depth}{_variant}",
        imagenet_stages(_depth, _variant),
        _both,
        family="resnetv2",
        paper=PAPER,
        defaults={"order": "preactivation"},
    )

# name: norm, parameters
NORMS = {
    "gn": ("group(32)", VARIANTS[50, "d"][0]),
    "evos": ("evonorm", 25_591_368),
    "frn": ("filter_response_tlu", 25_591_368),
}

for _name, (_norm, _parameters) in NORMS.items():
    register_residual(
        f"resnetv2_50d_{_name}",
        imagenet_stages(50, "d"),
        (_parameters, VARIANTS[50, "d"][1]),
        family="resnetv2",
        paper=PAPER,
        defaults={"order": "preactivation", "norm": _norm},
    )
