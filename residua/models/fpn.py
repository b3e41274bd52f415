"""Feature pyramids: the maps of a classification network, each with the meaning of all coarser ones.

    p_l = conv1x1_l(c_l) + up(p_(l+1))       c_l the map of stage l; coarsest: p_L = conv1x1_L(c_L)
    P_l = conv3x3_l(p_l)                     every level is an output

Lin, Dollar, Girshick, He, Hariharan, Belongie 2017, Feature Pyramid Networks for Object Detection, section 3
and figure 3: a `Skip` a level, with the up-sampled coarser level as branch, a 1x1 convolution of the stage's
map as shortcut, and addition as merge. Convolutions have biases, no norm and no activation. Up is each pixel
twice, then to exactly the size of c_l: of odd sizes ResNets round the half up, DenseNets down.

    extra "p6"          P6 = every second pixel of P5                             Lin et al. 2017, section 4.1
    extra "p6p7"        P6 = conv3x3/2(c5), P7 = conv3x3/2(relu(P6))              Lin et al. 2017b, RetinaNet
    extra "p6p7_of_p5"  the same from P5, as torchvision's first RetinaNet has it

The semantic head (Kirillov, Girshick, He, Dollar 2019, Panoptic Feature Pyramid Networks, figure 3): on each
level conv3x3, group norm, ReLU, up (bilinear, one level), until all are as fine as the finest, which has one
such stage without up; their sum, conv1x1, up (bilinear) to the size of the picture.

Shapes: (N, C, H, W) -> scores (N, classes, H, W), or with `features_only` the list of the levels' maps
(N, width, h, w), finest first; H, W >= what the encoder takes. Training and evaluation differ as the encoder.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from residua.models.levels import check_picture
from residua.models.registry import create_model, record, register
from residua.nn.init import initialise
from residua.nn.merges import Add
from residua.nn.names import unknown
from residua.nn.norms import Norm, make_norm
from residua.nn.skip import Skip
from residua.nn.updown import fit

PAPER = "Lin et al. 2017, Feature Pyramid Networks; Kirillov et al. 2019, Panoptic FPN"

WIDTH = 256  # Lin et al. 2017, section 3: d
START = 0.01  # of the last convolution's weights: the first scores are all but equal
HEAD_WIDTH = 128  # Kirillov et al. 2019, figure 3
CLASSES = 19  # of the records: Cityscapes', on which Kirillov et al. 2019 report
INPUT_SIZE = 512
PROBE = 1024  # pixels a side of the picture that shows the strides
EXTRA = ("none", "p6", "p6p7", "p6p7_of_p5")

Pair = tuple[torch.Tensor, torch.Tensor]  # a stage's map c_l, and the coarser level p_(l+1)


class Lateral(nn.Module):
    """The shortcut of a level: a 1x1 convolution of the stage's map."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 1)

    def forward(self, x: Pair) -> torch.Tensor:
        """Return conv1x1(c_l): (N, width, h, w)."""
        y: torch.Tensor = self.conv(x[0])
        return y


class UpTo(nn.Module):
    """The branch of a level: the coarser level, up-sampled to the size of the stage's map."""

    def forward(self, x: Pair) -> torch.Tensor:
        """Return up(p_(l+1)): (N, width, h, w)."""
        return fit(functional.interpolate(x[1], scale_factor=2, mode="nearest"), x[0].shape[2:])


class Beyond(nn.Module):
    """Two levels beyond the coarsest: conv3x3/2(x), conv3x3/2(relu of that)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.p6 = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """(N, channels, h, w) -> P6 (N, width, ceil(h / 2), ceil(w / 2)), P7 half as large."""
        p6 = self.p6(x)
        return [p6, self.p7(functional.relu(p6))]


class Pyramid(nn.Module):
    """Maps of stages -> maps of levels, finest first."""

    def __init__(self, channels: Sequence[int], width: int, extra: str) -> None:
        """Take the stages' channels; extra: one of `EXTRA`."""
        super().__init__()
        self.levels = nn.ModuleList(
            Skip(UpTo(), Lateral(stage, width), Add()) for stage in channels[:-1]
        )
        self.coarsest = nn.Conv2d(channels[-1], width, 1)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.extra = extra
        if extra.startswith("p6p7"):
            self.beyond = Beyond(channels[-1] if extra == "p6p7" else width, width)

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return P_l for each map c_l, then the extra levels."""
        merged = [self.coarsest(maps[-1])]
        for level, c in zip(reversed(self.levels), reversed(maps[:-1]), strict=True):
            merged.append(level((c, merged[-1])))
        found = [smooth(p) for smooth, p in zip(self.smooth, reversed(merged), strict=True)]
        if self.extra == "p6":
            found.append(found[-1][:, :, ::2, ::2])
        elif self.extra != "none":
            found += self.beyond(maps[-1] if self.extra == "p6p7" else found[-1])
        return found


class Rise(nn.ModuleList):
    """The stages of one level in the head: conv3x3 norm relu, up to the next size; and so on."""

    def __init__(self, stages: int, width: int, head_width: int, norm: Norm) -> None:
        super().__init__(
            _stage(width if i == 0 else head_width, head_width, norm) for i in range(stages)
        )

    def forward(self, x: torch.Tensor, sizes: Sequence[torch.Size]) -> torch.Tensor:
        """(N, width, h, w) -> (N, head_width, *the last of the sizes), one size a stage."""
        for stage, size in zip(self, sizes, strict=True):
            x = stage(x)
            if x.shape[2:] != size:
                x = _bilinear(x, size)
        return x


class SemanticHead(nn.Module):
    """Levels of a pyramid, finest first -> a score a class for each pixel of the finest."""

    def __init__(self, levels: int, width: int, head_width: int, classes: int, norm: Norm) -> None:
        """Take the number of levels and their width, that of the head, and its norm."""
        super().__init__()
        self.levels = nn.ModuleList(
            Rise(max(1, level), width, head_width, norm) for level in range(levels)
        )
        self.scores = nn.Conv2d(head_width, classes, 1)

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return scores (N, classes, h, w) at the size of the first map."""
        sizes = [y.shape[2:] for y in maps]
        total: torch.Tensor | None = None
        for i, (level, y) in enumerate(zip(self.levels, maps, strict=True)):
            risen = level(y, sizes[: max(1, i)][::-1])
            total = risen if total is None else total + risen
        scores: torch.Tensor = self.scores(total)
        return scores


def _stage(cin: int, cout: int, norm: Norm) -> nn.Sequential:
    """conv3x3 norm relu."""
    parts: list[nn.Module] = [norm.conv(cin, cout, 3)]
    if norm.layer is not None:
        parts.append(norm.layer(cout))
    return nn.Sequential(*parts, norm.act())


def _bilinear(x: torch.Tensor, size: Sequence[int], factor: int = 2) -> torch.Tensor:
    """Return a map of this size, about `factor` times as large as x."""
    if factor > 1:
        x = functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    return fit(x, size)


class FPN(nn.Module):
    """encoder -> pyramid -> head; the encoder is a classification network that returns its stages' maps."""

    last_layers: ClassVar[tuple[str, ...]] = ("head.scores.*",)

    def __init__(
        self,
        encoder: nn.Module,
        pyramid: Pyramid,
        head: nn.Module | None,
        strides: Sequence[int],
        smallest: int,
    ) -> None:
        """Take the parts.

        strides: pixels of the picture from one pixel of a level to the next, finest first; there may be
        fewer levels than stages. smallest: the least side of a picture.
        """
        super().__init__()
        self.encoder = encoder
        self.pyramid = pyramid
        self.head = head
        self.strides = tuple(strides)
        self.stage_channels = (pyramid.coarsest.out_channels,) * len(self.strides)
        self.smallest = smallest

    def forward(self, x: torch.Tensor) -> Any:
        """Return scores (N, classes, H, W), or the list of the levels' maps where there is no head."""
        check_picture(x, 2, self.smallest)
        levels = self.pyramid(self.encoder(x)[-len(self.pyramid.smooth) :])
        if self.head is None:
            return levels
        return _bilinear(self.head(levels), x.shape[2:], self.strides[0])


def strides_of(encoder: nn.Module, in_channels: int) -> list[int]:
    """Return the strides of a network's maps, from their sizes on a picture without contents."""
    probe = copy.deepcopy(encoder).to("meta").eval()
    dtype = next(probe.parameters()).dtype
    maps = probe(torch.empty(1, in_channels, PROBE, PROBE, device="meta", dtype=dtype))
    return [2 ** round(math.log2(PROBE / y.shape[2])) for y in maps]


def fpn(
    *,
    encoder: str,
    num_classes: int,
    in_channels: int,
    norm: str | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    width: int = WIDTH,
    first: int = 0,
    extra: str = "none",
    head_width: int = HEAD_WIDTH,
    head_norm: str = "group",
    features_only: bool = False,
) -> FPN:
    """Build a feature pyramid on a classification network, with a semantic head.

    The weights of the encoder are those that `create_model(encoder, features_only=True)` draws, and have the
    same names: a checkpoint loads by `residua.load_weights(model.encoder, path)`.

    Args:
        encoder: the name of any classification model. norm: its norm, None: its own.
        encoder_options: others of its options. width: channels of every level.
        first: the stage that is the finest level, from 0 (of ResNets: C2; 1 is RetinaNet's C3).
        extra: levels beyond the coarsest, one of `EXTRA`; with `features_only`, for the head reads none.
        head_width: channels inside the head. head_norm: one of `residua.nn.NORMS`, in the head.
        features_only: no head; return every level's map.

    Raises ValueError for an encoder that is none, or a value out of range.
    """
    body = record(encoder)
    if body.task != "classification" or body.dims != 2:
        raise ValueError(
            f"encoder {encoder!r} is for {body.task}: expected a 2-D classification model"
        )
    if extra not in EXTRA:
        raise ValueError(unknown("extra", extra, EXTRA))
    if extra != "none" and not features_only:
        raise ValueError(
            f"extra {extra!r} needs features_only: the semantic head reads no such levels"
        )
    for what, number in (("width", width), ("head_width", head_width)):
        if number < 1:
            raise ValueError(f"{what} {number} is not at least 1")
    options = {**(encoder_options or {}), **({} if norm is None else {"norm": norm})}
    features = create_model(encoder, in_channels=in_channels, features_only=True, **options)
    channels = features.stage_channels
    assert isinstance(channels, tuple)
    if not 0 <= first < len(channels):
        raise ValueError(
            f"first {first} is not a stage of {encoder}: it has 0 to {len(channels) - 1}"
        )
    strides = strides_of(features, in_channels)[first:]
    if any(b != 2 * a for a, b in itertools.pairwise(strides)):
        raise ValueError(
            f"encoder {encoder!r} does not halve from stage to stage: strides {strides}"
        )
    pyramid = Pyramid(channels[first:], width, extra)
    initialise(pyramid, "glorot")  # nothing rectifies in between
    head = None
    if not features_only:
        head = SemanticHead(
            len(channels) - first, width, head_width, num_classes, make_norm(head_norm)
        )
        initialise(head)
        nn.init.normal_(head.scores.weight, std=START)
    beyond = {"none": 0, "p6": 1}.get(extra, 2)
    strides += [strides[-1] << i for i in range(1, beyond + 1)]
    return FPN(features, pyramid, head, strides, body.smallest)


# name: (encoder, parameters, multiply-adds)
NETWORKS = {
    "resnet18_fpn": ("resnet18", 15_409_875, 30_628_904_960),
    "resnet50_fpn": ("resnet50", 28_478_675, 44_017_123_328),
    "resnext50_32x4d_fpn": ("resnext50_32x4d", 27_950_547, 44_755_320_832),
    "densenet121_fpn": ("densenet121", 11_662_355, 37_398_511_616),
}

for _name, (_encoder, _parameters, _multiply_adds) in NETWORKS.items():
    register(
        _name,
        fpn,
        family="fpn",
        paper=PAPER,
        parameters=_parameters,
        multiply_adds=_multiply_adds,
        input_size=INPUT_SIZE,
        num_classes=CLASSES,
        preset={"encoder": _encoder},
        task="segmentation",
    )

# The same on any encoder, by option; the record is that of the one it takes where none is given.
register(
    "fpn",
    fpn,
    family="fpn",
    paper=PAPER,
    parameters=NETWORKS["resnet50_fpn"][1],
    multiply_adds=NETWORKS["resnet50_fpn"][2],
    input_size=INPUT_SIZE,
    num_classes=CLASSES,
    preset={},
    defaults={"encoder": "resnet50"},
    task="segmentation",
)
