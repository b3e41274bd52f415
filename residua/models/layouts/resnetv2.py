"""Pre-activation ResNets and BiT networks of timm.

    stem.conv, stages.0.blocks.0.norm1, ...conv1, ...downsample.conv, norm, head.fc (a 1x1 convolution)

Source: timm/models/resnetv2.py. The norm before a fork is norm1 there as elsewhere; ours has a name of
its own, in the blocks with a projection.
"""

from residua.models.layouts.layout import Layout, Row
from residua.models.layouts.resnet import TIMM

_THEIRS = "stages.{stage}.blocks.{block}"
_OURS = "stages.{stage}.{block}"
_PROJECTION = f"{_THEIRS}.downsample.conv"

RESNETV2 = Layout(
    peers=(TIMM,),
    mark=r"^stages\.\d+\.blocks\.\d+\.",
    models=("resnetv2_*",),
    rows=(
        Row("stem.conv.{leaf}", "stem.conv.{leaf}"),
        Row(f"{_THEIRS}.norm1.{{leaf}}", f"{_OURS}.fork.norm.{{leaf}}", f"{_PROJECTION}.weight"),
        Row(f"{_THEIRS}.norm{{i}}.{{leaf}}", f"{_OURS}.skip.branch.pre{{i}}.norm.{{leaf}}"),
        Row(f"{_THEIRS}.conv{{i}}.{{leaf}}", f"{_OURS}.skip.branch.conv{{i}}.{{leaf}}"),
        Row(f"{_PROJECTION}.{{leaf}}", f"{_OURS}.skip.shortcut.conv.{{leaf}}"),
        Row("norm.{leaf}", "tail.norm.{leaf}"),
        Row("head.fc.{leaf}", "head.fc.{leaf}"),
    ),
    conv_head=True,
)
