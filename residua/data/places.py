"""Where training patches lie in their pictures: anywhere, or around a pixel of a rarer class.

    by class  = floor((q + 1) f) > floor(q f)       a share f of every run of positions q
    class     = any of the mask's classes except its commonest, all equally often
    pixel     = any of that class, as near to the patch's centre as the picture's border allows
    else      = anywhere, uniformly

f is `foreground`, a third as in nnU-Net (Isensee et al. 2021). Of classes with many pixels some are
remembered, chosen by the counter: all is a function of (seed, position, picture, showing).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from residua.data.counter import Draws, Ints, integers
from residua.data.deform import Array
from residua.data.masks import IGNORED
from residua.data.patch_augmentation import PatchDrawn

_PIXELS_KEPT = 1024  # of each class of a picture, among which patches are centred
_PICTURES_KEPT = 2048  # whose such pixels are remembered


class Place(NamedTuple):
    """Where a patch lies, as numbers of 0 .. 1: anywhere, or around a pixel of a rarer class."""

    rare: bool
    free: tuple[float, ...]
    chosen: float
    pixel: float


class Places:
    """Where the patches of a split lie, in pictures of `dims` axes; it remembers pixels of rarer classes."""

    def __init__(self, seed: int, dims: int, foreground: float) -> None:
        self.seed, self.dims, self.foreground = seed, dims, foreground
        self._rare: OrderedDict[int, list[Ints]] = OrderedDict()

    def drawn(self, draws: Draws, positions: Ints) -> list[Place]:
        """Return what decides where each patch of a batch lies."""
        f = self.foreground
        rare = np.floor((positions + 1) * f) > np.floor(positions * f)
        free = [draws.uniform(PatchDrawn.PLACE + axis) for axis in range(self.dims)]
        chosen = draws.uniform(PatchDrawn.CLASS), draws.uniform(PatchDrawn.PIXEL)
        rows = zip(rare.tolist(), zip(*free, strict=True), *chosen, strict=True)
        return [Place(*row) for row in rows]

    def corner(self, i: int, mask: Array, target: Sequence[int], where: Place) -> list[int]:
        """Return the first labelled pixel of a patch of picture `i`."""
        spare = [side - n for side, n in zip(mask.shape, target, strict=True)]
        classes = self.rarer(i, mask) if where.rare else []
        if not classes:
            return [
                min(s, 0) + int(u * (abs(s) + 1)) for s, u in zip(spare, where.free, strict=True)
            ]
        pixels = classes[int(where.chosen * len(classes))]
        pixel = np.unravel_index(pixels[int(where.pixel * len(pixels))], mask.shape)
        return [
            min(max(int(p) - n // 2, min(s, 0)), max(s, 0))
            for p, n, s in zip(pixel, target, spare, strict=True)
        ]

    def rarer(self, i: int, mask: Array) -> list[Ints]:
        """Return some pixels (their places in the flat mask) of each class but the commonest."""
        if i not in self._rare:
            slabs = mask if mask.ndim == 3 else mask[None]  # bounds the memory that a volume takes
            counts = np.stack(
                [np.bincount(slab.ravel(), minlength=IGNORED + 1)[:IGNORED] for slab in slabs]
            )
            every = counts.sum(0)
            present = [k for k in np.flatnonzero(every).tolist() if k != every.argmax()]
            self._rare[i] = [self._some(slabs, k, counts[:, k], i) for k in present]
        self._rare.move_to_end(i)
        if len(self._rare) > _PICTURES_KEPT:
            self._rare.popitem(last=False)
        return self._rare[i]

    def _some(self, slabs: Array, k: int, counts: Ints, i: int) -> Ints:
        """Return the places of class k, or 1,024 of them by the counter, in order."""
        ends = np.cumsum(counts)
        wanted = np.arange(min(ends[-1], _PIXELS_KEPT))
        if ends[-1] > _PIXELS_KEPT:
            wanted = np.sort(integers(self.seed, i, wanted, PatchDrawn.AMONG, ends[-1]))
        found = []
        for s, part in enumerate(np.split(wanted, np.searchsorted(wanted, ends[:-1]))):
            if len(part):
                within = part - (ends[s] - counts[s])
                found.append(np.flatnonzero(slabs[s] == k)[within] + s * slabs[s].size)
        return np.concatenate(found)
