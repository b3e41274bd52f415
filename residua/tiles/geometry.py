"""What tiles must know about a network: how far it sees, in what steps it works, what it needs.

    output position q sees the picture from  q + low  to  q + high;  moving the picture by a multiple of
    `stride` moves the output and changes nothing else; the output is 2 margin smaller than the input

Found by following the network's operations on two sizes of picture (`follow`): a network whose field depends
on the size is not fully convolutional. Nothing is computed and the network is left as it was.

U-Net 2015: stride 16, margin 92 (572 -> 388). A network that pads has margin 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from residua.tiles.field import Field
from residua.tiles.follow import Follower, NotLocal, naming

SIZE = 512  # pixels a side of the picture that is followed, or as few more as the network takes
TRIES = 64  # sizes more: a network of five levels without padding takes one in 16 or 32


@dataclass(frozen=True)
class Geometry:
    """How a network sees; `why` says why it is not local, or is empty.

    halo: pixels before and after in each dimension that a tile needs beyond the output that is kept.
    stride, margin: pixels. remainder: sides that it takes are this modulo the stride, where it is picky,
    else None. resizes: exact only for sides that are multiples of the stride. bytes_a_pixel: memory of the
    maps that live at one time, for each pixel of the input; None if unknown.
    """

    why: str
    halo: tuple[tuple[int, int], ...]
    stride: tuple[int, ...]
    margin: tuple[int, ...]
    remainder: tuple[int, ...] | None
    resizes: bool
    bytes_a_pixel: float | None

    @property
    def local(self) -> bool:
        """Return whether tiles can give exactly what the whole picture gives."""
        return not self.why


def geometry_of(network: nn.Module, channels: int, dims: int) -> Geometry:
    """Return what tiles must know about a network that takes (B, channels, *S), S of `dims`.

    The network is followed in evaluation mode, as it predicts; also where the caller is in inference mode,
    in which torch hides what operations are made of.
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        with torch.inference_mode(False):
            return _geometry_of(network, channels, dims)
    finally:
        for module in training:
            module.training = True


def _geometry_of(network: nn.Module, channels: int, dims: int) -> Geometry:
    blind = Geometry("", ((0, 0),) * dims, (1,) * dims, (0,) * dims, None, False, None)
    try:
        size, (seen, output, field) = _first_taken(network, channels, dims)
    except NotLocal as reason:
        return replace(blind, why=str(reason))
    lost = [size - side for side in output.shape[2:]]
    peak = seen.peak / size**dims
    if output.dim() != dims + 2 or any(x < 0 or x % 2 for x in lost):
        return replace(blind, why="its output is not of its input's size", bytes_a_pixel=peak)
    stride = tuple(seen.stride)
    found = Geometry(
        why=seen.why
        or ("" if set(field.jump) == {1.0} else "its output is not of its input's size"),
        halo=tuple(_halo(seen, field, axis, lost[axis]) for axis in range(dims)),
        stride=stride,
        margin=tuple(x // 2 for x in lost),
        remainder=tuple(size % s for s in stride),
        resizes=seen.resizes,
        bytes_a_pixel=peak,
    )
    again = _taken(network, channels, tuple(size + s for s in stride))
    if found.why:
        return found
    if isinstance(again, str):
        return replace(found, why=f"it takes one size alone ({again})")
    if again[2] != field:
        return replace(found, why="how far it sees depends on the size")
    odd = _taken(network, channels, (size + 1,) * dims)
    picky = isinstance(odd, str) or [size + 1 - x for x in odd[1].shape[2:]] != lost
    return found if picky else replace(found, remainder=None)


def _halo(seen: Follower, field: Field, axis: int, lost: int) -> tuple[int, int]:
    """Return the pixels near a cut that differ from the whole picture's: none without padding."""
    if not seen.pads:
        return 0, 0
    return max(math.ceil(-field.low[axis]), 0), max(math.ceil(field.high[axis]) - lost, 0)


Followed = tuple[Follower, Tensor, Field]


def _first_taken(network: nn.Module, channels: int, dims: int) -> tuple[int, Followed]:
    """Return the first size a side that the network takes, and what was seen; NotLocal if none.

    Of a network whose output is smaller than its input, one that no layer rounds: by rounding, the
    loss differs from size to size.
    """
    refused, rounded = "", None
    for size in range(SIZE, SIZE + TRIES):
        found = _taken(network, channels, (size,) * dims)
        if isinstance(found, str):
            refused = refused or found
            continue
        seen, output, _ = found
        if not seen.rounds or all(side == size for side in output.shape[2:]):
            return size, found
        rounded = rounded or (size, found)
    if rounded is None:
        raise NotLocal(f"it cannot be followed ({refused})")
    return rounded


def _taken(network: nn.Module, channels: int, size: tuple[int, ...]) -> Followed | str:
    """Return what was seen on a picture of this size, or why the network refuses it."""
    try:
        return _follow(network, channels, size)
    except NotLocal:
        raise
    except Exception as error:  # the user's network may raise whatever it likes
        return " ".join(str(error).split()) or type(error).__name__


def _follow(network: nn.Module, channels: int, size: tuple[int, ...]) -> Followed:
    """Return what was noted, the output (B, K, *S') without numbers, and its field."""
    state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    picture = torch.empty((1, channels, *size), dtype=dtype, device="meta")
    follower = Follower(picture, len(size))
    with torch.no_grad(), naming(network, follower), follower:
        output = functional_call(network, shapes, (picture,))
    if not isinstance(output, Tensor):
        raise NotLocal("it returns more than one map")
    if output not in follower.fields:
        follower.why = follower.why or "its output cannot be followed from its input"
    return follower, output, follower.fields.get(output, Field.of_picture(len(size)))
