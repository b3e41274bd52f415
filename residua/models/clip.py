"""CLIP's picture encoders: ResNet-D that pools in the place of strides, and attends instead of averaging.

    y = W v(x) + b      x the last map, v what its mean attends to: see `residua.models.classifiers`

    50        3, 4, 6, 3 blocks      224 pixels   1024 dimensions
    101       3, 4, 23, 3            224          512
    50x4      4, 6, 10, 6, 1.25 times as wide     288   640
    50x16     6, 8, 18, 8, 1.5 times              384   768
    50x64     3, 15, 36, 10, 2 times              448   1024

Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, section 2.4 and
table 19; the "classes" are the dimensions of the space that pictures and texts share, and change as those of
any network. _clip_gap is timm's: the mean of all positions and a linear layer instead, which is resnetaa50d
where nothing is scaled; so is resnet50_mlp's body, with a hidden layer of 1024 before its scores. Where sides
are no multiple of 32 pixels, a pooling here averages what there is of a window; timm's leaves it out.
"""

from residua.models.depths import imagenet_stages, register_residual

PAPER = "Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision"

# name: blocks, width over that of ResNet-50 in quarters, pixels, dimensions
SIZES = {
    "50": ((3, 4, 6, 3), 4, 224, 1024),
    "101": ((3, 4, 23, 3), 4, 224, 512),
    "50x4": ((4, 6, 10, 6), 5, 288, 640),
    "50x16": ((6, 8, 18, 8), 6, 384, 768),
    "50x64": ((3, 15, 36, 10), 8, 448, 1024),
}

# name: (parameters, multiply-adds) with attention, and with the mean and 1000 classes
COUNTS = {
    "50": ((38_316_896, 5_792_948_224), (25_576_264, 5_369_274_368)),
    "101": ((56_259_936, 9_504_120_832), (44_568_392, 9_081_495_552)),
    "50x4": ((87_137_080, 20_580_628_480), (68_180_640, 19_500_206_080)),
    "50x16": ((167_328_912, 72_867_446_784), (139_275_640, 70_121_938_944)),
    "50x64": ((420_380_352, 260_125_163_520), (369_131_176, 253_498_064_896)),
}
HIDDEN = (26_654_536, 7_013_376_000)  # of resnet50_mlp

for _name, (_depths, _quarters, _pixels, _dimensions) in SIZES.items():
    _stages = imagenet_stages(50, "d") | {
        "depths": _depths,
        "widths": tuple(16 * 2**i * _quarters for i in range(4)),
        "stem_width": 16 * _quarters,
        "antialias": "mean",
    }
    register_residual(
        f"resnet{_name}_clip",
        _stages,
        COUNTS[_name][0],
        family="clip",
        paper=PAPER,
        input_size=_pixels,
        num_classes=_dimensions,
        classifier=f"attention({_pixels // 32})",
    )
    register_residual(
        f"resnet{_name}_clip_gap",
        _stages,
        COUNTS[_name][1],
        family="clip",
        paper=PAPER,
        input_size=_pixels,
    )

register_residual(
    "resnet50_mlp",
    imagenet_stages(50, "d"),
    HIDDEN,
    family="clip",
    paper=PAPER,
    input_size=256,
    antialias="mean",
    classifier="hidden(1024)",
)
