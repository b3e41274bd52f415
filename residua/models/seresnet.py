"""SE networks: every branch ends in squeeze and excitation, a gain for each of its channels.

    y = relu(s(x) + g(f(x)) f(x)),    g: see `residua.nn.attention`

Hu, Shen, Sun 2018, Squeeze-and-Excitation Networks, figure 3 and table 1; depths, cardinalities and names
are those of timm, whose inner layer is a multiple of 8 wide: that matters at 64 channels only. A d or t after
the depth is the stem and the shortcuts of `models.resnet_cd`.
"""

from residua.models.depths import imagenet_stages, register_residual

PAPER = "Hu, Shen, Sun 2018, Squeeze-and-Excitation Networks"

# (depth, variant): (parameters, multiply-adds) at 1000 classes and 224 pixels
RESNET = {
    (18, ""): (11_779_624, 1_814_161_408),
    (34, ""): (21_960_416, 3_663_920_128),
    (50, ""): (28_088_024, 4_091_699_200),
    (101, ""): (49_326_872, 7_806_148_608),
    (152, ""): (66_821_848, 11_520_204_800),
    (50, "t"): (28_104_720, 4_299_728_896),
    (152, "d"): (66_841_080, 11_759_845_376),
    (200, "d"): (71_855_096, 15_254_224_896),
    (269, "d"): (113_672_760, 20_281_032_704),
}

# (depth, variant, cardinality, width): the same of SE-ResNeXt
RESNEXT = {
    (50, "", 32, 4): (27_559_896, 4_232_994_816),
    (101, "", 32, 4): (48_955_416, 7_974_739_968),
    (101, "", 32, 8): (93_569_048, 16_418_758_656),
    (101, "", 64, 4): (88_232_984, 15_465_013_248),
    (26, "d", 32, 4): (16_809_512, 2_711_740_416),
    (26, "t", 32, 4): (16_806_976, 2_680_129_536),
    (101, "d", 32, 8): (93_588_280, 16_658_399_232),
}

for (_depth, _variant), _both in RESNET.items():
    register_residual(
        f"seresnet{_depth}{_variant}",
        imagenet_stages(_depth, _variant),
        _both,
        family="seresnet",
        paper=PAPER,
        attention="se",
    )

for (_depth, _variant, _cardinality, _width), _both in RESNEXT.items():
    register_residual(
        f"seresnext{_depth}{_variant}_{_cardinality}x{_width}d",
        imagenet_stages(_depth, _variant),
        _both,
        family="seresnet",
        paper=PAPER,
        attention="se",
        groups=_cardinality,
        base_width=_width,
    )
