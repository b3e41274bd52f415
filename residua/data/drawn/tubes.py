"""Drawn tubes: volumes of branching, crossing tubes among blobs, as a confocal microscope blurs them.

    v = photons (light * (psf * fine)) + noise,    fine = tubes and blobs on a grid of cubes, 1 inside

The volume is coarser along z than in the plane. Things are drawn where voxels are cubes, blurred there by
a point spread that is longer along z, and then each run of sub-slices is averaged to one slice; a voxel
belongs to a class where half of it or more does. Blobs are as bright as tubes, so that brightness cannot
tell one from the other: shape must.

A sample: volume uint8 (D, H, W, 1); mask uint8 (D, H, W), 0 background, 1 tube, 2 blob; spacing (z, y, x)
in micrometres.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from scipy import ndimage

from residua.data.drawn.stream import Floats, Kind, place, stream
from residua.data.drawn.writing import stems, write_splits

NAME = "tubes (drawn)"
CLASSES = ("background", "tube", "blob")
SHAPE = (32, 96, 96)  # voxels
IN_PLANE = 0.5  # micrometres from voxel to voxel along y and x
COARSER = 3  # times that along z
UNIT = "um"

_POINT_SPREAD = (2.4, 0.9, 0.9)  # standard deviation, in in-plane voxels
_RADII = (2.4, 4.6)  # of a trunk, in in-plane voxels; a branch has _THINNER of its parent
_THINNER = 0.78
_THINNEST = 1.6
_GENERATIONS = 2
_BLOB_RADII = (3.0, 6.0)

Point = npt.NDArray[np.float64]  # (3,): z, y, x in in-plane voxels
Balls = list[tuple[Point, float]]  # centre and radius


@dataclass(frozen=True)
class TubeVolume:
    """One drawn volume with its truth.

    volume: uint8 (D, H, W, 1). mask: uint8 (D, H, W). spacing: (z, y, x) in micrometres.
    """

    volume: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]
    spacing: tuple[float, float, float]


def draw(
    seed: int,
    index: int,
    *,
    shape: tuple[int, int, int] = SHAPE,
    coarser: int = COARSER,
    blobs: bool = True,
) -> TubeVolume:
    """Draw volume `index` of `seed`, of (D, H, W) voxels, `coarser` times as far apart along z.

    blobs: whether class 2 is there. Raises ValueError for fewer than 8 voxels a side or no depth.
    """
    if min(shape) < 8 or coarser < 1:
        raise ValueError(f"expected 8 voxels a side and coarser of 1 or more: {shape}, {coarser}")
    draws = stream(Kind.TUBES, seed, index)
    fine_shape = (shape[0] * coarser, shape[1], shape[2])
    tubes = _filled(_trees(draws, fine_shape), fine_shape)
    others = _filled(_blobs(draws, fine_shape) if blobs else [], fine_shape)
    others = np.minimum(others, 1 - tubes)  # where they meet, the tube is in front
    half = _slices(tubes, coarser) >= 0.5
    mask = half + 2 * ((_slices(others, coarser) >= 0.5) & ~half)
    volume = _microscope(draws, tubes, others, coarser)
    spacing = (coarser * IN_PLANE, IN_PLANE, IN_PLANE)
    return TubeVolume(volume[..., None], mask.astype(np.uint8), spacing)


class Drawn:
    """n drawn volumes of tubes, from number `first` on, as a store: drawn[i] is a `TubeVolume`."""

    name = NAME
    classes = CLASSES

    def __init__(self, n: int, seed: int, *, first: int = 0) -> None:
        self.n, self.seed, self.first = n, seed, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> TubeVolume:
        return draw(self.seed, self.first + place(index, self.n))


def write(folder: str | Path, n: int, seed: int, *, shape: tuple[int, int, int] = SHAPE) -> None:
    """Write n volumes as train, val and test folders of images and masks (TIFF, a page a slice).

    The spacing is in each file, as ImageJ writes it. Raises `BadInput` for fewer than 3 volumes or a
    folder that already holds something.
    """

    def save(numbers: Sequence[int], at: Path) -> None:
        for name, number in stems(numbers):
            sample = draw(seed, number, shape=shape)
            _save(at / "images" / f"{name}.tif", sample.volume[..., 0], sample.spacing)
            _save(at / "masks" / f"{name}.tif", sample.mask, sample.spacing)

    spacing = f"{COARSER * IN_PLANE:g} x {IN_PLANE:g} x {IN_PLANE:g} micrometres (z, y, x)"
    files = f"classes.txt names the values of the masks. A voxel is {spacing}."
    write_splits(Path(folder), n, f"{NAME}, seed {seed}", files, save, CLASSES)


def _save(path: Path, volume: npt.NDArray[np.uint8], spacing: tuple[float, float, float]) -> None:
    path.parent.mkdir(exist_ok=True)
    tifffile.imwrite(
        path,
        volume,
        imagej=True,
        resolution=(1 / spacing[2], 1 / spacing[1]),
        metadata={"axes": "ZYX", "spacing": spacing[0], "unit": UNIT},
    )


def _trees(draws: np.random.Generator, shape: tuple[int, int, int]) -> Balls:
    """Draw three to five trees of tubes, as the balls along their centre lines."""
    size = np.array(shape, float)
    balls: Balls = []
    for _ in range(int(draws.integers(3, 6))):
        start = draws.uniform(0.1, 0.9, 3) * size
        face = int(draws.integers(3))
        start[face] = draws.choice([0.0, size[face] - 1])  # a trunk enters through a face
        heading = 0.5 * size - start + draws.normal(0, 0.25, 3) * size
        balls += _tube(draws, start, heading, float(draws.uniform(*_RADII)), size)
    return balls


def _tube(
    draws: np.random.Generator,
    start: Point,
    heading: Point,
    radius: float,
    size: Point,
    generation: int = 0,
) -> Iterator[tuple[Point, float]]:
    """Yield the balls of a tube that wanders from `start` until it leaves, and of its branches."""
    at, bend = start, np.zeros(3)
    heading = heading / np.linalg.norm(heading)
    until_branch = draws.uniform(18, 50)
    length = draws.uniform(0.5, 1.6) * size.max()
    step = 0.5 * radius
    for walked in np.arange(0, length, step):
        if ((at < -radius) | (at > size + radius)).any():
            return
        yield at, radius
        bend = 0.9 * bend + draws.normal(0, 0.025 * step, 3)
        heading = heading + bend
        heading = heading / np.linalg.norm(heading)
        at = at + step * heading
        if walked >= until_branch and generation < _GENERATIONS:
            until_branch = walked + draws.uniform(18, 50)
            side = np.cross(heading, draws.normal(0, 1, 3))
            turned = heading + draws.uniform(0.6, 1.4) * side / np.linalg.norm(side)
            thinner = max(_THINNEST, _THINNER * radius)
            yield from _tube(draws, at, turned, thinner, size, generation + 1)


def _blobs(draws: np.random.Generator, shape: tuple[int, int, int]) -> Balls:
    """Draw the distractors: single balls, and some doubled."""
    size = np.array(shape, float)
    balls: Balls = []
    for _ in range(int(draws.integers(10, 26))):
        centre, radius = draws.uniform(0.03, 0.97, 3) * size, draws.uniform(*_BLOB_RADII)
        balls.append((centre, radius))
        if draws.random() < 0.3:
            balls.append((centre + draws.normal(0, 0.7 * radius, 3), 0.85 * radius))
    return balls


def _filled(balls: Balls, shape: tuple[int, int, int]) -> Floats:
    """Return how much of each voxel (a cube of side 1) lies in a ball: 0..1, a ramp at the surface."""
    filled = np.zeros(shape, np.float32)
    for centre, radius in balls:
        low = np.maximum(np.floor(centre - radius), 0).astype(int)
        high = np.minimum(np.ceil(centre + radius).astype(int) + 1, shape)
        if (low >= high).any():
            continue
        z, y, x = (
            np.arange(a, b, dtype=np.float32) - np.float32(c)
            for a, b, c in zip(low, high, centre, strict=True)
        )
        far = np.sqrt((z**2)[:, None, None] + (y**2)[:, None] + x**2)
        at = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        np.maximum(filled[at], np.clip(radius + 0.5 - far, 0, 1), out=filled[at])
    return filled


def _slices(fine: Floats, coarser: int) -> Floats:
    """Average each run of `coarser` sub-slices to one slice."""
    depth, height, width = fine.shape
    means: Floats = fine.reshape(depth // coarser, coarser, height, width).mean(1)
    return means


def _microscope(
    draws: np.random.Generator, tubes: Floats, others: Floats, coarser: int
) -> npt.NDArray[np.uint8]:
    """Return what the microscope sees: blurred, dimmer with depth and in places, and noisy."""
    depth, height, width = tubes.shape
    knots = draws.uniform(0.5, 1.0, (3, 4, 4))  # uneven stain
    stain = ndimage.zoom(knots, (depth / coarser / 3, height / 4, width / 4), order=1)
    sharp = tubes + np.float32(draws.uniform(0.85, 1.1)) * others
    seen = _slices(ndimage.gaussian_filter(sharp, _POINT_SPREAD, truncate=3), coarser)
    dimmer = np.exp(-np.linspace(0, draws.uniform(0.1, 0.7), depth // coarser))[:, None, None]
    photons = draws.uniform(50, 120) * (seen * stain * dimmer + draws.uniform(0.04, 0.12))
    counted = draws.poisson(photons) + draws.normal(0, 1.5, photons.shape)
    scaled = np.rint(counted * (200.0 / np.quantile(counted, 0.999)) + 12)
    volume: npt.NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return volume
