"""What is done to a crop of a person in training: one affine map, and one map of colours.

    angle ~ U(-r, r),  scale ~ U(s0, s1),  mirrored with probability 1/2      for pixels and joints alike
    x <- c (b (a x + (1 - a) luma(x)) - m) + m,   a, b, c ~ U(1 - j, 1 + j)

with a the saturation, b the brightness, c the contrast and m the mean luma after brightness.

Rotation of 30 degrees and scale of 0.75 to 1.25 are those of Newell et al. 2016. Mirroring exchanges the
joints of left and right, whose names are then true again; it is done only with the pairs at hand. Every draw
is a function of (seed, epoch, index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from residua.data.counter import Drawn, Draws, Floats
from residua.errors import BadInput

Pixels = npt.NDArray[np.uint8]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue (ITU-R 601)


class PoseDrawn(IntEnum):
    """What each draw decides, beside `counter.Drawn`. A number is never given to something else."""

    ROTATION = 1000
    SCALE = 1001
    BRIGHTNESS = 1002
    CONTRAST = 1003
    SATURATION = 1004


@dataclass(frozen=True)
class PoseAugmentation:
    """Degrees, factors and shares; the defaults are the published ones. Raises BadInput naming the key.

    `colour` is (brightness, contrast, saturation): 0.2 is a factor of 0.8 to 1.2; pictures of other
    than three channels have no saturation.
    """

    rotation: float = 30.0
    scale: tuple[float, float] = (0.75, 1.25)
    flip: bool = True
    colour: tuple[float, float, float] = (0.2, 0.2, 0.2)

    def __post_init__(self) -> None:
        checks = {
            "rotation": (0 <= self.rotation <= 180, "degrees of 0 to 180"),
            "scale": (0 < self.scale[0] <= self.scale[1], "(smallest, largest), both above 0"),
            "colour": (
                len(self.colour) == 3 and all(0 <= j < 1 for j in self.colour),
                "(brightness, contrast, saturation), each of 0 and below 1",
            ),
        }
        for key, (good, expected) in checks.items():
            if not good:
                raise BadInput(f"augmentation.{key}={getattr(self, key)!r}: expected {expected}")


NONE = PoseAugmentation(rotation=0.0, scale=(1.0, 1.0), flip=False, colour=(0.0, 0.0, 0.0))


@dataclass(frozen=True)
class Drawing:
    """What was drawn for each person of a batch (B,)."""

    angle: Floats
    scale: Floats
    mirrored: npt.NDArray[np.bool_]
    colour: npt.NDArray[np.float64]  # (B, 3) brightness, contrast, saturation


def drawn(how: PoseAugmentation, draws: Draws) -> Drawing:
    """Draw for everybody in a batch."""
    low, high = how.scale
    spread = [
        1 + jitter * (2 * draws.uniform(what) - 1)
        for what, jitter in zip(
            (PoseDrawn.BRIGHTNESS, PoseDrawn.CONTRAST, PoseDrawn.SATURATION),
            how.colour,
            strict=True,
        )
    ]
    return Drawing(
        angle=how.rotation * (2 * draws.uniform(PoseDrawn.ROTATION) - 1),
        scale=low + (high - low) * draws.uniform(PoseDrawn.SCALE),
        mirrored=(draws.uniform(Drawn.FLIP) < 0.5) & how.flip,
        colour=np.stack(spread, axis=1),
    )


def exchanged(
    joints: npt.NDArray[np.floating], mirror: Sequence[int], where: npt.NDArray[np.bool_]
) -> npt.NDArray[np.floating]:
    """Return joints (B, J, 3) with the joints of left and right exchanged in the rows `where` (B,)."""
    return np.where(where[:, None, None], joints[:, np.asarray(mirror)], joints)


def coloured(crop: Pixels, brightness: float, contrast: float, saturation: float) -> Pixels:
    """Return the crop uint8 (H, W, C) in other colours, rounded and clipped."""
    if brightness == contrast == saturation == 1:
        return crop
    channels = crop.shape[2]
    weights = LUMA if channels == 3 else np.full(channels, 1 / channels, np.float32)
    keep = saturation if channels == 3 else 1.0
    mixing = brightness * (keep * np.eye(channels) + (1 - keep) * weights)
    lines = crop.reshape(-1, channels).astype(np.float32)
    middle = brightness * float(lines.mean(axis=0) @ weights)
    out = lines @ (contrast * mixing).T.astype(np.float32) + np.float32((1 - contrast) * middle)
    rounded: Pixels = np.rint(out).clip(0, 255).astype(np.uint8)
    return rounded.reshape(crop.shape)
