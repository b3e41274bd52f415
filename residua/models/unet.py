"""U-Net: down, an inner U-Net, up, and what was there before beside it; of any depth, width and dimensions.

    level(x) = decode([e, up(level'(down(e)))])     e = encode(x), level' one level deeper
    bottom(x) = encode(x)                           y = head(level(stem(x)))

Ronneberger, Fischer, Brox 2015, U-Net: convolutional networks for biomedical image segmentation, figure 1;
Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger 2016, 3D U-Net, figure 2. As a skip connection the branch is
(down, level', up), the shortcut the identity, the merge a concatenation that the decoder reads.

As published, convolutions are valid: each loses a pixel a side, and the shortcut is cropped. With "same"
padding every size from one pixel on works: maps are halved upward and cut to the skip's size.

Shapes: (N, C, *S) -> (N, classes, *S'), S' = S, or with valid convolutions smaller by `margin` at the near
side (top, left) and by as much or a little more at the far side. Training: dropout, the norm's own
difference, and with deep supervision a list of score maps, coarsest first, the final one last.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import nn

from residua.models.levels import Level, UNet, lost, smallest_valid
from residua.models.registry import register
from residua.nn.blocks import BasicBlock, BlockOptions, BottleneckBlock, Drop
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.merges.decode import Decode
from residua.nn.names import unknown
from residua.nn.norms import Norm, make_norm
from residua.nn.orders import ORDERS
from residua.nn.recompute import Lean
from residua.nn.skip import Skip
from residua.nn.updown import DownAndUp, make_down, make_up

RONNEBERGER = "Ronneberger, Fischer, Brox 2015, U-Net"
CICEK = "Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger 2016, 3D U-Net"

BLOCKS = ("plain", "basic", "bottleneck")
RESIDUAL: dict[str, type[BasicBlock] | type[BottleneckBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
}
PADDINGS = ("same", "valid")
PLAIN_OPTIONS = {  # what the options of residual blocks are where there are none
    "order": "original",
    "shortcut": "B",
    "merge": "add",
    "attention": None,
    "stochastic_depth": 0.0,
}
DROPPED = 2  # levels with dropout: the end of the contracting path (2015, section 3.1)


@dataclass
class Builder:
    """Makes the levels of one U-Net; `unet` says what the fields are."""

    norm: Norm
    widths: list[int]
    padding: str
    block: str
    decoder_block: str
    blocks: int
    options: dict[str, Any]  # of residual blocks
    down: str
    up: str
    biases: bool | None
    up_bias: bool
    early: bool
    flat: int
    dropout: float
    again: bool
    done: int = 0  # residual blocks so far

    def __post_init__(self) -> None:
        for what, given, known in (
            ("block", self.block, BLOCKS),
            ("decoder_block", self.decoder_block, BLOCKS),
            ("padding", self.padding, PADDINGS),
        ):
            if given not in known:
                raise ValueError(unknown(what, given, known))
        if min(*self.widths, self.blocks) < 1 or not 0 <= self.flat <= len(self.widths):
            raise ValueError("width and blocks must be at least 1, and flat from 0 to depth")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout {self.dropout} is not in [0, 1)")
        plain = {self.block, self.decoder_block} == {"plain"}
        if self.padding == "valid" and (not plain or self.flat or self.down == "stride"):
            raise ValueError("valid padding goes with plain blocks and pooling only, not with flat")
        if self.early and (self.block != "plain" or self.widths[0] % 2):
            raise ValueError("early goes with plain blocks of an even width only")
        if plain and (self.options != PLAIN_OPTIONS or self.blocks > 1):
            raise ValueError(
                f"{', '.join(PLAIN_OPTIONS)} and blocks are of residual blocks: block 'plain' has none"
            )

    def norm_of(self, i: int) -> Norm:
        """Return the norm of level i: the first `flat` ones leave slices apart."""
        return self.norm.slicewise() if i < self.flat else self.norm

    def plain(self, channels: Sequence[int], i: int) -> nn.Sequential:
        """Return conv, norm, relu from each of these channels to the next: (N, C, *S) -> (N, C', *S')."""
        norm, parts = self.norm_of(i), OrderedDict[str, nn.Module]()
        padding = 0 if self.padding == "valid" else None
        for k, (cin, cout) in enumerate(pairwise(channels), start=1):
            parts[f"conv{k}"] = norm.conv(cin, cout, 3, bias=self.biases, padding=padding)
            if norm.layer is not None:
                parts[f"norm{k}"] = norm.layer(cout)
            parts[f"act{k}"] = norm.act()
        return Lean(parts)

    def residual(self, channels: int, i: int, kind: str, count: int) -> nn.Sequential:
        """Return residual blocks of level i: (N, channels, *S) -> (N, width, *S)."""
        made, width, depth = RESIDUAL[kind], self.widths[i], len(self.widths)
        if width % made.expansion:
            raise ValueError(
                f"{kind} blocks are {made.expansion} times as wide outside: not {width}"
            )
        total = (self.block != "plain") * depth * self.blocks
        total += (self.decoder_block != "plain") * (depth - 1)
        rate = Drop(self.options["stochastic_depth"])
        own = {k: v for k, v in self.options.items() if k != "stochastic_depth"}
        how = BlockOptions(norm=self.norm_of(i), drop=rate, **own)
        parts = []
        for _ in range(count):
            self.done += 1
            parts.append(made(channels, width // made.expansion, 1, how, self.done, total))
            channels = width
        return nn.Sequential(*parts)

    def encode(self, channels: int, i: int) -> nn.Sequential:
        """Return the encoder's blocks of level i."""
        width = self.widths[i]
        if self.block == "plain":
            made = self.plain((channels, width // 2 if self.early else width, width), i)
        else:
            made = self.residual(channels, i, self.block, self.blocks)
        if self.dropout and i >= len(self.widths) - DROPPED:
            made.add_module("dropout", nn.Dropout(self.dropout))
        return made

    def decode(self, channels: int, i: int) -> nn.Sequential:
        """Return the decoder's block of level i, which reads that many channels."""
        if self.decoder_block == "plain":
            return self.plain((channels, self.widths[i], self.widths[i]), i)
        return self.residual(channels, i, self.decoder_block, 1)

    def level(self, channels: int, i: int = 0) -> Level:
        """Return level i and all below: (N, channels, *S) -> (N, width, *S')."""
        width, below = self.widths[i], len(self.widths) - 1 - i
        encode = self.encode(channels, i)
        if not below:
            return Level(encode, None, self.again)
        norm, deeper = self.norm_of(i), self.widths[i + 1]
        risen = deeper if self.early else width
        same = self.padding == "same"
        branch = DownAndUp(
            make_down(self.down, width, norm, partial=same),
            self.level(width, i + 1),
            make_up(self.up, deeper, risen, norm, self.up_bias),
            resize=same,
        )
        decode = Decode(
            self.decode(width + risen, i), None if same else 2 * lost(below), self.again
        )
        return Level(encode, Skip(branch, nn.Identity(), decode), self.again)


def unet(
    *,
    dims: int,
    num_classes: int,
    in_channels: int,
    width: int = 64,
    depth: int = 5,
    max_width: int | None = None,
    padding: str = "same",
    norm: str = "batch",
    block: str = "plain",
    decoder_block: str | None = None,
    blocks: int = 1,
    down: str = "max",
    up: str = "transpose",
    biases: bool | None = None,
    up_bias: bool = True,
    early: bool = False,
    flat: int = 0,
    order: str = "original",
    shortcut: str = "B",
    merge: str = "add",
    attention: str | None = None,
    stochastic_depth: float = 0.0,
    dropout: float = 0.0,
    deep_supervision: bool = False,
    recompute: bool = False,
    init: str = "he",
    fan: Fan = "fan_in",
) -> UNet:
    """Build a U-Net.

    Args:
        dims: 1, 2 or 3 spatial dimensions. width: channels of the first level; they double with each,
            up to max_width. depth: levels, the bottom one counted.
        padding: "same", or "valid" as published, where an odd side loses a pixel before it is halved.
        norm: one of `residua.nn.NORMS`, everywhere.
        block: "plain" (two of conv, norm, relu), "basic" or "bottleneck"; decoder_block: in the decoder
            (None: the same). blocks: residual blocks a level in the encoder.
        down, up: see `residua.nn.updown`. biases: of the 3x3 convolutions (None: where no norm follows).
        up_bias: of the up-convolutions. early: channels double before each pooling and up-convolutions
            keep them (2016) rather than after it (2015).
        flat: of volumes with thick slices, how many of the first levels leave slices apart, as nnU-Net
            does (Isensee et al. 2021).
        order, shortcut, merge, attention, stochastic_depth: of residual blocks, see `residual_network`.
        dropout: probability, at the end of the last two levels of the encoder.
        deep_supervision: in training every decoder level gives scores.
        recompute: keep no activations inside of blocks. init, fan: see `residua.nn.initialise`.
    """
    if width < 1 or depth < 1:
        raise ValueError(f"width {width} and depth {depth} must be at least 1")
    how = make_norm(norm, dims)
    widths = [min(width * 2**i, max_width or width * 2**i) for i in range(depth)]
    builder = Builder(
        norm=how,
        widths=widths,
        padding=padding,
        block=block,
        decoder_block=decoder_block or block,
        blocks=blocks,
        options={
            "order": order,
            "shortcut": shortcut,
            "merge": merge,
            "attention": attention,
            "stochastic_depth": stochastic_depth,
        },
        down=down,
        up=up,
        biases=biases,
        up_bias=up_bias,
        early=early,
        flat=flat,
        dropout=dropout,
        again=recompute,
    )
    stem: nn.Module = nn.Identity()
    channels = in_channels
    if block != "plain":
        conv = builder.norm_of(0).conv(in_channels, width, 3)
        stem = nn.Sequential(OrderedDict(conv=conv, **ORDERS[order].stem(width, how)))
        channels = width
    level = builder.level(channels)
    last = block if depth == 1 else builder.decoder_block

    def head(channels: int) -> nn.Sequential:
        tail = None if last == "plain" else ORDERS[order].tail(channels, how)
        parts = OrderedDict[str, nn.Module]() if tail is None else OrderedDict(tail=tail)
        parts["conv"] = how.conv(channels, num_classes, 1, bias=True)
        return nn.Sequential(parts)

    sides = nn.ModuleList([head(w) for w in widths[-2:0:-1]] if deep_supervision else [])
    margin, smallest = (lost(depth), smallest_valid(depth)) if padding == "valid" else (0, 1)
    network = UNet(stem, level, head(width), sides, dims, margin, smallest)
    initialise(network, init, fan)
    return network


# name: (paper, preset, defaults, input size, classes, parameters, multiply-adds)
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, Any], int, int, int, int]] = {
    "unet_2015": (
        RONNEBERGER,
        {"dims": 2, "padding": "valid"},
        {"norm": "none", "dropout": 0.5},
        572,
        2,
        31_031_810,
        150_802_709_248,
    ),
    "unet": (RONNEBERGER, {"dims": 2}, {}, 256, 2, 31_037_698, 48_171_581_440),
    "unet1d": (RONNEBERGER, {"dims": 1}, {}, 256, 2, 10_818_690, 317_898_752),
    "unet3d_2016": (
        CICEK,
        {"dims": 3, "padding": "valid", "early": True},
        {"depth": 4, "biases": True, "up_bias": False},
        132,
        3,
        19_074_627,
        328_537_055_488,
    ),
    "unet3d": (
        CICEK,
        {"dims": 3},
        {"width": 32, "max_width": 320},
        64,
        2,
        16_545_858,
        59_525_300_224,
    ),
    "resunet": (
        RONNEBERGER,
        {"dims": 2},
        {"block": "basic", "blocks": 2, "decoder_block": "plain"},
        256,
        2,
        56_924_034,
        75_283_562_496,
    ),
    "resunet3d": (
        CICEK,
        {"dims": 3},
        {"block": "basic", "blocks": 2, "decoder_block": "plain", "width": 32, "max_width": 320},
        64,
        2,
        26_932_994,
        94_428_725_248,
    ),
}

for name, (paper, preset, defaults, size, classes, parameters, adds) in NETWORKS.items():
    register(
        name,
        unet,
        family="unet",
        paper=paper,
        parameters=parameters,
        multiply_adds=adds,
        input_size=size,
        num_classes=classes,
        preset=preset,
        defaults=defaults,
        smallest=smallest_valid(defaults.get("depth", 5)) if "padding" in preset else 1,
        task="segmentation",
        dims=preset["dims"],
    )
