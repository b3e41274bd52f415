"""Networks made of basic and bottleneck blocks, counted from their papers' tables.

A block's convolutions are listed as (in, out, kernel, groups, side of the output map); a norm has two
parameters a channel. Post-activation networks have a norm after every convolution, pre-activation ones
before each of a branch and one at the end. Sources: He, T. et al. 2019 (C, D); Hu et al. 2018; Xie et al.
2017, tables 1 to 4; Zagoruyko, Komodakis 2016, table 1; Kolesnikov et al. 2020; He et al. 2015 and 2016b.
"""

DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}


def stem(kind, width, side):
    if kind == "deep":
        half = width // 2
        sizes = [(3, half, 3), (half, half, 3), (half, width, 3)]
    else:
        sizes = [(3, width, 7 if kind == "7x7" else 3)]
    return [(cin, cout, kernel, 1, side) for cin, cout, kernel in sizes]


def count(
    depths,
    outer,
    inner=None,
    groups=1,
    kind="7x7",
    stem_width=64,
    pre=False,
    se=False,
    project=True,
):
    """Return (parameters, multiply-adds).

    outer: channels of each stage's output. inner: of its 3x3 convolution; None for basic blocks.
    se: with squeeze and excitation over 1/16 of the
    channels, to the nearest 8.
    """
    large = kind != "3x3"
    side, classes = (112, 1000) if large else (32, 10)
    stems = stem(kind, stem_width, side)
    parameters = adds = 0
    for cin, cout, kernel, _, out in stems:
        parameters += cin * cout * kernel**2
        adds += cin * cout * kernel**2 * out**2
    parameters += 0 if pre else 2 * sum(cout for _, cout, *_ in stems)
    channels, before = stem_width, 56 if large else 32
    for stage, blocks in enumerate(depths):
        out = (56 if large else 32) // 2**stage
        wide = outer[stage]
        for _ in range(blocks):
            if inner is None:
                branch = [(channels, wide, 3, 1, out), (wide, wide, 3, 1, out)]
            else:
                mid = inner[stage]
                branch = [
                    (channels, mid, 1, 1, before),  # the 3x3 strides
                    (mid, mid, 3, groups, out),
                    (mid, wide, 1, 1, out),
                ]
            projection = [(channels, wide, 1, 1, out)] if project and channels != wide else []
            for cin, cout, kernel, split, size in branch + projection:
                parameters += cin * cout * kernel**2 // split
                adds += cin * cout * kernel**2 // split * size**2
            if pre:
                parameters += 2 * sum(cin for cin, *_ in branch)
            else:
                parameters += 2 * sum(cout for _, cout, *_ in branch + projection)
            if se:
                squeezed = max(8, round(wide / 16 / 8) * 8)
                parameters += 2 * wide * squeezed + squeezed + wide
                adds += 2 * wide * squeezed
            channels, before = wide, out
    parameters += 2 * channels if pre else 0
    return parameters + channels * classes + classes, adds + channels * classes


def imagenet(depth, cardinality=1, width=64, **more):
    """A network of the 2015 depths; width is of the first stage's paths, doubled at each stage."""
    if depth < 50:
        return count(DEPTHS[depth], [64, 128, 256, 512], **more)
    inner = [cardinality * width * 2**s for s in range(4)]
    outer = [256, 512, 1024, 2048]
    return count(DEPTHS[depth], outer, inner, cardinality, **more)


def bit(depth, factor):
    outer = [factor * c for c in (256, 512, 1024, 2048)]
    inner = [c // 4 for c in outer]
    return count(DEPTHS[depth], outer, inner, stem_width=64 * factor, pre=True)


def wrn(depth, k):
    n = (depth - 4) // 6
    return count([n] * 3, [16 * k, 32 * k, 64 * k], kind="3x3", stem_width=16, pre=True)


def resnext29(cardinality, width):
    inner = [cardinality * width * 2**s for s in range(3)]
    return count([3] * 3, [256, 512, 1024], inner, cardinality, kind="3x3", stem_width=64)


COUNTS = {f"resnet{d}c": imagenet(d, kind="deep") for d in (50, 101, 152)}
COUNTS |= {f"resnet{d}d": imagenet(d, kind="deep") for d in DEPTHS}
COUNTS |= {f"seresnet{d}": imagenet(d, se=True) for d in (18, 34, 50, 101, 152)}
for name, depth, cardinality, width in [
    ("50_2x40d", 50, 2, 40),
    ("50_4x24d", 50, 4, 24),
    ("50_8x14d", 50, 8, 14),
    ("50_32x4d", 50, 32, 4),
    ("101_2x40d", 101, 2, 40),
    ("101_4x24d", 101, 4, 24),
    ("101_8x14d", 101, 8, 14),
    ("101_32x4d", 101, 32, 4),
    ("101_32x8d", 101, 32, 8),
    ("101_2x64d", 101, 2, 64),
    ("101_64x4d", 101, 64, 4),
]:
    COUNTS[f"resnext{name}"] = imagenet(depth, cardinality, width)
    if width in (4, 8):
        COUNTS[f"seresnext{name}"] = imagenet(depth, cardinality, width, se=True)
COUNTS |= {f"resnext29_{c}x64d_cifar": resnext29(c, 64) for c in (8, 16)}
COUNTS |= {f"wide_resnet{d}_2": imagenet(d, width=128) for d in (50, 101)}
COUNTS |= {
    f"wrn{d}_{k}_cifar": wrn(d, k)
    for d, k in [
        (16, 4),
        (16, 8),
        (22, 8),
        (28, 10),
        (28, 12),
        (40, 1),
        (40, 2),
        (40, 4),
        (40, 8),
    ]
}
COUNTS |= {
    f"resnetv2_{d}x{k}_bit": bit(d, k)
    for d, k in [(50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4)]
}
