"""Objects of a prediction, numbered: the classes that a network was trained on say how they are told apart.

    a class is called border     seeds are the connected parts of each other class; they grow over the
                                 border's pixels, least likely border first, each pixel by the class that is
                                 likeliest there but for the border (`instances.from_border_classes`)
    the border is the first one  as of membranes, which lie everywhere between: the connected parts
    no class is                  the foreground of each class, cut where it is narrow: watershed of the
                                 distance from what is not of the class (`instances.from_foreground`)

The first class is what is outside of every object. Names that mean a border are in BORDERS.

Shapes: classes (*S), probabilities (K, *S), S of 1 to 3 axes.
"""

# mypy: allow-untyped-calls
# (scikit-image has no types)

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import label

from residua.errors import BadInput
from residua.training.segmentation.instances import flooded, from_foreground

BORDERS = frozenset(
    name
    for one in ("border", "membrane", "edge", "outline", "contour")
    for name in (one, one + "s")
) | {"boundary", "boundaries"}

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Apart:
    """How objects are told apart: the class that is their border, if any, and those that they are of."""

    names: tuple[str, ...]
    border: int | None
    of: tuple[int, ...]

    @classmethod
    def by(cls, names: Sequence[str]) -> Apart:
        """Return what the names of the classes say; BadInput where they leave no class of objects."""
        words = [set(re.split(r"[^a-z]+", name.lower())) for name in names]
        border = next((k for k, found in enumerate(words) if found & BORDERS), None)
        of = tuple(k for k in range(1, len(names)) if k != border)
        if not of:
            raise BadInput(
                f"of the classes {', '.join(names)} none is one of objects; expected one beside the"
                " background and the border"
            )
        return cls(tuple(names), border, of)

    @property
    def how(self) -> str:
        """How objects are told apart, in words."""
        if self.border is None:
            return "watershed of the distance from what is around (no class is called border)"
        if self.border == 0:
            return f"connected parts between the class {self.names[0]}"
        return f"watershed over the class {self.names[self.border]}"

    def objects(
        self,
        classes: npt.NDArray[Any],
        probabilities: npt.NDArray[Any],
        *,
        min_size: int = 0,
        spacing: Sequence[float] | None = None,
    ) -> tuple[Labels, dict[str, int]]:
        """Return objects int32 (*S), numbered 1 .. N class after class, and how many there are of each.

        Those smaller than `min_size` pixels are left out.
        """
        found, counts = np.zeros(classes.shape, np.int32), dict[str, int]()
        likeliest = self._likeliest(probabilities)
        for k in self.of:
            inside = classes == k
            if self.border is None:
                one = from_foreground(inside, min_size=min_size, spacing=spacing)
            else:
                between = (classes == self.border) & (likeliest == k)
                ground = probabilities[self.border]
                mask = inside | between if self.border else inside
                one = flooded(ground, label(inside, connectivity=1), mask, min_size)
            total = sum(counts.values())
            found[one > 0] = one[one > 0] + total
            counts[self.names[k]] = int(one.max(initial=0))
        return found, counts

    def _likeliest(self, probabilities: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the likeliest class of objects of every pixel."""
        best = np.full(probabilities.shape[1:], self.of[0], np.uint8)
        if len(self.of) > 1:
            best[:] = np.asarray(self.of, np.uint8)[probabilities[list(self.of)].argmax(0)]
        return best
