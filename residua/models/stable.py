"""Stable ResNets: no norm; every branch is divided by the square root of the number of blocks.

    y = s(x) + f(x) / sqrt K,   K blocks: the second moment grows by (1 + 1/K)^K < e in all

Hayou, Clerico, He, Deligiannidis, Doucet, Rousseau 2021, Stable ResNet, section 3 (uniform scaling). As in
their equations the trunk is a plain sum, so the order is that of v2, without norms; biases in all
convolutions; shortcuts A (padding), as He et al. 2015 have for these pictures. He's weights by fan_in keep
the second moment of a branch; by fan_out it halves where the width doubles. The merge is what makes it this
model: for decreasing scaling, take another network with merge="stable_decreasing".

Depth 6n + 2; 2002 has 1000 blocks: 333, 334, 333.
"""

from residua.models.depths import cifar_stages, register_residual

PAPER = "Hayou et al. 2021, Stable ResNet"

# depth: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    20: (269_034, 40_551_040),
    56: (850_986, 125_485_696),
    110: (1_723_914, 252_887_680),
    2002: (32_294_890, 4_716_675_712),
}

for _depth, _both in CIFAR.items():
    register_residual(
        f"stable_resnet{_depth}_cifar",
        cifar_stages(_depth),
        _both,
        family="stable",
        paper=PAPER,
        merge="stable",
        defaults={"norm": "none", "order": "preactivation", "shortcut": "A", "fan": "fan_in"},
    )
