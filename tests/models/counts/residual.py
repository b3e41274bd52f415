"""Networks made of basic and bottleneck blocks, counted from their papers' tables.

A block's convolutions are listed as (in, out, kernel, groups, side of the output map); a norm has two
parameters a channel. Post-activation networks have a norm after every convolution, pre-activation ones
before each of a branch and one at the end. Sources: He, T. et al. 2019 (C, D); Hu et al. 2018; Xie et al.
2017, tables 1 to 4; Zagoruyko, Komodakis 2016, table 1; Kolesnikov et al. 2020; He et al. 2015 and 2016b;
Zhang 2019 (antialiased); Bello et al. 2021 (RS); timm's definitions for other depths, s and t.
"""

DEPTHS = {
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


def stem(kind, width, side):
    if kind in ("deep", "tiered", "strided"):
        half = width // 2
        first = 3 * width // 8 if kind == "tiered" else half
        sizes = [(3, first, 3), (first, half, 3), (half, width, 3)]
    else:
        sizes = [(3, width, 7 if kind == "7x7" else 3)]
    convolutions = [(cin, cout, kernel, 1, side) for cin, cout, kernel in sizes]
    if kind == "strided":  # one more, in place of the pooling
        convolutions.append((width, width, 3, 1, side // 2))
    return convolutions


def count(
    depths,
    outer,
    inner=None,
    groups=1,
    kind="7x7",
    stem_width=64,
    pre=False,
    se=None,
    project=True,
    antialias=False,
):
    """Return (parameters, multiply-adds).

    outer: channels of each stage's output. inner: of its 3x3 convolution; None for basic blocks.
    se: with squeeze and excitation over that part of the channels, to the nearest 8. antialias: convolutions
    do not stride, the pooling after them does.
    """
    large = kind != "3x3"
    side, classes = (112, 1000) if large else (32, 10)
    stems = stem(kind, stem_width, side)
    parameters = adds = 0
    for cin, cout, kernel, _, out in stems:
        parameters += cin * cout * kernel**2
        adds += cin * cout * kernel**2 * out**2
    parameters += 2 * sum(cout for _, cout, *_ in (stems[:-1] if pre else stems))
    channels, before = stem_width, 56 if large else 32
    for stage, blocks in enumerate(depths):
        out = (56 if large else 32) // 2**stage
        wide = outer[stage]
        for _ in range(blocks):
            spatial = before if antialias else out  # of what the striding convolution makes
            if inner is None:
                branch = [(channels, wide, 3, 1, spatial), (wide, wide, 3, 1, out)]
            else:
                mid = inner[stage]
                branch = [
                    (channels, mid, 1, 1, before),  # the 3x3 strides
                    (mid, mid, 3, groups, spatial),
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
            if se is not None:
                squeezed = max(8, round(wide / se / 8) * 8)
                parameters += 2 * wide * squeezed + squeezed + wide
                adds += 2 * wide * squeezed
            channels, before = wide, out
    parameters += 2 * channels if pre else 0
    return parameters + channels * classes + classes, adds + channels * classes


def imagenet(depth, cardinality=1, width=64, **more):
    """A network of the 2015 depths; width is of the first stage's paths, doubled at each stage."""
    if depth in (10, 18, 34):
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
COUNTS |= {f"resnet{d}d": imagenet(d, kind="deep") for d in (18, 26, 34, 50, 101, 152, 200)}
COUNTS |= {f"resnet{d}s": imagenet(d, kind="deep", stem_width=128) for d in (50, 101, 152)}
COUNTS |= {f"resnet{d}t": imagenet(d, kind="tiered") for d in (10, 14, 26, 50)}
COUNTS |= {"resnet50_gn": imagenet(50), "resnet26": imagenet(26)}
COUNTS |= {f"seresnet{d}": imagenet(d, se=16) for d in (18, 34, 50, 101, 152)}
COUNTS |= {f"seresnet{d}d": imagenet(d, kind="deep", se=16) for d in (152, 200, 269)}
COUNTS |= {"seresnet50t": imagenet(50, kind="tiered", se=16)}
COUNTS |= {
    f"seresnext{name}_32x{w}d": imagenet(d, 32, w, kind=kind, se=16)
    for name, d, w, kind in [
        ("26d", 26, 4, "deep"),
        ("26t", 26, 4, "tiered"),
        ("101d", 101, 8, "deep"),
    ]
}
COUNTS |= {f"resnext101_32x{w}d": imagenet(101, 32, w) for w in (16, 32)}
COUNTS |= {"resnext50d_32x4d": imagenet(50, 32, 4, kind="deep")}
COUNTS |= {f"resnetv2_{d}d": imagenet(d, kind="deep", pre=True) for d in (18, 34, 50, 101, 152)}
COUNTS |= {"resnetv2_50d_gn": COUNTS["resnetv2_50d"]}  # a group norm has as many as a batch norm
# A third parameter a channel: stem, blocks (what goes in, twice what is inside), tail.
THIRD = 2 * 32 + sum(
    first + (n - 1) * 256 * 2**s + n * 2 * 64 * 2**s
    for s, (n, first) in enumerate(zip((3, 4, 6, 3), (64, 256, 512, 1024), strict=True))
)
COUNTS |= {
    f"resnetv2_50d_{norm}": (COUNTS["resnetv2_50d"][0] + THIRD + 2048, COUNTS["resnetv2_50d"][1])
    for norm in ("evos", "frn")
}
COUNTS |= {"resnetv2_50t": imagenet(50, kind="tiered", pre=True)}
COUNTS |= {
    f"resnetrs{d}": imagenet(d, kind="strided", se=4) for d in (50, 101, 152, 200, 270, 350, 420)
}
COUNTS |= {
    f"resnet{name}": imagenet(d, kind=kind, antialias=True)
    for name, d, kind in [
        ("aa34d", 34, "deep"),
        ("aa50", 50, "7x7"),
        ("aa50d", 50, "deep"),
        ("aa101d", 101, "deep"),
        ("blur18", 18, "7x7"),
        ("blur50", 50, "7x7"),
        ("blur50d", 50, "deep"),
        ("blur101d", 101, "deep"),
    ]
}
COUNTS |= {"seresnetaa50d": imagenet(50, kind="deep", se=16, antialias=True)}
COUNTS |= {
    f"seresnextaa{d}d_32x8d": imagenet(
        d, 32, 8, kind="deep", se=16, antialias=True, stem_width=stem_width
    )
    for d, stem_width in ((101, 64), (201, 128))
}
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
        COUNTS[f"seresnext{name}"] = imagenet(depth, cardinality, width, se=16)
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
