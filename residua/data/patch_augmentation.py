"""What is drawn for each training patch: flips, turns, rotation, scale, elastic deformation, tone.

    angle ~ U(-rotation, rotation),  log scale ~ U,  e ~ N(0, elastic^2) at 3 x 3 points

Rotation, scale and elastic deformation (Ronneberger et al. 2015, section 3.1: 10 pixels) are one map of
coordinates, `deform`; brightness, contrast, gamma, blur and noise are `photometric`. Volumes whose slices
are more than three times as far apart as the pixels in them are turned, bent and blurred in their slices
only, as nnU-Net does (Isensee et al. 2021, supplement). A rotation is rigid in millimetres: with spacings
D it is D^-1 R D in pixels.

Every draw is a function of (seed, picture, showing) alone (`counter.Draws`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from residua.data.counter import Draws, Floats
from residua.data.deform import GRID, Outside, Warp
from residua.data.photometric import Tone
from residua.errors import BadInput

ANISOTROPIC = 3.0  # ratio of spacings from which on a volume is a stack of slices (nnU-Net)
_BEND = 1 / 8  # of the coarse grid's spacing: larger displacements would fold the patch
_SAME = 0.01  # relative difference of spacings that a quarter turn may ignore

Range = tuple[float, float]


class PatchDrawn(IntEnum):
    """What each draw of a patch decides; numbers of their own beside `counter.Drawn`."""

    PLACE = 1000  # and the two after it: one an axis
    CLASS = 1003
    PIXEL = 1004
    FLIP = 1005  # likewise
    TURN = 1008  # likewise: one a plane
    ROTATE = 1011
    ANGLE = 1012  # likewise
    RESCALE = 1015
    SCALE = 1016
    BEND = 1017
    GRID = 1018
    BRIGHTEN = 1019
    BRIGHTNESS = 1020
    STRETCH = 1021
    CONTRAST = 1022
    CURVE = 1023
    GAMMA = 1024
    DISTURB = 1025
    NOISE = 1026
    NOISE_KEY = 1027
    DEFOCUS = 1028
    BLUR = 1029
    AMONG = 1030


@dataclass(frozen=True)
class PatchAugmentation:
    """What is done to training patches; the defaults do nothing. Raises BadInput naming the key.

    flip        axes that may be mirrored, 0 the first; True for all
    rotate90    quarter turns, where the sides (and spacings) are equal; half turns elsewhere
    rotation    largest angle, in degrees; about each of three axes in isotropic volumes
    scale       (smallest, largest) pixels of the picture to a pixel of the patch: 1.2 shows more, smaller
    elastic     standard deviation of the displacements in pixels; along n pixels at most (n - 1) / 16
    brightness  largest shift, in standard deviations of the patch
    contrast    (smallest, largest) factor;  gamma: (smallest, largest) exponent
    noise       largest standard deviation, in standard deviations of the patch
    blur        largest standard deviation of the filter, in pixels
    p_*         probability of each
    in_plane    whether volumes are turned and bent in their slices only; None: decided by the spacing
    outside     what masks hold where a patch leaves the picture: "mirror", or "ignored"
    """

    flip: bool | tuple[int, ...] = False
    rotate90: bool = False
    rotation: float = 0.0
    scale: Range = (1.0, 1.0)
    elastic: float = 0.0
    brightness: float = 0.0
    contrast: Range = (1.0, 1.0)
    gamma: Range = (1.0, 1.0)
    noise: float = 0.0
    blur: float = 0.0
    p_rotation: float = 1.0
    p_scale: float = 1.0
    p_elastic: float = 1.0
    p_brightness: float = 1.0
    p_contrast: float = 1.0
    p_gamma: float = 1.0
    p_noise: float = 1.0
    p_blur: float = 1.0
    in_plane: bool | None = None
    outside: Outside = "mirror"

    def __post_init__(self) -> None:
        axes = () if isinstance(self.flip, bool) else tuple(self.flip)
        self._expect("flip", all(a in (0, 1, 2) for a in axes), "True, False or axes of 0, 1, 2")
        self._expect("rotation", 0 <= self.rotation <= 180, "degrees of 0 to 180")
        for key in ("scale", "contrast", "gamma"):
            low, high = getattr(self, key)
            self._expect(key, 0 < low <= high < math.inf, "(smallest, largest), both above 0")
        for key in ("elastic", "brightness", "noise", "blur"):
            self._expect(key, 0 <= getattr(self, key) < math.inf, "a number of 0 or more")
        for key in (name for name in self.__dataclass_fields__ if name.startswith("p_")):
            self._expect(key, 0 <= getattr(self, key) <= 1, "a probability")
        self._expect("outside", self.outside in ("mirror", "ignored"), "mirror or ignored")

    def _expect(self, key: str, good: bool, expected: str) -> None:
        if not good:
            raise BadInput(f"augmentation.{key}={getattr(self, key)!r}: expected {expected}")

    @classmethod
    def light(cls) -> PatchAugmentation:
        """Return mirrors, small rotations and scales, a little tone: for large or varied sets."""
        return cls(
            flip=True,
            rotation=15,
            scale=(0.9, 1.1),
            brightness=0.2,
            contrast=(0.9, 1.1),
            p_rotation=0.5,
            p_scale=0.5,
            p_brightness=0.5,
            p_contrast=0.5,
        )

    @classmethod
    def strong(cls) -> PatchAugmentation:
        """Return all of it: U-Net's 10 pixels, nnU-Net's ranges: for a handful of pictures."""
        return cls(
            flip=True,
            rotate90=True,
            rotation=45,
            scale=(0.7, 1.4),
            elastic=10,
            brightness=0.3,
            contrast=(0.75, 1.25),
            gamma=(0.7, 1.5),
            noise=0.3,
            blur=1.0,
            p_rotation=0.5,
            p_scale=0.5,
            p_elastic=0.5,
            p_brightness=0.3,
            p_contrast=0.3,
            p_gamma=0.3,
            p_noise=0.2,
            p_blur=0.2,
        )

    def flip_axes(self, dims: int) -> tuple[int, ...]:
        """Return the axes that training mirrors, of `dims`: those that a flip test may use.

        >>> PatchAugmentation(flip=True).flip_axes(2), PatchAugmentation(flip=(1, 2)).flip_axes(2)
        ((0, 1), (1,))
        """
        if isinstance(self.flip, bool):
            return tuple(range(dims)) if self.flip else ()
        return tuple(sorted({axis for axis in self.flip if axis < dims}))

    def stays_in_plane(self, shape: Sequence[int], spacing: Sequence[float] | None) -> bool:
        """Return whether patches of this shape are handled as stacks of slices.

        Without spacings the shape of the patch decides, as in nnU-Net.
        """
        if len(shape) < 3:
            return False
        if self.in_plane is not None:
            return self.in_plane
        if spacing is None:
            return max(shape) > ANISOTROPIC * shape[0]
        return max(spacing) > ANISOTROPIC * min(spacing)

    # -- draws -------------------------------------------------------------------------------------------

    def warps(
        self,
        draws: Draws,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
        margin: Sequence[int] | None = None,
    ) -> list[Warp]:
        """Return the map of each patch of a batch, for patches of `shape`, margins included.

        spacing: millimetres from pixel to pixel along each axis; None where they are equal.
        """
        first = int(self.stays_in_plane(shape, spacing))
        matrices = self._matrices(draws, tuple(spacing or (1.0,) * len(shape))[first:])
        grids = self._grids(draws, shape[first:])
        turns = self._turns(draws, shape, spacing, margin or (0,) * len(shape))
        axes = self.flip_axes(len(shape))
        flips = [draws.uniform(PatchDrawn.FLIP + axis) < 0.5 for axis in axes]
        return [
            Warp(
                matrices[j],
                grids[j],
                tuple((a, b, int(k[j])) for (a, b), k in turns if k[j]),
                tuple(axis for axis, flip in zip(axes, flips, strict=True) if flip[j]),
            )
            for j in range(len(draws))
        ]

    def _matrices(
        self, draws: Draws, spacing: tuple[float, ...]
    ) -> list[NDArray[np.float64] | None]:
        """Return scale x D^-1 R D for each patch; None where neither was drawn."""
        n = len(spacing)
        turning = _chance(draws, PatchDrawn.ROTATE, self.p_rotation * (self.rotation > 0 and n > 1))
        resized = _chance(draws, PatchDrawn.RESCALE, self.p_scale * (self.scale != (1.0, 1.0)))
        planes = list(combinations(range(n), 2))
        bound = math.radians(self.rotation)
        angles = [_between(draws, PatchDrawn.ANGLE + i, -bound, bound) for i in range(len(planes))]
        factors = np.exp(_between(draws, PatchDrawn.SCALE, *np.log(self.scale)))
        d = np.asarray(spacing, np.float64)
        found: list[NDArray[np.float64] | None] = []
        for j in range(len(draws)):
            matrix = np.eye(n)
            if turning[j]:
                for plane, angle in zip(planes, angles, strict=True):
                    matrix = matrix @ _rotation(n, plane, angle[j])
                matrix = matrix * d / d[:, None]
            if resized[j]:
                matrix = matrix * factors[j]
            found.append(matrix if turning[j] or resized[j] else None)
        return found

    def _grids(self, draws: Draws, shape: Sequence[int]) -> list[NDArray[np.float64] | None]:
        """Return the coarse displacements for each patch; None where they were not drawn."""
        bent = _chance(draws, PatchDrawn.BEND, self.p_elastic * (self.elastic > 0))
        spans = [(side - 1) / (GRID - 1) for side in shape]
        sigma = np.array([min(self.elastic, _BEND * span) for span in spans])
        keys = draws.bits(PatchDrawn.GRID).tolist()
        size = (len(shape), *(GRID,) * len(shape))
        return [
            np.random.Generator(np.random.Philox(key=key)).standard_normal(size)
            * sigma.reshape(-1, *(1,) * len(shape))
            if here
            else None
            for key, here in zip(keys, bent, strict=True)
        ]

    def _turns(
        self,
        draws: Draws,
        shape: Sequence[int],
        spacing: Sequence[float] | None,
        margin: Sequence[int],
    ) -> list[tuple[tuple[int, int], NDArray[np.int64]]]:
        """Return the planes that are turned, and the quarter turns of each patch in them."""
        if not self.rotate90:
            return []
        first = int(self.stays_in_plane(shape, spacing))
        found = []
        for i, (a, b) in enumerate(combinations(range(first, len(shape)), 2)):
            same = shape[a] == shape[b] and margin[a] == margin[b]
            if spacing is not None:
                same = same and math.isclose(spacing[a], spacing[b], rel_tol=_SAME)
            turns = draws.integers(PatchDrawn.TURN + i, 4 if same else 2)
            found.append(((a, b), turns if same else 2 * turns))
        return found

    def tones(self, draws: Draws) -> list[Tone]:
        """Return the brightness, contrast, gamma, noise and blur of each patch of a batch."""

        def drawn(
            chance: int, p: float, value: int, bounds: Range, neutral: float, log: bool = False
        ) -> Floats:
            if bounds == (neutral, neutral) or not p:
                return np.full(len(draws), neutral)
            low, high = np.log(bounds) if log else bounds
            numbers = _between(draws, value, low, high)
            here = _chance(draws, chance, p)
            return np.where(here, np.exp(numbers) if log else numbers, neutral)

        d = PatchDrawn
        shift = (-self.brightness, self.brightness)
        columns: dict[str, Any] = {
            "brightness": drawn(d.BRIGHTEN, self.p_brightness, d.BRIGHTNESS, shift, 0),
            "contrast": drawn(d.STRETCH, self.p_contrast, d.CONTRAST, self.contrast, 1, True),
            "gamma": drawn(d.CURVE, self.p_gamma, d.GAMMA, self.gamma, 1, True),
            "noise": drawn(d.DISTURB, self.p_noise, d.NOISE, (0, self.noise), 0),
            "blur": drawn(d.DEFOCUS, self.p_blur, d.BLUR, (0, self.blur), 0),
            "key": draws.bits(d.NOISE_KEY),
        }
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return [Tone(*row) for row in rows]


def _chance(draws: Draws, draw: int, p: float) -> NDArray[np.bool_]:
    """Return for each patch whether something of probability p happens."""
    return np.full(len(draws), p > 0) if p in (0, 1) else draws.uniform(draw) < p


def _between(draws: Draws, draw: int, low: float, high: float) -> Floats:
    """Return a number of low .. high for each patch."""
    numbers: Floats = low + (high - low) * draws.uniform(draw)
    return numbers


def _rotation(n: int, plane: tuple[int, int], angle: float) -> NDArray[np.float64]:
    """Return the rotation of a plane of n axes by an angle in radians."""
    a, b = plane
    matrix = np.eye(n)
    matrix[a, a] = matrix[b, b] = math.cos(angle)
    matrix[a, b], matrix[b, a] = -math.sin(angle), math.sin(angle)
    return matrix
