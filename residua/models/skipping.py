"""A residual network in which each picture of a batch runs its own choice of blocks.

    y[n] = merge(s(x)[n], F(x)[n])    where picture n keeps the block
    y[n] = s(x)[n]                    where it drops it: F is not computed for that picture

Wu, Nagarajan, Kumar, Rennie, Davis, Grauman, Feris 2018, BlockDrop, section 3. There a block is skipped
at batch size 1 only; here the pictures that keep a block are gathered, run as a smaller batch, and
scattered back, so that a batch costs the blocks that its pictures keep.

Shapes: x (N, C, H, W), keep (N, K) -> (N, classes); keep (M, N, K) -> (M, N, classes). In training, batch
statistics are those of the pictures that keep a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from residua.errors import BadInput
from residua.models.network import Network
from residua.nn.shortcuts import NoShortcut
from residua.nn.skip import Skip

_UNIT = 16  # bytes that are moved at once when rows are scattered


class SkippingNetwork(nn.Module):
    """A `Network` that takes, with its pictures, which of its K blocks each picture keeps.

    Everything outside the branches runs for every picture: stem, shortcuts, what precedes a fork, head.
    Raises BadInput for a network whose blocks cannot be dropped (see `checked`).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = checked(network)
        self.blocks = sum(isinstance(part, Skip) for part in _parts(self.network))

    def forward(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Return class scores.

        keep: bool (N, K), or (M, N, K) for M choices a picture; blocks that come before the first one
        in which these differ run once. Raises BadInput for another shape.
        """
        copies = keep if keep.dim() == 3 else keep[None]
        if copies.shape[1:] != (len(x), self.blocks):
            raise BadInput(
                f"keep {tuple(keep.shape)}: expected ({len(x)}, {self.blocks}), a row a picture and"
                " a column a block"
            )
        copies = copies.cpu()  # once: a block must not wait for the device
        same = (copies == copies[:1]).all(1).all(0)
        split = self.blocks if same.all() else int((~same).nonzero()[0])
        joined, number = copies.flatten(0, 1), 0
        x = self.network.stem(x)
        for part in _parts(self.network):
            if not isinstance(part, Skip):
                x = part(x)
                continue
            if number == split:
                x = torch.cat([x] * len(copies))
            x = _run(part, x, (copies[0] if number < split else joined)[:, number])
            number += 1
        assert self.network.head is not None  # as `checked` says
        scores: torch.Tensor = self.network.head(self.network.tail(x))
        if keep.dim() == 2:
            return scores
        if split == self.blocks:
            return scores.expand(len(copies), *scores.shape)
        return scores.view(len(copies), -1, *scores.shape[1:])


def _parts(network: Network) -> Iterator[nn.Module]:
    """Yield what the stages are made of, in order: skips, and what lies between them."""
    for stage in network.stages:
        for block in stage if isinstance(stage, nn.Sequential) else [stage]:
            yield from block if isinstance(block, nn.Sequential) else [block]


def _run(skip: Skip, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Run the shortcut for every picture, the branch for those that keep it."""
    if bool(keep.all()):
        y: torch.Tensor = skip(x)
        return y
    shortcut: torch.Tensor = skip.shortcut(x)
    rows = keep.nonzero()[:, 0].to(x.device)
    if len(rows) == 0:
        return shortcut
    if len(rows) == 1 and skip.training and len(x) > 1:
        # Batch statistics need more than one picture: all take part, one of them keeps the result.
        return _scatter(shortcut, rows, _gather(skip.merge(shortcut, skip.branch(x)), rows))
    kept = _gather(x, rows)
    around = kept if shortcut is x else _gather(shortcut, rows)
    return _scatter(shortcut, rows, skip.merge(around, skip.branch(kept)))


def _gather(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Return x[rows] in the memory format of x; as contiguous lines, four times as fast as indexing."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)
    return x.index_select(0, rows)


def _scatter(x: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return x with x[rows] = values; without gradients x itself is written to."""
    values = values.to(x.dtype)
    if torch.is_grad_enabled():
        return x.index_copy(0, rows, values)
    into, lines = _lines(x), _lines(values)
    if into is None or lines is None:
        return x.index_copy_(0, rows, values)
    into.index_copy_(0, rows, lines)
    return x


def _lines(x: torch.Tensor) -> torch.Tensor | None:
    """Return a view (N, CHW) of dense memory in the largest units, which copies three times as fast."""
    for order in ((0, 2, 3, 1), (0, 1, 2, 3)):
        line = x.permute(order)
        if line.is_contiguous():
            flat = line.view(len(x), -1)
            units, offset = flat.shape[1] * x.itemsize, x.storage_offset() * x.itemsize
            if units % _UNIT == 0 and offset % _UNIT == 0:
                return flat.view(torch.uint8).view(torch.complex128)
            return flat
    return None


def checked(network: nn.Module) -> Network:
    """Return the network, if blocks can be dropped from it.

    Raises BadInput unless it is a `Network` with a head whose blocks are `Skip`s that add: a merge
    that gives a shortcut back where the branch is zero.
    """
    if not isinstance(network, Network) or network.head is None:
        raise BadInput(
            f"{type(network).__name__}: blocks can be dropped from a classifier of `create_model`"
        )
    skips = {name: m for name, m in network.named_modules() if isinstance(m, Skip)}
    for name, skip in skips.items():
        if isinstance(skip.shortcut, NoShortcut):
            raise BadInput(f"{name} has no shortcut: a plain network's blocks cannot be dropped")
        if not _adds(skip):
            raise BadInput(f"{name} does not add its branch: only what is added can be dropped")
    number = sum(isinstance(part, Skip) for part in _parts(network))
    if number == 0 or number != len(skips):
        raise BadInput("blocks can be dropped where stages are rows of residual blocks: not here")
    return network


@torch.no_grad()
def _adds(skip: Skip) -> bool:
    convolutions = [m for m in skip.branch.modules() if isinstance(m, nn.Conv2d)]
    if not convolutions:
        return False
    weight = convolutions[-1].weight
    shortcut = weight.new_ones(2, len(weight), 2, 2)
    merged = skip.merge(shortcut.clone(), torch.zeros_like(shortcut))
    return merged.shape == shortcut.shape and torch.equal(merged, shortcut)
