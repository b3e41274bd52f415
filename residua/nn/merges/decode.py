"""Concatenation and what reads it, as one merge: a U-Net's decoder.

    y = b_n(... b_1([crop(s), f]))

Ronneberger, Fischer, Brox 2015, figure 1: "copy and crop", then the convolutions b_1, b_2, ... The
concatenation itself is not kept for the backward pass, which needs it again: s and f are kept anyway, and
it is joined from them anew. Gradients are the same bit for bit; a U-Net keeps 9 % less.

Shapes: s (N, C, *S), f (N, C', *S') with S' <= S -> y as b_n makes it of (N, C + C', *S'). Training and
evaluation differ as the blocks.
"""

from __future__ import annotations

import weakref

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from residua.nn.merges.concatenate import Concatenate, crop
from residua.nn.recompute import recompute, recomputing

Kept = (
    torch.Tensor | tuple[torch.Tensor, torch.Tensor]
)  # what autograd keeps: a tensor, or its parts


class Decode(Concatenate):
    """y = blocks(cat(centre of the shortcut, branch)), shortcut first.

    near: of the shortcut, how many pixels to leave out at the near side; None: the centre is taken.
    again: compute the blocks again in the backward pass, and keep nothing of what is inside.
    """

    def __init__(self, blocks: nn.Sequential, near: int | None = None, again: bool = False) -> None:
        super().__init__()
        self.blocks = blocks
        self.near = near
        self.again = again

    def forward(self, shortcut: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Join and decode: (N, C, *S), (N, C', *S') -> (N, C'', *S'')."""
        if self.near is None:
            centre = crop(shortcut, branch.shape[2:])
        else:
            centre = shortcut
            for dimension, size in enumerate(branch.shape[2:], start=2):
                centre = centre.narrow(dimension, self.near, size)
        if self.again:
            return recompute(_Joined(centre, self), branch)
        first, *rest = self.blocks
        y = self._read(first, centre, branch)
        for block in rest:
            y = block(y)
        return y

    def _read(self, first: nn.Module, s: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """Return first([s, f]), of which autograd keeps s and f."""
        joined = torch.cat((s, f), 1)
        y: torch.Tensor
        if torch.compiler.is_compiling() or not (self.training and recomputing()):
            y = first(joined)
            return y

        seen = weakref.ref(joined)  # autograd keeps `pack`, which must not keep what it replaces

        def pack(saved: torch.Tensor) -> Kept:
            return (s, f) if saved is seen() else saved

        with saved_tensors_hooks(pack, _unpack):
            y = first(joined)
        return y


def _unpack(kept: Kept) -> torch.Tensor:
    return kept if isinstance(kept, torch.Tensor) else torch.cat(kept, 1)


class _Joined(nn.Module):
    """All that follows the branch, as a module of the branch alone."""

    def __init__(self, centre: torch.Tensor, decode: Decode) -> None:
        super().__init__()
        self.centre, self.blocks = centre, decode.blocks
        self.training = decode.training

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Join and decode."""
        y: torch.Tensor = self.blocks(torch.cat((self.centre, branch), 1))
        return y
