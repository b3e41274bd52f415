"""Concatenation and what reads it, as one merge: a U-Net's decoder.

    y = b_n(... b_1([crop(s), f]))

Ronneberger, Fischer, Brox 2015, figure 1: "copy and crop", then the convolutions b_1, b_2, ... In training
nothing is joined where b_1 is a plain convolution, which is linear:

    W [s, f] + b = W_s s + W_f f + b

the same but for rounding, without a copy of s. Before other blocks the concatenation is not kept for the
backward pass, which needs it again: s and f are kept anyway, and it is joined from them anew.

Shapes: s (N, C, *S), f (N, C', *S') with S' <= S -> y as b_n makes it of (N, C + C', *S'). Training and
evaluation differ as the blocks.
"""

from __future__ import annotations

import weakref
from typing import TypeGuard

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from residua.nn.merges.concatenate import Concatenate, crop
from residua.nn.norms.norm import PLAIN
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
        return self.joined(centre, branch)

    def joined(self, centre: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """Decode what is cut to size."""
        rest = self.blocks[1:]  # of the same kind: what a `Lean` one does not keep, this does not
        rest.training = self.blocks.training
        y: torch.Tensor = rest(self._read(self.blocks[0], centre, branch))
        return y

    def _read(self, first: nn.Module, s: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """Return first([s, f]), of which autograd keeps s and f."""
        if torch.compiler.is_compiling() or not (self.training and recomputing()):
            whole: torch.Tensor = first(torch.cat((s, f), 1))
            return whole
        if _is_plain(first):
            of_s, of_f = torch.split(first.weight, [s.shape[1], f.shape[1]], 1)
            y: torch.Tensor = first._conv_forward(s, of_s, first.bias)
            return y.add_(first._conv_forward(f, of_f, None))
        joined = torch.cat((s, f), 1)
        seen = weakref.ref(joined)  # autograd keeps `pack`, which must not keep what it replaces

        def pack(saved: torch.Tensor) -> Kept:
            return (s, f) if saved is seen() else saved

        with saved_tensors_hooks(pack, _unpack):
            kept: torch.Tensor = first(joined)
        return kept


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether a module is a convolution of torch's own and nobody waits for it to be called."""
    hooks = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    watched = any(getattr(module, name) for name in hooks)
    return bool(type(module) in PLAIN.values() and module.groups == 1 and not watched)


def _unpack(kept: Kept) -> torch.Tensor:
    return kept if isinstance(kept, torch.Tensor) else torch.cat(kept, 1)


class _Joined(nn.Module):
    """All that follows the branch, as a module of the branch alone."""

    def __init__(self, centre: torch.Tensor, decode: Decode) -> None:
        super().__init__()
        self.centre, self.decode = centre, decode
        self.training = decode.training

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Join and decode."""
        return self.decode.joined(self.centre, branch)
