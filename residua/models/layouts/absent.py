"""What there is of timm under a ResNet's name that no network here computes, told by its tensors' names.

    stages.0.0.conv1_1x1.conv      ByobNet: resnet50_clip, resnet50_mlp, resnet51q, resnet61q, *resne*ts
    stages.0.blocks.0.norm1.v      EvoNorm: resnetv2_50d_evos
    stages.0.blocks.0.norm1.tau    filter response norm: resnetv2_50d_frn

Sources: timm/models/byobnet.py, timm/models/resnetv2.py, timm/layers/filter_response_norm.py, evo_norm.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A regular expression that the names match, one a line, and what is different there; the first counts.
DIFFERENT = (
    (
        r"\A(?=[\s\S]*^stages\.0\.0\.conv1_1x1\.)(?=[\s\S]*^head\.(pos_embed|q\.|qkv\.))",
        "a ResNet of CLIP's (timm's resnet50_clip and such), with average poolings in its stem and branches,"
        " and attention for a head",
    ),
    (
        r"^stages\.\d+\.\d+\.conv\d_(1x1|kxk)\.",
        "of timm's ByobNet (resnet50_clip_gap, resnet51q, resnet33ts and such), with another stem than"
        " ResNets have, and SiLU activations or poolings in its branches",
    ),
    (
        r"^stages\.\d+\.blocks\.\d+\.norm\d\.v$",
        "timm's resnetv2_50d_evos, with EvoNorm in the place of norm and ReLU",
    ),
    (
        r"^stages\.\d+\.blocks\.\d+\.norm\d\.tau$",
        "timm's resnetv2_50d_frn, with a filter response norm whose threshold takes ReLU's place and whose"
        " eps is not learned",
    ),
)


def absent(names: Iterable[str]) -> str | None:
    """Return what a file with these names is of, where that is no network here; None where it may be.

    >>> absent(["stages.0.blocks.0.norm1.v"])
    "timm's resnetv2_50d_evos, with EvoNorm in the place of norm and ReLU"
    """
    lines = "\n".join(names)
    found = (what for pattern, what in DIFFERENT if re.search(pattern, lines, re.MULTILINE))
    return next(found, None)
