"""From a set of pictures to tensors: picture size, decoded stores, normalisation, evaluation.

Small pictures (short side up to 64 pixels) are cut to squares once and kept as one array; larger
ones keep their shape, reduced so that the short side is what evaluation looks at. Channel means and
standard deviations are those of the training split.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from residua.data.augmentation import Augmentation
from residua.data.batches import Batches, Store
from residua.data.cache import fitted, store
from residua.data.pictures import Split
from residua.training.cards import Normalisation, Shape
from residua.training.recipe import Recipe

SMALL = 64  # pixels of the short side up to which pictures are kept as one array
LARGE_SIZES = (224, 128)  # training size of larger pictures: with an accelerator, without
CACHE_BYTES = 8 << 30  # larger stores are decoded anew each time
MEASURED = 10_000  # training pictures that mean and standard deviation are measured on

Progress = Callable[[str, int, int], None]  # what, done, total


def decide_shape(
    recipe: Recipe, median: tuple[int, int], channels: int, accelerator: bool
) -> Shape:
    """Choose the training size for pictures of this median (height, width)."""
    short = min(median)
    small = short <= SMALL and (recipe.size is None or recipe.size <= SMALL)
    size = recipe.size
    if size is None:
        size = short if small else min(LARGE_SIZES[0 if accelerator else 1], short)
    evaluation = recipe.evaluation.size or size
    # A small store holds one size; evaluation at another one is a larger picture's matter.
    small = small and evaluation == size
    return Shape(size, evaluation, channels, small, recipe.evaluation.crop)


class DecodedEachTime:
    """A split whose pictures are decoded whenever they are read; fitted as in the cache."""

    uniform = False

    def __init__(self, split: Split, shape: Shape, note: str = "") -> None:
        self.split, self.shape, self.note = split, shape, note

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        shape = self.shape
        return fitted(self.split, index, shape.stored, shape.channels, uniform=shape.small)

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """There is no array of all pictures."""
        raise AttributeError("pictures that are decoded each time have no common array")


def open_store(
    split: Split, shape: Shape, median: tuple[int, int], progress: Progress | None
) -> Any:
    """Return the decoded pictures of a split, from the cache if they fit it."""
    side = shape.stored
    tall, wide = median
    scale = min(1.0, side / min(median))
    area = side * side if shape.small else tall * wide * scale * scale
    if len(split) * area * shape.channels > CACHE_BYTES:
        return DecodedEachTime(split, shape, "too many pictures for the cache: decoded each time")
    step = (lambda done, total: progress("decoding", done, total)) if progress else None
    return store(
        split,
        size=side,
        channels=shape.channels,
        uniform=shape.small,
        progress=step,
    )


def reduced(picture: npt.NDArray[np.uint8], short_side: int) -> npt.NDArray[np.uint8]:
    """Return the picture with its short side reduced to at most `short_side`, aspect kept."""
    height, width = picture.shape[:2]
    if min(height, width) <= short_side:
        return picture
    ratio = short_side / min(height, width)
    grey = picture.shape[-1] == 1
    image = Image.fromarray(picture[..., 0] if grey else picture)
    small = np.asarray(image.resize((round(width * ratio), round(height * ratio))))
    return small[..., None] if grey else small


def measure(pictures: Store, channels: int, seed: int) -> Normalisation:
    """Measure channel means and standard deviations on (at most 10,000) training pictures."""
    n = len(pictures)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, min(n, MEASURED), replace=False))
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    for i in rows:
        pixels = pictures[int(i)].reshape(-1, channels).astype(np.float64) / 255.0
        total += pixels.sum(0)
        squares += np.square(pixels).sum(0)
        count += len(pixels)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    # A channel that never changes is only shifted.
    std = np.where(std < 1e-3, 1.0, std)
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))


def mirrors_matter(classes: tuple[str, ...]) -> bool:
    """Return whether the class names speak of digits, letters or sides, which mirroring changes.

    >>> mirrors_matter(("0", "1", "2")), mirrors_matter(("cat", "left hand")), mirrors_matter(("cat",))
    (True, True, False)
    """
    sided = re.compile(r"\b(left|right|clockwise|links|rechts)\b", re.IGNORECASE)
    single = sum(len(name.strip()) == 1 for name in classes)
    return single > len(classes) / 2 or any(sided.search(re.sub("_", " ", c)) for c in classes)


def augmentation_of(recipe: Recipe, classes: tuple[str, ...], shape: Shape) -> Augmentation:
    """Return what the recipe asks of training pictures, with flips and large pictures decided."""
    section = recipe.augmentation
    flip = not mirrors_matter(classes) if section.flip == "auto" else bool(section.flip)
    crop = section.random_resized_crop
    if not shape.small and crop is None:
        crop = (0.35, 1.0)  # whole-batch crops need pictures of one size
    return Augmentation(
        crop_padding=section.crop_padding if crop is None else 0,
        padding_mode=section.padding_mode,
        flip=flip,
        random_resized_crop=crop,
        randaugment=_randaugment(section.randaugment),
        random_erasing=section.random_erasing,
        cutout=section.cutout,
        mixup=section.mixup,
        cutmix=section.cutmix,
    )


def _randaugment(section: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return (operations, magnitude of 30), as kornia counts, from a magnitude of 10."""
    return None if section is None else (section[0], 3 * section[1])


def evaluation_batches(
    pictures: Any,
    labels: npt.NDArray[np.int64],
    shape: Shape,
    batch_size: int,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Batches:
    """Return the batches of a split in order, each picture once over all ranks."""
    return Batches(
        pictures,
        labels,
        batch_size=batch_size,
        seed=0,
        size=shape.evaluation_size,
        train=False,
        rank=rank,
        world=world,
        device=device,
        crop_ratio=1.0 if shape.small else shape.crop,
    )


@dataclass(frozen=True)
class Listed:
    """A few decoded pictures, of any sizes, as a store."""

    pictures: list[npt.NDArray[np.uint8]]
    uniform: bool = False

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> npt.NDArray[np.uint8]:
        return self.pictures[index]

    @property
    def pixels(self) -> npt.NDArray[np.uint8]:
        """There is no array of all pictures."""
        raise AttributeError("pictures of different sizes have no common array")


def picture_files(paths: list[Path], shape: Shape) -> DecodedEachTime:
    """Return files without labels the way evaluation sees them."""
    names = [str(path) for path in paths]
    labels = np.zeros(len(paths), np.int64)
    return DecodedEachTime(Split(labels, names, shape.channels, paths=paths), shape)
