"""AlexNet: (C, C', kernel, side of the output at 224 pixels) of each convolution, then the linear layers."""

CONVOLUTIONS = [
    (3, 64, 11, 55),
    (64, 192, 5, 27),
    (192, 384, 3, 13),
    (384, 256, 3, 13),
    (256, 256, 3, 13),
]
LINEAR = [(6 * 6 * 256, 4096), (4096, 4096), (4096, 1000)]

COUNTS = {
    "alexnet": (
        sum(k * k * cin * cout + cout for cin, cout, k, _ in CONVOLUTIONS)
        + sum(n * m + m for n, m in LINEAR),
        sum(k * k * cin * cout * side**2 for cin, cout, k, side in CONVOLUTIONS)
        + sum(n * m for n, m in LINEAR),
    )
}
