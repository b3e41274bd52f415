"""BiT: pre-activation networks without batch statistics, group norm over weight-standardised convolutions.

    y = s(x) + f(x)      f: relu(group_norm(.)), then W * . with standardised W, three times

Kolesnikov, Beyer, Zhai, Puigcerver, Yung, Gelly, Houlsby 2020, Big Transfer, section 3.3: 32 groups, and k
times as many channels throughout, the stem's too. The stem pools over zeros at the border, as in the authors'
code. Names are those of timm, whose forward pass this is but for the small number under the root of the
weights' variance: 1e-10 here and in the authors' code, 1e-8 there.
"""

from residua.models.depths import IMAGENET_WIDTHS, imagenet_stages, register_residual

PAPER = "Kolesnikov et al. 2020, Big Transfer (BiT): General Visual Representation Learning"

# (depth, k): (parameters, multiply-adds) at 1000 classes and 224 pixels
COUNTS = {
    (50, 1): (25_549_352, 4_089_184_256),
    (50, 3): (217_319_080, 36_082_286_592),
    (101, 1): (44_541_480, 7_801_405_440),
    (101, 3): (387_934_888, 69_492_277_248),
    (152, 2): (236_335_208, 45_814_382_592),
    (152, 4): (936_533_224, 182_777_282_560),
}

for (_depth, _k), _both in COUNTS.items():
    register_residual(
        f"resnetv2_{_depth}x{_k}_bit",
        imagenet_stages(_depth)
        | {"stem": "7x7_fixed", "widths": tuple(_k * width for width in IMAGENET_WIDTHS)},
        _both,
        family="bit",
        paper=PAPER,
        defaults={"order": "preactivation", "norm": "group(32)+standardised"},
    )
