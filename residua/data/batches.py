"""Batches of pictures: which ones at a step, and what they look like, as pure functions of the step.

    epoch, k    = divmod(step, steps_per_epoch)
    indices     = permutation(seed, epoch)[k B : (k + 1) B]          one rank's share: a contiguous part
    pictures[j] = augment(store[indices[j]]; seed, epoch, indices[j], repeat)

Nothing else enters: not the number of workers, the number of ranks, the place in the batch, nor whether
training was resumed (rule 1).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from residua.data.augmentation import Augmentation, augment, crop_resize
from residua.data.boxes import centre_box, resized_crop_boxes
from residua.data.counter import Draws, Ints, permutation
from residua.data.workers import Workers
from residua.errors import BadInput

Pixels = NDArray[np.uint8]

_RESIDENT_BYTES = 4 << 30  # a larger store stays off the GPU unless asked for


class Store(Protocol):
    """Decoded pictures: `pixels` (N, S, S, C) where uniform, else `store[i]` (H, W, C), all uint8."""

    @property
    def uniform(self) -> bool:
        """Whether all pictures have one square shape."""

    @property
    def pixels(self) -> Pixels:
        """All pictures of a uniform store (N, S, S, C)."""

    def __getitem__(self, index: int) -> Pixels: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class _ArrayStore:
    """A plain array (N, S, S, C) as a store."""

    pixels: Pixels
    uniform: bool = True

    def __getitem__(self, index: int) -> Pixels:
        return cast(Pixels, self.pixels[index])

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Batch:
    """pictures uint8 (B, size, size, C); labels int64 (B,), both on the device; indices int64 (B,)."""

    pictures: torch.Tensor
    labels: torch.Tensor
    indices: Ints


class Batches:
    """The batches of one split, for training or for evaluation.

    batch_size   pictures of a step over all ranks; in training rank r takes the r-th contiguous part
    training     every batch is full: the last one of an epoch is filled up from the epoch's start, and a
                 set smaller than a batch is the batch
    evaluation   every picture once, in order, rank r taking r, r + world, ...; the last batch is short
    repeats      repeated augmentation (Hoffer et al. 2020): R neighbours in the order are one picture,
                 augmented R times. An epoch is as long as without; R epochs show each picture R times
    resident     whether a uniform store lives on the CUDA device and is augmented there (without
                 workers). None: where the augmentation is batched and the store is under 4 GiB
    crop_ratio   for ragged stores without resized crop: the share of the short side that the centred
                 square keeps (0.875: 224 of 256, He et al. 2015)

    Raises BadInput where the numbers do not fit the set.
    """

    def __init__(
        self,
        store: Store | Pixels,
        labels: Ints,
        *,
        batch_size: int,
        seed: int,
        size: int,
        train: bool,
        augmentation: Augmentation | None = None,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
        repeats: int = 1,
        resident: bool | None = None,
        crop_ratio: float = 0.875,
    ) -> None:
        self.store: Store = _ArrayStore(store) if isinstance(store, np.ndarray) else store
        self.labels = np.ascontiguousarray(labels, dtype=np.int64)
        self.batch_size, self.seed, self.size, self.train = batch_size, seed, size, train
        self.rank, self.world, self.workers, self.repeats = rank, world, workers, repeats
        self.augmentation = (augmentation or Augmentation()) if train else Augmentation()
        self.device = torch.device(device)
        self.crop_ratio = crop_ratio
        self._check()
        self.resident = self._is_resident(resident)
        self._start()
        if train:  # what cannot work says so now, in one line, rather than from inside a worker
            self._pictures(0, self.indices(0)[:1], np.zeros(1, np.int64), size, resident=False)

    def _start(self) -> None:
        pin = self.device.type == "cuda"
        self._workers: Workers[tuple[torch.Tensor, torch.Tensor]] = Workers(
            self._make, self.workers, pin=pin
        )
        self._order = functools.lru_cache(maxsize=2)(self._permutation)

    def _check(self) -> None:
        n = len(self.store)
        if n == 0:
            raise BadInput("the split has no pictures: expected at least one")
        if len(self.labels) != n:
            raise BadInput(f"{len(self.labels)} labels for {n} pictures: expected one each")
        for key, least in (("batch_size", 1), ("size", 1), ("repeats", 1), ("workers", 0)):
            if getattr(self, key) < least:
                raise BadInput(f"{key}={getattr(self, key)}: expected {least} or more")
        if not 0 <= self.rank < self.world:
            raise BadInput(f"rank={self.rank}: expected one of 0 .. {self.world - 1}")
        if self.train and self._global_batch < self.world:
            raise BadInput(
                f"batch_size={self.batch_size} of {n} pictures: expected at least one for each of "
                f"the {self.world} processes"
            )
        if self.store.uniform:
            shape = self.store.pixels.shape
            if len(shape) != 4 or shape[1] != shape[2]:
                raise BadInput(f"pictures of shape {shape}: expected (N, S, S, C)")

    def _is_resident(self, asked: bool | None) -> bool:
        possible = self.store.uniform and self.augmentation.vectorised
        if asked and not possible:
            raise BadInput(
                "resident=True: pictures of different sizes, resized crops and RandAugment are made "
                "on the CPU; expected a uniform store with crop, flip, cutout and erasing only"
            )
        if asked is None:
            asked = possible and self.store.pixels.nbytes < _RESIDENT_BYTES
        return asked and self.device.type != "cpu"

    # -- which pictures --------------------------------------------------------------------------------

    @property
    def _global_batch(self) -> int:
        return min(self.batch_size, len(self.store)) if self.train else self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a training epoch (equal on all ranks), or of this rank's evaluation."""
        if self.train:
            return -(-len(self.store) // self._global_batch)
        share = len(range(self.rank, len(self.store), self.world))
        return -(-share // self._local_batch)

    @property
    def _local_batch(self) -> int:
        return -(-self.batch_size // self.world)

    def _permutation(self, epoch: int) -> Ints:
        return permutation(self.seed, epoch, len(self.store))

    def indices(self, step: int) -> Ints:
        """Return the indices of this rank's pictures at a step (B,)."""
        return self._chosen(step)[1]

    def _chosen(self, step: int) -> tuple[int, Ints, Ints]:
        """Return the epoch of a step, and the index and repeat of each picture of it."""
        if not self.train:
            start = (step % max(self.steps_per_epoch, 1)) * self._local_batch
            own = np.arange(self.rank, len(self.store), self.world)
            index = own[start : start + self._local_batch]
            return 0, index, np.zeros_like(index)
        n, size = len(self.store), self._global_batch
        epoch, k = divmod(step, self.steps_per_epoch)
        first, last = (size * self.rank // self.world, size * (self.rank + 1) // self.world)
        within = (k * size + np.arange(first, last)) % n  # the last batch goes on at the start
        cycle, part = divmod(epoch, self.repeats)  # one order lasts for `repeats` epochs
        place = part * n + within
        return epoch, self._order(cycle)[place // self.repeats], place % self.repeats

    # -- what they look like ---------------------------------------------------------------------------

    def set_size(self, size: int) -> None:
        """Deliver pictures of (size, size) from the next `batch` or `iterate` on: progressive resizing.

        Resized crops and ragged pictures are made at that size; batches of a uniform store are cropped
        and flipped at the store's size and then resized (bilinear, antialiased, rounded to uint8; on a
        CPU in integers, picture by picture). Iterators already running keep the size that they began
        with, so that prefetching changes nothing.
        """
        if size < 1:
            raise BadInput(f"size={size}: expected 1 or more")
        self.size = size

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, made in this process."""
        return next(self._direct(range(step, step + 1), self.size))

    def _finish(self, pictures: torch.Tensor, index: Ints) -> Batch:
        labels = torch.from_numpy(self.labels[index])
        return Batch(
            pictures.to(self.device, non_blocking=True),
            labels.to(self.device, non_blocking=True),
            index,
        )

    @functools.cached_property
    def _on_device(self) -> torch.Tensor:
        return torch.from_numpy(np.array(self.store.pixels)).to(self.device)

    def _pictures(
        self, epoch: int, index: Ints, repeat: Ints, size: int, *, resident: bool
    ) -> torch.Tensor:
        """Return pictures uint8 (B, size, size, C), augmented."""
        draws = Draws(self.seed, epoch, index, repeat)
        if resident:
            pictures = self._on_device.index_select(0, torch.from_numpy(index).to(self.device))
        elif self.store.uniform and self.augmentation.random_resized_crop is None:
            pictures = torch.from_numpy(np.take(np.asarray(self.store.pixels), index, axis=0))
        else:
            pictures = self._fitted(draws, size)
        return resize(augment(pictures, self.augmentation, draws), size)

    def _fitted(self, draws: Draws, size: int) -> torch.Tensor:
        """Cut and resize one picture after the other: random resized crops, or centred squares."""
        found = [np.asarray(self.store[int(i)]) for i in draws.index]
        how = self.augmentation
        if how.random_resized_crop is not None:
            heights = np.array([p.shape[0] for p in found], dtype=np.int64)
            widths = np.array([p.shape[1] for p in found], dtype=np.int64)
            area = how.random_resized_crop
            boxes = resized_crop_boxes(heights, widths, area, how.aspect, draws).tolist()
        else:
            boxes = [centre_box(p.shape[0], p.shape[1], self.crop_ratio) for p in found]
        fitted = [crop_resize(p, box, size) for p, box in zip(found, boxes, strict=True)]
        return torch.from_numpy(np.stack(fitted))

    # -- over many steps -------------------------------------------------------------------------------

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield the batches of steps start .. stop-1 (stop None: to the end of start's epoch)."""
        if stop is None:
            stop = (start // max(self.steps_per_epoch, 1) + 1) * self.steps_per_epoch
        steps = range(start, stop)
        return (self._worked if self.workers else self._direct)(steps, self.size)

    def _direct(self, steps: range, size: int) -> Iterator[Batch]:
        for step in steps:
            epoch, index, repeat = self._chosen(step)
            yield self._finish(
                self._pictures(epoch, index, repeat, size, resident=self.resident), index
            )

    def _worked(self, steps: range, size: int) -> Iterator[Batch]:
        for pictures, index in self._workers.each((step, size) for step in steps):
            yield self._finish(pictures, index.numpy())

    def _make(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pictures and indices of (step, size), on the CPU: what a worker does."""
        step, size = item
        epoch, index, repeat = self._chosen(step)
        pictures = self._pictures(epoch, index, repeat, size, resident=False)
        return pictures, torch.from_numpy(index)

    def close(self) -> None:
        """Stop the workers, if there are any; a later iteration starts new ones."""
        self._workers.close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        dropped = ("_workers", "_order", "_on_device")
        return {key: value for key, value in self.__dict__.items() if key not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def resize(pictures: torch.Tensor, size: int) -> torch.Tensor:
    """Resize pictures uint8 (B, H, W, C) to (B, size, size, C): bilinear, antialiased, rounded.

    On a CPU in integers, each picture alone; on other devices in float32 (a level of difference).
    """
    if pictures.shape[1] == pictures.shape[2] == size:
        return pictures
    planes = pictures.permute(0, 3, 1, 2)
    if pictures.device.type != "cpu":
        planes = planes.float()
    planes = F.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    if planes.is_floating_point():
        planes = planes.round_().clamp_(0, 255).to(torch.uint8)
    return planes.permute(0, 2, 3, 1).contiguous()


def to_input(
    pictures: torch.Tensor,
    mean: torch.Tensor,
    std: torch.Tensor,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """Return (x / 255 - mean) / std, as a multiply-add: float (B, C, H, W), channels last.

    pictures uint8 (B, H, W, C); mean, std (C,) of pixels in 0 .. 1. The result's strides are those of
    (B, H, W, C) for every C, also for one channel, where torch alone would call any layout right.
    """
    batch, height, width, channels = pictures.shape
    std = std.to(device=pictures.device, dtype=torch.float32)
    mean = mean.to(device=pictures.device, dtype=torch.float32)
    # Lines of W x C numbers: five times faster than to broadcast over C numbers at a time.
    scale = (1 / (255 * std)).repeat(width)
    shift = (-mean / std).repeat(width)
    lines = pictures.reshape(batch, height, width * channels)
    if pictures.device.type == "cpu":  # on one thread: see augmentation._crop_flip_on_cpu
        numbers = lines.numpy().astype(np.float32)
        numbers *= scale.numpy()
        numbers += shift.numpy()
        lines = torch.from_numpy(numbers)
    else:
        lines = torch.addcmul(shift, lines.float(), scale)
    return lines.to(dtype).view(batch, height, width, channels).permute(0, 3, 1, 2)
