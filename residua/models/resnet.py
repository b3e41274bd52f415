"""ResNet v1: y = relu(shortcut(x) + branch(x)), the activation after the addition.

He, Zhang, Ren, Sun 2015, table 1 (224-pixel pictures) and section 4.2 (32-pixel pictures, option A
shortcuts); the bottleneck networks for 32 pixels, 164 and 1001, are the baselines of the 2016 paper. Of 26
layers it is timm's. resnet50_gn has group norm of 32 groups (Wu, He 2018, section 4.1).
"""

from residua.models.depths import imagenet_stages, register_depths, register_residual

PAPER = "He, Zhang, Ren, Sun 2015, Deep Residual Learning for Image Recognition"

# depth: (parameters, multiply-adds) at 1000 classes and 224 pixels
IMAGENET = {
    18: (11_689_512, 1_814_073_344),
    26: (15_995_176, 2_342_256_640),
    34: (21_797_672, 3_663_761_408),
    50: (25_557_032, 4_089_184_256),
    101: (44_549_160, 7_801_405_440),
    152: (60_192_808, 11_513_626_624),
    200: (64_673_832, 15_007_481_856),
}

# depth: (parameters, multiply-adds) at 10 classes and 32 pixels
CIFAR = {
    20: (269_722, 40_551_040),
    32: (464_154, 68_862_592),
    44: (658_586, 97_174_144),
    56: (853_018, 125_485_696),
    110: (1_727_962, 252_887_680),
    164: (1_704_154, 247_646_720),
    1001: (10_328_602, 1_490_995_712),
    1202: (19_421_274, 2_829_238_912),
}

register_depths(
    "resnet{}",
    "resnet{}_cifar",
    PAPER,
    IMAGENET,
    CIFAR,
    family="resnet",
)

register_residual(
    "resnet50_gn",
    imagenet_stages(50),
    IMAGENET[50],
    family="resnet",
    paper="Wu, He 2018, Group Normalization",
    defaults={"norm": "group(32)"},
)
