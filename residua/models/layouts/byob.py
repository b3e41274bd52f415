"""CLIP's encoders and the ResNets with SiLU of timm, whose blocks name their kernels.

    stages.0.0.conv1_1x1.conv, .bn, conv2_kxk, conv3_1x1, attn.fc1        blocks
    stages.0.0.shortcut.conv, .bn                   projections that stride
    stages.0.0.shortcut.conv.conv, .conv.bn         those that pool: CLIP's
    stem.conv1.conv, .bn                            stem; resnet51q: stem.conv1, stem.conv2, with no norm
    final_conv.conv, .bn; head.fc                   a convolution before the mean
    head.pos_embed, head.q, head.k, head.v, head.proj        attention

Source: timm/models/byobnet.py.
"""

from residua.models.layouts.layout import Layout, Row
from residua.models.layouts.resnet import TIMM

_THEIRS = "stages.{stage}.{block}"
_OURS = "stages.{stage}.{block}.skip"


def _pair(theirs: str, conv: str, norm: str) -> tuple[Row, Row]:
    """Return the rows of a convolution and of its norm."""
    return (
        Row(f"{theirs}.conv.{{leaf}}", f"{conv}.{{leaf}}"),
        Row(f"{theirs}.bn.{{leaf}}", f"{norm}.{{leaf}}"),
    )


def _branch(*names: str, at: str = "{stage}") -> tuple[Row, ...]:
    """Return the rows of a branch whose convolutions have these names."""
    rows: list[Row] = []
    for i, name in enumerate(names, start=1):
        theirs, ours = (f"{place}.".replace("{stage}", at) for place in (_THEIRS, _OURS))
        rows += _pair(f"{theirs}{name}", f"{ours}branch.conv{i}", f"{ours}branch.norm{i}")
    return tuple(rows)


def _stem(convolutions: int, bare: int = 0) -> tuple[Row, ...]:
    """Return the rows of a stem, the first `bare` of whose convolutions have no norm."""
    rows: list[Row] = []
    for i in range(1, convolutions + 1):
        conv = f"stem.conv{i}" if i > 1 else "stem.conv"
        if i > bare:
            norm = f"stem.norm{i}" if i < convolutions else "stem.norm"
            rows += _pair(f"stem.conv{i}", conv, norm)
        else:
            rows.append(Row(f"stem.conv{i}.{{leaf}}", f"{conv}.{{leaf}}"))
    return tuple(rows)


BOTTLENECK = _branch("conv1_1x1", "conv2_kxk", "conv3_1x1")
STRIDED = (
    Row(f"{_THEIRS}.shortcut.conv.{{leaf}}", f"{_OURS}.shortcut.conv.{{leaf}}"),
    Row(f"{_THEIRS}.shortcut.bn.{{leaf}}", f"{_OURS}.shortcut.norm.{{leaf}}"),
)
POOLED = _pair(f"{_THEIRS}.shortcut.conv", f"{_OURS}.shortcut.conv", f"{_OURS}.shortcut.norm")
ATTENTION = (Row(f"{_THEIRS}.attn.fc{{i}}.{{leaf}}", f"{_OURS}.branch.attention.fc{{i}}.{{leaf}}"),)
HEAD = (
    *_pair("final_conv", "head.features.conv", "head.features.norm"),
    Row("head.norm.{leaf}", "head.norm.{leaf}"),
    Row("head.pre_logits.fc.{leaf}", "head.hidden.{leaf}"),
    Row("head.fc.{leaf}", "head.fc.{leaf}"),
)
ATTENDING_HEAD = (
    Row("head.pos_embed", "head.positions"),
    *(Row(f"head.{one}.{{leaf}}", f"head.{one}.{{leaf}}") for one in "qkv"),
    Row("head.proj.{leaf}", "head.fc.{leaf}"),
)

CLIP = Layout(
    models={TIMM: ("resnet*_clip",)},
    mark=r"\A(?=[\s\S]*^stages\.\d+\.\d+\.conv1_1x1\.)(?=[\s\S]*^head\.pos_embed$)",
    rows=_stem(3) + POOLED + BOTTLENECK + ATTENDING_HEAD,
)
CLIP_GAP = Layout(
    models={TIMM: ("resnet*_clip_gap", "resnet50_mlp", "resnet*_clip")},
    mark=r"^stages\.\d+\.\d+\.shortcut\.conv\.conv\.",
    rows=_stem(3) + POOLED + BOTTLENECK + HEAD,
)
RESNET61Q = Layout(
    models={TIMM: ("resnet61q",)},
    mark=r"^stages\.\d+\.\d+\.conv2b_kxk\.",
    rows=(
        *_stem(4),
        *STRIDED,
        *_branch("conv1_kxk", "conv2_1x1", at="0"),
        *_branch("conv1_1x1", "conv2_kxk", "conv2b_kxk", "conv3_1x1"),
        *HEAD,
    ),
)
RESNET51Q = Layout(
    models={TIMM: ("resnet51q",)},
    mark=r"\A(?=[\s\S]*^stages\.\d+\.\d+\.conv1_1x1\.)(?=[\s\S]*^stem\.conv1\.weight$)",
    rows=_stem(4, bare=2) + STRIDED + BOTTLENECK + HEAD,
)
SILU = Layout(
    models={TIMM: ("*ts",)},
    mark=r"^stages\.\d+\.\d+\.conv1_1x1\.",
    rows=_stem(3) + STRIDED + BOTTLENECK + ATTENTION + HEAD,
)
