"""Antialiased networks: where a branch or the stem would stride, it pools what it made at every pixel.

    y = relu(s(x) + W3 p(relu(W2 relu(W1 x))))      p: the mean of 2x2 pixels (aa), or a blur (blur)

Zhang, R. 2019, Making Convolutional Networks Shift-Invariant Again, section 3.2; see `residua.nn.antialias`.
Names are those of timm, whose networks these are: a stride has no weight, so they have the tensors of those
without aa or blur. At sides that are no multiple of 32 pixels aa differs from timm's, whose poolings leave
out the last row and column of an odd map, and which refuses most such sides.
"""

from residua.models.depths import imagenet_stages, register_residual

PAPER = "Zhang, R. 2019, Making Convolutional Networks Shift-Invariant Again"
POOLINGS = {"aa": "mean", "blur": "blur"}

# (depth, pooling, variant): (parameters, multiply-adds) at 1000 classes and 224 pixels
RESNET = {
    (34, "aa", "d"): (21_816_904, 4_423_626_752),
    (50, "aa", ""): (25_557_032, 5_129_633_792),
    (50, "aa", "d"): (25_576_264, 5_369_274_368),
    (101, "aa", "d"): (44_568_392, 9_081_495_552),
    (18, "blur", ""): (11_689_512, 2_334_298_112),
    (50, "blur", ""): (25_557_032, 5_129_633_792),
    (50, "blur", "d"): (25_576_264, 5_369_274_368),
    (101, "blur", "d"): (44_568_392, 9_081_495_552),
}

# the same with squeeze and excitation: of ResNet, and of ResNeXt with 32 paths of 8 channels
SE_RESNET = (28_107_256, 5_371_789_312)
SE_RESNEXT = {
    101: (93_588_280, 17_178_624_000),
    201: (149_394_904, 34_276_270_080),
}

for (_depth, _pooling, _variant), _both in RESNET.items():
    register_residual(
        f"resnet{_pooling}{_depth}{_variant}",
        imagenet_stages(_depth, _variant),
        _both,
        family="antialiased",
        paper=PAPER,
        antialias=POOLINGS[_pooling],
    )

register_residual(
    "seresnetaa50d",
    imagenet_stages(50, "d"),
    SE_RESNET,
    family="antialiased",
    paper=PAPER,
    attention="se",
    antialias="mean",
)

for _depth, _both in SE_RESNEXT.items():
    register_residual(
        f"seresnextaa{_depth}d_32x8d",
        # the deeper one has a stem twice as wide
        imagenet_stages(_depth, "d") | ({"stem_width": 128} if _depth == 201 else {}),
        _both,
        family="antialiased",
        paper=PAPER,
        attention="se",
        groups=32,
        base_width=8,
        antialias="mean",
    )
