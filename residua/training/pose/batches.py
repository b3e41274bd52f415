"""Batches of people: which ones at a step, and their crops, as pure functions of the step.

    epoch, k    = divmod(step, steps_per_epoch)
    indices     = permutation(seed, epoch)[k B : (k + 1) B]          one rank's share: a contiguous part
    map_i       = crop_maps(box_i; seed, epoch, i)                   one affine map a person
    picture_i   = sample(whole_i, map_i);   labels_i = map_i^-1 (joints_i)

Nothing else enters: not the number of workers, the number of ranks, the place in the batch, nor whether
training was resumed. A crop is the square around the person's box, `margin` times its long side.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from residua.data.counter import Draws, Ints, permutation
from residua.data.workers import Workers
from residua.errors import BadInput
from residua.training.pose.affine import Floats, crop_maps, inverse, moved, sample
from residua.training.pose.augmentation import NONE, PoseAugmentation, coloured, drawn, exchanged

MARGIN = 1.25  # crop's side over the box's long side
SIZE = 256  # pixels of a crop (Newell et al. 2016)
_Made = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class People(Protocol):
    """People in pictures, one row each; `residua.data.keypoints.PoseSplit` is such."""

    joints: npt.NDArray[np.float32]  # (N, J, 3) in pixels of the picture
    boxes: npt.NDArray[np.float32]  # (N, 4) left, top, right, bottom

    def __len__(self) -> int: ...

    def read(self, i: int) -> npt.NDArray[np.uint8]:
        """Return the whole picture of person `i`, uint8 (H, W, C)."""


@dataclass(frozen=True)
class PoseBatch:
    """pictures uint8 (B, size, size, C); labels float32 (B, J, 3) in pixels of the crop; both on the device.

    indices int64 (B,) of people; maps float64 (B, 2, 3) from the crops to the pictures. A joint that is
    not in the crop counts as not labelled.
    """

    pictures: torch.Tensor
    labels: torch.Tensor
    indices: Ints
    maps: Floats


class PoseBatches:
    """The crops of one split, for training or for evaluation, with the interface of `Batches`.

    mirror       the partner of each joint (J,); without it no crop is mirrored
    batch_size   people of a step over all ranks; in training rank r takes the r-th contiguous part
    training     every batch is full: the last one of an epoch is filled up from the epoch's start, and a
                 set smaller than a batch is the batch
    evaluation   everybody once, in order, rank r taking r, r + world, ...; no augmentation

    Raises BadInput where the numbers do not fit the set.
    """

    def __init__(
        self,
        people: People,
        *,
        batch_size: int,
        seed: int,
        train: bool,
        size: int = SIZE,
        mirror: Sequence[int] | None = None,
        augmentation: PoseAugmentation | None = None,
        margin: float = MARGIN,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.people, self.batch_size, self.seed, self.train = people, batch_size, seed, train
        self.mirror, self.margin = None if mirror is None else tuple(mirror), margin
        self.augmentation = (augmentation or PoseAugmentation()) if train else NONE
        self.rank, self.world, self.workers = rank, world, workers
        self.device = torch.device(device)
        self.set_size(size)
        self._check()
        self._start()
        if train:  # what cannot work says so now, in one line, rather than from inside a worker
            self._crops(0, self.indices(0)[:1], size)

    def _check(self) -> None:
        n = len(self.people)
        if n == 0:
            raise BadInput("the split has no people: expected at least one")
        for key, least in (("batch_size", 1), ("workers", 0), ("margin", 0.1)):
            if getattr(self, key) < least:
                raise BadInput(f"{key}={getattr(self, key)}: expected {least} or more")
        if not 0 <= self.rank < self.world:
            raise BadInput(f"rank={self.rank}: expected one of 0 .. {self.world - 1}")
        if self.train and self._global_batch < self.world:
            raise BadInput(
                f"batch_size={self.batch_size} of {n} people: expected at least one for each of "
                f"the {self.world} processes"
            )
        joints = list(range(self.people.joints.shape[1]))
        if self.mirror is not None and (
            sorted(self.mirror) != joints or [self.mirror[j] for j in self.mirror] != joints
        ):
            raise BadInput(f"mirror={self.mirror}: expected pairs of the {len(joints)} joints")

    def _start(self) -> None:
        self._order = functools.lru_cache(maxsize=2)(self._permutation)
        self._made: Workers[_Made] = Workers(
            self._make, self.workers, pin=self.device.type == "cuda"
        )

    # -- which people ----------------------------------------------------------------------------------

    @property
    def _global_batch(self) -> int:
        return min(self.batch_size, len(self.people)) if self.train else self.batch_size

    @property
    def _local_batch(self) -> int:
        return -(-self.batch_size // self.world)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a training epoch (equal on all ranks), or of this rank's evaluation."""
        if self.train:
            return -(-len(self.people) // self._global_batch)
        return -(-len(range(self.rank, len(self.people), self.world)) // self._local_batch)

    def _permutation(self, epoch: int) -> Ints:
        return permutation(self.seed, epoch, len(self.people))

    def indices(self, step: int) -> Ints:
        """Return the indices of this rank's people at a step (B,)."""
        return self._chosen(step)[1]

    def _chosen(self, step: int) -> tuple[int, Ints]:
        if not self.train:
            start = (step % max(self.steps_per_epoch, 1)) * self._local_batch
            own = np.arange(self.rank, len(self.people), self.world)
            return 0, own[start : start + self._local_batch]
        size = self._global_batch
        epoch, k = divmod(step, self.steps_per_epoch)
        first, last = size * self.rank // self.world, size * (self.rank + 1) // self.world
        within = (k * size + np.arange(first, last)) % len(self.people)
        return epoch, self._order(epoch)[within]

    # -- what they look like ---------------------------------------------------------------------------

    def set_size(self, size: int) -> None:
        """Deliver crops of (size, size) from the next `batch` or `iterate` on."""
        if size < 1:
            raise BadInput(f"size={size}: expected 1 or more")
        self.size = size

    def _make(self, item: tuple[int, int]) -> _Made:
        """Return crops, labels, indices and maps of (step, size), on the CPU."""
        step, size = item
        epoch, index = self._chosen(step)
        return self._crops(epoch, index, size)

    def _crops(self, epoch: int, index: Ints, size: int) -> _Made:
        draws = Draws(self.seed, epoch, index, np.zeros_like(index))
        how = drawn(self.augmentation, draws)
        turned = how.mirrored if self.mirror is not None else np.zeros_like(how.mirrored)
        maps = crop_maps(
            self.people.boxes[index],
            size,
            margin=self.margin,
            angle=how.angle,
            scale=how.scale,
            mirrored=turned,
        )
        joints = self.people.joints[index]
        if self.mirror is not None:
            joints = exchanged(joints, self.mirror, turned)
        crops = [
            coloured(sample(self.people.read(int(i)), to_picture, size), *colour)
            for i, to_picture, colour in zip(index, maps, how.colour.tolist(), strict=True)
        ]
        labels = torch.from_numpy(in_crop(joints, maps, size))
        return (
            torch.from_numpy(np.stack(crops)),
            labels,
            torch.from_numpy(index),
            torch.from_numpy(maps),
        )

    def _finish(self, made: _Made) -> PoseBatch:
        pictures, labels, index, maps = made
        return PoseBatch(
            pictures.to(self.device, non_blocking=True),
            labels.to(self.device, non_blocking=True),
            index.numpy(),
            maps.numpy(),
        )

    # -- over many steps -------------------------------------------------------------------------------

    def batch(self, step: int) -> PoseBatch:
        """Return the batch of a step, made in this process."""
        return self._finish(self._make((step, self.size)))

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[PoseBatch]:
        """Yield the batches of steps start .. stop-1 (stop None: to the end of start's epoch)."""
        if stop is None:
            stop = (start // max(self.steps_per_epoch, 1) + 1) * self.steps_per_epoch
        items = [(step, self.size) for step in range(start, stop)]
        return map(self._finish, self._made.each(items))

    def close(self) -> None:
        """Stop the workers, if there are any; a later iteration starts new ones."""
        self._made.close()

    def __enter__(self) -> PoseBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {
            key: value for key, value in self.__dict__.items() if key not in ("_made", "_order")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def in_crop(joints: npt.NDArray[np.floating], maps: Floats, size: int) -> npt.NDArray[np.float32]:
    """Return joints (B, J, 3) in pixels of crops, from those of pictures; maps lead to the pictures.

    A joint that is outside of its crop is not labelled there (v = 0).
    """
    places = moved(joints[:, :, :2], inverse(maps))
    inside = ((places >= -0.5) & (places <= size - 0.5)).all(axis=2)
    v = np.where(inside, joints[:, :, 2], 0)
    return np.concatenate([places, v[:, :, None]], axis=2).astype(np.float32)
