"""DenseNets of torchvision and timm.

    features.conv0, features.norm0, features.denseblock1.denselayer1.norm1, features.transition1.norm,
    features.norm5, classifier

With timm's deep stem (264d, blur121d) features.conv0, norm0, conv1, norm1, conv2, norm2.

Sources: torchvision/models/densenet.py, timm/models/densenet.py. torchvision's published files have an
older form, `denselayer1.norm.1.weight`, which both libraries rename when they load it.
"""

from residua.models.layouts.layout import Layout, Row
from residua.models.layouts.resnet import TIMM, TORCHVISION

_THEIRS = "features.denseblock{layer}.denselayer{unit}"
_OURS = "stages.{stage}.{block}.branch"

BODY = (
    Row(f"{_THEIRS}.norm{{i}}.{{leaf}}", f"{_OURS}.pre{{i}}.norm.{{leaf}}"),
    Row(f"{_THEIRS}.conv{{i}}.{{leaf}}", f"{_OURS}.conv{{i}}.{{leaf}}"),
    # Their first transition ends the first block; ours starts the second.
    Row("features.transition{stage}.norm.{leaf}", "stages.{stage}.transition.pre.norm.{leaf}"),
    Row("features.transition{stage}.conv.{leaf}", "stages.{stage}.transition.conv.{leaf}"),
    Row("features.norm5.{leaf}", "tail.norm.{leaf}"),
    Row("classifier.{leaf}", "head.fc.{leaf}"),
    Row(f"{_THEIRS}.norm.{{i}}.{{leaf}}", f"{_OURS}.pre{{i}}.norm.{{leaf}}"),
    Row(f"{_THEIRS}.conv.{{i}}.{{leaf}}", f"{_OURS}.conv{{i}}.{{leaf}}"),
)

DENSENET = Layout(
    models={TORCHVISION: ("densenet*[0-9]",), TIMM: ("densenet*[0-9]",)},
    mark=r"^features\.denseblock1\.",
    rows=(
        Row("features.conv0.{leaf}", "stem.conv.{leaf}"),
        Row("features.norm0.{leaf}", "stem.norm.{leaf}"),
        *BODY,
    ),
)
DENSENET_D = Layout(
    models={TIMM: ("densenet264d", "densenetblur121d")},
    mark=r"^features\.conv2\.",
    rows=(
        Row("features.conv0.{leaf}", "stem.conv.{leaf}"),
        Row("features.norm0.{leaf}", "stem.norm1.{leaf}"),
        Row("features.conv1.{leaf}", "stem.conv2.{leaf}"),
        Row("features.norm1.{leaf}", "stem.norm2.{leaf}"),
        Row("features.conv2.{leaf}", "stem.conv3.{leaf}"),
        Row("features.norm2.{leaf}", "stem.norm.{leaf}"),
        *BODY,
    ),
)
