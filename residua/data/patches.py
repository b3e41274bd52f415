"""Training patches of pictures with masks: which ones at a step, and what they look like.

    q             = step B + place in the batch                 position in one endless stream
    cycle, k      = divmod(q, N R)                              N pictures, R patches of each a cycle
    picture       = permutation(seed, cycle)[k] // R
    patch         = cut(store[picture]; seed, picture, showing) the how manyth of that picture

Where it lies in that picture is decided by `places`. So the stream is a function of the seed: neither batch
size, workers, ranks nor a resume change a bit of it. In evaluation whole pictures come out, untouched.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from residua.data.counter import Draws, Ints, permutation
from residua.data.decoded import PairStore
from residua.data.deform import Array, deform, window
from residua.data.masks import IGNORED
from residua.data.patch_augmentation import PatchAugmentation
from residua.data.photometric import Tone, photometric
from residua.data.places import Places
from residua.data.workers import Workers
from residua.errors import BadInput

Size = int | tuple[int, ...]
Made = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]

_SAMPLED = 8  # pictures whose size decides the length of an epoch


class WeightStore(Protocol):
    """Maps of weights float32 (*S), one for each picture."""

    def __getitem__(self, index: int) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class PatchBatch:
    """pictures (B, *S, C) uint8 or float32; labels int64 (B, *T); weights float32 (B, *T), or None.

    All on the device; indices int64 (B,) of the pictures. T is the centre of S, all of it without margin.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    indices: Ints
    weights: torch.Tensor | None = None


class Patches:
    """The patches of one split for training, or its whole pictures for evaluation, as `Batches`.

    store             store[i] -> picture (*S, C) uint8 or float32, mask uint8 (*S) of 0 .. classes-1
                      and `IGNORED`; S of one to three axes
    size              of a patch along every axis, or of each axis, margins included. A picture that is
                      smaller is mirrored up to it
    margin            pixels on either side that only the picture has: for networks without padding,
                      whose answer is smaller than their input (U-Net 2015: 92 of 572 pixels)
    foreground        share of the patches that are centred on a pixel of a rarer class, as near to the
                      centre as the picture's border allows
    patches_per_item  patches of a picture in an epoch; None: as many as cover the middle-sized picture
                      (of eight) once at `size`. The length of an epoch does not follow `set_size`
    weights           maps of weights, cut and bent along with the masks
    spacing           distances of pixels along the axes: what is said to be a rotation is one then
    training          batches are full; rank r takes the r-th contiguous part of each
    evaluation        one whole picture a step, mirrored by `margin` on all sides; rank r takes r,
                      r + world, ...

    Raises BadInput where the numbers do not fit the set.
    """

    def __init__(
        self,
        store: PairStore,
        *,
        batch_size: int,
        seed: int,
        size: Size,
        train: bool,
        classes: int,
        augmentation: PatchAugmentation | None = None,
        foreground: float = 1 / 3,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
        patches_per_item: int | None = None,
        weights: WeightStore | None = None,
        margin: Size = 0,
        spacing: Sequence[float] | None = None,
    ) -> None:
        self.store, self.train, self.classes = store, train, classes
        self.batch_size, self.seed, self.foreground = batch_size, seed, foreground
        self.rank, self.world, self.workers = rank, world, workers
        self.augmentation = augmentation or PatchAugmentation()
        self.device = torch.device(device)
        self.weights = weights if train else None
        self._check()
        first = np.asarray(store[0][0])
        self.dims, self.channels, self.dtype = first.ndim - 1, first.shape[-1], first.dtype
        if not 1 <= self.dims <= 3 or self.dtype not in (np.uint8, np.float32):
            raise BadInput(
                f"pictures of shape {first.shape}, {first.dtype}: expected one to three axes and"
                " channels, uint8 or float32"
            )
        self.spacing = None if spacing is None else self._each(tuple(spacing), "spacing")
        self.margin = self._each(margin, "margin")
        self.set_size(size)
        self._order = functools.lru_cache(maxsize=4)(self._permutation)
        self.places = Places(seed, self.dims, foreground)
        self.patches_per_item = patches_per_item or self._covering()
        self._workers: Workers[Made] = self._new_workers()
        if train:  # what cannot work says so now, in one line, rather than from inside a worker
            self._training(self._positions(0)[:1], self.patch)

    def _check(self) -> None:
        if len(self.store) == 0:
            raise BadInput("the split has no pictures: expected at least one")
        for key, least in (("batch_size", 1), ("workers", 0), ("classes", 1)):
            if getattr(self, key) < least:
                raise BadInput(f"{key}={getattr(self, key)}: expected {least} or more")
        if not 0 <= self.foreground <= 1:
            raise BadInput(f"foreground={self.foreground}: expected a share of 0 to 1")
        if not 0 <= self.rank < self.world:
            raise BadInput(f"rank={self.rank}: expected one of 0 .. {self.world - 1}")
        if self.train and self.batch_size < self.world:
            raise BadInput(
                f"batch_size={self.batch_size}: expected at least one for each of the"
                f" {self.world} processes"
            )

    def _each(self, value: Any, key: str) -> Any:
        """Return a number for each axis."""
        each = (value,) * self.dims if isinstance(value, int | np.integer) else tuple(value)
        if len(each) != self.dims:
            raise BadInput(f"{key}={value}: expected one number, or {self.dims}, one an axis")
        if any(number < 0 for number in each):
            raise BadInput(f"{key}={value}: expected 0 or more")
        return each

    def _covering(self) -> int:
        """Return how many patches cover the middle-sized picture of a few."""
        n = len(self.store)
        rows = sorted({k * (n - 1) // max(_SAMPLED - 1, 1) for k in range(_SAMPLED)})
        pixels = sorted(self.store[i][1].size for i in rows)[len(rows) // 2]
        return max(1, -(-pixels // math.prod(self.target)))

    # -- which patches ---------------------------------------------------------------------------------

    def set_size(self, size: Size) -> None:
        """Deliver patches of `size` from the next `batch` or `iterate` on: progressive resizing.

        Smaller patches are smaller parts, at the same scale. Iterators already running keep the size
        that they began with, so that prefetching changes nothing.
        """
        patch = self._each(size, "size")
        if any(n <= 2 * m for n, m in zip(patch, self.margin, strict=True)):
            raise BadInput(f"size={size}: expected more than twice the margin, {max(self.margin)}")
        self.size, self.patch = size, patch

    @property
    def target(self) -> tuple[int, ...]:
        """The part of a patch that has labels."""
        return tuple(n - 2 * m for n, m in zip(self.patch, self.margin, strict=True))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture is shown `patches_per_item` times; in evaluation, this rank's."""
        if self.train:
            return -(-len(self.store) * self.patches_per_item // self.batch_size)
        return len(range(self.rank, len(self.store), self.world))

    def indices(self, step: int) -> Ints:
        """Return the indices of this rank's pictures at a step (B,)."""
        if self.train:
            return self._chosen(self._positions(step))[0]
        return np.array([self.rank + step % self.steps_per_epoch * self.world])

    def _positions(self, step: int) -> Ints:
        """Return this rank's positions in the stream."""
        b, r, w = self.batch_size, self.rank, self.world
        return step * b + np.arange(b * r // w, b * (r + 1) // w)

    def _permutation(self, cycle: int) -> Ints:
        return permutation(self.seed, cycle, len(self.store) * self.patches_per_item)

    def _chosen(self, positions: Ints) -> tuple[Ints, Ints]:
        """Return the picture at each position, and how often it has been shown before."""
        each = self.patches_per_item
        cycles, places = np.divmod(positions, len(self.store) * each)
        pairs = zip(cycles.tolist(), places.tolist(), strict=True)
        numbers = np.array([self._order(cycle)[place] for cycle, place in pairs], np.int64)
        return numbers // each, cycles * each + numbers % each

    # -- what they look like ---------------------------------------------------------------------------

    def _make(self, item: tuple[int, tuple[int, ...]]) -> Made:
        """Return the batch of (step, size) on the CPU: pictures, labels uint8, indices, weights."""
        step, patch = item
        if self.train:
            return self._training(self._positions(step), patch)
        return self._whole(int(self.indices(step)[0]))

    def _read(self, i: int) -> tuple[Array, Array]:
        picture, mask = self.store[i]
        if picture.dtype != self.dtype or picture.shape != (*mask.shape, self.channels):
            raise BadInput(
                f"picture {i}: {picture.dtype} of shape {picture.shape}, its mask {mask.shape};"
                f" expected {self.dtype} with {self.channels} channels, as the first, and a mask"
                " of the same size"
            )
        if mask.ndim != self.dims:
            raise BadInput(f"picture {i}: {mask.ndim} axes; expected {self.dims}, as the first")
        return picture, mask

    def _training(self, positions: Ints, patch: tuple[int, ...]) -> Made:
        index, showing = self._chosen(positions)
        draws = Draws(self.seed, 0, index, showing)
        warps = self.augmentation.warps(draws, patch, self.spacing, self.margin)
        tones = self.augmentation.tones(draws)
        where = self.places.drawn(draws, positions)
        inner = tuple(n - 2 * m for n, m in zip(patch, self.margin, strict=True))
        pictures = np.empty((len(index), *patch, self.channels), self.dtype)
        labels = np.empty((len(index), *inner), np.uint8)
        weights = None if self.weights is None else np.empty(labels.shape, np.float32)
        for j, i in enumerate(index.tolist()):
            picture, mask = self._read(i)
            corner = self.places.corner(i, mask, inner, where[j])
            cut = deform(
                picture,
                mask,
                patch,
                [c + (n - 1) / 2 for c, n in zip(corner, inner, strict=True)],
                warps[j],
                margin=self.margin,
                outside=self.augmentation.outside,
                weights=None if self.weights is None else self.weights[i],
            )
            pictures[j] = self._toned(cut.picture, tones[j], patch)
            labels[j] = cut.mask
            if weights is not None:
                weights[j] = cut.weights
        self._check_classes(labels, index)
        maps = None if weights is None else torch.from_numpy(weights)
        return torch.from_numpy(pictures), torch.from_numpy(labels), torch.from_numpy(index), maps

    def _toned(self, picture: Array, tone: Tone, patch: tuple[int, ...]) -> Array:
        """Return the patch after its tone, in the dtype of the pictures."""
        if not tone.neutral:
            flat = self.augmentation.stays_in_plane(patch, self.spacing)
            picture = photometric(picture.astype(np.float32), tone, self.dims - flat)
        if picture.dtype != self.dtype:
            picture = np.clip(np.rint(picture), 0, 255)
        return picture

    def _check_classes(self, labels: NDArray[np.uint8], index: Ints) -> None:
        most = (labels + np.uint8(1)).reshape(len(labels), -1).max(1)  # IGNORED + 1 is 0
        if most.max() > self.classes:
            j = int(most.argmax())
            raise BadInput(
                f"picture {index[j]}: its mask holds class {most[j] - 1}; expected 0 to"
                f" {self.classes - 1}, or {IGNORED} for what counts for nothing"
            )

    def _whole(self, i: int) -> Made:
        picture, mask = self._read(i)
        self._check_classes(mask[None], np.array([i]))
        corner = [-m for m in self.margin]
        size = [n + 2 * m for n, m in zip(mask.shape, self.margin, strict=True)]
        whole = np.array(window(picture, corner, size))
        return (
            torch.from_numpy(whole[None]),
            torch.from_numpy(mask[None].copy()),
            torch.tensor([i]),
            None,
        )

    # -- over many steps -------------------------------------------------------------------------------

    def batch(self, step: int) -> PatchBatch:
        """Return the batch of a step, made in this process."""
        return self._finish(self._make((step, self.patch)))

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[PatchBatch]:
        """Yield the batches of steps start .. stop-1 (stop None: to the end of start's epoch)."""
        if stop is None:
            stop = (start // max(self.steps_per_epoch, 1) + 1) * self.steps_per_epoch
        return self._iterate(range(start, stop), self.patch)

    def _iterate(self, steps: range, patch: tuple[int, ...]) -> Iterator[PatchBatch]:
        for made in self._workers.each((step, patch) for step in steps):
            yield self._finish(made)

    def _finish(self, made: Made) -> PatchBatch:
        pictures, labels, index, weights = made
        return PatchBatch(
            pictures.to(self.device, non_blocking=True),
            labels.to(self.device, non_blocking=True).long(),
            index.numpy(),
            None if weights is None else weights.to(self.device, non_blocking=True),
        )

    def _new_workers(self) -> Workers[Made]:
        return Workers(self._make, self.workers, pin=self.device.type == "cuda")

    def close(self) -> None:
        """Stop the workers, if there are any; a later iteration starts new ones."""
        self._workers.close()

    def __enter__(self) -> Patches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_workers", "_order")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._order = functools.lru_cache(maxsize=4)(self._permutation)
        self._workers = self._new_workers()
