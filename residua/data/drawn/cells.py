"""Drawn cells: touching cells in differential interference contrast (DIC), every one outlined.

    I(p) = light(p) + g s . grad(phi * G)(p) + noise,    phi = dome + nucleus + grains + membrane

A DIC microscope (Nomarski) shows the slope of the optical path length phi along its shear s: one flank
of a cell is bright, the other dark, and its inside is as grey as the background. So no threshold finds
the cells, which is what makes the picture worth learning.

A cell is an ellipse with an uneven outline; where two overlap, a pixel belongs to the one whose centre is
nearer in units of its own axes. Truth: instances uint16 (H, W), 0 the background; mask uint8 (H, W),
0 background, 1 inside and, if wanted, 2 for the border between cells that touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from residua.data.drawn.stream import Floats, Kind, clouds, place, stream
from residua.data.drawn.writing import save_png, stems, write_splits

NAME = "cells (drawn)"
CLASSES = ("background", "cell")
BORDER_CLASSES = (*CLASSES, "border")
SIDE = 256

CELLS = (12, 40)  # cells of a picture of SIDE, fewest and most; fewer fit a smaller one
SMALLEST = 60  # pixels of a cell: what others cover further is not drawn
BORDER_REACH = 2  # pixels from a pixel of class 2 to the other cell

_RADII = (13.0, 25.0)  # of a cell, in pixels
_TOUCH = (0.74, 0.92)  # distance of neighbours over the sum of their radii
_TRIES = 60  # places looked at for a cell before the colony is called full


@dataclass(frozen=True)
class CellPicture:
    """One drawn picture of cells with its truth.

    picture: uint8 (H, W, 1). instances: uint16 (H, W), 0 is background. mask: uint8 (H, W).
    """

    picture: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.uint16]
    mask: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class _Cell:
    """A cell before it is painted: where it lies, its axes, its angle, how uneven its outline is."""

    y: float
    x: float
    radius: float
    stretch: float
    angle: float
    outline: npt.NDArray[np.float64]  # (waves, 2): amplitude and phase of 2, 3, ... waves a turn

    def distance(self, rows: Floats, columns: Floats) -> Floats:
        """Return the distance of pixels from the centre in units of the outline (1 is on it)."""
        dy, dx = rows - self.y, columns - self.x
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        turn = np.arctan2(across, along)
        uneven = 1.0 + sum(a * np.cos(k * turn + b) for k, (a, b) in enumerate(self.outline, 2))
        radii = self.radius * self.stretch, self.radius / self.stretch
        far: Floats = (np.hypot(along / radii[0], across / radii[1]) / uneven).astype(np.float32)
        return far

    def window(self, side: int) -> tuple[slice, slice]:
        """Return rows and columns that hold the whole cell, cut at the picture."""
        reach = self.radius * self.stretch * 1.3 + 1
        spans = [(max(0, int(c - reach)), min(side, int(c + reach) + 2)) for c in (self.y, self.x)]
        return slice(*spans[0]), slice(*spans[1])


def draw(
    seed: int,
    index: int,
    *,
    side: int = SIDE,
    cells: tuple[int, int] = CELLS,
    border: bool = False,
) -> CellPicture:
    """Draw picture `index` of `seed`: side x side pixels with about so many cells.

    border: whether the mask has class 2. Raises ValueError for a side below 64 or no cells.
    """
    if side < 64 or not 1 <= cells[0] <= cells[1]:
        raise ValueError(f"expected a side of 64 or more and 1 cell or more, not {side}, {cells}")
    draws = stream(Kind.CELLS, seed, index)
    colony = _colony(draws, side, int(draws.integers(cells[0], cells[1] + 1)))
    instances = _instances(colony, side)
    picture = _microscope(draws, _path_length(draws, instances))
    inside = (instances > 0).astype(np.uint8)
    mask = inside + borders(instances) if border else inside
    return CellPicture(picture[..., None], instances, mask)


def borders(instances: npt.NDArray[np.uint16], reach: int = BORDER_REACH) -> npt.NDArray[np.uint8]:
    """Return 1 for each pixel of a cell within `reach` pixels (square) of another cell, else 0."""
    size = 2 * reach + 1
    cells = instances > 0
    low = np.where(cells, instances, np.iinfo(np.uint16).max)
    two = ndimage.maximum_filter(instances, size) != ndimage.minimum_filter(low, size)
    border: npt.NDArray[np.uint8] = (two & cells).astype(np.uint8)
    return border


class Drawn:
    """n drawn pictures of cells, from number `first` on, as a store: drawn[i] is a `CellPicture`."""

    name = NAME

    def __init__(self, n: int, seed: int, *, first: int = 0, border: bool = False) -> None:
        self.n, self.seed, self.first, self.border = n, seed, first, border
        self.classes = BORDER_CLASSES if border else CLASSES

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> CellPicture:
        return draw(self.seed, self.first + place(index, self.n), border=self.border)


def write(
    folder: str | Path, n: int, seed: int, *, border: bool = False, instances: bool = False
) -> None:
    """Write n pictures as train, val and test folders of images and masks (PNG), with classes.txt.

    instances: whether a third folder holds them, as PNG of 16 bits. Raises `BadInput` for fewer than 3
    pictures or a folder that already holds something.
    """

    def save(numbers: Sequence[int], at: Path) -> None:
        for name, number in stems(numbers):
            sample = draw(seed, number, border=border)
            save_png(at / "images" / f"{name}.png", sample.picture)
            save_png(at / "masks" / f"{name}.png", sample.mask)
            if instances:
                save_png(at / "instances" / f"{name}.png", sample.instances)

    files = "classes.txt names the values of the masks."
    if instances:
        files += " instances (16 bits): 0 background, then a number for each cell."
    classes = BORDER_CLASSES if border else CLASSES
    write_splits(Path(folder), n, f"{NAME}, seed {seed}", files, save, classes)


def _colony(draws: np.random.Generator, side: int, n: int) -> list[_Cell]:
    """Place up to n cells, each against one that lies there already, in one colony or two."""
    cells: list[_Cell] = []
    starts = int(draws.integers(1, 3))
    size = draws.uniform(0.85, 1.15)  # of the cells of this picture
    for _ in range(n):
        radius = size * draws.uniform(*_RADII)
        for _ in range(_TRIES):
            if len(cells) < starts:
                y, x = draws.uniform(0.2 * side, 0.8 * side, 2)
            else:
                beside = cells[int(draws.integers(len(cells)))]
                gap = draws.uniform(*_TOUCH) * (radius + beside.radius)
                turn = draws.uniform(0, 2 * np.pi)
                y, x = beside.y + gap * np.sin(turn), beside.x + gap * np.cos(turn)
            inside = min(y, x) > 0 and max(y, x) < side - 1
            if inside and all(
                np.hypot(y - c.y, x - c.x) >= _TOUCH[0] * (radius + c.radius) for c in cells
            ):
                stretch, angle = draws.uniform(1.0, 1.3), draws.uniform(0, np.pi)
                waves = np.stack([draws.uniform(0, 0.07, 4), draws.uniform(0, 2 * np.pi, 4)], 1)
                cells.append(_Cell(y, x, radius, stretch, angle, waves))
                break
    return cells


def _instances(colony: list[_Cell], side: int) -> npt.NDArray[np.uint16]:
    """Give each pixel to the nearest cell; keep the largest piece of each, numbered without gaps."""
    nearest = np.ones((side, side), np.float32)  # 1 is the outline: beyond it there is no cell
    owner = np.zeros((side, side), np.int32)
    rows, columns = (axis.astype(np.float32) for axis in np.ogrid[:side, :side])
    for number, cell in enumerate(colony, start=1):
        at = cell.window(side)
        distance = cell.distance(rows[at[0]], columns[:, at[1]])
        mine = distance < nearest[at]
        nearest[at][mine] = distance[mine]
        owner[at][mine] = number
    instances = np.zeros((side, side), np.uint16)
    kept = 0
    for number, at in enumerate(ndimage.find_objects(owner), start=1):
        if at is None:
            continue
        pieces, _ = ndimage.label(owner[at] == number)
        sizes = np.bincount(pieces.ravel())[1:]
        if sizes.max() >= SMALLEST:
            kept += 1
            instances[at][pieces == sizes.argmax() + 1] = kept
    return instances


def _path_length(draws: np.random.Generator, instances: npt.NDArray[np.uint16]) -> Floats:
    """Return phi (H, W): domes that meet in valleys, nuclei, grains, and membranes as fine ridges."""
    side, n = len(instances), int(instances.max())
    changes = np.zeros(instances.shape, bool)
    changes[1:] |= instances[1:] != instances[:-1]
    changes[:, 1:] |= instances[:, 1:] != instances[:, :-1]
    depth = ndimage.distance_transform_edt(~changes).astype(np.float32)  # pixels to an outline
    of_cell = np.concatenate([[0.0], draws.uniform(2.6, 5.0, n)]).astype(np.float32)
    inside = instances > 0
    path = of_cell[instances] * (1 - np.exp(-depth / 5.0))
    path += _nuclei(draws, instances, depth)
    grains = clouds(draws, side, side, 3.5) * 0.35 + clouds(draws, side, side, 9) * 0.55
    path += grains * inside * np.minimum(depth / 4, 1)
    membrane = np.exp(-((depth / 1.1) ** 2)) * (inside | ndimage.binary_dilation(inside))
    total: Floats = path + 1.7 * membrane + 0.12 * clouds(draws, side, side, 6)
    return total


def _nuclei(draws: np.random.Generator, instances: npt.NDArray[np.uint16], depth: Floats) -> Floats:
    """Return the path length that nuclei and their nucleoli add: a flat lens with one or two beads."""
    added = np.zeros(instances.shape, np.float32)
    for number, at in enumerate(ndimage.find_objects(instances.astype(np.int32)), start=1):
        mine = instances[at] == number
        room = np.where(mine, depth[at], 0)
        y, x = np.unravel_index(room.argmax(), room.shape)  # the widest place of the cell
        radius = room[y, x] * draws.uniform(0.45, 0.62)
        rows, columns = np.ogrid[: mine.shape[0], : mine.shape[1]]
        stretch, turn = draws.uniform(1.0, 1.25), draws.uniform(0, np.pi)
        dy, dx = rows - y, columns - x
        along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        far = np.hypot(along / stretch, across * stretch)
        lens = 0.9 / (1 + np.exp(np.clip((far - radius) / 0.9, -30, 30)))
        for _ in range(int(draws.integers(1, 3))):
            by, bx = draws.uniform(-0.45, 0.45, 2) * radius
            lens += 0.9 * np.exp(-((dy - by) ** 2 + (dx - bx) ** 2) / 4.5)
        added[at] += np.where(mine, lens, 0).astype(np.float32)
    return added


def _microscope(draws: np.random.Generator, path: Floats) -> npt.NDArray[np.uint8]:
    """Return the DIC picture of a path length: its slope along the shear, on an uneven light."""
    side = len(path)
    shear = np.deg2rad(draws.uniform(25, 65)) + np.pi * int(draws.integers(2))
    soft = ndimage.gaussian_filter(path, draws.uniform(0.6, 1.0))
    slope_y, slope_x = np.gradient(soft)
    slope = slope_y * np.sin(shear) + slope_x * np.cos(shear)
    rows, columns = (axis / np.float32(side) - np.float32(0.5) for axis in np.ogrid[:side, :side])
    tilt = draws.normal(0, 14, 2)
    light = 118 + tilt[0] * rows + tilt[1] * columns + 5 * clouds(draws, side, side, side / 3)
    light = light - draws.uniform(10, 30) * (rows**2 + columns**2)
    signal = draws.uniform(46, 80) * slope
    noise = draws.standard_normal(path.shape, dtype=np.float32) * draws.uniform(3.0, 6.0)
    grey = np.rint(light + 90 * np.tanh(signal / 90) + noise)  # a camera's shoulder and toe
    picture: npt.NDArray[np.uint8] = np.clip(grey, 0, 255).astype(np.uint8)
    return picture
