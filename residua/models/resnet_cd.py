"""ResNet-C and ResNet-D: He's network with a deep stem, and shortcuts that read every pixel.

    C   conv3x3/2 (32), conv3x3 (32), conv3x3 (64), each with norm and ReLU, in place of the 7x7
    D   the same, and where a block halves its map the shortcut is norm(W pool2x2(x))

He, T., Zhang, Zhang, Zhang, Xie, Li 2019, Bag of Tricks for Image Classification with Convolutional Neural
Networks, section 4 and figure 2; their D builds on B, whose stride sits on the 3x3. The depths are those
of timm. C and D have the same count: a pooling has no parameters, and W is as large.
"""

from residua.models.depths import imagenet_stages, register_residual

PAPER = "He, T. et al. 2019, Bag of Tricks for Image Classification with CNNs"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
C = {
    50: (25_576_264, 4_328_824_832),
    101: (44_568_392, 8_041_046_016),
    152: (60_212_040, 11_753_267_200),
}
D = {
    18: (11_708_744, 2_053_713_920),
    34: (21_816_904, 3_903_401_984),
    50: (25_576_264, 4_328_824_832),
    101: (44_568_392, 8_041_046_016),
    152: (60_212_040, 11_753_267_200),
    200: (64_693_064, 15_247_122_432),
}

for _kind, _counts, _shortcut in (("c", C, "B"), ("d", D, "D")):
    for _depth, _both in _counts.items():
        register_residual(
            f"resnet{_depth}{_kind}",
            imagenet_stages(_depth) | {"stem": "deep"},
            _both,
            family="resnet_cd",
            paper=PAPER,
            shortcut=_shortcut,
        )
