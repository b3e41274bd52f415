"""Skeletons on pictures: left in blue, right in orange, the middle in white; the truth beside the answer.

Sides are those of the person, as the joints' names say. A joint that is not labelled, or whose confidence
is below `least`, is not drawn, nor is a line that ends there. Small pictures are enlarged, so that lines do
not hide what they lie on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from residua.data.joints import side_of

Array = npt.NDArray[np.floating]
Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

# Blue and orange of Okabe and Ito 2008, told apart by colour-blind people too.
COLOURS: dict[str | None, Colour] = {
    "left": (0, 114, 178),
    "right": (230, 159, 0),
    None: (255, 255, 255),
}
_EDGE: Colour = (0, 0, 0)  # under every line, so that it is seen on any ground
_SHORT_SIDE = 320  # pixels that a drawing has at least
_GAP = 8  # pixels between truth and answer


def draw_pose(
    picture: Pixels,
    joints: Array,
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    *,
    confidence: Array | None = None,
    least: float = 0.1,
    enlarged: bool = True,
) -> Image.Image:
    """Return the picture uint8 (H, W, C) with a skeleton as an RGB image.

    joints (J, 2), or (J, 3) with v = 0 for joints not to draw; confidence (J,).
    """
    sure = None if confidence is None else [confidence]
    return draw_people(
        picture, [joints], names, skeleton, confidence=sure, least=least, enlarged=enlarged
    )


def draw_people(
    picture: Pixels,
    people: Sequence[Array],
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    *,
    confidence: Sequence[Array] | None = None,
    least: float = 0.1,
    enlarged: bool = True,
) -> Image.Image:
    """Return the picture with everybody's skeleton: `draw_pose` for each of `people`, on one picture."""
    height, width = picture.shape[:2]
    factor = max(1, math.ceil(_SHORT_SIDE / min(height, width))) if enlarged else 1
    image = Image.fromarray(np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture)
    image = image.convert("RGB").resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    canvas = ImageDraw.Draw(image)
    thick = max(2, min(image.size) // 100)
    for i, joints in enumerate(people):
        shown = _shown(joints, None if confidence is None else confidence[i], least)
        places = [(x, y) for x, y in ((joints[:, :2] + 0.5) * factor - 0.5).tolist()]
        _draw(canvas, places, shown, names, skeleton, thick)
    return image


def _draw(
    canvas: ImageDraw.ImageDraw,
    places: list[tuple[float, float]],
    shown: list[bool],
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    thick: int,
) -> None:
    """Draw one skeleton: the lines, then the joints on them."""
    for wide, edge in ((thick + 2, True), (thick, False)):
        for a, b in skeleton:
            if shown[a] and shown[b]:
                colour = _EDGE if edge else _line_colour(names[a], names[b])
                canvas.line([places[a], places[b]], fill=colour, width=wide)
    for j, (x, y) in enumerate(places):
        if shown[j]:
            canvas.ellipse(
                (x - thick, y - thick, x + thick, y + thick),
                fill=COLOURS[side_of(names[j])],
                outline=_EDGE,
            )


def beside(
    picture: Pixels,
    truth: Array,
    answer: Array,
    names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    *,
    confidence: Array | None = None,
    least: float = 0.1,
) -> Image.Image:
    """Return the picture twice: with the truth (J, 3) on the left, with the answer (J, 2) on the right."""
    first = draw_pose(picture, truth, names, skeleton)
    second = draw_pose(picture, answer, names, skeleton, confidence=confidence, least=least)
    both = Image.new("RGB", (2 * first.width + _GAP, first.height), (255, 255, 255))
    both.paste(first, (0, 0))
    both.paste(second, (first.width + _GAP, 0))
    return both


def _shown(joints: Array, confidence: Array | None, least: float) -> list[bool]:
    shown = np.asarray(np.isfinite(joints[:, :2]).all(axis=1))
    if joints.shape[1] > 2:
        shown &= joints[:, 2] > 0
    if confidence is not None:
        shown &= np.asarray(confidence) >= least
    return [bool(one) for one in shown]


def _line_colour(a: str, b: str) -> Colour:
    """Return the colour of a limb: that of the side on which it ends; the middle's across the body."""
    sides = {side_of(a), side_of(b)} - {None}
    return COLOURS[sides.pop() if len(sides) == 1 else None]
