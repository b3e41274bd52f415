"""U-Nets over classification networks: the encoder without its last layer, and two convolutions a step.

Encoders' published counts hold for 224 pixels; at 256 every map has (8 / 7)^2 as many pixels. A step reads
the map of the encoder and what is below, w = 16, 32, ..., 256 from the finest, and has two 3x3
convolutions with norms; the finest reads no map.
"""

# name: (parameters, multiply-adds at 224 pixels, channels of the maps from the finest)
ENCODERS = {
    "encoder_unet": (11_689_512, 1_814_073_344, (64, 64, 128, 256, 512)),
    "resnet34_unet": (21_797_672, 3_663_761_408, (64, 64, 128, 256, 512)),
    "resnet50_unet": (25_557_032, 4_089_184_256, (64, 256, 512, 1024, 2048)),
    "densenet121_unet": (7_978_856, 2_834_161_664, (64, 256, 512, 1024, 1024)),
}


def count(parameters, adds, channels, classes=2, side=256):
    last = channels[-1]
    parameters -= 1000 * last + 1000
    adds = (adds - 1000 * last) * 64 // 49
    below = last
    for k in (4, 3, 2, 1, 0):
        w = 16 * 2**k
        read = below + (channels[k - 1] if k else 0)
        convolutions = 9 * read * w + 9 * w * w
        parameters += convolutions + 4 * w
        adds += convolutions * (side // 2**k) ** 2
        below = w
    return parameters + 16 * classes + classes, adds + 16 * classes * side**2


COUNTS = {name: count(*how) for name, how in ENCODERS.items()}
