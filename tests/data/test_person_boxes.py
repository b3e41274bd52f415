"""Boxes of people from COCO JSON: whose they are, of which picture, and in which pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from residua.data.person_boxes import PersonBoxes
from residua.errors import BadInput

IMAGES = [
    {"id": 7, "file_name": "a/1.png", "width": 40, "height": 30},
    {"id": 8, "file_name": "2.png"},
]


def boxes(folder: Path, *annotations: dict[str, Any], **other: Any) -> PersonBoxes:
    content = {"images": IMAGES, "annotations": list(annotations), **other}
    (folder / "boxes.json").write_text(json.dumps(content))
    return PersonBoxes(folder / "boxes.json")


def one(number: int = 1, image: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "bbox": [10, 5, 20, 8], **more}


def test_a_box_reaches_from_edge_to_edge_of_its_pixels(tmp_path: Path) -> None:
    found = boxes(tmp_path, one(), one(5, bbox=[0, 0, 1, 1]), one(6, image=8)).pictures
    assert found["a/1.png"].boxes.tolist() == [[9.5, 4.5, 29.5, 12.5], [-0.5, -0.5, 0.5, 0.5]]
    assert found["a/1.png"].ids == [1, 5] and found["a/1.png"].size == (30, 40)
    assert found["2.png"].ids == [6] and found["2.png"].size == (0, 0)


def test_without_a_box_it_is_that_of_the_labelled_joints(tmp_path: Path) -> None:
    joints = [3, 4, 2, 99, 99, 0, 13, 24, 1]
    rows = one(bbox=None, keypoints=joints), one(2, bbox=[], keypoints=[1, 1, 0])
    found = boxes(tmp_path, *rows).pictures["a/1.png"]
    assert found.boxes.tolist() == [[2.5, 3.5, 13.5, 24.5]] and found.ids == [1]


@pytest.mark.parametrize(
    ("kinds", "ids"),
    [
        ([{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}], [1]),
        ([{"id": 1, "name": "person"}, {"id": 2, "name": "dog", "keypoints": ["tail"]}], [2]),
        ([{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}], [1, 2]),
        ([], [1, 2]),
    ],
)
def test_whoever_may_have_joints_counts(tmp_path: Path, kinds: list[Any], ids: list[int]) -> None:
    rows = one(1, category_id=1), one(2, category_id=2), one(3, category_id=1, iscrowd=1)
    assert boxes(tmp_path, *rows, categories=kinds).pictures["a/1.png"].ids == ids


def test_pictures_are_the_file_s_own_or_end_like_a_name(tmp_path: Path) -> None:
    known = boxes(tmp_path, one(1), one(2, image=8))
    elsewhere = Path("/elsewhere")
    places = [tmp_path / "images" / "a" / "1.png", elsewhere / "2.png", elsewhere / "1.png"]
    first, second, third = known.of(places)
    assert first is not None and first.ids == [1]
    assert second is not None and second.ids == [2] and third is None
    with pytest.raises(BadInput, match=r"2\.png may be /x/2\.png or /y/2\.png"):
        known.of([Path("/x/2.png"), Path("/y/2.png")])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (one(bbox=[1, 2, 0, 4]), "annotation 1: bbox is not x, y, width and height, both above 0"),
        (one(bbox=[1, 2, 3]), "annotation 1: bbox is not x, y"),
        (one(bbox=["a", 2, 3, 4]), "annotation 1: bbox or keypoints are not numbers"),
        (one(bbox=[1, 2, 3, float("nan")]), "annotation 1: bbox or keypoints are not finite"),
        (one(image=9), "annotation 1 is of image 9, which is not listed"),
    ],
)
def test_what_is_no_box_is_one_line(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput) as said:
        boxes(tmp_path, row)
    assert says in str(said.value) and "boxes.json" in str(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": []}', '{"images": [1]}'])
def test_another_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(BadInput, match=r"other\.json: "):
        PersonBoxes(tmp_path / "other.json")
    with pytest.raises(BadInput, match=r"none\.json: cannot be read"):
        PersonBoxes(tmp_path / "none.json")
