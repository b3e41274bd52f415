"""The names that other libraries give to the tensors of a ResNet, and ours for the same.

    torchvision   conv1, bn1, layer1.0.conv1, layer1.0.bn1, layer1.0.downsample.0, fc    (timm too, v1)
    timm          stem.conv, stages.0.blocks.0.norm1, ...conv1, ...downsample.conv, norm, head.fc   (v2)
    ours          stem.conv, stages.0.0.skip.branch.conv1, stages.0.0.skip.shortcut.conv, head.fc

Sources: torchvision/models/resnet.py; timm/models/resnet.py and resnetv2.py. A table holds both
directions: theirs -> ours for reading, ours -> theirs for writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

OURS = "residua"
TORCHVISION = "torchvision"
TIMM = "timm"

_BLOCK = "stages.{stage}.{block}"

# (theirs, ours); {layer} counts stages from one.
_TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    OURS: (),
    TORCHVISION: (
        ("conv1.{leaf}", "stem.conv.{leaf}"),
        ("bn1.{leaf}", "stem.norm.{leaf}"),
        ("layer{layer}.{block}.conv{i}.{leaf}", f"{_BLOCK}.skip.branch.conv{{i}}.{{leaf}}"),
        ("layer{layer}.{block}.bn{i}.{leaf}", f"{_BLOCK}.skip.branch.norm{{i}}.{{leaf}}"),
        ("layer{layer}.{block}.downsample.0.{leaf}", f"{_BLOCK}.skip.shortcut.conv.{{leaf}}"),
        ("layer{layer}.{block}.downsample.1.{leaf}", f"{_BLOCK}.skip.shortcut.norm.{{leaf}}"),
        ("fc.{leaf}", "head.fc.{leaf}"),
    ),
    TIMM: (
        ("stem.conv.{leaf}", "stem.conv.{leaf}"),
        # The fork's norm is timm's norm1 as well; `to_ours` tells them apart.
        ("stages.{stage}.blocks.{block}.norm1.{leaf}", f"{_BLOCK}.fork.norm.{{leaf}}"),
        (
            "stages.{stage}.blocks.{block}.norm{i}.{leaf}",
            f"{_BLOCK}.skip.branch.pre{{i}}.norm.{{leaf}}",
        ),
        (
            "stages.{stage}.blocks.{block}.conv{i}.{leaf}",
            f"{_BLOCK}.skip.branch.conv{{i}}.{{leaf}}",
        ),
        (
            "stages.{stage}.blocks.{block}.downsample.conv.{leaf}",
            f"{_BLOCK}.skip.shortcut.conv.{{leaf}}",
        ),
        ("norm.{leaf}", "tail.norm.{leaf}"),
        ("head.fc.{leaf}", "head.fc.{leaf}"),
    ),
}


def layout_of(names: Iterable[str]) -> str | None:
    """Return which layout a state dict's names are of, None if of none that is known.

    >>> layout_of(["conv1.weight", "layer1.0.conv1.weight"])
    'torchvision'
    """
    names = list(names)
    for layout, pattern in (
        (TIMM, r"stages\.\d+\.blocks\.\d+\."),
        (TORCHVISION, r"layer\d+\.\d+\."),
        (OURS, r"stages\.\d+\.\d+\."),
    ):
        if any(re.match(pattern, name) for name in names):
            return layout
    return None


def to_ours(names: Iterable[str], layout: str) -> dict[str, str]:
    """Map their names to ours; a name that the layout does not have stays as it is.

    >>> to_ours(["layer2.0.bn1.weight"], "torchvision")
    {'layer2.0.bn1.weight': 'stages.1.0.skip.branch.norm1.weight'}
    """
    names = list(names)
    table = [row for row in _TABLES[layout] if ".fork." not in row[1]]
    ours = {name: _rename(name, table) or name for name in names}
    projected = {
        name.split(".downsample.")[0] for name in names if ".downsample." in name
    }  # the v2 blocks that change shape, and so activate before the fork
    for name in names:
        if layout == TIMM and name.split(".norm1.")[0] in projected:
            ours[name] = ours[name].replace(".skip.branch.pre1.", ".fork.")
    return ours


def from_ours(names: Iterable[str], layout: str) -> dict[str, str | None]:
    """Map our names to theirs; None for what the layout has no name for."""
    table = [(ours, theirs) for theirs, ours in _TABLES[layout]]
    return {name: _rename(name, table) for name in names}


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    for source, target in table:
        pattern = re.sub(r"\\{(\w+)\\}", _group, re.escape(source))
        if match := re.fullmatch(pattern, name):
            parts: dict[str, str | int] = dict(match.groupdict())
            if "stage" in parts:
                parts["layer"] = int(parts["stage"]) + 1
            elif "layer" in parts:
                parts["stage"] = int(parts["layer"]) - 1
            return target.format(**parts)
    return None


def _group(placeholder: re.Match[str]) -> str:
    name = placeholder[1]
    return rf"(?P<{name}>{'[a-z_]+' if name == 'leaf' else '[0-9]+'})"


@dataclass(frozen=True)
class Anatomy:
    """What tells one residual network from another: read off its (our) tensor names and shapes.

    depths: blocks a stage. widths: channels of each stage's first convolution.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    preactivation: bool
    small: bool

    def __str__(self) -> str:
        kind = "bottleneck" if self.bottleneck else "basic"
        order = "pre-activation " if self.preactivation else ""
        return f"{'-'.join(map(str, self.depths))} {order}{kind} blocks"


def anatomy_of(shapes: Mapping[str, torch.Size]) -> Anatomy | None:
    """Return the anatomy of a network with these tensors, None if it is not one of Skip blocks."""
    firsts: dict[int, dict[int, int]] = {}
    for name, shape in shapes.items():
        if match := re.fullmatch(r"stages\.(\d+)\.(\d+)\.skip\.branch\.conv1\.weight", name):
            firsts.setdefault(int(match[1]), {})[int(match[2])] = shape[0]
    stem = shapes.get("stem.conv.weight")
    if not firsts or stem is None or len(stem) != 4 or any(0 not in s for s in firsts.values()):
        return None
    stages = [firsts[index] for index in sorted(firsts)]
    return Anatomy(
        depths=tuple(len(stage) for stage in stages),
        widths=tuple(stage[0] for stage in stages),
        bottleneck=any(".branch.conv3." in name for name in shapes),
        preactivation=any(".fork." in name or ".branch.pre" in name for name in shapes),
        small=stem[-1] == 3,
    )
