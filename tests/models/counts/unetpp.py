"""U-Net++: Zhou et al. 2018, figure 1, in sums over the nodes (i, j), i + j < 5; norms of 2 C parameters.

Node (i, j) of w = 32 2^i channels reads j maps of its level and one from below that an up-convolution of
4 (2 w) w weights and w biases made; then two 3x3 convolutions without biases. Four heads at full size, of
which evaluation uses one.
"""


def count(w0, depth, cin, classes, side, per_channel=2, heads=4):
    parameters, adds = heads * (w0 * classes + classes), w0 * classes * side**2
    for i in range(depth):
        w, pixels = w0 * 2**i, (side // 2**i) ** 2
        for j in range(depth - i):
            read = (cin if i == 0 else w // 2) if j == 0 else (j + 1) * w
            convolutions = 9 * read * w + 9 * w * w
            parameters += convolutions + 2 * per_channel * w
            adds += convolutions * pixels
            if j:
                parameters += 8 * w * w + w
                adds += 8 * w * w * pixels // 4
    return parameters, adds


COUNTS = {"unetpp": count(32, 5, 3, 2, 256)}
