"""Predicting a picture of any size in tiles, at bounded memory.

    p(x) = sum over tiles and flips of share(x) softmax(network(tile))(x)

Exact tiles, for fully convolutional networks: tiles with a halo as wide as the network sees, at multiples of
its stride, each pixel kept once: the result is that of the whole picture. Ronneberger, Fischer, Brox 2015,
figure 2 (overlap-tile strategy). Blended tiles, for all others: Isensee et al. 2021, overlapping by half and
weighted with a Gaussian. See `grid`, `weights`, `plan` and `result` for each.

Shapes: picture (C, *S), S of one to three dimensions; result (K, *S), or (*S,) of class numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from residua.errors import BadInput, nearest
from residua.tiles.geometry import Geometry, geometry_of
from residua.tiles.plan import Plan, Wish, make_plan
from residua.tiles.result import DTYPES, FileResult, MemoryResult
from residua.tiles.source import Prepare, Source
from residua.tiles.sweep import ACTIVATIONS, Sweep
from residua.tiles.weights import BLENDS

ORDERS = {4: torch.channels_last, 5: torch.channels_last_3d}  # of weights, by dimensions
MAX_CLASSES = 255  # class numbers are 0 .. 254; 255 is what counts for nothing


def predict(
    network: nn.Module,
    picture: Any,
    *,
    classes: int,
    tile: int | Sequence[int] | None = None,
    overlap: float | None = None,
    exact: bool | None = None,
    blend: str = "gaussian",
    batch: int | None = None,
    device: str | torch.device | None = None,
    memory_mb: float | None = None,
    flips: Sequence[int] = (),
    prepare: Prepare | None = None,
    activation: str = "softmax",
    precision: torch.dtype | None = None,
    out: str | Path | None = None,
    dtype: str = "float32",
    progress: Callable[[int, int], None] | None = None,
    resume: bool = True,
    geometry: Geometry | None = None,
) -> npt.NDArray[Any]:
    """Return probabilities (K, *S) or class numbers uint8 (*S,) of a picture (C, *S) of any size.

    network: (B, C, *s) -> scores (B, K, *s'), used in evaluation mode and left as it was.
    picture: anything with a shape that gives arrays for slices; read tile by tile.
    tile: sides in pixels that the network reads at once; None: the largest that fit in memory.
    overlap: of blended tiles, a part of a tile, 0 to less than 1; None: 0.5.
    exact: True, or BadInput says why not; False: blend; None: exact where the network is fully
    convolutional and tiles large enough for it fit in memory, else blend. `plan_for` says which and why.
    blend: "gaussian", "linear" or "constant" weights. batch: tiles at once; None: as fit, 4 at most.
    device: where to run; None: where the network is. memory_mb: what the prediction may use beside the
    network, a copy of its weights and the picture; None: 2048. flips: dimensions 0, 1, ... along which the
    picture is mirrored too, the ones that training mirrored; probabilities are averaged over all.
    prepare: (C, *t) as read -> (C', *t) as the network wants it, pixel by pixel. activation: "softmax",
    "sigmoid", or "none" for a network that gives probabilities. precision: of autocast.
    out: a .npy file for the result, which is then returned mapped for reading; a second call goes on
    where a killed one stopped, unless not `resume`. dtype: "float32", "float16" or "classes".
    progress(done, total): told of tiles. geometry: of the network, where it is known already.

    Raises BadInput in one line for anything that does not fit together, CannotWrite if the disk is
    full, ResiduaError if the network gives NaN.
    """
    source = Source(picture, prepare)
    wish = Wish(classes, tile, overlap, exact, blend, batch, memory_mb, dtype, flips)
    mirrored = _checked(wish, source, activation, out)
    geometry = geometry or geometry_of(network, source.channels, len(source.shape))
    plan = make_plan(source.shape, geometry, wish, channels=source.channels, in_memory=out is None)
    with _evaluating(network, device):
        settings = _settings(network, source, plan, wish, mirrored, activation, precision)
        result = (
            MemoryResult(source.shape, classes, dtype)
            if out is None
            else FileResult(Path(out), source.shape, classes, dtype, settings, resume)
        )
        counted = _Counted(progress, plan.tiles * 2 ** len(mirrored))
        sweep = Sweep(
            network,
            source,
            plan,
            flips=mirrored,
            activation=activation,
            precision=precision,
            on_tiles=counted,
        )
        for rows in sweep.rows(result.done if isinstance(result, FileResult) else 0):
            result.write(rows.region, rows.values, rows.step)
        return result.finish()


def plan_for(
    network: nn.Module, picture: Any, *, classes: int, in_memory: bool = True, **wish: Any
) -> Plan:
    """Return what `predict` would do, for its `reason`, `tiles` and `memory`; options as there."""
    source = Source(picture, wish.pop("prepare", None))
    geometry = wish.pop("geometry", None) or geometry_of(
        network, source.channels, len(source.shape)
    )
    wanted = Wish(classes, **wish)
    _checked(wanted, source, "softmax", None)
    return make_plan(source.shape, geometry, wanted, channels=source.channels, in_memory=in_memory)


class _Counted:
    def __init__(self, progress: Callable[[int, int], None] | None, total: int) -> None:
        self.progress, self.total, self.done = progress, total, 0

    def __call__(self, tiles: int) -> None:
        self.done += tiles
        if self.progress is not None:
            self.progress(self.done, self.total)


def _checked(wish: Wish, source: Source, activation: str, out: Any) -> tuple[int, ...]:
    """Return the dimensions to mirror, in order; BadInput if an option is none of those there are."""
    for name, value, known in (
        ("blend", wish.blend, BLENDS),
        ("dtype", wish.dtype, DTYPES),
        ("activation", activation, ACTIVATIONS),
    ):
        if value not in known:
            raise BadInput(f"{name}={value!r}: expected {', '.join(known)}.{nearest(value, known)}")
    if not 1 <= wish.classes <= MAX_CLASSES:
        raise BadInput(f"classes={wish.classes}: expected 1 to {MAX_CLASSES}")
    if wish.overlap is not None and not 0 <= wish.overlap < 1:
        raise BadInput(f"overlap={wish.overlap}: expected a part of a tile, 0 to less than 1")
    if wish.overlap is not None and wish.exact:
        raise BadInput("overlap= is of blended tiles; exact ones overlap by what the network sees")
    for name, number in (("batch", wish.batch), ("memory_mb", wish.memory_mb)):
        if number is not None and not (number > 0 and math.isfinite(number)):
            raise BadInput(f"{name}={number}: expected a number above 0")
    if any(axis not in range(len(source.shape)) for axis in wish.flips):
        raise BadInput(
            f"flips={tuple(wish.flips)}: expected dimensions 0 to {len(source.shape) - 1}"
        )
    if out is not None and Path(out).suffix != ".npy":
        raise BadInput(f"{out}: expected the name of a .npy file")
    return tuple(sorted(set(wish.flips)))


@contextmanager
def _evaluating(network: nn.Module, device: str | torch.device | None) -> Iterator[None]:
    """Let a network predict on a device, and leave it in the modes and the place that it had.

    Its weights work on copies in channels-last order: with maps in that order alone, each convolution
    would turn its weights round again.
    """
    training = [module for module in network.modules() if module.training]
    home = next((p.device for p in network.parameters()), None)
    # made in inference mode, weights cannot be given other data
    weights = [p for p in network.parameters() if p.dim() in ORDERS and not p.is_inference()]
    given = [weight.data for weight in weights]
    moves = device is not None and home is not None and torch.device(device) != home
    try:
        network.eval()
        if moves:
            network.to(device)
        for weight in weights:
            weight.data = weight.data.contiguous(memory_format=ORDERS[weight.dim()])
        with torch.inference_mode():
            yield
    finally:
        for weight, data in zip(weights, given, strict=True):
            weight.data = data
        if moves:
            network.to(home)
        for module in training:
            module.training = True


def _settings(
    network: nn.Module,
    source: Source,
    plan: Plan,
    wish: Wish,
    flips: tuple[int, ...],
    activation: str,
    precision: torch.dtype | None,
) -> dict[str, Any]:
    """Return all that decides the result, to know whether what is on the disk is a part of it."""
    weights = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        weights.update(name.encode())
        weights.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    first = source.read([axis.spans[0] for axis in plan.axes])
    return {
        "picture": list(source.shape),
        "pixels of the first tile": hashlib.sha256(np.ascontiguousarray(first).data).hexdigest(),
        "network": weights.hexdigest(),
        "classes": wish.classes,
        "dtype": wish.dtype,
        "exact": plan.exact,
        "tile": list(plan.tile),
        "tiles": plan.tiles,
        "strips": [list(map(list, strip.pixels)) for strip in plan.strips],
        "batch": plan.batch,
        "blend": wish.blend,
        "overlap": wish.overlap,
        "flips": list(flips),
        "activation": activation,
        "precision": str(precision),
    }
