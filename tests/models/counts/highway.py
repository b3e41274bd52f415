"""Highway networks at 32 pixels: every highway layer has two 3x3 convolutions with biases, H and T."""


def count(layers, widths):
    parameters, adds, channels, side = 0, 0, 3, 32
    for n, w in zip(layers, widths, strict=True):
        parameters += 9 * channels * w + w + n * 2 * (9 * w * w + w)
        adds += (9 * channels * w + n * 2 * 9 * w * w) * side**2
        channels, side = w, side // 2
    side *= 2  # no pooling after the last stage
    parameters += channels * 100 + 100 + 100 * 10 + 10
    adds += channels * 100 * side**2 + 100 * 10
    return parameters, adds


COUNTS = {
    "highway19_cifar": count((4, 5, 5), (32, 80, 128)),
    "highway32_cifar": count((9, 9, 9), (32, 48, 64)),
}
