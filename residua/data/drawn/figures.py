"""Drawn figures: jointed people in any pose, seen from any side, before clutter, with 14 joints each.

    (x, y) = middle + size (X, -Y),    near parts over far ones: painted in the order of Z

A body (`skeleton`) is posed in space and projected in parallel. Left and right limbs are dressed alike:
only the way the body faces (face or hair, the front of the shirt, the feet) tells which is which, so a
network has to look at the whole figure. A joint is hidden where another part, or a thing in front, is
painted over it.

A sample: picture uint8 (H, W, 3); joints float32 (14, 3): x, y in pixels (the first pixel's centre is
0.0) and 0 not labelled (outside the picture; x = y = 0), 1 hidden, 2 visible.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from residua.data.drawn.skeleton import JOINTS, Body, Vector, posed
from residua.data.drawn.stream import Kind, clouds, place, stream
from residua.data.drawn.writing import save_png, stems, write_splits

NAME = "figures (drawn)"
SIDE = 128
SKELETON = (
    (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8), (9, 10), (10, 11),
    (12, 13), (2, 8), (3, 9), (8, 12), (9, 12), (2, 3),
)  # pairs of joints, from 0, as in Leeds Sports Pose with a trunk  # fmt: skip
PAIRS = ((0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9))  # right and left of the same joint

HIDDEN, VISIBLE = 1, 2

_FINER = 3  # times, while painting: edges are smooth after the picture is reduced
_NOTHING, _IN_FRONT = 0, 255  # of the map that says which part is on top
_THIN, _WIDE = 0.026, 0.040  # half widths of an arm and of a thigh, in standing heights
_HEAD = 0.072  # radius of the head
_SKINS = ((241, 205, 177), (224, 172, 130), (186, 125, 85), (130, 84, 58), (84, 54, 40))
_HAIRS = ((35, 28, 24), (90, 58, 32), (176, 132, 70), (150, 150, 150), (120, 45, 25))

Colour = tuple[int, int, int]
Ink = Colour | int


@dataclass(frozen=True)
class FigurePicture:
    """One drawn picture of a figure with its truth.

    picture: uint8 (H, W, 3). joints: float32 (14, 3): x, y, 0 not labelled | 1 hidden | 2 visible.
    facing: 1 where the chest faces the viewer, -1 where the back does, 0 from the side.
    """

    picture: npt.NDArray[np.uint8]
    joints: npt.NDArray[np.float32]
    facing: float


@dataclass(frozen=True)
class _Part:
    """A shape of the figure: an outline or a disc at a depth, and the joints that it carries."""

    depth: float
    colour: Colour
    outline: list[Vector]  # of a polygon, else two ends
    radius: float = 0.0  # of a limb with round ends; 0 for a polygon
    carries: tuple[str, ...] = ()


def draw(
    seed: int,
    index: int,
    *,
    side: int = SIDE,
    clutter: bool = True,
    cut: float = 0.1,
    covered: float = 0.35,
) -> FigurePicture:
    """Draw picture `index` of `seed`, side x side pixels.

    clutter: shapes and limbs of nobody behind the figure. cut: the share of pictures whose frame may
    cut the figure. covered: the share with a thing in front. Raises ValueError for a side below 48.
    """
    if side < 48:
        raise ValueError(f"expected a side of 48 or more, not {side}")
    draws = stream(Kind.FIGURES, seed, index)
    body = posed(draws)
    scale, middle = _framing(draws, body, side, bool(draws.random() < cut))
    canvas = _Canvas(_backdrop(draws, side, clutter), scale, middle)
    parts = _dressed(draws, body)
    for number, part in enumerate(parts, start=1):
        canvas.paint(part, number)
    if draws.random() < covered:
        _cover(draws, canvas)
    joints = np.stack([canvas.joint(name, body, parts) for name in JOINTS])
    return FigurePicture(canvas.finished(draws), joints, float(body.chest[2, 2]))


class Drawn:
    """n drawn pictures of figures, from number `first` on, as a store: drawn[i] is a `FigurePicture`."""

    name = NAME
    joints, skeleton, pairs = JOINTS, SKELETON, PAIRS

    def __init__(self, n: int, seed: int, *, first: int = 0) -> None:
        self.n, self.seed, self.first = n, seed, first

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> FigurePicture:
        return draw(self.seed, self.first + place(index, self.n))


def write(folder: str | Path, n: int, seed: int) -> None:
    """Write n pictures as train, val and test folders of images (PNG) and COCO keypoints.json.

    Raises `BadInput` for fewer than 3 pictures or a folder that already holds something.
    """

    def save(numbers: Sequence[int], at: Path) -> None:
        joints = {}
        for name, number in stems(numbers):
            sample = draw(seed, number)
            save_png(at / "images" / f"{name}.png", sample.picture)
            joints[f"{name}.png"] = sample.joints
        (at / "keypoints.json").write_text(json.dumps(_coco(joints)), encoding="utf-8")

    files = "keypoints.json: COCO keypoints, 14 joints named as in Leeds Sports Pose."
    write_splits(Path(folder), n, f"{NAME}, seed {seed}", files, save)


def _coco(joints: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Any]:
    """Return the joints of each file as COCO keypoint JSON: a person a picture, bones from 1."""
    images, people = [], []
    for number, (name, points) in enumerate(joints.items(), start=1):
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        seen = points[points[:, 2] > 0, :2].astype(float)
        low, size = seen.min(0), np.ptp(seen, 0)
        people.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "keypoints": [round(float(v), 2) for v in points.ravel()],
                "num_keypoints": len(seen),
                "bbox": [round(float(v), 2) for v in (*low, *size)],
                "area": round(float(size.prod()), 2),
                "iscrowd": 0,
            }
        )
    bones = [[a + 1, b + 1] for a, b in SKELETON]
    person = {"id": 1, "name": "person", "keypoints": list(JOINTS), "skeleton": bones}
    return {
        "info": {"description": NAME},
        "images": images,
        "annotations": people,
        "categories": [person],
    }


def _framing(
    draws: np.random.Generator, body: Body, side: int, cut: bool
) -> tuple[float, npt.NDArray[np.float64]]:
    """Return pixels a standing height, and where in the picture the pelvis lies: x, y."""
    flat = np.array([[p[0], -p[1]] for p in body.points.values()])
    low, high = flat.min(0) - 0.05, flat.max(0) + 0.05
    fits = side / (high - low).max()
    scale = min(fits * draws.uniform(0.62, 0.97), 1.1 * side)
    room = side - scale * (high - low)
    corner = draws.uniform(0, 1, 2) * room
    if cut:
        corner += draws.choice([-1.0, 1.0], 2) * draws.uniform(0.0, 0.28, 2) * side
    return scale, corner - scale * low


class _Canvas:
    """A picture being painted, finer than it will be, and which part is on top of each pixel."""

    def __init__(
        self, backdrop: Image.Image, scale: float, middle: npt.NDArray[np.float64]
    ) -> None:
        self.picture = backdrop  # RGB, _FINER times as large
        self.scale, self.middle = scale, middle
        self.side = backdrop.width // _FINER
        self.top = Image.new("L", backdrop.size, _NOTHING)
        self.brushes = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.top)

    def inks(self, colour: Colour, number: int) -> Iterator[tuple[ImageDraw.ImageDraw, Ink]]:
        """Yield the brush and the ink of the picture, then those of the map of parts."""
        yield self.brushes[0], colour
        yield self.brushes[1], number

    def at(self, point: Vector) -> tuple[float, float]:
        """Return x, y in pixels of the finished picture."""
        x, y = self.middle + self.scale * np.array([point[0], -point[1]])
        return float(x), float(y)

    def paint(self, part: _Part, number: int) -> None:
        """Paint a part over what is there."""
        spots = [tuple(_FINER * (v + 0.5) - 0.5 for v in self.at(p)) for p in part.outline]
        half = part.radius * self.scale * _FINER
        for brush, ink in self.inks(part.colour, number):
            if not half:
                brush.polygon(spots, fill=ink)
                continue
            brush.line(spots, fill=ink, width=max(1, round(2 * half)))
            for x, y in spots:
                brush.ellipse((x - half, y - half, x + half, y + half), fill=ink)

    def joint(self, name: str, body: Body, parts: Sequence[_Part]) -> npt.NDArray[np.float32]:
        """Return x, y and visibility (3,) of a joint: visible where a part that carries it is on top."""
        x, y = self.at(body.points[name])
        if not (-0.5 <= x < self.side - 0.5 and -0.5 <= y < self.side - 0.5):
            return np.zeros(3, np.float32)
        left, up = (int(_FINER * (v + 0.5)) - _FINER // 2 for v in (x, y))  # a pixel around it
        around = self.top.crop((left, up, left + _FINER, up + _FINER))
        carriers = {k for k, part in enumerate(parts, start=1) if name in part.carries}
        seen = not carriers.isdisjoint(around.tobytes())
        return np.array([x, y, VISIBLE if seen else HIDDEN], np.float32)

    def finished(self, draws: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Return the picture reduced to its size, under some light, with noise."""
        small = np.asarray(self.picture.reduce(_FINER), np.float32)
        light = draws.uniform(0.75, 1.1) + 0.06 * clouds(draws, self.side, self.side, self.side / 3)
        noise = draws.standard_normal(small.shape, dtype=np.float32) * draws.uniform(1.5, 7.0)
        picture: npt.NDArray[np.uint8] = np.clip(
            np.rint(small * light[..., None] + noise), 0, 255
        ).astype(np.uint8)
        return picture


def _dressed(draws: np.random.Generator, body: Body) -> list[_Part]:
    """Return the parts of the figure from the farthest to the nearest, in the colours of its clothes."""
    p = body.points
    skin = _SKINS[int(draws.integers(len(_SKINS)))]
    hair = _HAIRS[int(draws.integers(len(_HAIRS)))]
    shirt, front, trousers, shoes = (_colour(draws) for _ in range(4))
    sleeve = shirt if draws.random() < 0.5 else skin
    shank = trousers if draws.random() < 0.6 else skin
    stout = draws.uniform(0.85, 1.25)
    parts: list[_Part] = []

    def limb(a: str, b: str, width: float, colour: Colour, *carries: str) -> None:
        depth = (p[a][2] + p[b][2]) / 2
        shade = _shaded(colour, 1 + 0.5 * depth)
        parts.append(_Part(depth, shade, [p[a], p[b]], stout * width, carries))

    for s in ("left", "right"):
        hip, knee, ankle = f"{s}_hip", f"{s}_knee", f"{s}_ankle"
        shoulder, elbow, wrist = f"{s}_shoulder", f"{s}_elbow", f"{s}_wrist"
        limb(ankle, f"{s}_toes", 0.022, shoes, ankle)
        limb(knee, ankle, 0.85 * _THIN, shank, knee, ankle)
        limb(hip, knee, _WIDE, trousers, hip, knee)
        limb(elbow, wrist, 0.75 * _THIN, sleeve, elbow, wrist)
        limb(shoulder, elbow, _THIN, shirt, shoulder, elbow)
        hand = p[wrist] + 0.25 * (p[wrist] - p[elbow])
        parts.append(_Part(p[wrist][2] + 1e-3, skin, [p[wrist], hand], 0.02, (wrist,)))
    parts += _trunk(body, shirt, front, trousers, stout)
    parts += _head(body, skin, hair)
    return sorted(parts, key=lambda part: part.depth)


def _trunk(body: Body, shirt: Colour, front: Colour, trousers: Colour, stout: float) -> list[_Part]:
    """Return chest, pelvis and, where it is seen, the stripe and badge that only a shirt's front has."""
    p = body.points
    corners = [p[n] for n in ("left_shoulder", "right_shoulder", "right_hip", "left_hip")]
    neck, pelvis = p["neck"], (p["left_hip"] + p["right_hip"]) / 2
    depth = float(np.mean([c[2] for c in corners]))
    thick = stout * 0.055
    shade = _shaded(shirt, 1 + 0.5 * depth)
    hips, girdle = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder", "neck")
    parts = [
        _Part(depth, shade, corners, 0.0, hips + girdle),
        _Part(depth + 1e-6, shade, corners[:2], 0.035, girdle),
        _Part(depth + 2e-6, shade, [0.9 * neck, 0.4 * neck + 0.6 * pelvis], thick, girdle),
        _Part(depth + 3e-6, _shaded(trousers, 1 + 0.5 * depth), corners[2:], _WIDE * stout, hips),
    ]
    ahead = body.chest[:, 2]
    if ahead[2] > 0.1:  # the chest is turned towards the viewer
        bib = [
            neck * t + 0.045 * ahead + w * body.chest[:, 0]
            for t, w in ((0.95, 0.05), (0.95, -0.05), (0.3, -0.03), (0.3, 0.03))
        ]
        parts.append(_Part(depth + 4e-6, front, bib, 0.0, ("neck",)))
    return parts


def _head(body: Body, skin: Colour, hair: Colour) -> list[_Part]:
    """Return neck, hair and face: the face lies before the hair or behind it as the head is turned."""
    neck, top = body.points["neck"], body.points["head_top"]
    right, up, ahead = body.head.T
    centre = top - _HEAD * up
    depth = centre[2]

    def disc(offset: Vector, radius: float, colour: Colour, over: int, *carries: str) -> _Part:
        spot = centre + offset
        return _Part(depth + np.sign(ahead[2]) * over * 1e-4, colour, [spot, spot], radius, carries)

    face = disc(0.030 * ahead - 0.012 * up, 0.9 * _HEAD, skin, 1)
    eyes = [
        disc(s * 0.026 * right + 0.012 * up + 0.066 * ahead, 0.012, (20, 20, 25), 2)
        for s in (-1, 1)
    ]
    nose = disc(0.088 * ahead - 0.016 * up, 0.014, _shaded(skin, 0.82), 3)
    mouth = disc(0.068 * ahead - 0.042 * up, 0.013, (165, 50, 50), 2)
    throat = _Part(min(depth, neck[2]) - 1e-3, skin, [neck, centre], 0.032, ("neck",))
    return [throat, disc(0 * up, _HEAD, hair, 0, "head_top"), face, nose, mouth, *eyes]


def _cover(draws: np.random.Generator, canvas: _Canvas) -> None:
    """Paint a thing in front of the figure: a post, a board or a ball."""
    size = canvas.picture.width
    x, y = draws.uniform(0.1, 0.9, 2) * size
    colour = _colour(draws)
    kind = int(draws.integers(3))
    wide, high = ((0.03, 1.0), (0.11, 0.07), (0.075, 0.075))[kind]
    wide, high = size * wide * draws.uniform(0.7, 1.4), size * high * draws.uniform(0.8, 1.4)
    box = (x - wide, y - high, x + wide, y + high)
    for brush, ink in canvas.inks(colour, _IN_FRONT):
        (brush.ellipse if kind == 2 else brush.rectangle)(box, fill=ink)


def _backdrop(draws: np.random.Generator, side: int, clutter: bool) -> Image.Image:
    """Return what is behind the figure, _FINER times as large: cloudy ground, shapes, nobody's limbs."""
    size = side * _FINER
    ground, other = (np.array(_colour(draws), np.float32) for _ in range(2))
    mix = np.clip(0.5 + 0.5 * clouds(draws, side, side, side / 4), 0, 1)[..., None]
    smooth = (ground * mix + other * (1 - mix)).astype(np.uint8)
    picture = Image.fromarray(smooth).resize((size, size))
    brush = ImageDraw.Draw(picture)
    for _ in range(int(draws.integers(4, 13)) if clutter else 0):
        x, y = draws.uniform(0, size, 2)
        wide, high = draws.uniform(0.03, 0.2, 2) * size
        colour, kind = _colour(draws), int(draws.integers(4))
        if kind == 0:
            brush.rectangle((x - wide, y - high, x + wide, y + high), fill=colour)
        elif kind == 1:
            brush.ellipse((x - wide, y - high, x + wide, y + high), fill=colour)
        else:  # as long and thick as limbs are
            ends = (x, y, *(np.array([x, y]) + draws.normal(0, 0.2, 2) * size))
            brush.line(ends, fill=colour, width=round(draws.uniform(0.01, 0.06) * size))
    return picture


def _colour(draws: np.random.Generator) -> Colour:
    red, green, blue = draws.integers(15, 240, 3)
    return int(red), int(green), int(blue)


def _shaded(colour: Colour, light: float) -> Colour:
    """Return a colour in more or less light: far limbs are darker."""
    red, green, blue = (round(min(max(c * light, 0), 255)) for c in colour)
    return red, green, blue
