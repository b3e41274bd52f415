"""Augmentation of whole batches of uint8 pictures (B, H, W, C), on any device.

    crop and flip   out[b, r, c] = padded[b, y_b + r, x_b + (c or W-1-c)]     He et al. 2015, section 4.2
    resized crop    area ~ U(a0, a1) of the picture, log aspect ~ U           Szegedy et al. 2015, section 6
    RandAugment     n operations of magnitude m of 30                         Cubuk et al. 2020 (kornia's)
    cutout          a square around a uniform centre, clipped                 DeVries, Taylor 2017
    random erasing  a rectangle of 2 to 33 % with probability p               Zhong et al. 2017, algorithm 1

Every draw is a function of (seed, epoch, index, repeat) made in numpy (`counter.Draws`); what is done
with it are integer gathers, so a CPU, a worker and a GPU deliver the same bits. Resized crop and
RandAugment work picture by picture on the CPU: their result may not depend on the batch around it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from residua.data.boxes import cutout_boxes, erasing_boxes
from residua.data.counter import Drawn, Draws, Floats, Ints
from residua.errors import BadInput

Picture = NDArray[np.uint8]  # (H, W, C)
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training picture; the defaults do nothing.

    `crop_padding`, `cutout` are in pixels, before `Batches.set_size` shrinks any; `fill` is the uint8
    value, one or one for each channel, of padding and of erased parts. `randaugment` is (n, m) with m
    of 30 as in Cubuk et al.; timm counts to 10, so its "m7" is (2, 21) here. `mixup` and `cutmix` are
    the alpha of their Beta distribution (0: off) and are done by `mix`, after normalisation. Raises
    BadInput naming the key.
    """

    crop_padding: int = 0
    flip: bool = False
    random_resized_crop: tuple[float, float] | None = None
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    randaugment: tuple[int, int] | None = None
    random_erasing: float = 0.0
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    padding_mode: Literal["zero", "reflect"] = "zero"
    fill: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        area, rand = self.random_resized_crop, self.randaugment
        fill = (self.fill,) if isinstance(self.fill, int) else tuple(self.fill)
        checks = {
            "crop_padding": (self.crop_padding >= 0, "a number of pixels, 0 or more"),
            "cutout": (self.cutout >= 0, "a number of pixels, 0 or more"),
            "random_resized_crop": (
                area is None or 0 < area[0] <= area[1] <= 1,
                "(smallest, largest) share of the area with 0 < smallest <= largest <= 1",
            ),
            "aspect": (0 < self.aspect[0] <= self.aspect[1], "(narrowest, widest), both above 0"),
            "randaugment": (
                rand is None or (1 <= rand[0] <= 15 and 0 < rand[1] < 30),
                "(n, m) with n of 1 to 15 operations and 0 < m < 30",
            ),
            "random_erasing": (0 <= self.random_erasing <= 1, "a probability"),
            "mixup": (self.mixup >= 0, "the alpha of a Beta distribution, or 0 for none"),
            "cutmix": (self.cutmix >= 0, "the alpha of a Beta distribution, or 0 for none"),
            "padding_mode": (self.padding_mode in ("zero", "reflect"), "zero or reflect"),
            "fill": (all(0 <= v <= 255 for v in fill), "values of 0 to 255"),
        }
        for key, (good, expected) in checks.items():
            if not good:
                raise BadInput(f"augmentation.{key}={getattr(self, key)!r}: expected {expected}")

    @property
    def vectorised(self) -> bool:
        """Whether all of it is done by batched integer operations, on any device."""
        return self.random_resized_crop is None and self.randaugment is None


def augment(pictures: torch.Tensor, how: Augmentation, draws: Draws) -> torch.Tensor:
    """Crop, flip, RandAugment, cut out and erase pictures uint8 (B, H, W, C), in this order.

    The resized crop comes before, when pictures are read (`resized_crop`); mixing comes after, on
    normalised batches (`mix`). Neither changes `pictures` in place.
    """
    _, height, width, _ = pictures.shape
    if how.crop_padding or how.flip:
        pad = how.crop_padding
        still = np.zeros(len(draws), dtype=np.int64)
        top = draws.integers(Drawn.CROP_Y, 2 * pad + 1) if pad else still
        left = draws.integers(Drawn.CROP_X, 2 * pad + 1) if pad else still
        flip = draws.uniform(Drawn.FLIP) < 0.5 if how.flip else still > 0
        pictures = crop_flip(pictures, top, left, flip, pad, how.padding_mode, how.fill)
    if how.randaugment:
        pictures = _randaugment(pictures, *how.randaugment, draws)
    if how.cutout:
        boxes = cutout_boxes(height, width, how.cutout, draws)
        pictures = fill_boxes(pictures, boxes, how.fill)
    if how.random_erasing:
        boxes = erasing_boxes(height, width, how.random_erasing, draws)
        pictures = fill_boxes(pictures, boxes, how.fill)
    return pictures


def crop_flip(
    pictures: torch.Tensor,
    top: Ints,
    left: Ints,
    flip: Flags,
    padding: int,
    mode: Literal["zero", "reflect"] = "zero",
    fill: int | Sequence[int] = 0,
) -> torch.Tensor:
    """Cut a window as large as the picture out of the padded one, and mirror it where `flip`.

    pictures uint8 (B, H, W, C); top, left (B,) in 0 .. 2 padding; flip (B,).
    Raises BadInput where a reflected padding is not smaller than the picture.
    """
    height, width = pictures.shape[1:3]
    if mode == "reflect" and padding >= min(height, width):
        raise BadInput(
            f"augmentation.crop_padding={padding}: a reflected padding must be smaller than the "
            f"picture, which is {width} x {height}"
        )
    value = _fill_value(fill, pictures)
    if pictures.device.type == "cpu":
        return _crop_flip_on_cpu(pictures, top, left, flip, padding, mode, value)
    return _crop_flip(pictures, top, left, flip, padding, mode, value)


def _crop_flip_on_cpu(
    pictures: torch.Tensor,
    top: Ints,
    left: Ints,
    flip: Flags,
    padding: int,
    mode: str,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Copy windows as blocks, then mirror whole pixels: in numpy, on one thread.

    Near the speed of memory, and it does not wait for OpenMP's other threads, which on a busy machine
    costs a hundred times the work.
    """
    batch, height, width, channels = pictures.shape
    inner = (slice(None), slice(padding, padding + height), slice(padding, padding + width))
    tall, wide = height + 2 * padding, width + 2 * padding
    if mode == "reflect":
        edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        padded = np.pad(pictures.numpy(), edges, mode="reflect")
    elif padding:
        padded = np.empty((batch, tall, wide, channels), np.uint8)
        padded[...] = fill.numpy()
        padded[inner] = pictures.numpy()
    else:
        padded = pictures.numpy()
    lines = padded.reshape(batch, tall, wide * channels)
    windows = sliding_window_view(lines, (height, width * channels), axis=(1, 2))
    out = windows[np.arange(batch), top, left * channels]  # (B, H, W C), the one gather
    pixels = out.view(f"V{channels}")  # (B, H, W) of whole pixels
    pixels[flip] = pixels[flip][:, :, ::-1]
    return torch.from_numpy(out.reshape(batch, height, width, channels))


def _crop_flip(
    pictures: torch.Tensor,
    top: Ints,
    left: Ints,
    flip: Flags,
    padding: int,
    mode: str,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Gather whole rows, then the bytes within them: the same bits as above on any device."""
    batch, height, width, channels = pictures.shape
    device = pictures.device
    rows = np.arange(height) + top[:, None]  # (B, H), in the padded picture
    columns = np.arange(width) + left[:, None]  # (B, W)
    columns = np.where(flip[:, None], columns[:, ::-1], columns)
    if mode == "reflect":
        rows, columns = _reflect(rows - padding, height), _reflect(columns - padding, width)
    elif padding:
        shape = (batch, height + 2 * padding, width + 2 * padding, channels)
        padded = fill.expand(shape).contiguous()
        padded[:, padding : padding + height, padding : padding + width] = pictures
        pictures = padded
    tall, wide = pictures.shape[1:3]
    rows = rows + np.arange(batch)[:, None] * tall
    lines = pictures.reshape(batch * tall, wide * channels)
    lines = lines.index_select(0, torch.from_numpy(rows.ravel()).to(device))
    pixels = torch.from_numpy(columns * channels).to(device)[:, :, None]  # (B, W, 1)
    places = (pixels + torch.arange(channels, device=device)).view(batch, 1, width * channels)
    places = places.expand(batch, height, width * channels)
    cropped = lines.view(batch, height, wide * channels).gather(2, places)
    return cropped.view(batch, height, width, channels)


def _reflect(places: Ints, size: int) -> Ints:
    """Mirror places of -size < p < 2 size - 1 into 0 .. size-1; the border is not repeated."""
    mirrored: Ints = (size - 1) - np.abs(size - 1 - np.abs(places))
    return mirrored


def _fill_value(fill: int | Sequence[int], pictures: torch.Tensor) -> torch.Tensor:
    value = torch.as_tensor(fill, dtype=torch.uint8, device=pictures.device)
    if value.numel() not in (1, pictures.shape[3]):
        raise BadInput(
            f"augmentation.fill={fill!r}: expected one value, or {pictures.shape[3]}, one a channel"
        )
    return value


def fill_boxes(pictures: torch.Tensor, boxes: Ints, fill: int | Sequence[int]) -> torch.Tensor:
    """Return pictures uint8 (B, H, W, C) with the inside of each one's box (top, bottom, left, right) set."""
    height, width = pictures.shape[1:3]
    top, bottom, left, right = boxes.T[:, :, None]
    in_rows = (np.arange(height) >= top) & (np.arange(height) < bottom)  # (B, H)
    in_columns = (np.arange(width) >= left) & (np.arange(width) < right)  # (B, W)
    rows = torch.from_numpy(in_rows).to(pictures.device)[:, :, None, None]
    columns = torch.from_numpy(in_columns).to(pictures.device)[:, None, :, None]
    return torch.where(rows & columns, _fill_value(fill, pictures), pictures)


# -- picture by picture -------------------------------------------------------------------------------


def crop_resize(picture: Picture, box: Sequence[float], size: int) -> Picture:
    """Resize the box (top, bottom, left, right) of a picture to (size, size, C), antialiased bilinear.

    Pillow's filter also sees the pixels just outside of the box, where the picture has any.
    """
    top, bottom, left, right = box
    grey = picture.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(picture[:, :, 0] if grey else picture))
    out = np.asarray(
        image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    )
    return out[:, :, None] if grey else out


@functools.lru_cache(maxsize=4)
def _kornia_randaugment(n: int, m: int) -> Callable[[torch.Tensor], torch.Tensor]:
    try:
        from kornia.augmentation.auto import RandAugment
    except ImportError as error:
        raise BadInput(
            f"augmentation.randaugment: needs kornia, which cannot be imported ({error}); "
            "pip install kornia"
        ) from error
    operation: Callable[[torch.Tensor], torch.Tensor] = RandAugment(n=n, m=m)
    return operation


def _randaugment(pictures: torch.Tensor, n: int, m: int, draws: Draws) -> torch.Tensor:
    """Let every picture draw its own operations (kornia draws from torch's CPU generator).

    That generator is seeded for each picture and given back as it was; those of CUDA stay untouched,
    which `torch.manual_seed` would not leave them.
    """
    operation = _kornia_randaugment(n, m)
    channels = pictures.shape[3]
    planes = pictures.cpu().permute(0, 3, 1, 2)
    planes = planes.expand(-1, 3, -1, -1) if channels == 1 else planes  # its colour needs three
    out = torch.empty(pictures.shape, dtype=torch.uint8)
    seeds = (draws.bits(Drawn.RANDAUGMENT) >> np.uint64(1)).tolist()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for k, seed in enumerate(seeds):
            torch.default_generator.manual_seed(seed)
            changed = operation(planes[k : k + 1].float() / 255)[0, :channels]
            out[k] = (changed * 255).round_().clamp_(0, 255).permute(1, 2, 0)
    return out.to(pictures.device)


# -- mixing -------------------------------------------------------------------------------------------


def mix(
    inputs: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    *,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    smoothing: float = 0.0,
    seed: int = 0,
    step: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix each picture of a batch with another one of it, and its target alike.

        mixup   x = l x_a + (1 - l) x_b                     Zhang et al. 2018, equation 1
        CutMix  x = x_b in a box of area (1 - l), else x_a  Yun et al. 2019, equation 1
        both    y = l y_a + (1 - l) y_b,   l ~ Beta(alpha, alpha)

    inputs float (B, C, H, W); labels int64 (B,). Returns inputs of the same layout, and soft targets
    float32 (B, classes), smoothed: 1 - s + s/K and s/K. Where both are on, each step is one of them with
    probability 1/2. The partner is the batch rolled by a random number of places, so any batch size
    will do; CutMix's l is what is really left of x_a once the box is clipped. One l, roll and box a
    step, drawn from (seed, step) alone.
    """
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    targets.scatter_(1, labels[:, None], 1 - smoothing + off)
    if not (mixup or cutmix):
        return inputs, targets
    key = np.array([seed % (1 << 64), step], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    cut = generator.random() < (0.5 if mixup and cutmix else float(cutmix > 0))
    alpha = cutmix if cut else mixup
    kept = float(generator.beta(alpha, alpha))
    places = int(generator.integers(1, max(len(labels), 2)))
    height, width = inputs.shape[2:]
    if cut:
        top, bottom, left, right = _cutmix_box(height, width, kept, generator.random(2))
        box = (..., slice(top, bottom), slice(left, right))
        mixed = inputs.clone()
        mixed[box] = inputs[box].roll(places, 0)
        kept = 1 - (bottom - top) * (right - left) / (height * width)
    else:
        order = torch.arange(len(labels), device=inputs.device).roll(places)
        mixed = torch.lerp(inputs[order], inputs, kept)
    return mixed, torch.lerp(targets.roll(places, 0), targets, kept)


def _cutmix_box(height: int, width: int, kept: float, centre: Floats) -> tuple[int, int, int, int]:
    """Return top, bottom, left, right of a box of (1 - kept) of the area, clipped at the border."""
    side = math.sqrt(1 - kept)
    tall, wide = int(height * side), int(width * side)
    y, x = int(centre[0] * height), int(centre[1] * width)
    top, left = y - tall // 2, x - wide // 2
    return max(top, 0), min(top + tall, height), max(left, 0), min(left + wide, width)
