"""ResNets, ResNeXts and wide ResNets of torchvision; those, C, D, S, T, SE, antialiased and RS ones of timm.

    conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.downsample.0, fc      torchvision and timm
    layer1.0.se.fc1                                                          timm, SE
    conv1.0, conv1.1, conv1.3, conv1.4, conv1.6, bn1                         timm, C, D, S, T: the deep stem
    layer1.0.downsample.1, layer1.0.downsample.2                             timm, D and T: 0 is the pooling
    maxpool.0, maxpool.1                                             timm, RS: a convolution for the pooling

Sources: torchvision/models/resnet.py, timm/models/resnet.py.
"""

from residua.models.layouts.layout import Layout, Row

TORCHVISION = "torchvision"
TIMM = "timm"

_THEIRS = "layer{layer}.{block}"
_OURS = "stages.{stage}.{block}.skip"

STEM = (Row("conv1.{leaf}", "stem.conv.{leaf}"), Row("bn1.{leaf}", "stem.norm.{leaf}"))
THREE = (
    Row("conv1.0.{leaf}", "stem.conv.{leaf}"),
    Row("conv1.1.{leaf}", "stem.norm1.{leaf}"),
    Row("conv1.3.{leaf}", "stem.conv2.{leaf}"),
    Row("conv1.4.{leaf}", "stem.norm2.{leaf}"),
    Row("conv1.6.{leaf}", "stem.conv3.{leaf}"),
)
DEEP_STEM = (*THREE, Row("bn1.{leaf}", "stem.norm.{leaf}"))
STRIDED_STEM = (
    *THREE,
    Row("bn1.{leaf}", "stem.norm3.{leaf}"),
    Row("maxpool.0.{leaf}", "stem.conv4.{leaf}"),
    Row("maxpool.1.{leaf}", "stem.norm.{leaf}"),
)
BODY = (
    Row(f"{_THEIRS}.conv{{i}}.{{leaf}}", f"{_OURS}.branch.conv{{i}}.{{leaf}}"),
    Row(f"{_THEIRS}.bn{{i}}.{{leaf}}", f"{_OURS}.branch.norm{{i}}.{{leaf}}"),
    Row(f"{_THEIRS}.se.fc{{i}}.{{leaf}}", f"{_OURS}.branch.attention.fc{{i}}.{{leaf}}"),
    Row("fc.{leaf}", "head.fc.{leaf}"),
)
PROJECTION = (
    Row(f"{_THEIRS}.downsample.0.{{leaf}}", f"{_OURS}.shortcut.conv.{{leaf}}"),
    Row(f"{_THEIRS}.downsample.1.{{leaf}}", f"{_OURS}.shortcut.norm.{{leaf}}"),
)
POOLED_PROJECTION = (
    Row(f"{_THEIRS}.downsample.1.{{leaf}}", f"{_OURS}.shortcut.conv.{{leaf}}"),
    Row(f"{_THEIRS}.downsample.2.{{leaf}}", f"{_OURS}.shortcut.norm.{{leaf}}"),
)

PLAIN = ("resnet[0-9]*[0-9]", "resnext*[0-9]_*d", "wide_resnet*[0-9]")
GROUP_NORM = ("resnet50_gn",)
# An antialiased network has the tensors of the one that strides.
ANTIALIASED = ("resnetaa*[0-9]", "resnetblur*[0-9]")

RESNET_RS = Layout(
    models={TIMM: ("resnetrs*",)},
    mark=r"^maxpool\.0\.",
    rows=STRIDED_STEM + POOLED_PROJECTION + BODY,
)
RESNET_D = Layout(
    models={
        TIMM: (
            "resnet*[0-9][dt]",
            "seresnet*[0-9][dt]",
            "resnext[0-9]*d_*d",
            "seresnext*[dt]_*d",
        )
    },
    mark=r"^layer\d+\.\d+\.downsample\.2\.",
    rows=DEEP_STEM + POOLED_PROJECTION + BODY,
)
RESNET_C = Layout(
    models={TIMM: ("resnet[0-9]*[0-9][cs]",)},
    mark=r"^conv1\.6\.",
    rows=DEEP_STEM + PROJECTION + BODY,
)
SE_RESNET = Layout(
    models={TIMM: ("seresnet*[0-9]", "seresnext*[0-9]_*d")},
    mark=r"^layer\d+\.\d+\.se\.",
    rows=STEM + PROJECTION + BODY,
)
RESNET = Layout(
    models={TORCHVISION: PLAIN, TIMM: PLAIN + GROUP_NORM + ANTIALIASED},
    mark=r"^layer\d+\.\d+\.",
    rows=STEM + PROJECTION + BODY,
)
