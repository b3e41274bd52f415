"""2-D or 3-D, and which axis counts the slices, decided from the sizes and spacings of the data.

    2-D  if   spacing[a] > 3 max(other spacings)   and   3 size[a] < min(other sizes),     a = argmax spacing
    2-D  if   an axis has fewer than 8 voxels
    3-D  else

The two comparisons and the factor 3 are those by which nnU-Net (Isensee et al. 2021; `ANISO_THRESHOLD` in
its code) calls a set anisotropic. nnU-Net then trains in 2-D and in 3-D and keeps what cross-validation
prefers; here the choice is made beforehand, and can be overruled. Eight voxels are one halving to the four
that nnU-Net leaves a feature map. Where no spacing is known, the sizes alone decide. Sizes and spacings are
medians over the set, (z, y, x). Slices are counted along z, or along another axis that is thick or thin so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from residua.data.pairs.scan import sides
from residua.data.volumes import Spacing

Numbers = npt.NDArray[np.float64]

ANISOTROPIC = 3
FEWEST = 8


@dataclass(frozen=True)
class Decision:
    """`dims` 2 or 3; `axis` counts the slices (of a volume); the reasons in plain words."""

    dims: int
    axis: int
    reasons: tuple[str, ...]


def decide(
    shapes: Sequence[tuple[int, ...]],
    spacings: Sequence[Spacing | None],
    unit: str = "",
    dims: int | None = None,
) -> Decision:
    """Return the decision for volumes of these sizes; `dims` overrules it, and the reasons say so."""
    size = np.median(np.array(shapes), axis=0)
    known = [spacing for spacing in spacings if spacing is not None]
    spacing = np.median(np.array(known), axis=0) if known else None
    axis = _axis(size, spacing)
    found, reasons = _reasons(size, spacing, axis, unit)
    if dims is not None and dims != found:
        reasons = [f"{dims}-D, as asked; the data alone would say {found}-D", *reasons]
    return Decision(found if dims is None else dims, axis, tuple(reasons))


def _axis(size: Numbers, spacing: Numbers | None) -> int:
    if spacing is not None and np.sort(spacing)[-1] > ANISOTROPIC * np.sort(spacing)[-2]:
        return int(np.argmax(spacing))
    return int(np.argmin(size)) if min(size) < FEWEST else 0


def _reasons(size: Numbers, spacing: Numbers | None, axis: int, unit: str) -> tuple[int, list[str]]:
    others = [i for i in range(3) if i != axis]
    slices, across = float(size[axis]), float(min(size[others]))
    few = ANISOTROPIC * slices < across
    lines = [f"volumes of {sides([round(n) for n in size])} voxels (median; z, y, x)"]
    if spacing is None:
        lines.append("no spacing is recorded in the files: the sizes alone decide")
        thick = few
    else:
        text = " x ".join(f"{s:g}" for s in spacing)
        ratio = float(spacing[axis] / max(spacing[others]))
        thick = ratio > ANISOTROPIC
        lines.append(
            f"spacing {text}{' ' + unit if unit else ''}: slices are {ratio:.3g} times as far apart as "
            f"the pixels in them ({'more' if thick else 'no more'} than {ANISOTROPIC})"
        )
    if min(size) < FEWEST:
        return 2, [
            *lines,
            f"2-D: fewer than {FEWEST} slices ({round(min(size))}) are too few to halve",
        ]
    compared = f"{round(slices)} slices against {round(across)} pixels across"
    if thick and few:
        return 2, [
            *lines,
            f"2-D: {compared}, less than a third: neighbouring slices differ too much",
        ]
    if few:
        return 3, [*lines, f"3-D: {compared}, but the voxels are near enough to cubes"]
    return 3, [*lines, f"3-D: {compared}, enough to see structure through the slices"]
