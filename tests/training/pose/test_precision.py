"""OKS-AP of a split says what it rests on, and is COCO's own."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from residua.data.joints import sigmas_of
from residua.data.keypoints import PoseSplit, open_keypoints
from residua.training.pose.evaluation import Found
from residua.training.pose.precision import average_precision, shown
from residua.training.pose.scores import oks

JOINTS = ("left_hip", "right_hip", "nose")


def people(folder: Path, joints: tuple[str, ...] = JOINTS, area: float | None = 900.0) -> PoseSplit:
    """Write six pictures of two people each; return the training ones as they are read."""
    rng, images, annotations = np.random.default_rng(0), [], []
    (folder / "images").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (200, 100)).save(folder / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 200, "height": 100})
        for k in range(2):
            points = rng.uniform(10, 90, (len(joints), 2)) + np.array([100 * k, 0])
            row: dict[str, Any] = {"id": 2 * i + k + 1, "image_id": i, "category_id": 1}
            row["keypoints"] = np.column_stack([points, np.full(len(joints), 2)]).ravel().tolist()
            row["bbox"] = [100 * k + 5, 5, 90, 90]
            annotations.append(row | ({} if area is None else {"area": area}))
    kinds = [{"id": 1, "name": "person", "keypoints": list(joints)}]
    content = {"images": images, "annotations": annotations, "categories": kinds}
    (folder / "keypoints.json").write_text(json.dumps(content))
    return open_keypoints(folder).splits["train"]


def answers(split: PoseSplit, alike: float, joints: tuple[str, ...] = JOINTS) -> Found:
    """Answers of which each joint is away by what gives that OKS."""
    away = np.sqrt(-2 * np.log(alike) * split.areas)[:, None] * 2 * np.array(sigmas_of(joints))
    places = split.joints[:, :, :2].astype(np.float64) + np.stack([away, 0 * away], axis=2)
    sure = np.ones(away.shape, np.float32)
    return Found(places, sure, np.zeros(len(split), np.float32))


@pytest.mark.parametrize(("alike", "passed"), [(0.999, 10), (0.72, 5), (0.52, 1), (0.3, 0)])
def test_people_of_one_likeness_pass_as_many_thresholds(
    tmp_path: Path, alike: float, passed: int
) -> None:
    pytest.importorskip("pycocotools")
    split = people(tmp_path)
    found = answers(split, alike)
    assert oks(found.joints, split.joints, split.areas, sigmas_of(JOINTS)) == pytest.approx(
        np.full(len(split), alike), rel=1e-4
    )
    scores = average_precision(found, split, JOINTS)
    assert scores["oks_ap"] == pytest.approx(passed / 10)
    assert scores["oks_ar"] == pytest.approx(passed / 10)
    assert scores["oks_ap75"] == float(alike >= 0.75)
    assert scores["oks_basis"] == (
        "areas as annotated; COCO's spread of each joint; everybody in the annotated box"
    )
    assert shown(scores).startswith(
        f"OKS-AP {passed / 10:.3f} (AP50 {float(alike >= 0.5):.3f}, AP75"
    )


@pytest.mark.parametrize(
    ("joints", "area", "areas", "spreads"),
    [
        (JOINTS, None, "areas estimated: those of the boxes", "COCO's spread of each joint"),
        (
            JOINTS,
            8100.0,
            "as annotated, which are those of the boxes",
            "COCO's spread of each joint",
        ),
        (
            ("nose", "tail"),
            5.0,
            "areas as annotated",
            "COCO's spread of each joint, 0.079 for tail",
        ),
        (("hoof", "tail"), 5.0, "areas as annotated", "a spread of 0.079 for every joint"),
    ],
)
def test_what_it_rests_on_is_said(
    tmp_path: Path, joints: tuple[str, ...], area: float | None, areas: str, spreads: str
) -> None:
    pytest.importorskip("pycocotools")
    split = people(tmp_path, joints, area)
    basis = average_precision(answers(split, 0.9, joints), split, joints)["oks_basis"]
    assert isinstance(basis, str)
    first, second, _ = basis.split("; ")
    assert areas in first and spreads in second


def test_some_areas_may_be_estimated(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    people(tmp_path)
    content = json.loads((tmp_path / "keypoints.json").read_text())
    for row in content["annotations"][1::2]:
        del row["area"]
    (tmp_path / "keypoints.json").write_text(json.dumps(content))
    split = open_keypoints(tmp_path).splits["train"]
    assert split.areas_known.tolist() == [True, False] * (len(split) // 2)
    assert split.areas.tolist() == [900, 8100] * (len(split) // 2)
    basis = str(average_precision(answers(split, 0.9), split, JOINTS)["oks_basis"])
    half = len(split) // 2
    assert basis.startswith(f"areas as annotated, {half} of {len(split)} estimated by the box")


def test_without_the_extra_there_is_none_and_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, real = people(tmp_path), builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("pycocotools"):
            raise ImportError("not here")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    scores = average_precision(answers(split, 0.9), split, JOINTS)
    assert scores["oks_ap"] is None
    assert "pip install residua[pose]" in shown(scores) and shown(scores).startswith("OKS-AP: none")
