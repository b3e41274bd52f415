"""ResNet-C and -D: He's network with a deep stem, and shortcuts that read every pixel; S and T after them.

    C   conv3x3/2 (32), conv3x3 (32), conv3x3 (64), each with norm and ReLU, in place of the 7x7
    D   the same, and where a block halves its map the shortcut is norm(W pool2x2(x))
    S   C with a stem of 64, 64, 128 channels
    T   D with a stem of 24, 32, 64 channels

He, T., Zhang, Zhang, Zhang, Xie, Li 2019, Bag of Tricks for Image Classification with Convolutional Neural
Networks, section 4 and figure 2; their D builds on B, whose stride sits on the 3x3. S is GluonCV's, T timm's,
and the depths are those of timm. C and D have the same count: a pooling has no parameters, and W is as large.
"""

from residua.models.depths import imagenet_stages, register_residual

PAPER = "He, T. et al. 2019, Bag of Tricks for Image Classification with CNNs"

# (depth, variant): (parameters, multiply-adds) at 1000 classes and 224 pixels
COUNTS = {
    (50, "c"): (25_576_264, 4_328_824_832),
    (101, "c"): (44_568_392, 8_041_046_016),
    (152, "c"): (60_212_040, 11_753_267_200),
    (18, "d"): (11_708_744, 2_053_713_920),
    (26, "d"): (16_014_408, 2_581_897_216),
    (34, "d"): (21_816_904, 3_903_401_984),
    (50, "d"): (25_576_264, 4_328_824_832),
    (101, "d"): (44_568_392, 8_041_046_016),
    (152, "d"): (60_212_040, 11_753_267_200),
    (200, "d"): (64_693_064, 15_247_122_432),
    (50, "s"): (25_680_808, 5_444_337_664),
    (101, "s"): (44_672_936, 9_156_558_848),
    (152, "s"): (60_316_584, 12_868_780_032),
    (10, "t"): (5_435_488, 1_097_259_008),
    (14, "t"): (10_081_632, 1_676_822_528),
    (26, "t"): (16_011_872, 2_550_286_336),
    (50, "t"): (25_573_728, 4_297_213_952),
}

for (_depth, _variant), _both in COUNTS.items():
    register_residual(
        f"resnet{_depth}{_variant}",
        imagenet_stages(_depth, _variant),
        _both,
        family="resnet_cd",
        paper=PAPER,
    )
