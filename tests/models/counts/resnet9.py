"""ResNet-9: eight 3x3 convolutions, a norm after each, and a linear layer without bias (Page 2018)."""

# (in, out, side of the map) of each convolution, in order; 512 x 10 for the classes
TABLE = [
    (3, 64, 32),
    (64, 128, 32),
    (128, 128, 16),
    (128, 128, 16),
    (128, 256, 16),
    (256, 512, 8),
    (512, 512, 4),
    (512, 512, 4),
]

PARAMETERS = sum(9 * cin * cout + 2 * cout for cin, cout, _ in TABLE) + 512 * 10
MULTIPLY_ADDS = sum(9 * cin * cout * side**2 for cin, cout, side in TABLE) + 512 * 10

COUNTS = {"resnet9_cifar": (PARAMETERS, MULTIPLY_ADDS)}
