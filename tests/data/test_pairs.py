"""Pictures with masks: which belong together, which classes there are, what is held out, what is wrong."""

import itertools
import json
import pickle

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from residua.data.masks import IGNORED
from residua.data.pairs import check_pairs, open_pairs, recognises
from residua.data.pairs.dimensions import decide
from residua.data.volumes import read_labels, write_volume
from residua.errors import BadInput

CLASSES = np.array([[0, 1, 1, 0], [1, 0, 0, 1], [0, 0, 1, 1]], np.uint8)


def noise(shape, seed=0, dtype="uint8"):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


def picture(path, shape=(3, 4), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(shape, seed)).save(path)
    return path


def mask(path, values=(0, 255), pixels=CLASSES):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, np.uint8)[pixels]).save(path)
    return path


def folders(root, names, values=(0, 255), pictures="images", masks="masks"):
    for i, name in enumerate(names):
        picture(root / pictures / name, seed=i)
        mask(root / masks / name, values)
    return root


LETTERS = [f"{a}{b}.png" for a, b in itertools.product("abcdef", "uvwxyz")]  # no numbers: no stack


def volume(root, name, shape=(12, 8, 9), seed=0, spacing=None, values=(0, 1)):
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True, exist_ok=True)
    array = noise(shape, seed)
    write_volume(root / "images" / name, array.astype(np.uint16), spacing=spacing)
    write_volume(root / "masks" / name, np.array(values, np.uint8)[(array > 99).astype(int)])
    return array


def refusal(act, *args, **options):
    with pytest.raises(BadInput) as caught:
        act(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def lines(findings):
    every = findings.errors + findings.warnings
    assert all("\n" not in line for line in every)
    json.dumps(findings.as_dict())
    assert all(line in findings.text() for line in every)
    return every


class TestWhichMaskBelongsToWhichPicture:
    @pytest.mark.parametrize(
        "first,second",
        [
            ("images", "masks"),
            ("imgs", "labels"),
            ("raw", "gt"),
            ("x", "y"),
            ("Images", "Annotations"),
        ],
    )
    def test_two_folders_with_the_same_names(self, tmp_path, first, second):
        folders(tmp_path, ["a.png", "b.png"], pictures=first, masks=second)
        assert recognises(tmp_path)
        pairs = open_pairs(tmp_path)
        assert sorted(pairs.splits["train"].names + pairs.splits["val"].names) == [
            f"{first}/a.png",
            f"{first}/b.png",
        ]

    @pytest.mark.parametrize(
        "ending", ["_mask", "_label", "_seg", "_gt", "-mask", ".mask", "_MASK", "_ground_truth"]
    )
    def test_one_folder_with_endings(self, tmp_path, ending):
        for name in ("cell a", "cell b"):
            picture(tmp_path / f"{name}.jpg")
            mask(tmp_path / f"{name}{ending}.png")
        assert recognises(tmp_path)
        split = open_pairs(tmp_path).splits["train"]
        assert split.pictures[0][0].stem + ending == split.masks[0].stem

    def test_a_folder_a_patient(self, tmp_path):
        for patient, k in itertools.product(("p1", "p2", "p3"), range(4)):
            picture(tmp_path / patient / f"{patient}_{k}.png", seed=k)
            mask(tmp_path / patient / f"{patient}_{k}_mask.png")
        assert recognises(tmp_path)
        pairs = open_pairs(tmp_path)
        assert len(pairs.splits["train"]) == 8
        assert {name.split("/")[0] for name in pairs.splits["val"].names} < {"p1", "p2", "p3"}
        assert len({name.split("/")[0] for name in pairs.splits["val"].names}) == 1

    @pytest.mark.parametrize(
        "images,masks",
        [
            ("{}/images", "{}/masks"),
            ("images/{}", "masks/{}"),
            ("{}_images", "{}_masks"),
        ],
    )
    def test_given_splits_are_kept(self, tmp_path, images, masks):
        for split, names in {"train": "abc", "val": "d", "test": "ef"}.items():
            for k, name in enumerate(names):
                picture(tmp_path / images.format(split) / f"{name}.png", seed=k)
                mask(tmp_path / masks.format(split) / f"{name}.png")
        assert recognises(tmp_path)
        pairs = open_pairs(tmp_path)
        assert {key: len(split) for key, split in pairs.splits.items()} == {
            "train": 3,
            "val": 1,
            "test": 2,
        }
        assert pairs.split_record["how"] == dict.fromkeys(("train", "val", "test"), "given")

    def test_files_numbered_0000_0001_are_the_channels_of_nnunet(self, tmp_path):
        for case, channel in itertools.product("abc", range(2)):
            path = tmp_path / "imagesTr" / f"case{case}_{channel:04}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(noise((9, 8, 12), channel), np.eye(4)), path)
        for case in "abc":
            path = tmp_path / "labelsTr" / f"case{case}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(noise((9, 8, 12)) % 3, np.eye(4)), path)
        labels = {"background": 0, "liver": 1, "tumour": 2}
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert recognises(tmp_path)
        pairs = open_pairs(tmp_path)
        assert (pairs.channels, pairs.dims) == (2, 3)
        assert pairs.classes == ("background", "liver", "tumour")
        read, classes = pairs.splits["val"].read(0)
        assert read.shape == (12, 8, 9, 2)
        assert classes.shape == (12, 8, 9)
        assert np.array_equal(read[..., 1], noise((9, 8, 12), 1).transpose(2, 1, 0))

    def test_decorated_names_in_both_folders(self, tmp_path):
        for name in "uvw":
            picture(tmp_path / "images" / f"img_{name}.png")
            mask(tmp_path / "masks" / f"mask_{name}.png")
        assert len(open_pairs(tmp_path).splits["train"]) == 2

    def test_other_folders_beside_are_left_out_with_a_note(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        picture(tmp_path / "instances" / "a.png")
        notes = open_pairs(tmp_path).notes
        assert any("1 pictures are in no folder" in n and "instances/a.png" in n for n in notes)

    def test_a_link_that_leads_back_is_followed_once(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        (tmp_path / "images" / "loop").symlink_to(tmp_path)
        assert recognises(tmp_path)
        assert check_pairs(open_pairs(tmp_path)).warnings == []

    def test_class_folders_and_others_are_not_taken_for_pairs(self, tmp_path, class_folders):
        assert not recognises(class_folders(tmp_path / "classes", {"cat": 2, "dog": 2}))
        assert not recognises(class_folders(tmp_path / "letters", {"w": 2, "x": 2, "y": 2}))
        detection = tmp_path / "boxes"
        picture(detection / "images" / "a.png")
        (detection / "labels").mkdir()
        (detection / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
        assert not recognises(detection)
        assert not recognises(tmp_path / "none")

    def test_a_name_that_fits_two_files_is_refused(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        picture(tmp_path / "images" / "a.jpg")
        assert "fits a.jpg and a.png" in refusal(open_pairs, tmp_path)
        (tmp_path / "images" / "a.jpg").unlink()
        mask(tmp_path / "masks" / "a_mask.png")
        assert "has two masks, a.png and a_mask.png" in refusal(open_pairs, tmp_path)

    def test_nothing_that_fits_is_one_line(self, tmp_path):
        assert "holds no pictures; expected" in refusal(open_pairs, tmp_path)
        picture(tmp_path / "images" / "a.png")
        assert "no masks beside them" in refusal(open_pairs, tmp_path)
        mask(tmp_path / "masks" / "other.png")
        assert "no mask has the name of a picture" in refusal(open_pairs, tmp_path)
        assert "no such folder" in refusal(open_pairs, tmp_path / "none")
        assert "expected a number between 0 and 1" in refusal(open_pairs, tmp_path, val_fraction=1)
        assert "dims is 4" in refusal(open_pairs, tmp_path, dims=4)


class TestWhatTheValuesMean:
    @pytest.mark.parametrize("values", [(0, 255), (0, 3), (7, 9)])
    @pytest.mark.parametrize("ending", ["png", "tif", "npy", "nii.gz"])
    def test_values_with_gaps_become_classes_and_this_is_said(self, tmp_path, values, ending):
        for part in ("images", "masks"):
            (tmp_path / part).mkdir()
        pixels = np.array(values, np.uint8)[CLASSES]
        for name in "abc":
            picture(tmp_path / "images" / f"{name}.png")
            write_volume(tmp_path / "masks" / f"{name}.{ending}", pixels, channels=False)
        if ending == "nii.gz":  # a NIfTI of one slice is a volume of one slice
            assert "expected one size" in refusal(open_pairs, tmp_path)
            return
        pairs = open_pairs(tmp_path)
        assert pairs.values == values
        assert pairs.classes == tuple(map(str, values))
        note = f"{values[0]} is class 0, {values[1]} is class 1"
        assert any("renumbered" in line and note in line for line in pairs.notes)
        assert np.array_equal(pairs.splits["train"].mask(0), CLASSES)

    def test_values_without_gaps_are_not_remarked_on(self, tmp_path):
        pairs = open_pairs(folders(tmp_path, ["a.png", "b.png"], (0, 1)))
        assert not any("renumbered" in line for line in pairs.notes)

    def test_classes_are_those_of_all_masks_together(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png", "c.png"], (0, 7))
        mask(tmp_path / "masks" / "b.png", (3, 3))
        pairs = open_pairs(tmp_path)
        assert pairs.values == (0, 3, 7)
        by_name = {
            name: split.mask(i)
            for split in pairs.splits.values()
            for i, name in enumerate(split.names)
        }
        assert np.array_equal(by_name["images/a.png"], 2 * CLASSES)
        assert (by_name["images/b.png"] == 1).all()

    def test_one_value_may_count_for_nothing(self, tmp_path):
        pairs = open_pairs(folders(tmp_path, ["a.png", "b.png"], (5, 255)), ignore=255)
        assert pairs.values == (5,)
        assert set(np.unique(pairs.splits["train"].mask(0))) == {0, IGNORED}
        assert pairs.splits["train"].counts(0).tolist() == [int((CLASSES == 0).sum())]
        assert "the class 5 only" in check_pairs(pairs).errors[0]

    @pytest.mark.parametrize(
        "name,content",
        [
            ("classes.txt", "membrane\ninside\n"),
            ("classes.txt", "255: inside\n0: membrane\n"),
            ("classes.json", '["membrane", "inside"]'),
            ("classes.json", '{"inside": 255, "membrane": 0}'),
            ("dataset.json", '{"labels": {"0": "membrane", "255": "inside"}}'),
        ],
    )
    def test_names_come_from_a_file_beside(self, tmp_path, name, content):
        (tmp_path / name).write_text(content)
        pairs = open_pairs(folders(tmp_path, ["a.png", "b.png"]))
        assert pairs.classes == ("membrane", "inside")
        assert pairs.values == (0, 255)

    def test_a_class_that_no_mask_holds_keeps_its_place(self, tmp_path):
        (tmp_path / "dataset.json").write_text(
            '{"labels": {"background": 0, "liver": 1, "cyst": 2, "ignore": 3}}'
        )
        folders(tmp_path, ["a.png", "b.png", "c.png"], (0, 2))
        mask(tmp_path / "masks" / "c.png", (0, 3))
        pairs = open_pairs(tmp_path)
        assert pairs.classes == ("background", "liver", "cyst")
        assert (pairs.values, pairs.ignore) == ((0, 1, 2), 3)
        assert any("no pixels of liver" in line for line in lines(check_pairs(pairs)))

    def test_asked_classes_and_values_fix_the_labels(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        pairs = open_pairs(tmp_path, classes=["in", "out"], values=[255, 0])
        assert np.array_equal(pairs.splits["train"].mask(0), 1 - CLASSES)
        assert "hold the value 255, which no class has" in refusal(
            open_pairs, tmp_path, classes=["a", "b"], values=[0, 1]
        )
        assert "hold the value 255" in refusal(open_pairs, tmp_path, classes=["a", "b", "c"])
        assert "2 classes for 3 mask values" in refusal(
            open_pairs, tmp_path, classes=["a", "b"], values=[0, 1, 2]
        )

    def test_numbered_objects_are_no_classes(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        objects = np.arange(900, dtype=np.uint16).reshape(30, 30)
        for name in "ab":
            Image.fromarray(objects).save(tmp_path / "masks" / f"{name}.png")
            picture(tmp_path / "images" / f"{name}.png", (30, 30))
        assert "the masks hold 900 values" in refusal(open_pairs, tmp_path)
        for name, n in (("a", 12), ("b", 15)):
            Image.fromarray((objects % n).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
        assert any(
            "may number objects" in line for line in check_pairs(open_pairs(tmp_path)).warnings
        )


class TestWhatIsHeldOut:
    def test_unnumbered_pictures_are_drawn_by_name_and_seed(self, tmp_path):
        folders(tmp_path, LETTERS)
        first, again, other = (open_pairs(tmp_path, seed=seed) for seed in (0, 0, 1))
        assert first.split_record == again.split_record
        assert first.splits["val"].names != other.splits["val"].names
        assert (len(first.splits["train"]), len(first.splits["val"])) == (29, 7)
        places = [LETTERS.index(name.split("/")[1]) for name in first.splits["val"].names]
        assert max(places) - min(places) >= 7  # no block
        assert len(open_pairs(tmp_path, most_val=3).splits["val"]) == 3

    def test_numbered_slices_of_one_size_give_their_last_block(self, tmp_path):
        folders(tmp_path, [f"{k}.png" for k in range(30)])  # 2.png comes before 10.png
        pairs = open_pairs(tmp_path)
        assert pairs.splits["val"].names == [f"images/{k}.png" for k in range(24, 30)]
        assert pairs.splits["train"].names == [f"images/{k}.png" for k in range(24)]
        assert any(
            "as one block" in note and "of 30 slices the last 6" in note for note in pairs.notes
        )
        assert pairs.dims == 2
        assert any(
            "if they are slices, dims=3 reads them as one volume" in reason
            for reason in pairs.reasons
        )

    def test_numbered_pictures_of_several_sizes_are_no_stack(self, tmp_path):
        folders(tmp_path, [f"{k}.png" for k in range(30)])
        picture(tmp_path / "images" / "7.png", (5, 6))
        mask(tmp_path / "masks" / "7.png", pixels=noise((5, 6)) % 2)
        assert any("at random" in note for note in open_pairs(tmp_path).notes)

    def test_numbers_far_apart_are_no_stack(self, tmp_path):
        folders(tmp_path, [f"{10 * k}.png" for k in range(30)])
        assert any("at random" in note for note in open_pairs(tmp_path).notes)

    def test_whole_stacks_are_held_out_where_there_are_three(self, tmp_path):
        names = [f"s{a}_{k:02}.png" for a, k in itertools.product(range(5), range(6))]
        pairs = open_pairs(folders(tmp_path, names))
        held = {name.split("_")[0] for name in pairs.splits["val"].names}
        learnt = {name.split("_")[0] for name in pairs.splits["train"].names}
        assert len(held) == 1
        assert len(learnt) == 4
        assert not held & learnt

    def test_a_hundred_slices_also_give_a_test(self, tmp_path):
        pairs = open_pairs(folders(tmp_path, [f"{k:03}.png" for k in range(100)]))
        assert [len(pairs.splits[key]) for key in ("train", "val", "test")] == [70, 20, 10]
        assert pairs.splits["test"].names[0] == "images/090.png"

    def test_one_picture_gives_its_last_rows(self, tmp_path):
        picture(tmp_path / "images" / "a.png", (20, 9))
        mask(tmp_path / "masks" / "a.png", pixels=noise((20, 9)) % 2)
        pairs = open_pairs(tmp_path)
        whole = np.asarray(Image.open(tmp_path / "images" / "a.png"))
        assert np.array_equal(pairs.splits["train"].picture(0)[..., 0], whole[:16])
        assert np.array_equal(pairs.splits["val"].picture(0)[..., 0], whole[16:])
        assert any("of 20 rows the last 4" in note for note in pairs.notes)
        again = open_pairs(tmp_path, split_record=pairs.split_record)
        assert again.splits["val"].names == ["images/a.png[16:20]"]
        assert np.array_equal(again.splits["val"].mask(0), pairs.splits["val"].mask(0))

    @pytest.mark.parametrize("dims", [2, 3])
    def test_one_volume_is_divided_into_blocks_of_slices(self, tmp_path, dims):
        array = volume(tmp_path, "a.tif", (20, 8, 9))
        pairs = open_pairs(tmp_path, dims=dims)
        train, val = pairs.splits["train"], pairs.splits["val"]
        if dims == 3:
            assert (train.names, val.names) == (["images/a.tif[0:16]"], ["images/a.tif[16:20]"])
            assert np.array_equal(val.picture(0)[..., 0], array[16:])
            assert val.shape(0) == (4, 8, 9)
        else:
            assert val.names == [f"images/a.tif[{k}]" for k in range(16, 20)]
            assert np.array_equal(val.picture(3)[..., 0], array[19])
            assert np.array_equal(train.mask(5), array[5] > 99)
            assert train.shape(0) == (8, 9)
        assert any("of 20 slices the last 4" in note for note in pairs.notes)

    def test_slices_of_one_volume_stay_in_one_split(self, tmp_path):
        for k in range(5):
            volume(tmp_path, f"v{k}.tif", seed=k)
        pairs = open_pairs(tmp_path, dims=2)
        held = {name.split("[")[0] for name in pairs.splits["val"].names}
        assert len(held) == 1
        assert not held & {name.split("[")[0] for name in pairs.splits["train"].names}
        assert len(pairs.splits["val"]) == 12

    @pytest.mark.parametrize("dims", [None, 2, 3])
    def test_a_record_repeats_the_split_exactly(self, tmp_path, dims):
        volume(tmp_path, "a.tif", (20, 12, 12))
        pairs = open_pairs(tmp_path, dims=dims, seed=3)
        record = json.loads(json.dumps(pairs.split_record))
        again = open_pairs(tmp_path, split_record=record)
        assert again.split_record == pairs.split_record
        assert again.dims == pairs.dims
        for key, split in pairs.splits.items():
            assert again.splits[key].items == split.items
        volume(tmp_path, "b.tif")
        more = open_pairs(tmp_path, split_record=record)
        assert any("1 pictures are not in the recorded split" in note for note in more.notes)
        (tmp_path / "images" / "a.tif").unlink()
        assert "recorded pictures are gone" in refusal(open_pairs, tmp_path, split_record=record)

    @pytest.mark.parametrize("count,fraction", [(2, 0.9), (3, 0.9), (9, 0.99), (5, 0.01)])
    def test_a_block_leaves_something_to_train_on(self, tmp_path, count, fraction):
        volume(tmp_path, "a.tif", (count, 8, 9))
        pairs = open_pairs(tmp_path, dims=2, val_fraction=fraction)
        expected = min(max(1, round(count * fraction)), count - 1)
        assert len(pairs.splits["val"]) == expected
        assert len(pairs.splits["train"]) == count - expected

    def test_a_picture_of_one_pixel_cannot_be_divided(self, tmp_path):
        picture(tmp_path / "images" / "a.png", (1, 1))
        mask(tmp_path / "masks" / "a.png", pixels=np.zeros((1, 1), int))
        assert "one picture of 1 x 1 is too small" in refusal(open_pairs, tmp_path)

    @settings(max_examples=15, deadline=None)
    @given(count=st.integers(2, 24), fraction=st.floats(0.05, 0.9), numbered=st.booleans())
    def test_splits_are_disjoint_and_complete(self, tmp_path_factory, count, fraction, numbered):
        root = tmp_path_factory.mktemp("pairs")
        names = [f"{k}.png" for k in range(count)] if numbered else LETTERS[:count]
        pairs = open_pairs(folders(root, names), val_fraction=fraction)
        every = [name for split in pairs.splits.values() for name in split.names]
        assert len(every) == len(set(every)) == len(names)
        assert len(pairs.splits["train"]) >= 1
        assert len(pairs.splits["val"]) >= 1


class TestTwoOrThreeDimensions:
    def test_cubes_are_3d_and_thick_few_slices_2d(self):
        assert decide([(64, 128, 128)], [(1.0, 1.0, 1.0)]).dims == 3
        assert decide([(30, 512, 512)], [(50.0, 4.0, 4.0)]).dims == 2
        assert decide([(30, 64, 64)], [(50.0, 4.0, 4.0)]).dims == 3  # thick, but not so few
        assert decide([(30, 512, 512)], [(12.0, 4.0, 4.0)]).dims == 3  # few, but three times only
        assert decide([(30, 512, 512)], [None]).dims == 2
        assert decide([(200, 512, 512)], [None]).dims == 3
        assert decide([(5, 12, 12)], [(1.0, 1.0, 1.0)]).dims == 2

    def test_slices_are_counted_along_the_thick_axis(self):
        assert decide([(256, 256, 20)], [(1.0, 1.0, 8.0)]).axis == 2
        assert decide([(20, 256, 256)], [(8.0, 1.0, 1.0)]).axis == 0

    def test_reasons_are_given_and_can_be_overruled(self):
        found = decide([(30, 512, 512)], [(50.0, 4.0, 4.0)], "nm", 3)
        assert found.dims == 3
        assert found.reasons[0] == "3-D, as asked; the data alone would say 2-D"
        assert any(
            "spacing 50 x 4 x 4 nm: slices are 12.5 times as far" in r for r in found.reasons
        )

    def test_a_sagittal_volume_is_sliced_along_x(self, tmp_path):
        array = volume(tmp_path, "a.nii.gz", (40, 36, 9), spacing=(1.0, 1.0, 6.0))
        pairs = open_pairs(tmp_path)
        assert (pairs.dims, pairs.axis, pairs.spacing) == (2, 2, (1.0, 1.0, 6.0))
        assert np.array_equal(pairs.splits["train"].picture(2)[..., 0], array[:, :, 2])
        assert pairs.splits["val"].names == ["images/a.nii.gz[7]", "images/a.nii.gz[8]"]

    def test_numbered_slices_are_read_as_one_volume_on_request(self, tmp_path):
        folders(tmp_path, [f"{k:02}.png" for k in range(10)])
        pairs = open_pairs(tmp_path, dims=3)
        assert pairs.splits["train"].names == ["images/*.png[0:8]"]
        read, classes = pairs.splits["val"].read(0)
        assert read.shape == (2, 3, 4, 1)
        assert np.array_equal(read[1, ..., 0], noise((3, 4), 9))
        assert np.array_equal(classes, [CLASSES, CLASSES])
        again = open_pairs(tmp_path, split_record=pairs.split_record)
        assert again.splits["val"].items == pairs.splits["val"].items
        (tmp_path / "images" / "05.png").unlink()
        assert "slices 5 of 0 to 9 are missing" in refusal(open_pairs, tmp_path, dims=3)

    def test_pictures_that_are_no_slices_make_no_volume(self, tmp_path):
        folders(tmp_path, LETTERS[:5])
        assert "no numbered slices" in refusal(open_pairs, tmp_path, dims=3)

    def test_pictures_and_stacks_do_not_mix(self, tmp_path):
        volume(tmp_path, "b.tif")
        folders(tmp_path, ["a.png", "c.png"])
        assert "expected all pictures, or all stacks" in refusal(open_pairs, tmp_path)


class TestReading:
    def test_eight_bits_stay_and_twelve_keep_their_levels(self, tmp_path):
        folders(tmp_path / "8", ["a.png", "b.png"])
        assert open_pairs(tmp_path / "8").splits["train"].picture(0).dtype == np.uint8
        folders(tmp_path / "12", ["a.png", "b.png"])
        deep = (noise((3, 4)).astype(np.uint16) + 3000).astype(np.uint16)
        for name in "ab":
            Image.fromarray(deep).save(tmp_path / "12" / "images" / f"{name}.png")
        read = open_pairs(tmp_path / "12").splits["train"].picture(0)
        assert read.dtype == np.float32
        assert np.array_equal(read[..., 0], deep)

    def test_grey_and_colour_together_are_colour(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png", "c.png"])
        picture(tmp_path / "images" / "b.png", (3, 4, 3))
        pairs = open_pairs(tmp_path)
        assert pairs.channels == 3
        assert all(
            s.picture(i).shape == (3, 4, 3) for s in pairs.splits.values() for i in range(len(s))
        )

    def test_a_float_tiff_of_five_channels_is_read(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        for name in "ab":
            (tmp_path / "images" / f"{name}.png").unlink()
            array = noise((5, 3, 4), dtype="float32") / 7
            tifffile.imwrite(
                tmp_path / "images" / f"{name}.tif",
                array,
                ome=True,
                photometric="minisblack",
                metadata={"axes": "CYX"},
            )
        read = open_pairs(tmp_path).splits["train"].picture(0)
        assert np.allclose(read, np.moveaxis(array, 0, -1))

    def test_a_split_travels_to_another_process(self, tmp_path):
        volume(tmp_path, "a.tif", (20, 8, 9))
        split = open_pairs(tmp_path, dims=2).splits["train"]
        first = split.read(3)
        there = pickle.loads(pickle.dumps(split))
        assert np.array_equal(there.read(3)[0], first[0])
        assert there.take([3]).names == [split.names[3]]

    def test_what_was_read_is_kept_until_a_file_changes(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        calls = []
        open_pairs(tmp_path, progress=lambda done, total: calls.append((done, total)))
        assert calls[-1] == (2, 2)
        calls.clear()
        open_pairs(tmp_path, progress=lambda done, total: calls.append((done, total)))
        assert calls == []
        mask(tmp_path / "masks" / "a.png", (0, 9))
        assert open_pairs(tmp_path).values == (0, 9, 255)


class TestTheCheck:
    def test_a_good_set_has_no_findings_and_a_readable_summary(self, tmp_path):
        findings = check_pairs(open_pairs(folders(tmp_path / "cells", LETTERS)))
        assert lines(findings) == []
        assert findings.text().startswith(
            "cells: 36 pictures with masks, 2 classes, grey, 2-D, 3 x 4 pixels"
        )
        assert findings.facts["splits"]["train"]["shares"] == {"0": 0.5, "255": 0.5}
        assert findings.facts["splits"]["val"]["pixels"] == {"0": 7 * 6, "255": 7 * 6}

    def test_counts_are_those_of_brute_force(self, tmp_path):
        volume(tmp_path, "a.tif", (20, 8, 9))
        truth = read_labels(tmp_path / "masks" / "a.tif")
        for dims in (2, 3):
            facts = check_pairs(open_pairs(tmp_path, dims=dims)).facts["splits"]
            for key, part in (("train", truth[:16]), ("val", truth[16:])):
                assert facts[key]["pixels"] == {"0": int((part == 0).sum()), "1": int(part.sum())}

    def test_a_picture_without_mask_is_a_warning_and_a_mask_without_picture_an_error(
        self, tmp_path
    ):
        folders(tmp_path, LETTERS[:6])
        picture(tmp_path / "images" / "lonely.png")
        mask(tmp_path / "masks" / "orphan.png")
        findings = check_pairs(open_pairs(tmp_path))
        assert "1 pictures have no mask and are left out (images/lonely.png)" in findings.warnings
        assert len(findings.errors) == 1
        assert "1 masks have no picture (masks/orphan.png)" in findings.errors[0]
        assert check_pairs(open_pairs(tmp_path), skip_unreadable=True).errors == []

    @pytest.mark.parametrize(
        "harm,expected",
        [
            (lambda p, m: p.write_bytes(p.read_bytes()[:-30]), "cannot be decoded"),
            (lambda p, m: p.write_bytes(b""), "is empty"),
            (lambda p, m: picture(m, (3, 4, 3)), "in colour"),
            (lambda p, m: mask(m, pixels=np.eye(5, dtype=int)), "is 5 x 5, its picture"),
            (lambda p, m: m.write_text("no mask"), "is not a"),
        ],
        ids=["truncated", "empty", "colour mask", "other size", "text"],
    )
    def test_files_of_no_use_are_named_and_may_be_skipped(self, tmp_path, harm, expected):
        folders(tmp_path, LETTERS[:6])
        harm(tmp_path / "images" / LETTERS[2], tmp_path / "masks" / LETTERS[2])
        pairs = open_pairs(tmp_path)
        findings = check_pairs(pairs)
        assert len(findings.errors) == 1
        assert expected in findings.errors[0]
        assert LETTERS[2] in findings.errors[0]
        skipped = check_pairs(pairs, skip_unreadable=True)
        assert skipped.errors == []
        assert sum(len(split) for split in pairs.splits.values()) == 5
        lines(skipped)

    def test_nan_and_pickled_volumes_are_named(self, tmp_path):
        for k in range(3):
            volume(tmp_path, f"v{k}.npy", seed=k)
        array = np.full((12, 8, 9), np.nan, np.float32)
        np.save(tmp_path / "images" / "v1.npy", array)
        assert "v1.npy: holds NaN" in check_pairs(open_pairs(tmp_path)).errors[0]
        np.save(tmp_path / "images" / "v1.npy", np.array([{}], object), allow_pickle=True)
        assert "v1.npy: holds pickled objects" in check_pairs(open_pairs(tmp_path)).errors[0]

    def test_where_no_pair_can_be_read_the_first_says_why(self, tmp_path):
        folders(tmp_path, ["a.png", "b.png"])
        for name in "ab":
            picture(tmp_path / "masks" / f"{name}.png", (3, 4, 3))
        assert "none of 2 pairs of picture and mask can be read" in refusal(open_pairs, tmp_path)

    def test_one_class_only_is_an_error(self, tmp_path):
        findings = check_pairs(open_pairs(folders(tmp_path, LETTERS[:6], (7, 7))))
        assert len(findings.errors) == 1
        assert "the masks of train hold the class 7 only" in findings.errors[0]

    def test_a_class_that_is_never_learnt_is_an_error(self, tmp_path):
        folders(tmp_path, [f"{k}.png" for k in range(10)])
        mask(tmp_path / "masks" / "9.png", (0, 128))
        findings = check_pairs(open_pairs(tmp_path))
        assert [
            line for line in findings.errors if "128 is in val but has no pixels in train" in line
        ]

    def test_the_same_picture_in_two_splits_is_a_warning(self, tmp_path):
        for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
            picture(tmp_path / split / "images" / f"{name}.png", seed=0 if name != "b" else 1)
            mask(tmp_path / split / "masks" / f"{name}.png")
        findings = check_pairs(open_pairs(tmp_path))
        assert any("train/images/a.png = val/images/c.png" in line for line in findings.warnings)
        assert findings.facts["duplicates"] == {"train/val": 1}

    def test_smoothed_edges_and_a_forgotten_ignore_value_are_warned_of(self, tmp_path):
        folders(tmp_path / "a", LETTERS[:4])
        edges = np.repeat(np.array([0] * 20 + [40, 80, 120, 160, 200, 240] + [255] * 20), 3)
        for name in LETTERS[:4]:
            mask(tmp_path / "a" / "masks" / name, range(256), edges.reshape(6, 23))
            picture(tmp_path / "a" / "images" / name, (6, 23))
        warnings = check_pairs(open_pairs(tmp_path / "a")).warnings
        assert any("smoothed edges" in line for line in warnings)
        folders(tmp_path / "b", LETTERS[:4], (0, 1, 255))
        for name in LETTERS[:4]:
            mask(
                tmp_path / "b" / "masks" / name,
                (0, 1, 255),
                CLASSES + (CLASSES * np.eye(3, 4, dtype=int)),
            )
        mask(tmp_path / "b" / "masks" / LETTERS[0], (0, 255))
        for name in LETTERS[1:4]:
            mask(tmp_path / "b" / "masks" / name, (0, 1))
        warnings = check_pairs(open_pairs(tmp_path / "b")).warnings
        assert any("ignore=255" in line for line in warnings)

    def test_pictures_of_two_depths_are_warned_of(self, tmp_path):
        folders(tmp_path, LETTERS[:4])
        deep = noise((3, 4), dtype="uint16") * 9
        Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "images" / LETTERS[1])
        findings = check_pairs(open_pairs(tmp_path))
        assert any("1 of 4 pictures hold more than 8 bits" in line for line in findings.warnings)

    def test_a_rare_class_is_warned_of(self, tmp_path):
        folders(tmp_path, LETTERS[:4])
        pixels = np.zeros((50, 50), int)
        pixels[0, 0] = 1
        for name in LETTERS[:4]:
            picture(tmp_path / "images" / name, (50, 50), LETTERS.index(name))
            mask(tmp_path / "masks" / name, pixels=pixels)
        findings = check_pairs(open_pairs(tmp_path))
        assert any("of 255 (0.04%) there are hardly any" in line for line in findings.warnings)
