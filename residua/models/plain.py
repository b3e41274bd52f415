"""Plain networks: y = relu(branch(x)), the residual networks without their shortcuts.

He, Zhang, Ren, Sun 2015, fig. 3 (middle) and section 4.2: what degrades with depth.
"""

from residua.models.depths import register_depths

PAPER = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
IMAGENET = {
    18: (11_515_688, 1_794_805_760),
    34: (21_623_848, 3_644_493_824),
}

# depth: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    20: (269_722, 40_551_040),
    32: (464_154, 68_862_592),
    44: (658_586, 97_174_144),
    56: (853_018, 125_485_696),
    110: (1_727_962, 252_887_680),
}

register_depths(
    "plain{}",
    "plain{}_cifar",
    PAPER,
    IMAGENET,
    CIFAR,
    family="plain",
    plain=True,
)
