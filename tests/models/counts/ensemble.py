"""Ensembles: the sum of their members, which are He et al. 2015, table 1 and section 4.2 (option A)."""


def small(depth):
    n = (depth - 2) // 6

    def stage(cin, w):
        return 9 * cin * w + (2 * n - 1) * 9 * w * w

    weights = [27 * 16 + stage(16, 16), stage(16, 32), stage(32, 64)]
    norms = 2 * (16 * (2 * n + 1) + 32 * 2 * n + 64 * 2 * n)
    adds = sum(w * p for w, p in zip(weights, (32**2, 16**2, 8**2), strict=True)) + 640
    return sum(weights) + norms + 650, adds


def large(blocks, bottleneck):
    weights, norms, adds = 147 * 64, 64, 147 * 64 * 112**2
    channels, before = 64, 56**2
    for stage, n in enumerate(blocks):
        w, pixels = 64 * 2**stage, (56 // 2**stage) ** 2
        outer = 4 * w if bottleneck else w
        for _ in range(n):
            first = channels * w * (1 if bottleneck else 9)
            rest = 9 * w * w + (4 * w * w if bottleneck else 0)
            projection = channels * outer if channels != outer else 0
            weights += first + rest + projection
            norms += w + outer + (w if bottleneck else 0) + (outer if projection else 0)
            adds += first * (before if bottleneck else pixels) + (rest + projection) * pixels
            channels, before = outer, pixels
    return weights + 2 * norms + channels * 1000 + 1000, adds + channels * 1000


def together(members):
    parameters, adds = zip(*members, strict=True)
    return sum(parameters), sum(adds)


COUNTS = {
    "resnet_ensemble_18_34_50": together(
        [
            large((2, 2, 2, 2), bottleneck=False),
            large((3, 4, 6, 3), bottleneck=False),
            large((3, 4, 6, 3), bottleneck=True),
        ]
    ),
    "resnet_ensemble_20_32_44_cifar": together([small(20), small(32), small(44)]),
}
