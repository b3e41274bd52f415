"""U-Net++: U-Nets of every depth in one, nested, each level's maps all concatenated.

    x_i0 = f(down(x_(i-1)0))     x_ij = f([x_i0, ..., x_i(j-1), up(x_(i+1)(j-1))])     y_j = head_j(x_0j)

Zhou, Siddiquee, Tajbakhsh, Liang 2018, UNet++: a nested U-Net architecture for medical image segmentation,
equation 1 and figure 1; f is two of conv-norm-relu. x_0j is the output of a U-Net of j + 1 levels, so with
deep supervision (section 3.2) a network trained once can be pruned to any of them: `prune`.

Shapes: (N, C, *S) -> (N, classes, *S), any S from one pixel on. Training: with deep supervision the list
of y_1, ..., y_(depth - 1), the final one last; evaluation: the final one ("fast mode").
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import ClassVar

import torch
from torch import nn

from residua.models.levels import check_picture
from residua.models.registry import register
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.merges.decode import Decode
from residua.nn.norms import Norm, make_norm
from residua.nn.recompute import Lean
from residua.nn.updown import fit, make_down, make_up

PAPER = "Zhou, Siddiquee, Tajbakhsh, Liang 2018, UNet++"


class UNetPlusPlus(nn.Module):
    """The nodes x_ij, i levels down and j steps across: (N, C, *S) -> (N, classes, *S).

    encode, down: of each level. decode, up: by "ij". heads: by "j".
    """

    last_layers: ClassVar[tuple[str, ...]] = ("heads.*",)

    def __init__(
        self,
        widths: list[int],
        in_channels: int,
        num_classes: int,
        norm: Norm,
        up: str,
        deep_supervision: bool,
        again: bool,
    ) -> None:
        super().__init__()
        self.depth, self.dims = len(widths), norm.dims
        channels = [in_channels, *widths]
        self.encode = nn.ModuleList(
            _block(a, b, norm) for a, b in zip(channels, widths, strict=False)
        )
        self.down = nn.ModuleList(make_down("max", w, norm) for w in widths[:-1])
        self.up, self.decode, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for i, j in self.nodes():
            width = widths[i]
            self.up[f"{i}{j}"] = make_up(up, widths[i + 1], width, norm)
            self.decode[f"{i}{j}"] = Decode(_block((j + 1) * width, width, norm), again=again)
        for j in range(1 if deep_supervision else self.depth - 1, self.depth):
            self.heads[str(j)] = norm.conv(widths[0], num_classes, 1, bias=True)

    def nodes(self) -> list[tuple[int, int]]:
        """Return (i, j) of the nodes with j > 0, in an order in which each reads earlier ones."""
        return [(i, s - i) for s in range(1, self.depth) for i in range(s - 1, -1, -1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Score every pixel: (N, C, *S) -> (N, classes, *S), or in training a list of them."""
        check_picture(x, self.dims)
        rows: list[list[torch.Tensor]] = []
        for i, encode in enumerate(self.encode):
            rows.append([encode(x if i == 0 else self.down[i - 1](rows[i - 1][0]))])
        for i, j in self.nodes():
            before = rows[i][0] if j == 1 else torch.cat(rows[i], 1)
            risen = fit(self.up[f"{i}{j}"](rows[i + 1][j - 1]), before.shape[2:])
            rows[i].append(self.decode[f"{i}{j}"](before, risen))
        if self.training and len(self.heads) > 1:
            return [head(rows[0][int(j)]) for j, head in self.heads.items()]
        last, head = list(self.heads.items())[-1]
        y: torch.Tensor = head(rows[0][int(last)])
        return y

    def prune(self, level: int) -> UNetPlusPlus:
        """Return a copy that ends at x_0level, without what only deeper ones need; this one stays.

        ValueError if there is no head at that level.
        """
        if str(level) not in self.heads:
            raise ValueError(f"no head at level {level}: there are {', '.join(self.heads)}")
        pruned = copy.deepcopy(self)
        pruned.depth = level + 1
        pruned.encode, pruned.down = pruned.encode[: level + 1], pruned.down[:level]
        kept = {f"{i}{j}" for i, j in pruned.nodes()}
        for part in (pruned.up, pruned.decode):
            for name in [name for name in part if name not in kept]:
                del part[name]
        for name in [name for name in pruned.heads if int(name) > level]:
            del pruned.heads[name]
        return pruned


def _block(channels: int, width: int, norm: Norm) -> nn.Sequential:
    """Return two of conv, norm, relu: (N, channels, *S) -> (N, width, *S)."""
    parts = OrderedDict[str, nn.Module]()
    for k, cin in enumerate((channels, width), start=1):
        parts[f"conv{k}"] = norm.conv(cin, width, 3)
        if norm.layer is not None:
            parts[f"norm{k}"] = norm.layer(width)
        parts[f"act{k}"] = norm.act()
    return Lean(parts)


def unetpp(
    *,
    dims: int,
    num_classes: int,
    in_channels: int,
    width: int = 32,
    depth: int = 5,
    norm: str = "batch",
    up: str = "transpose",
    deep_supervision: bool = True,
    recompute: bool = False,
    init: str = "he",
    fan: Fan = "fan_in",
) -> UNetPlusPlus:
    """Build a U-Net++.

    Args:
        dims: 1, 2 or 3 spatial dimensions. width: channels of the first level; they double with each.
        depth: levels, from 2 to 10. norm: one of `residua.nn.NORMS`; the authors' code has none.
        up: see `residua.nn.updown`. deep_supervision: scores of every depth in training; without it the
            network cannot be pruned.
        recompute: keep no activations inside of nodes with j > 0. init, fan: see `residua.nn.initialise`.
    """
    if width < 1 or not 2 <= depth <= 10:
        raise ValueError(f"width {width} must be at least 1, and depth {depth} from 2 to 10")
    widths = [width * 2**i for i in range(depth)]
    how = make_norm(norm, dims)
    network = UNetPlusPlus(widths, in_channels, num_classes, how, up, deep_supervision, recompute)
    initialise(network, init, fan)
    return network


register(
    "unetpp",
    unetpp,
    family="unetpp",
    paper=PAPER,
    parameters=9_046_056,
    multiply_adds=29_790_044_160,
    input_size=256,
    num_classes=2,
    preset={"dims": 2},
    task="segmentation",
)
