"""Pre-activation ResNets and BiT networks of timm.

    stem.conv, stages.0.blocks.0.norm1, ...conv1, ...downsample.conv, norm, head.fc (a 1x1 convolution)
    stem.conv1, stem.norm1, stem.conv2, stem.norm2, stem.conv3       D and T: the deep stem

Source: timm/models/resnetv2.py. The norm before a fork is norm1 there as elsewhere; ours has a name of
its own, in the blocks with a projection.
"""

from residua.models.layouts.layout import Layout, Row
from residua.models.layouts.resnet import TIMM

_THEIRS = "stages.{stage}.blocks.{block}"
_OURS = "stages.{stage}.{block}"
_PROJECTION = f"{_THEIRS}.downsample.conv"

BODY = (
    Row(f"{_THEIRS}.norm1.{{leaf}}", f"{_OURS}.fork.norm.{{leaf}}", f"{_PROJECTION}.weight"),
    Row(f"{_THEIRS}.norm{{i}}.{{leaf}}", f"{_OURS}.skip.branch.pre{{i}}.norm.{{leaf}}"),
    Row(f"{_THEIRS}.conv{{i}}.{{leaf}}", f"{_OURS}.skip.branch.conv{{i}}.{{leaf}}"),
    Row(f"{_PROJECTION}.{{leaf}}", f"{_OURS}.skip.shortcut.conv.{{leaf}}"),
    Row("norm.{leaf}", "tail.norm.{leaf}"),
    Row("head.fc.{leaf}", "head.fc.{leaf}"),
)

RESNETV2 = Layout(
    models={TIMM: ("resnetv2_*[0-9]", "resnetv2_*_bit")},
    mark=r"^stages\.\d+\.blocks\.\d+\.",
    rows=(Row("stem.conv.{leaf}", "stem.conv.{leaf}"), *BODY),
    conv_head=True,
)
RESNETV2_D = Layout(
    models={
        TIMM: ("resnetv2_*[0-9][dt]", "resnetv2_50d_gn", "resnetv2_50d_evos", "resnetv2_50d_frn")
    },
    # the stem and the stages, in whichever order
    mark=r"\A(?=[\s\S]*^stages\.\d+\.blocks\.\d+\.)(?=[\s\S]*^stem\.conv1\.weight$)",
    rows=(
        Row("stem.conv1.{leaf}", "stem.conv.{leaf}"),
        Row("stem.norm{i}.{leaf}", "stem.norm{i}.{leaf}"),
        Row("stem.conv{i}.{leaf}", "stem.conv{i}.{leaf}"),
        *BODY,
    ),
    conv_head=True,
)
