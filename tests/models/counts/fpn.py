"""Feature pyramids with a semantic head: Lin et al. 2017, Kirillov et al. 2019, on bodies of four stages.

A picture of 512 pixels has stages of 128, 64, 32 and 16. Laterals are 1x1 convolutions to 256 channels,
then one 3x3 convolution a level, all with biases. The head has 1, 1, 2 and 3 convolutions of 3x3 to 128
channels on the four levels, each with a norm, each at the side of the map that it reads, and one 1x1 with
biases.

The bodies are the classification networks' without their last layers, from the tables of the papers.
"""

SIDES = (128, 64, 32, 16)
WIDTH, HEAD, CLASSES = 256, 128, 19


def sums(convolutions):
    """Return (parameters, multiply-adds) of (weights, outputs, side) with a norm after each."""
    return sum(w + 2 * out for w, out, _ in convolutions), sum(
        w * s * s for w, _, s in convolutions
    )


def basic(depths):
    """ResNet of basic blocks; He et al. 2015, table 1."""
    found, channels = [(147 * 64, 64, 256)], 64
    for stage, (depth, side) in enumerate(zip(depths, SIDES, strict=True)):
        width = 64 << stage
        for _ in range(depth):
            found += [(9 * channels * width, width, side), (9 * width * width, width, side)]
            if channels != width:
                found.append((channels * width, width, side))
            channels = width
    return sums(found), (64, 128, 256, 512)


def bottleneck(depths, inner, groups):
    """ResNet and ResNeXt of bottlenecks with `inner` channels in the first stage; strides on the 3x3."""
    found, channels = [(147 * 64, 64, 256)], 64
    for stage, (depth, side) in enumerate(zip(depths, SIDES, strict=True)):
        mid, width = inner << stage, 256 << stage
        for block in range(depth):
            before = 2 * side if stage and not block else side
            found += [(channels * mid, mid, before), (9 * mid * mid // groups, mid, side)]
            found.append((mid * width, width, side))
            if channels != width:
                found.append((channels * width, width, side))
            channels = width
    return sums(found), (256, 512, 1024, 2048)


def dense(depths, k):
    """DenseNet-BC; Huang et al. 2017, table 1; a norm after its last stage."""
    c = 2 * k
    parameters, adds, channels = 147 * c + 2 * c, 147 * c * 256**2, []
    for stage, (depth, side) in enumerate(zip(depths, SIDES, strict=True)):
        if stage:  # the transition convolves before it pools
            parameters += 2 * c + c * c // 2
            adds += c * c // 2 * (2 * side) ** 2
            c //= 2
        for _ in range(depth):
            weights = 4 * k * c + 36 * k * k
            parameters += 2 * c + 8 * k + weights
            adds += weights * side * side
            c += k
        channels.append(c)
    return (parameters + 2 * c, adds), channels


def count(body):
    (parameters, adds), channels = body
    for level, (c, side) in enumerate(zip(channels, SIDES, strict=True)):
        for weights in (c * WIDTH, 9 * WIDTH * WIDTH):
            parameters += weights + WIDTH
            adds += weights * side * side
        for stage in range(max(1, level)):
            weights = 9 * (HEAD if stage else WIDTH) * HEAD
            parameters += weights + 2 * HEAD
            adds += weights * (side << stage) ** 2
    return parameters + HEAD * CLASSES + CLASSES, adds + HEAD * CLASSES * SIDES[0] ** 2


RESNET50 = bottleneck((3, 4, 6, 3), 64, 1)

COUNTS = {
    "resnet18_fpn": count(basic((2, 2, 2, 2))),
    "resnet50_fpn": count(RESNET50),
    "resnext50_32x4d_fpn": count(bottleneck((3, 4, 6, 3), 128, 32)),
    "densenet121_fpn": count(dense((6, 12, 24, 16), 32)),
    "fpn": count(RESNET50),
}
