"""Fixup ResNets: no norm; scalar biases and multipliers, and weights scaled by the number of blocks.

    y = relu(s(x) + a [conv+b relu+b conv](x+b) + b)

Zhang, Dauphin, Ma 2019, Fixup initialization: residual learning without normalization; figure 1 for the
block (order "fixup"), section 3.2 for the weights (`residua.nn.init.fixup`). Last layers of branches and the
head start at zero: so does every score, and the first loss is log of the number of classes. Shortcuts as in
the authors' code: A (padding) at 32 pixels, B (projection) at 224. They train scalars at a tenth of the
learning rate.

Depth 6n + 2 at 32 pixels; 2002 has 1000 blocks: 333, 334, 333.
"""

from residua.models.depths import cifar_stages, imagenet_stages, register_residual
from residua.models.residual import FIXUP

PAPER = "Zhang, Dauphin, Ma 2019, Fixup Initialization"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
IMAGENET = {
    50: (25_504_026, 4_089_184_256),
    101: (44_444_049, 7_801_405_440),
}

# depth: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    20: (268_393, 40_551_040),
    56: (849_091, 125_485_696),
    110: (1_720_138, 252_887_680),
    2002: (32_225_220, 4_716_675_712),
}

for _name, _counts, _stages, _shortcut in (
    ("fixup_resnet{}", IMAGENET, imagenet_stages, "B"),
    ("fixup_resnet{}_cifar", CIFAR, cifar_stages, "A"),
):
    for _depth, _both in _counts.items():
        register_residual(
            _name.format(_depth),
            _stages(_depth),
            _both,
            family="fixup",
            paper=PAPER,
            order="fixup",
            init=FIXUP,
            defaults={"norm": "none", "shortcut": _shortcut},
        )
