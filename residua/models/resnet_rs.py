"""ResNet-RS: ResNet-D with squeeze and excitation, and a stem that strides where the others pool.

    y = relu(s(x) + g(f(x)) f(x))      g: see `residua.nn.attention`, over a quarter of the channels

Bello, Fedus, Du, Cubuk, Srinivas, Lin, Shlens, Zoph 2021, Revisiting ResNets: Improved Training and Scaling
Strategies, and the authors' code (depths). Names are those of timm.
"""

from residua.models.depths import imagenet_stages, register_residual

PAPER = "Bello et al. 2021, Revisiting ResNets: Improved Training and Scaling Strategies"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
COUNTS = {
    50: (35_691_912, 4_454_490_112),
    101: (63_618_696, 8_175_624_192),
    152: (86_621_576, 11_895_185_408),
    200: (93_209_992, 15_391_137_792),
    270: (129_861_448, 20_643_618_816),
    350: (163_956_168, 26_332_012_544),
    420: (191_891_656, 31_363_342_336),
}

for _depth, _both in COUNTS.items():
    register_residual(
        f"resnetrs{_depth}",
        imagenet_stages(_depth, "d") | {"stem": "strided"},
        _both,
        family="resnet_rs",
        paper=PAPER,
        attention="se(4)",
    )
