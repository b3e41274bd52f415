"""Keypoints of COCO and MPII are read as they were written, and what is wrong with them is named."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from residua.data.joints import head_sizes, mirror_of, sigmas_of, torso_sizes
from residua.data.keypoints import open_keypoints, recognises, whole_pictures
from residua.data.keypoints_check import check_keypoints, readable_keypoints
from residua.data.mpii import JOINTS as MPII
from residua.errors import BadInput

JOINTS = ["head_top", "left_shoulder", "right_shoulder", "left_hip", "right_hip"]
COCO17 = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)


def noise(path, size=(40, 30), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def person(number, image, shift=0.0, **changes):
    joints = [[10 + shift, 4, 2], [14, 10, 2], [6, 10, 1], [13, 20, 2], [7, 20, 2]]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": [v for joint in joints for v in joint],
        "num_keypoints": 5,
        "bbox": [5, 3, 11, 18],
        "area": 120.5,
        "iscrowd": 0,
    } | changes


def coco(path, count=4, people=None, names=None, **changes):
    """Write a COCO file of `count` 40 x 30 pictures with one person each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(count)
        ],
        "annotations": [person(i, i) for i in range(count)] if people is None else people,
        "categories": [
            {"id": 1, "name": "person", "keypoints": names or JOINTS, "skeleton": [[1, 2], [4, 5]]}
        ],
    }
    path.write_text(json.dumps(content | changes))
    return path


def coco_set(root, counts=None, **options):
    for s, (split, count) in enumerate((counts or {"train": 5, "val": 3}).items()):
        coco(root / split / "keypoints.json", count, **options)
        for i in range(count):
            noise(root / split / "images" / f"{i}.png", seed=100 * s + i)
    return root


def refusal(act, *args, **options):
    with pytest.raises(BadInput) as caught:
        act(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- COCO -----------------------------------------------------------------------------------------------


def test_a_person_is_read_as_written(tmp_path):
    found = open_keypoints(coco_set(tmp_path))
    assert found.joints == tuple(JOINTS)
    assert found.skeleton == ((0, 1), (3, 4))
    assert found.mirror == (0, 2, 1, 4, 3)
    assert {key: len(split) for key, split in found.splits.items()} == {"train": 5, "val": 3}
    train = found.splits["train"]
    assert train.joints.dtype == np.float32
    assert train.joints[0].tolist() == [
        [10, 4, 2],
        [14, 10, 2],
        [6, 10, 1],
        [13, 20, 2],
        [7, 20, 2],
    ]
    # a bbox begins at the corner of a pixel, whose centre is half a pixel on
    assert train.boxes[0].tolist() == [4.5, 2.5, 15.5, 20.5]
    assert train.areas[0] == 120.5
    assert train.torsos[0] == pytest.approx((np.hypot(7, 10) + np.hypot(7, 10)) / 2)
    assert np.isnan(train.heads).all()  # a head without a neck has no size
    assert train.names[2] == "train/images/2.png"
    assert train.read(1).shape == (30, 40, 3)
    assert np.array_equal(train.take([3]).read(0), train.read(3))


@pytest.mark.parametrize(
    "layout",
    [
        "{split}/keypoints.json {split}/{i}.png",
        "{split}/people.json {split}/images/{i}.png",
        "annotations/person_keypoints_{split}2017.json images/{split}2017/{i}.png",
        "annotations/{split}.json {split}2017/{i}.png",
        "annotations/{split}.json images/{i}.png",
    ],
    ids=["beside", "own name", "coco", "coco without images", "one folder"],
)
def test_the_usual_folders_are_found(tmp_path, layout):
    annotations, pictures = layout.split()
    for split, first in (("train", 0), ("val", 4)):
        file = coco(tmp_path / annotations.format(split=split))
        content = json.loads(file.read_text())
        for image in content["images"]:
            noise(tmp_path / pictures.format(split=split, i=image["id"] + first), seed=image["id"])
            image["file_name"] = f"{image['id'] + first}.png"
        file.write_text(json.dumps(content))
    captions = tmp_path / "annotations" / "captions_train2017.json"
    captions.parent.mkdir(exist_ok=True)
    captions.write_text(json.dumps({"images": [], "annotations": []}))
    assert recognises(tmp_path)
    found = open_keypoints(tmp_path)
    assert {key: len(split) for key, split in found.splits.items()} == {"train": 4, "val": 4}
    assert found.splits["val"].read(0).shape == (30, 40, 3)
    assert found.split_record["how"] == {"train": "given", "val": "given"}


def test_several_people_of_a_picture_are_rows_with_names_of_their_own(tmp_path):
    people = [person(7, 0), person(8, 1), person(9, 0, shift=1)]
    coco_set(tmp_path, {"train": 2, "val": 2}, people=people)
    train = open_keypoints(tmp_path).splits["train"]
    assert train.names == ["train/images/0.png", "train/images/1.png", "train/images/0.png#2"]
    assert train.joints[:, 0, 0].tolist() == [10, 10, 11]


def test_crowds_and_people_without_joints_are_left_out_and_counted(tmp_path):
    nobody = person(3, 1, keypoints=[0.0] * 15)
    people = [person(1, 0), person(2, 0, iscrowd=1), nobody, {"id": 4, "image_id": 0}]
    coco_set(tmp_path, {"train": 2, "val": 2}, people=people)
    found = open_keypoints(tmp_path)
    assert len(found.splits["train"]) == 1
    assert found.without_joints == 2
    assert any("1 crowds" in note for note in found.notes)
    assert "2 people have no labelled joint" in check_keypoints(found).text()


def test_a_person_without_a_box_has_that_of_the_joints(tmp_path):
    people = [person(i, i, bbox=None, area=None) for i in range(2)]
    coco_set(tmp_path, {"train": 2, "val": 2}, people=people)
    train = open_keypoints(tmp_path).splits["train"]
    assert train.boxes[0].tolist() == [5.5, 3.5, 14.5, 20.5]
    assert train.areas[0] == 9 * 17


def test_a_file_alone_is_split_by_picture(tmp_path):
    people = [person(2 * i + k, i) for i in range(120) for k in range(2)]
    file = coco(tmp_path / "all.json", 120, people=people)
    for i in range(120):
        noise(tmp_path / f"{i}.png", (4, 4), seed=i)
    found = open_keypoints(file, seed=1)
    sizes = {key: len(split) for key, split in found.splits.items()}
    assert sizes == {"train": 192, "val": 24, "test": 24}
    pictures = [set(split.pictures) for split in found.splits.values()]
    assert sum(map(len, pictures)) == len(set.union(*pictures)) == 120
    assert open_keypoints(file, seed=2).split_record["splits"] != found.split_record["splits"]
    few = open_keypoints(file, seed=1, most_val=3)
    assert len(few.splits["val"]) == 6


def test_a_recorded_split_comes_back_whatever_the_seed(tmp_path):
    file = coco(tmp_path / "all.json", 20)
    for i in range(20):
        noise(tmp_path / f"{i}.png", (4, 4), seed=i)
    first = open_keypoints(file, seed=5)
    record = json.loads(json.dumps(first.split_record))
    again = open_keypoints(file, seed=6, split_record=record)
    assert again.split_record == first.split_record
    assert again.splits["val"].names == first.splits["val"].names
    coco(tmp_path / "all.json", 3)
    assert "people are gone" in refusal(open_keypoints, file, split_record=record)
    record["joints"][0] = "nose"
    assert "has the joints head_top" in refusal(open_keypoints, file, split_record=record)


def test_a_skeleton_may_count_from_0(tmp_path):
    category = {"id": 1, "name": "p", "keypoints": JOINTS, "skeleton": [[0, 1], [3, 4]]}
    coco_set(tmp_path, categories=[category])
    assert open_keypoints(tmp_path).skeleton == ((0, 1), (3, 4))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"annotations": None}, "no list of annotations"),
        ({"images": [{"id": 1}] * 2}, "two images have one id"),
        ({"categories": []}, "0 kinds of joints"),
        ({"categories": [{"keypoints": ["a"]}, {"keypoints": ["b"]}]}, "2 kinds of joints"),
        ({"categories": [{"keypoints": ["a", "a"]}]}, "occurs twice"),
        ({"categories": [{"keypoints": JOINTS, "skeleton": [[1, 9]]}]}, "beyond its 5 joints"),
        ({"annotations": [person(4, 99)]}, "annotation 4 is of image 99"),
        ({"annotations": [person(4, 0, keypoints=[1, 2, 2])]}, "has 3 numbers; expected 15"),
        ({"annotations": [person(4, 0, keypoints=[1, 2, 3] * 5)]}, "visibility is not 0, 1 or 2"),
        ({"annotations": [person(4, 0, keypoints=[float("nan")] * 15)]}, "is not finite"),
        ({"annotations": [person(4, 0, keypoints=["x"] * 15)]}, "are not numbers"),
        ({"annotations": [person(4, 0, bbox=[1, 2])]}, "bbox, area or size is no number"),
        ({"annotations": [person(4, 0, keypoints=[0] * 15)]}, "no person with a labelled joint"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(tmp_path, changes, expected):
    file = coco(tmp_path / "all.json", **changes)
    message = refusal(open_keypoints, file)
    assert message.startswith(f"{file}: ")
    assert expected in message


def test_what_cannot_be_opened_says_what_was_expected(tmp_path):
    assert "no such file or folder" in refusal(open_keypoints, tmp_path / "none")
    assert "holds no keypoints; expected COCO" in refusal(open_keypoints, tmp_path)
    (tmp_path / "a.json").write_text('{"keypoints": ')
    assert "a.json: is not JSON" in refusal(open_keypoints, tmp_path / "a.json")
    file = coco(tmp_path / "b.json")
    assert "nor is any other of the annotated pictures" in refusal(open_keypoints, file)
    coco(tmp_path / "c.json")
    (tmp_path / "a.json").unlink()
    assert "several files of keypoints (b.json, c.json)" in refusal(open_keypoints, tmp_path)
    assert "between 0 and 1" in refusal(open_keypoints, file, val_fraction=1.0)


def test_other_joints_in_another_split_are_refused(tmp_path):
    coco_set(tmp_path)
    coco(tmp_path / "val" / "keypoints.json", 3, names=JOINTS[::-1])
    assert "names the joints right_hip" in refusal(open_keypoints, tmp_path)


def test_other_sets_are_not_taken_for_keypoints(tmp_path):
    noise(tmp_path / "cat" / "1.png")
    (tmp_path / "boxes.json").write_text(json.dumps({"images": [], "annotations": [{"bbox": []}]}))
    assert not recognises(tmp_path)
    assert not recognises(tmp_path / "boxes.json")
    assert not recognises(tmp_path / "cat" / "1.png")
    assert not recognises(tmp_path / "none")


def test_a_picture_without_annotation_is_one_person_who_fills_it(tmp_path):
    noise(tmp_path / "a.png", (40, 30))
    noise(tmp_path / "b.png", (7, 9))
    people = whole_pictures([tmp_path / "a.png", tmp_path / "b.png"], 14, 3)
    assert people.boxes.tolist() == [[-0.5, -0.5, 39.5, 29.5], [-0.5, -0.5, 6.5, 8.5]]
    assert people.joints.shape == (2, 14, 3)
    assert not people.joints.any()
    assert people.read(1).shape == (9, 7, 3)
    assert "no such file" in refusal(whole_pictures, [tmp_path / "c.png"], 14, 3)


# -- MPII -----------------------------------------------------------------------------------------------


def mpii_joints():
    """Sixteen places counted from 1; joint 3 hidden, joint 5 not labelled."""
    xy = np.stack([np.arange(16) + 2.0, 2 * np.arange(16) + 3.0], axis=1)
    xy[5] = -1
    return xy


def mpii_mat(path):
    """Write RELEASE as MPII does: visibility as text, a person without points, a test picture."""
    xy = mpii_joints()
    points = [
        {"x": xy[j, 0], "y": xy[j, 1], "id": j, "is_visible": "0" if j == 3 else ""}
        for j in range(16)
        if j != 5
    ]
    box = {"x1": 11.0, "y1": 21.0, "x2": 14.0, "y2": 25.0}
    place = {"scale": 0.1, "objpos": {"x": 11.0, "y": 16.0}}
    first = {**box, **place, "annopoints": {"point": np.array(points, dtype=object)}}
    empty = {**box, **place, "annopoints": np.array([])}
    annolist = np.array(
        [
            {"image": {"name": "1.png"}, "annorect": np.array([first, empty], dtype=object)},
            {"image": {"name": "2.png"}, "annorect": first},
            {"image": {"name": "3.png"}, "annorect": first},
        ],
        dtype=object,
    )
    release = {"annolist": annolist, "img_train": np.array([1, 1, 0])}
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {"RELEASE": release})
    for i in (1, 2, 3):
        noise(path.parent / "images" / f"{i}.png", seed=i)
    return path


def expected_mpii():
    v = np.full(16, 2.0)
    v[[3, 5]] = 1, 0
    joints = np.concatenate([mpii_joints() - 1, v[:, None]], axis=1)
    joints[5] = 0
    return joints


def test_mpii_mat_is_read_with_its_head_and_its_person(tmp_path):
    file = mpii_mat(tmp_path / "mpii_human_pose_v1_u12_1.mat")
    assert recognises(tmp_path)
    for source in (file, tmp_path):
        found = open_keypoints(source)
        assert found.joints == MPII
        everybody = list(found.splits.values())
        assert sorted(name for split in everybody for name in split.names) == ["1.png", "2.png"]
        one = found.splits["train"]
        assert np.array_equal(one.joints[0], expected_mpii().astype(np.float32))
        assert one.boxes[0].tolist() == [0, 5, 20, 25]  # 20 pixels around (10, 15), counted from 0
        assert one.heads[0] == pytest.approx(0.6 * 5)  # 0.6 of the diagonal of 3 x 4
        assert one.read(0).shape == (30, 40, 3)


@pytest.mark.parametrize("kind", ["joint_self", "joints_vis"])
def test_the_json_files_made_of_mpii_say_the_same(tmp_path, kind):
    xy, v = mpii_joints(), (expected_mpii()[:, 2] == 2).astype(float)
    rows = []
    for i in range(4):
        if kind == "joint_self":
            row = {
                "img_paths": f"{i}.png",
                "joint_self": np.concatenate([xy, v[:, None]], axis=1).tolist(),
                "isValidation": float(i == 3),
                "objpos": [11.0, 16.0],
                "scale_provided": 0.1,
                "img_height": 30,
                "img_width": 40,
            }
        else:
            row = {"image": f"{i}.png", "joints": xy.tolist(), "joints_vis": v.tolist()}
            row |= {"center": [11.0, 16.0], "scale": 0.1}
        rows.append(row)
        noise(tmp_path / "images" / f"{i}.png", seed=i)
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(rows))
    found = open_keypoints(file)
    assert len(found.splits["val"]) == 1
    assert found.split_record["how"]["val"] == ("given" if kind == "joint_self" else "made")
    train = found.splits["train"]
    assert np.array_equal(train.joints[0], expected_mpii().astype(np.float32))
    assert train.boxes[0].tolist() == [0, 5, 20, 25]
    # without the head box, the head is from its top to the neck
    assert train.heads[0] == pytest.approx(np.hypot(*(xy[9] - xy[8])))


def test_a_bad_mpii_file_is_named_and_a_pickle_is_never_opened(tmp_path):
    file = mpii_mat(tmp_path / "a.mat")
    file.write_bytes(file.read_bytes()[:-600])
    assert refusal(open_keypoints, file).startswith(f"{file}: ")

    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    bad = tmp_path / "b.mat"
    bad.write_bytes(pickle.dumps(Evil()))
    assert not recognises(bad)
    rows = [{"image": "1.png", "joints": [[1, 2]], "joints_vis": [1], "center": [1, 1], "scale": 1}]
    (tmp_path / "c.json").write_text(json.dumps(rows))
    assert "entry 0 is not MPII's" in refusal(open_keypoints, tmp_path / "c.json")


# -- names ----------------------------------------------------------------------------------------------


def test_the_mirror_of_coco_and_mpii_is_that_of_the_published_pairs():
    pairs = [(1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)]
    for names, swapped in (
        (COCO17, pairs),
        (MPII, [(0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)]),
    ):
        expected = list(range(len(names)))
        for a, b in swapped:
            expected[a], expected[b] = b, a
        assert mirror_of(names) == (tuple(expected), ())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_eye", "right_eye"),
        ("L_Eye", "R_Eye"),
        ("eye.left", "eye.right"),
        ("LeftEye", "RightEye"),
        ("eye l", "eye r"),
        ("leftEye", "rightEye"),
    ],
)
def test_sides_are_found_however_they_are_written(left, right):
    assert mirror_of([left, "nose", right]) == ((2, 1, 0), ())


def test_the_sigmas_of_coco_are_the_published_ones():
    published = [26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]
    assert [round(1000 * s) for s in sigmas_of(COCO17)] == published


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*COCO17, *MPII, "tail", "left", "l", "upright"]), unique=True))
def test_to_mirror_twice_changes_nothing_and_strangers_stay(names):
    mirror, unpaired = mirror_of(names)
    assert [mirror[j] for j in mirror] == list(range(len(names)))
    assert all(mirror[names.index(name)] == names.index(name) for name in unpaired)


def test_sizes_need_their_joints():
    names = [*JOINTS, "neck"]
    joints = np.zeros((3, 6, 3), np.float32)
    joints[0] = [[5, 0, 2], [8, 4, 2], [2, 4, 2], [8, 12, 2], [2, 12, 1], [5, 3, 2]]
    joints[1] = joints[0]
    joints[1, 3, 2] = 0  # one diagonal is left
    joints[1, 4, 0] = -4
    joints[2] = joints[0]
    joints[2, [0, 1, 2], 2] = 0
    torsos, heads = torso_sizes(joints, names), head_sizes(joints, names)
    assert torsos[0] == 10
    assert torsos[1] == pytest.approx(np.hypot(12, 8))
    assert np.isnan(torsos[2])
    assert heads[:2].tolist() == [3, 3]
    assert np.isnan(heads[2])


# -- the check ------------------------------------------------------------------------------------------


def test_a_good_set_has_no_findings(tmp_path):
    findings = check_keypoints(open_keypoints(coco_set(tmp_path)))
    assert findings.errors == findings.warnings == []
    text = findings.text()
    assert "8 people with 5 joints, colour" in text
    assert "train         5 people in 5 pictures, 100 % of joints labelled" in text
    json.dumps(findings.as_dict())


def test_joints_outside_of_the_picture_are_counted(tmp_path):
    # on a picture of 40 pixels, 39.5 is its edge
    edge, beyond = person(0, 0, shift=29.5), person(1, 1, shift=29.6)
    coco_set(tmp_path, {"train": 2, "val": 2}, people=[edge, beyond])
    findings = check_keypoints(open_keypoints(tmp_path))
    assert findings.facts["outside"] == 2
    assert "2 labelled joints lie outside of their picture (train/images/1.png" in findings.text()


def test_missing_and_broken_pictures_are_errors_or_left_out(tmp_path):
    coco_set(tmp_path)
    (tmp_path / "train/images/1.png").unlink()
    (tmp_path / "val/images/2.png").write_bytes(b"no picture")
    found = open_keypoints(tmp_path)
    findings = check_keypoints(found)
    assert len(findings.errors) == 1
    assert "2 of 8 pictures cannot be read" in findings.errors[0]
    assert "train/images/1.png: no such file" in findings.errors[0]
    assert findings.unreadable == {"train": [1], "val": [2]}
    rest = check_keypoints(found, skip_unreadable=True)
    assert rest.errors == []
    kept = readable_keypoints(found, rest)
    assert kept.splits["train"].names == [f"train/images/{i}.png" for i in (0, 2, 3, 4)]
    assert kept.split_record["splits"]["train"] == kept.splits["train"].names
    assert check_keypoints(kept).errors == []


def test_a_picture_of_another_size_than_stated_is_an_error(tmp_path):
    coco_set(tmp_path)
    noise(tmp_path / "val/images/0.png", (30, 40), seed=9)
    (error,) = check_keypoints(open_keypoints(tmp_path)).errors
    assert "val/images/0.png is 40 x 30, not 30 x 40" in error


def test_a_side_without_partner_and_no_sides_at_all_forbid_mirroring(tmp_path):
    names = ["head_top", "left_shoulder", "right_shoulder", "left_hip", "tail"]
    found = open_keypoints(coco_set(tmp_path / "a", names=names))
    assert found.unpaired == ("left_hip",)
    assert not found.may_flip
    assert "left_hip: a side, but no joint with the other one" in check_keypoints(found).text()
    found = open_keypoints(coco_set(tmp_path / "b", names=list("abcde")))
    assert not found.may_flip
    assert "no joint's name speaks of left or right" in check_keypoints(found).text()
    assert open_keypoints(coco_set(tmp_path / "c")).may_flip


def test_one_picture_in_two_splits_and_a_joint_never_labelled_are_warned_of(tmp_path):
    people = [person(i, i) for i in range(3)]
    for one in people:
        one["keypoints"][2] = 0
    coco_set(tmp_path, {"train": 3, "val": 3}, people=people)
    (tmp_path / "val/images/1.png").write_bytes((tmp_path / "train/images/0.png").read_bytes())
    text = check_keypoints(open_keypoints(tmp_path)).text()
    assert "1 pictures in val are in train too (train/images/0.png = val/images/1.png)" in text
    assert "head_top: never labelled in train" in text
