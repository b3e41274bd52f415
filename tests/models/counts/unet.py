"""U-Nets: Ronneberger et al. 2015, figure 1; Cicek et al. 2016, figure 2; with basic blocks in the encoder.

A convolution of k^d taps has k^d C C' weights, C' biases or 2 C' of a norm; an up-convolution 2^d C C'
weights that each pixel below is multiplied with. Valid convolutions take 2 pixels a side and convolution.
"""


class Sum:
    def __init__(self, dims, valid):
        self.dims, self.valid, self.parameters, self.adds = dims, valid, 0, 0

    def conv(self, cin, cout, side, taps=3, extra=1):
        """Add a convolution; extra: parameters an output channel beside the weights. Return the side."""
        side -= 2 if self.valid and taps == 3 else 0
        self.parameters += taps**self.dims * cin * cout + extra * cout
        self.adds += taps**self.dims * cin * cout * side**self.dims
        return side

    def up(self, cin, cout, side, extra):
        self.parameters += 2**self.dims * cin * cout + extra * cout
        self.adds += 2**self.dims * cin * cout * side**self.dims
        return 2 * side


def plain(dims, widths, side, classes, valid=False, extra=2, up_extra=1, early=False):
    """extra: of a 3x3 convolution: 1 bias, 2 norm, 3 both."""
    total, channels, sides = Sum(dims, valid), 3, []
    for width in widths:
        inner = width // 2 if early else width
        if sides:
            side //= 2
        side = total.conv(channels, inner, side, extra=extra)
        side = total.conv(inner, width, side, extra=extra)
        sides.append(side)
        channels = width
    for width in widths[-2::-1]:
        risen = channels if early else width
        side = total.up(channels, risen, side, up_extra)
        side = total.conv(width + risen, width, side, extra=extra)
        side = total.conv(width, width, side, extra=extra)
        channels = width
    total.conv(channels, classes, side, taps=1)
    return total.parameters, total.adds


def residual(dims, widths, side):
    """Two basic blocks a level, then the plain decoder; 2 classes."""
    total, channels = Sum(dims, False), widths[0]
    total.conv(3, channels, side, extra=2)
    for i, width in enumerate(widths):
        side //= 2 if i else 1
        for block in range(2):
            total.conv(channels, width, side, extra=2)
            total.conv(width, width, side, extra=2)
            if channels != width and block == 0:
                total.conv(channels, width, side, taps=1, extra=2)
            channels = width
    for width in widths[-2::-1]:
        side = total.up(channels, width, side, 1)
        total.conv(2 * width, width, side, extra=2)
        total.conv(width, width, side, extra=2)
        channels = width
    total.conv(channels, 2, side, taps=1)
    return total.parameters, total.adds


STANDARD = (64, 128, 256, 512, 1024)
CAPPED = (32, 64, 128, 256, 320)

COUNTS = {
    "unet_2015": plain(2, STANDARD, 572, 2, valid=True, extra=1),
    "unet": plain(2, STANDARD, 256, 2),
    "unet1d": plain(1, STANDARD, 256, 2),
    "unet3d_2016": plain(3, STANDARD[:4], 132, 3, valid=True, extra=3, up_extra=0, early=True),
    "unet3d": plain(3, CAPPED, 64, 2),
    "resunet": residual(2, STANDARD, 256),
    "resunet3d": residual(3, CAPPED, 64),
}
