"""Brightness, contrast, gamma, blur and noise of a picture, whatever its units are.

    blur      x <- Gaussian filter of x, standard deviation sigma pixels
    tone      x <- m + c (x - m) + b s                     m, s: the patch's mean and standard deviation
    gamma     x <- low + (high - low) ((x - low) / (high - low))^g          low, high: its extremes
    noise     x <- x + t s N(0, 1)

for each channel alone, with the same b, c, g, sigma, t; in the patch's own standard deviations, so that
one setting does for 8-bit pictures, 16-bit counts and Hounsfield units. The list is that of nnU-Net
(Isensee et al. 2021, supplement); the order is that of a microscope: optics first, the camera last.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Singles = NDArray[np.float32]

_TRUNCATE = 3.0  # standard deviations of the blur's window to a side


@dataclass(frozen=True)
class Tone:
    """What was drawn for one patch; the defaults do nothing. `key` decides the noise."""

    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    noise: float = 0.0
    blur: float = 0.0
    key: int = 0

    @property
    def neutral(self) -> bool:
        """Whether a picture stays as it is."""
        return (self.brightness, self.contrast, self.gamma, self.noise, self.blur) == (
            0,
            1,
            1,
            0,
            0,
        )


def photometric(picture: Singles, tone: Tone, blurred: int | None = None) -> Singles:
    """Return the picture, float32 (*S, C), changed as `tone` says; `picture` is left alone.

    blurred: the number of last axes of S that blur acts on (None: all).
    """
    axes = tuple(range(picture.ndim - 1))
    if tone.blur:
        still = 0 if blurred is None else len(axes) - blurred
        sigma = [0.0] * still + [tone.blur] * (len(axes) - still) + [0.0]
        picture = gaussian_filter(picture, sigma, mode="mirror", truncate=_TRUNCATE)
    mean = picture.mean(axes, dtype=np.float64)
    out: Singles = picture - mean.astype(np.float32)
    spread = np.sqrt(np.square(out).mean(axes, dtype=np.float64))
    if tone.contrast != 1:
        out *= np.float32(tone.contrast)
    out += (mean + tone.brightness * spread).astype(np.float32)
    if tone.gamma != 1:
        _gamma(out, tone.gamma, axes)
    if tone.noise:
        generator = torch.Generator().manual_seed(tone.key >> 1)  # three times as fast as numpy's
        drawn: Singles = torch.randn(out.shape, generator=generator).numpy()
        drawn *= (tone.noise * spread).astype(np.float32)
        out += drawn
    return out


def _gamma(picture: Singles, power: float, axes: tuple[int, ...]) -> None:
    """Bend the range of each channel in place; its extremes stay."""
    low, high = picture.min(axes), picture.max(axes)
    reach = np.where(high > low, high - low, np.float32(1))
    picture -= low
    picture /= reach
    np.power(picture, np.float32(power), out=picture)
    picture *= reach
    picture += low
