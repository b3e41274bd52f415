"""ResNets, ResNeXts and wide ResNets of torchvision; those, the C, D and SE ones of timm.

    conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.downsample.0, fc      torchvision and timm
    layer1.0.se.fc1                                                          timm, SE
    conv1.0, conv1.1, conv1.3, conv1.4, conv1.6, bn1                         timm, C and D: the deep stem
    layer1.0.downsample.1, layer1.0.downsample.2                             timm, D: 0 is the pooling

Sources: torchvision/models/resnet.py, timm/models/resnet.py.
"""

from residua.models.layouts.layout import Layout, Row

TORCHVISION = "torchvision"
TIMM = "timm"

_THEIRS = "layer{layer}.{block}"
_OURS = "stages.{stage}.{block}.skip"

STEM = (Row("conv1.{leaf}", "stem.conv.{leaf}"), Row("bn1.{leaf}", "stem.norm.{leaf}"))
DEEP_STEM = (
    Row("conv1.0.{leaf}", "stem.conv.{leaf}"),
    Row("conv1.1.{leaf}", "stem.norm1.{leaf}"),
    Row("conv1.3.{leaf}", "stem.conv2.{leaf}"),
    Row("conv1.4.{leaf}", "stem.norm2.{leaf}"),
    Row("conv1.6.{leaf}", "stem.conv3.{leaf}"),
    Row("bn1.{leaf}", "stem.norm.{leaf}"),
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

RESNET_D = Layout(
    peers=(TIMM,),
    mark=r"^layer\d+\.\d+\.downsample\.2\.",
    models=("resnet[0-9]*d",),
    rows=DEEP_STEM + POOLED_PROJECTION + BODY,
)
RESNET_C = Layout(
    peers=(TIMM,),
    mark=r"^conv1\.6\.",
    models=("resnet[0-9]*c",),
    rows=DEEP_STEM + PROJECTION + BODY,
)
SE_RESNET = Layout(
    peers=(TIMM,),
    mark=r"^layer\d+\.\d+\.se\.",
    models=("seresnet*[0-9]", "seresnext*d"),
    rows=STEM + PROJECTION + BODY,
)
RESNET = Layout(
    peers=(TORCHVISION, TIMM),
    mark=r"^layer\d+\.\d+\.",
    models=("resnet[0-9]*[0-9]", "resnext*d", "wide_resnet*[0-9]"),
    rows=STEM + PROJECTION + BODY,
)
