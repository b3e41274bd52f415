"""V-Net: Milletari et al. 2016, figure 2 and table 1; 2 classes, 64 voxels a side.

Stage i has w = 16 2^i channels and n_i convolutions of 125 w^2 weights, each with w biases and w slopes of
a PReLU. Halving takes 8 w 2w weights, doubling 8 weights from what is below to w. On the way up a stage has
2 w channels.
"""

CONVOLUTIONS = (1, 2, 3, 3, 3)

parameters = adds = 0


def layer(weights, channels, voxels, slopes=True):
    global parameters, adds
    parameters += weights + channels * (2 if slopes else 1)
    adds += weights * voxels


for i, n in enumerate(CONVOLUTIONS):
    w, voxels = 16 * 2**i, (64 // 2**i) ** 3
    for k in range(n):
        layer(125 * (3 if i == k == 0 else w) * w, w, voxels)
    if i < 4:
        layer(8 * w * 2 * w, 2 * w, voxels // 8)
        layer(8 * (2 * w if i == 3 else 4 * w) * w, w, voxels // 8)
        for _ in range(n):
            layer(125 * (2 * w) ** 2, 2 * w, voxels)
layer(32 * 2, 2, 64**3, slopes=False)

COUNTS = {"vnet": (parameters, adds)}
