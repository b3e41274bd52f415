"""Several people in a picture: each is a case of the own box, in training, evaluation and prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import residua
from residua.cli import main
from residua.data.drawn import figures
from residua.data.keypoints import open_keypoints
from residua.training.pose.batches import PoseBatches
from residua.training.pose.drawing import draw_people, draw_pose
from residua.training.pose.evaluation import find_all
from residua.training.pose.run import PoseRun

SMALL = (
    *("steps=3", "batch_size=4", "size=64", "model=hourglass1", "model_options.width=16"),
    *("optimiser.lr=0.003", "ema=0"),
)


def pairs_of(single: Path, root: Path) -> Path:
    """Put the figures of a drawn set side by side, two a picture."""
    for split in ("train", "val"):
        content = json.loads((single / split / "keypoints.json").read_text())
        rows, images = content["annotations"], content["images"]
        (root / split / "images").mkdir(parents=True)
        wide = []
        for i in range(0, len(images) - 1, 2):
            pair = [
                Image.open(single / split / "images" / one["file_name"])
                for one in images[i : i + 2]
            ]
            both = np.concatenate([np.asarray(picture) for picture in pair], axis=1)
            Image.fromarray(both).save(root / split / "images" / f"{i}.png")
            height, width = both.shape[:2]
            wide.append({"id": i, "file_name": f"{i}.png", "width": width, "height": height})
            for k, row in enumerate(rows[i : i + 2]):
                row["image_id"] = i
                row["bbox"][0] += k * pair[0].width
                row["keypoints"][0::3] = [x + k * pair[0].width for x in row["keypoints"][0::3]]
        content |= {"images": wide, "annotations": rows[: 2 * len(wide)]}
        (root / split / "keypoints.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    figures.write(folder / "single", 40, 0)
    return pairs_of(folder / "single", folder / "pairs")


@pytest.fixture(scope="module")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> PoseRun:
    out = tmp_path_factory.mktemp("runs") / "run"
    run = residua.train(pairs, out=out, settings=SMALL, device="cpu", workers=0)
    assert isinstance(run, PoseRun)
    return run


def annotated(pairs: Path) -> list[dict[str, Any]]:
    rows = json.loads((pairs / "val" / "keypoints.json").read_text())["annotations"]
    return list(rows)


def test_each_person_is_cut_out_by_the_own_box(pairs: Path) -> None:
    split = open_keypoints(pairs).splits["val"]
    assert len(split) == len(annotated(pairs)) == 2 * len(set(split.paths))
    batch = PoseBatches(split, batch_size=len(split), seed=0, train=False, size=64).batch(0)
    for i, box in enumerate(split.boxes):
        middle = batch.maps[i] @ [31.5, 31.5, 1]  # of the crop, in the picture
        assert middle == pytest.approx([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], abs=1e-3)
    joints = batch.labels[..., 2].bool()
    assert bool((joints == torch.from_numpy(split.joints[..., 2] > 0)).all())  # all in their crop


def test_everybody_is_measured(trained: PoseRun, pairs: Path) -> None:
    assert trained.measures["n"] == len(annotated(pairs))


def test_people_are_found_in_their_boxes_as_in_the_evaluation(
    trained: PoseRun, pairs: Path, tmp_path: Path
) -> None:
    split = open_keypoints(pairs).splits["val"]
    model, card = trained.model.to(trained.fabric.device), trained.card
    expected = find_all(trained.fabric, model, card, split, flip=card.flip)
    rows = trained.predict(
        pairs / "val" / "images", boxes=pairs / "val" / "keypoints.json", out=tmp_path
    )
    people = {person["id"]: person for row in rows for person in row["people"]}
    truth = annotated(pairs)
    assert [len(row["people"]) for row in rows] == [2] * len(rows)
    assert set(people) == {row["id"] for row in truth}
    for i, row in enumerate(truth):
        person = people[row["id"]]
        assert person["box"] == pytest.approx(row["bbox"], abs=1e-3)
        found = [(joint["x"], joint["y"]) for joint in person["joints"]]
        np.testing.assert_allclose(found, expected.joints[i], atol=0.02)
        assert person["confidence"] == pytest.approx(float(expected.confidence[i].mean()), abs=1e-4)


def test_a_drawing_shows_everybody_of_its_picture() -> None:
    grey = np.full((320, 640, 3), 90, np.uint8)
    line = np.array([[40.0, 40], [200, 250]])
    people = [line, line + np.array([320, 0])]
    names, bones = ("left_hip", "left_knee"), [(0, 1)]
    both = np.asarray(draw_people(grey, people, names, bones))
    for i, half in enumerate((slice(None, 320), slice(320, None))):
        alone = np.asarray(draw_pose(grey, people[i], names, bones))
        assert (both[:, half] == alone[:, half]).all() and (both[:, half] != 90).any()
    sure = [np.ones(2), np.zeros(2)]
    assert (
        np.asarray(draw_people(grey, people, names, bones, confidence=sure))[:, 320:] == 90
    ).all()


def test_pictures_without_people_or_boxes_are_rows_too(
    trained: PoseRun, pairs: Path, tmp_path: Path
) -> None:
    content = json.loads((pairs / "val" / "keypoints.json").read_text())
    first, second, *_ = content["images"]
    content["annotations"] = []
    content["images"] = [first, second | {"width": 1}]
    (tmp_path / "none.json").write_text(json.dumps(content))
    (tmp_path / "stranger.png").write_bytes((pairs / "val" / "images" / "0.png").read_bytes())
    paths = [pairs / "val" / "images" / image["file_name"] for image in (first, second)]
    nobody, other, stranger = trained.predict(
        [*paths, tmp_path / "stranger.png"], boxes=tmp_path / "none.json", out=tmp_path / "out"
    )
    assert nobody["people"] == [] and nobody["confidence"] is None
    assert Image.open(nobody["drawing"]).width >= first["width"]
    assert "has boxes for" in other["error"] and "x 1" in other["error"]
    assert "is not one of the pictures that" in stranger["error"]


def test_the_command_line_takes_boxes(
    trained: PoseRun, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, boxes = pairs / "val" / "images" / "0.png", pairs / "val" / "keypoints.json"
    given = ["predict", str(trained.path), str(picture), "--out", str(tmp_path)]
    for more, people in ((["--boxes", str(boxes)], 2), ([], None)):
        with pytest.raises(SystemExit) as done:
            main([*given, *more, "--json"])
        (row,) = json.loads(capsys.readouterr().out)
        assert done.value.code == 0
        assert ("people" in row) == (people is not None) and ("joints" in row) == (people is None)
        assert people is None or len(row["people"]) == people
    with pytest.raises(SystemExit) as done:
        main([*given, "--boxes", str(tmp_path / "no.json")])
    assert done.value.code == 2 and "no.json" in "".join(capsys.readouterr())
