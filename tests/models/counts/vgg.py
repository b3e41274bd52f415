"""VGG: Simonyan, Zisserman 2015, table 1, column by column; M is a pooling, a number a convolution.

Parameters: 9 C C' + C' a convolution, 2 C' a batch norm after it, n m + m a linear layer.
"""

COLUMNS = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}


def count(column, norm, side, linear):
    parameters, adds, channels = 0, 0, 3
    for item in column.split():
        if item == "M":
            side //= 2
            continue
        width = int(item)
        parameters += 9 * channels * width + width + (2 * width if norm else 0)
        adds += 9 * channels * width * side**2
        channels = width
    for n, m in linear:
        parameters += n * m + m
        adds += n * m
    return parameters, adds


LINEAR = [(7 * 7 * 512, 4096), (4096, 4096), (4096, 1000)]

COUNTS = {
    f"vgg{depth}{suffix}": count(column, suffix == "_bn", 224, LINEAR)
    for suffix in ("", "_bn")
    for depth, column in COLUMNS.items()
}
for depth in (16, 19):
    COUNTS[f"vgg{depth}_bn_cifar"] = count(COLUMNS[depth], True, 32, [(512, 10)])
