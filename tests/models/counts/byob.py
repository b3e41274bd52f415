"""CLIP's encoders and timm's ResNets with SiLU, counted layer by layer.

Radford et al. 2021, table 19 and the authors' code: the stem's three 3x3 convolutions at half the side, then
a pooling; where a stage halves, the 3x3 does not stride, the mean after it does, and the projection follows
a mean. timm's byobnet.py for the others: the 3x3 strides, and so does the projection.
"""


class Tally:
    def __init__(self):
        self.parameters = self.adds = 0

    def conv(self, cin, cout, kernel, side, groups=1, norm=True):
        weights = cin // groups * cout * kernel**2
        self.parameters += weights + 2 * cout * norm
        self.adds += weights * side**2

    def linear(self, cin, cout, times=1):
        self.parameters += cin * cout + cout
        self.adds += cin * cout * times


def clip(depths, factor, side, classes, head):
    tally, width = Tally(), int(64 * factor)
    for cin, cout in ((3, width // 2), (width // 2, width // 2), (width // 2, width)):
        tally.conv(cin, cout, 3, side // 2)
    channels, before = width, side // 4
    for stage, blocks in enumerate(depths):
        inner, out = width * 2**stage, side // 4 // 2**stage
        for block in range(blocks):
            tally.conv(channels, inner, 1, before)
            tally.conv(inner, inner, 3, before)
            tally.conv(inner, 4 * inner, 1, out)
            if block == 0:
                tally.conv(channels, 4 * inner, 1, out)
            channels, before = 4 * inner, out
    if head == "attention":
        places = (side // 32) ** 2 + 1
        tally.parameters += places * channels
        tally.linear(channels, channels)  # the query, of the mean alone
        for _ in ("key", "value"):
            tally.linear(channels, channels, places)
    if head == "hidden":
        tally.parameters += 2 * channels
        tally.linear(channels, 1024)
        channels = 1024
    tally.linear(channels, classes)
    return tally.parameters, tally.adds


SIZES = {
    "50": ((3, 4, 6, 3), 1, 224, 1024),
    "101": ((3, 4, 23, 3), 1, 224, 512),
    "50x4": ((4, 6, 10, 6), 1.25, 288, 640),
    "50x16": ((6, 8, 18, 8), 1.5, 384, 768),
    "50x64": ((3, 15, 36, 10), 2, 448, 1024),
}


def silu(
    depths,
    outer,
    inner,
    sizes,
    *,
    stem,
    side=256,
    pool=False,
    bare=0,
    spatial=1,
    edge=False,
    se=False,
    features=0,
):
    """sizes: channels of a group, a stage; None: one group. stem: channels, the last strides unless pool."""
    tally, channels, before = Tally(), 3, side // 2
    for i, cout in enumerate(stem):
        if i == len(stem) - 1 and not pool:
            before = side // 4
        tally.conv(channels, cout, 3, before, norm=i >= bare)
        channels = cout
    before = side // 4
    for stage, blocks in enumerate(depths):
        mid, wide, out = inner[stage], outer[stage], side // 4 // 2**stage
        groups = 1 if sizes[stage] is None else mid // sizes[stage]
        for _ in range(blocks):
            if edge and stage == 0:
                tally.conv(channels, wide, 3, out)
                tally.conv(wide, wide, 1, out)
            else:
                tally.conv(channels, mid, 1, before)
                for _ in range(spatial):
                    tally.conv(mid, mid, 3, out, groups)
                tally.conv(mid, wide, 1, out)
            if se:
                squeezed = max(8, (mid // 16 + 4) // 8 * 8)
                tally.linear(mid, squeezed)
                tally.linear(squeezed, mid)
            if channels != wide or before != out:
                tally.conv(channels, wide, 1, out)
            channels, before = wide, out
    if features:
        tally.conv(channels, features, 1, before)
        channels = features
    tally.linear(channels, 1000)
    return tally.parameters, tally.adds


NEXT = ((2, 2, 2, 2), (256, 512, 1024, 2048), (64, 128, 256, 512), (32, 32, 32, 32))
TIERED = ((2, 3, 3, 2), (256, 512, 1536, 1536), (64, 128, 384, 384), (None,) * 4)
STEM = {"stem": (24, 32, 64)}
QUAD = {"stem": (16, 32, 64, 128), "features": 2048}
WIDE = (256, 512, 1536, 1536)

COUNTS = {
    **{f"resnet{n}_clip": clip(*size, "attention") for n, size in SIZES.items()},
    **{f"resnet{n}_clip_gap": clip(*size[:3], 1000, "mean") for n, size in SIZES.items()},
    "resnet50_mlp": clip((3, 4, 6, 3), 1, 256, 1000, "hidden"),
    "resnext26ts": silu(*NEXT, pool=True, **STEM),
    "seresnext26ts": silu(*NEXT, pool=True, se=True, **STEM),
    "resnet32ts": silu(*TIERED, **STEM),
    "resnet33ts": silu(*TIERED, features=1280, **STEM),
    "seresnet33ts": silu(*TIERED, features=1280, se=True, **STEM),
    "resnet51q": silu(
        (2, 4, 6, 4), WIDE, (64, 128, 384, 1536), (32, 32, 32, 1), side=224, bare=2, **QUAD
    ),
    "resnet61q": silu(
        (1, 4, 6, 4), WIDE, (256, 128, 384, 1536), (None, 32, 32, 1), spatial=2, edge=True, **QUAD
    ),
}
