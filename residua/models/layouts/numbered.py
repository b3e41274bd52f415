"""AlexNet and VGG of torchvision, whose layers have numbers for names.

    features.0, features.3, features.6, ..., classifier.1, classifier.4, classifier.6

Every convolution, norm, ReLU and pooling counts, so convolution n (from nought) after p poolings is

    features.{2 n + p}, or with norms features.{3 n + p} and its norm the next

from which each of n, p follows where the numbers are known, and the numbers where n, p are.
Sources: torchvision/models/alexnet.py, torchvision/models/vgg.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from residua.models.layouts.layout import Layout, Row
from residua.models.layouts.resnet import TORCHVISION

_THEIRS = re.compile(r"features\.(\d+)\.([a-z_]+)")
_OURS = re.compile(r"(stem|stages\.(\d+)\.(\d+))\.(conv|norm)\.([a-z_]+)")


@dataclass(frozen=True)
class Numbered(Layout):
    """A layout of numbered convolutions. stem_poolings: how many stand between stem and stage 0."""

    stem_poolings: int = 0

    def to_ours(self, names: Iterable[str]) -> dict[str, str]:
        """Map their names to ours; a name that the layout does not have stays as it is."""
        ours = super().to_ours(names)
        found = {name: match for name in ours if (match := _THEIRS.fullmatch(name))}
        numbers = sorted({int(match[1]) for match in found.values()})
        convolutions = [i for i in numbers if i - 1 not in numbers]
        step = 2 if convolutions == numbers else 3
        parts, blocks = dict[int, str](), Counter[int]()
        for n, i in enumerate(convolutions):
            stage = i - step * n - self.stem_poolings
            parts[i] = f"stages.{stage}.{blocks[stage]}" if n else "stem"
            blocks[stage] += bool(n)
        for name, match in found.items():
            i, leaf = int(match[1]), match[2]
            ours[name] = f"{parts[i]}.conv.{leaf}" if i in parts else f"{parts[i - 1]}.norm.{leaf}"
        return ours

    def from_ours(self, names: Iterable[str]) -> dict[str, str | None]:
        """Map our names to theirs; None for what the layout has no name for."""
        theirs = super().from_ours(names)
        found = {name: match for name in theirs if (match := _OURS.fullmatch(name))}
        step = 3 if any(match[4] == "norm" for match in found.values()) else 2
        places = {match[1]: (int(match[2] or -1), int(match[3] or 0)) for match in found.values()}
        order = sorted(places, key=places.__getitem__)
        for name, match in found.items():
            stage, _ = places[match[1]]
            poolings = stage + self.stem_poolings if match[2] else 0
            i = step * order.index(match[1]) + poolings + (match[4] == "norm")
            theirs[name] = f"features.{i}.{match[5]}"
        return theirs


def _head(first: int, second: int, third: int) -> tuple[Row, ...]:
    layers = ((first, "fc1"), (second, "fc2"), (third, "fc"))
    return tuple(Row(f"classifier.{i}.{{leaf}}", f"head.{fc}.{{leaf}}") for i, fc in layers)


ALEXNET = Numbered(
    # The last convolution is number 10; VGG's go on, to 18 or more.
    mark=r"\A(?=[\s\S]*^features\.10\.)(?![\s\S]*^features\.1[1-9]\.)",
    models={TORCHVISION: ("alexnet",)},
    rows=_head(1, 4, 6),
    stem_poolings=1,
)
VGG = Numbered(
    mark=r"^features\.1[1-9]\.(weight|bias)$",
    models={TORCHVISION: ("vgg*[0-9]", "vgg*_bn")},
    rows=_head(0, 3, 6),
)
