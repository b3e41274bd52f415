"""SkipInit: no norm; a learned scalar ends every branch and starts at zero.

    y = s(x) + a f(x),   a = 0 at first: the network starts as its shortcuts, however deep

De, Smith 2020, Batch normalization biases residual blocks towards the identity function in deep networks,
section 4. As in their wide networks: pre-activation order, biases in the convolutions, projections where
shapes change; here at He's widths. He's weights by fan_in. In the first step the scalars and what is outside
the branches learn; the branches' weights follow.

Depth 6n + 2; 2002 has 1000 blocks: 333, 334, 333.
"""

from residua.models.depths import cifar_stages, register_residual

PAPER = "De, Smith 2020, Batch Normalization Biases Residual Blocks Towards the Identity Function"

# depth: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    20: (271_603, 40_813_184),
    56: (853_573, 125_747_840),
    110: (1_726_528, 253_149_824),
    2002: (32_298_450, 4_716_937_856),
}

for _depth, _both in CIFAR.items():
    register_residual(
        f"skipinit_resnet{_depth}_cifar",
        cifar_stages(_depth),
        _both,
        family="skip_init",
        paper=PAPER,
        merge="skip_init",
        defaults={"norm": "none", "order": "preactivation", "shortcut": "B", "fan": "fan_in"},
    )
