"""The frame of U-Nets: levels, each with the next one in the branch of its skip connection.

    level(x) = decode([e, up(level'(down(e)))])     e = encode(x), level' one level deeper
    bottom(x) = encode(x)                           y = head(level(stem(x)))

Ronneberger, Fischer, Brox 2015, figure 1. Sizes of valid networks (`lost`, `valid_size`) follow it, too:
two 3x3 convolutions a block lose two pixels a side, halving rounds down, doubling is exact.

Shapes: (N, C, *S) -> (N, classes, *S'). Training: with deep supervision a list of score maps, coarsest
first, the final one last; else as evaluation, but for what norms and dropout do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn

from residua.nn.recompute import recompute
from residua.nn.skip import Skip
from residua.nn.updown import DownAndUp

LOST = 2  # pixels a side by the two valid 3x3 convolutions of a block


class Level(nn.Sequential):
    """`encode`, then, above the bottom, `skip`: (N, C, *S) -> (N, C', *S').

    notes: where it leaves its map in training, for deep supervision. again: recompute what `encode` does.
    """

    def __init__(self, encode: nn.Module, skip: Skip | None, again: bool) -> None:
        super().__init__()
        self.encode = encode
        if skip is not None:
            self.skip = skip
        self.again = again
        self.notes: list[torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode; go down, up and decode, unless this is the bottom."""
        x = recompute(self.encode, x) if self.again else self.encode(x)
        if "skip" in self._modules:
            x = self.skip(x)
        if self.notes is not None and self.training:
            self.notes.append(x)
        return x


class UNet(nn.Module):
    """stem, the levels, a 1x1 convolution: (N, C, *S) -> (N, classes, *S').

    dims: spatial dimensions. margin: pixels lost at the near side. smallest: the least side it takes.
    """

    last_layers: ClassVar[tuple[str, ...]] = ("head.conv.*", "side_heads.*")

    def __init__(
        self,
        stem: nn.Module,
        level: Level,
        head: nn.Module,
        side_heads: nn.ModuleList,
        dims: int,
        margin: int,
        smallest: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.level = level
        self.head = head
        self.side_heads = side_heads
        self.dims, self.margin, self.smallest = dims, margin, smallest
        self.notes: list[torch.Tensor] = []
        if side_heads:
            for inner in list(levels(level))[1:-1]:
                inner.notes = self.notes

    def forward(self, x: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Score every pixel: (N, C, *S) -> (N, classes, *S'), or in training a list of them."""
        check_picture(x, self.dims, self.smallest)
        self.notes.clear()
        y: torch.Tensor = self.head(self.level(self.stem(x)))
        if not (self.side_heads and self.training):
            return y
        sides = [head(note) for head, note in zip(self.side_heads, self.notes, strict=True)]
        self.notes.clear()
        return [*sides, y]


def check_picture(x: torch.Tensor, dims: int, smallest: int = 1) -> None:
    """Raise ValueError unless x is (N, C, *S) of `dims` dimensions, each `smallest` pixels or more."""
    if x.dim() != dims + 2:
        raise ValueError(
            f"expected a batch of {dims}-D pictures, (N, C, and {dims} sides), got {tuple(x.shape)}"
        )
    if min(x.shape[2:]) < smallest:
        raise ValueError(
            f"pictures of {smallest} pixels a side or more are needed, not {tuple(x.shape[2:])}"
        )


def levels(level: Level) -> Iterator[Level]:
    """Yield a level and those inside it, the bottom last."""
    yield level
    if "skip" in level._modules:
        branch = level.skip.branch
        assert isinstance(branch, DownAndUp) and isinstance(branch.inner, Level)
        yield from levels(branch.inner)


def lost(depth: int) -> int:
    """Return the pixels that a valid U-Net of that many levels loses at the near side.

    >>> lost(5)
    92
    """
    return LOST if depth == 1 else 2 * LOST + 2 * lost(depth - 1)


def valid_size(side: int, depth: int) -> int:
    """Return how many pixels a side of a valid U-Net's output has, 0 where the side is too small.

    >>> valid_size(572, 5), valid_size(132, 4), valid_size(116, 4)
    (388, 44, 28)
    """
    side -= 2 * LOST
    if side < 1 or depth == 1:
        return max(side, 0)
    below = valid_size(side // 2, depth - 1)
    return max(2 * below - 2 * LOST, 0)


def smallest_valid(depth: int) -> int:
    """Return the least side that a valid U-Net of that many levels takes.

    >>> smallest_valid(1), smallest_valid(5)
    (5, 188)
    """
    return next(side for side in itertools.count(1) if valid_size(side, depth) > 0)
