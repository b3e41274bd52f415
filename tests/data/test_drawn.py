"""Drawn samples: a function of (seed, index) alone, with a truth that agrees with the picture."""

import json
from itertools import combinations

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy import ndimage
from skimage.filters import threshold_otsu

from residua.data.drawn import cells, figures, tubes
from residua.data.drawn.stream import Kind, stream
from residua.data.keypoints import open_keypoints
from residua.data.masks import mask_values, read_mask
from residua.data.pairs import open_pairs
from residua.errors import BadInput

KINDS = {"cells": cells, "tubes": tubes, "figures": figures}
SMALL = {"cells": {"side": 96}, "tubes": {"shape": (8, 32, 32)}, "figures": {"side": 64}}


def arrays(sample):
    return [value for value in vars(sample).values() if isinstance(value, np.ndarray)]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


@pytest.fixture(scope="module")
def colonies():
    return [cells.draw(1, index, border=True) for index in range(8)]


@pytest.fixture(scope="module")
def volumes():
    return [tubes.draw(1, index) for index in range(3)]


@pytest.fixture(scope="module")
def people():
    return [figures.draw(1, index) for index in range(60)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_a_function_of_seed_and_index(kind):
    first = KINDS[kind].draw(3, 5, **SMALL[kind])
    np.random.default_rng().random()  # numbers drawn elsewhere change nothing
    assert same(first, KINDS[kind].draw(3, 5, **SMALL[kind]))
    assert not same(first, KINDS[kind].draw(3, 6, **SMALL[kind]))
    assert not same(first, KINDS[kind].draw(4, 5, **SMALL[kind]))
    assert not same(first, KINDS[kind].draw(5, 3, **SMALL[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_gives_the_same_in_any_order(kind):
    store, later = KINDS[kind].Drawn(6, seed=2), KINDS[kind].Drawn(3, seed=2, first=3)
    backwards = [store[index] for index in (5, 3)]
    assert same(backwards[1], KINDS[kind].draw(2, 3))
    assert same(backwards[0], later[2]) and same(backwards[0], later[-1])
    assert len(store) == 6 and "drawn" in store.name
    with pytest.raises(IndexError, match="one of 6"):
        store[6]


def test_no_two_samples_share_their_numbers():
    firsts = {
        float(stream(kind, seed, index).random())
        for kind in Kind
        for seed in (-1, 0, 1)
        for index in range(20)
    }
    assert len(firsts) == len(Kind) * 3 * 20
    with pytest.raises(ValueError, match="index"):
        stream(Kind.CELLS, 0, -1)


def test_every_cell_is_one_piece_with_a_number_of_its_own(colonies):
    for sample in colonies:
        numbers = np.unique(sample.instances)
        assert numbers.tolist() == list(range(len(numbers)))
        for number in numbers[1:]:
            assert ndimage.label(sample.instances == number)[1] == 1
        sizes = np.bincount(sample.instances.ravel())[1:]
        assert sizes.min() >= cells.SMALLEST
        assert np.array_equal(sample.mask > 0, sample.instances > 0)


def test_no_cell_is_lost_in_the_border_class(colonies):
    for sample in colonies:
        inside = np.where(sample.mask == 1, sample.instances, 0)
        assert np.array_equal(np.unique(inside), np.unique(sample.instances))


def test_cells_touch_and_differ(colonies):
    numbers = [int(sample.instances.max()) for sample in colonies]
    assert len(set(numbers)) > 4 and min(numbers) >= 8
    assert all((sample.mask == 2).sum() > 100 for sample in colonies)
    pairs = combinations((sample.picture.astype(float) for sample in colonies), 2)
    assert min(np.abs(a - b).mean() for a, b in pairs) > 3


def test_a_border_pixel_is_one_of_a_cell_with_another_within_reach():
    sample = cells.draw(0, 3, side=72)
    wanted = np.zeros_like(sample.mask)
    for (y, x), number in np.ndenumerate(sample.instances):
        near = sample.instances[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
        wanted[y, x] = number > 0 and len(set(near.ravel().tolist()) - {0}) > 1
    assert wanted.any()
    assert np.array_equal(cells.borders(sample.instances), wanted)


def test_a_threshold_does_not_find_the_cells(colonies):
    for sample in colonies:
        grey, truth = sample.picture[..., 0], sample.instances > 0
        bright = grey > threshold_otsu(grey)
        for guess in (bright, ~bright):
            assert (guess & truth).sum() / (guess | truth).sum() < 0.6


def test_cells_have_relief_where_the_truth_says_and_the_ground_has_none(colonies):
    for sample in colonies:
        grey = ndimage.gaussian_filter(sample.picture[..., 0].astype(float), 1.5)
        slope, cell = np.hypot(*np.gradient(grey)), sample.instances > 0
        ground = ndimage.distance_transform_edt(~cell) > 5  # beyond what the blur carries
        assert slope[cell].mean() > 1.5 * slope[ground].mean()
        assert abs(grey[cell].mean() - grey[ground].mean()) < 0.15 * grey[ground].mean()


def test_tubes_and_blobs_are_bright_where_the_truth_says(volumes):
    for sample in volumes:
        values, mask = sample.volume[..., 0].astype(float), sample.mask
        means = [values[mask == k].mean() for k in range(3)]
        assert min(means[1:]) > 1.7 * means[0]
        assert 0.6 < means[2] / means[1] < 1.6  # brightness does not tell one from the other
        assert 0.005 < (mask == 1).mean() < 0.15 and (mask == 2).mean() > 0.001
        assert sample.spacing[0] == pytest.approx(3 * sample.spacing[2])


def test_tubes_are_long_and_blobs_are_compact(volumes):
    for sample in volumes:
        longest = {}
        for k in (1, 2):
            pieces, _ = ndimage.label(sample.mask == k, np.ones((3, 3, 3)))
            spans = [
                max((s.stop - s.start) * d for s, d in zip(at, sample.spacing, strict=True))
                for at in ndimage.find_objects(pieces)
            ]
            longest[k] = max(spans)
        assert longest[1] > 20 > longest[2]  # micrometres; the volume is 48 wide


def test_without_blobs_there_is_no_second_class():
    sample = tubes.draw(0, 0, shape=(8, 40, 40), coarser=1, blobs=False)
    assert set(np.unique(sample.mask)) == {0, 1}
    assert sample.spacing == (0.5, 0.5, 0.5)


def test_joints_lie_in_the_picture_or_are_not_labelled(people):
    for sample in people:
        x, y, seen = sample.joints.T
        labelled = seen > 0
        assert set(seen) <= {0, 1, 2}
        assert (sample.joints[~labelled] == 0).all()
        for values in (x[labelled], y[labelled]):
            assert (values >= -0.5).all() and (values < figures.SIDE - 0.5).all()
    shares = [np.mean([sample.joints[:, 2] == v for sample in people]) for v in (0, 1, 2)]
    assert 0 < shares[0] < 0.1 and 0.05 < shares[1] < 0.3


def test_left_and_right_limbs_are_dressed_alike_and_stand_out_from_the_ground():
    alike, apart = [], []
    for index in range(45):
        sample = figures.draw(7, index, clutter=False, covered=0.0, cut=0.0)
        for right, left in ((1, 4), (7, 10)):
            spots = sample.joints[[right, left]]
            if (spots[:, 2] == figures.VISIBLE).all():
                one, other = (
                    sample.picture[round(float(y)), round(float(x))].astype(float)
                    for x, y, _ in spots
                )
                alike.append(np.abs(one - other).mean())
                apart.append(np.abs(one - sample.picture[2, 2]).mean())
    assert len(alike) > 30
    assert np.median(alike) < 15 < 40 < np.median(apart)


def test_left_is_on_the_right_exactly_when_the_figure_faces_the_viewer(people):
    shoulders = figures.JOINTS.index("right_shoulder"), figures.JOINTS.index("left_shoulder")
    seen = 0
    for sample in people:
        right, left = sample.joints[list(shoulders)]
        if abs(sample.facing) > 0.4 and right[2] and left[2]:
            seen += 1
            assert np.sign(left[0] - right[0]) == np.sign(sample.facing)
    assert seen > 25


def test_the_pairs_swap_left_and_right_and_nothing_else():
    swapped = list(figures.JOINTS)
    for a, b in figures.PAIRS:
        swapped[a], swapped[b] = swapped[b], swapped[a]
    mirror = {"left": "right", "right": "left"}
    for name, other in zip(figures.JOINTS, swapped, strict=True):
        side, _, rest = name.partition("_")
        assert other == (f"{mirror[side]}_{rest}" if side in mirror else name)
    mirrored = {
        tuple(sorted(swapped.index(figures.JOINTS[k]) for k in bone)) for bone in figures.SKELETON
    }
    assert mirrored == {tuple(sorted(bone)) for bone in figures.SKELETON}


def test_poses_vary_and_bodies_keep_their_proportions(people):
    knees = [sample.joints[1, :2] - sample.joints[2, :2] for sample in people]
    angles = np.arctan2(*np.array(knees).T[::-1])
    assert len(set(np.round(angles, 1))) > 15
    facing = np.array([sample.facing for sample in people])
    assert (facing > 0.5).any() and (facing < -0.5).any() and (abs(facing) < 0.3).any()


def test_a_thing_in_front_hides_joints():
    covered = [figures.draw(2, k, covered=1.0).joints[:, 2] for k in range(30)]
    open_ = [figures.draw(2, k, covered=0.0).joints[:, 2] for k in range(30)]
    assert np.mean(np.array(covered) == figures.HIDDEN) > np.mean(np.array(open_) == figures.HIDDEN)


def test_cells_are_written_as_the_readers_open_them(tmp_path):
    cells.write(tmp_path / "cells", 4, seed=0, border=True, instances=True)
    folders = {split: tmp_path / "cells" / split for split in ("train", "val", "test")}
    assert [len(list((f / "masks").iterdir())) for f in folders.values()] == [2, 1, 1]
    masks = sorted((tmp_path / "cells").rglob("masks/*.png"))
    assert mask_values(masks) == (0, 1, 2)
    sample = cells.draw(0, 3, border=True)
    assert np.array_equal(read_mask(folders["test"] / "masks/0003.png", (0, 1, 2)), sample.mask)
    picture = np.asarray(Image.open(folders["test"] / "images/0003.png"))
    assert np.array_equal(picture, sample.picture[..., 0])
    instances = np.asarray(Image.open(folders["test"] / "instances/0003.png"))
    assert np.array_equal(instances, sample.instances)
    readme = (tmp_path / "cells" / "README.txt").read_text()
    assert "cells (drawn)" in readme and "2 train, 1 val, 1 test" in readme


def test_written_cells_and_tubes_open_as_pairs_with_the_names_of_their_classes(tmp_path):
    cells.write(tmp_path / "cells", 3, seed=0)
    tubes.write(tmp_path / "tubes", 3, seed=0, shape=(8, 24, 40))
    for kind, dims in (("cells", 2), ("tubes", 3)):
        pairs = open_pairs(tmp_path / kind)
        assert pairs.classes == KINDS[kind].CLASSES and pairs.notes == []
        assert {split: len(part) for split, part in pairs.splits.items()} == {
            "train": 1, "val": 1, "test": 1,
        }  # fmt: skip
        assert len(pairs.splits["train"].read(0)[1].shape) == dims
    assert pairs.spacing == (1.5, 0.5, 0.5)


def test_tubes_are_written_with_their_spacing(tmp_path):
    tubes.write(tmp_path / "tubes", 3, seed=0, shape=(8, 24, 40))
    sample = tubes.draw(0, 2, shape=(8, 24, 40))
    for folder, wanted in (("images", sample.volume[..., 0]), ("masks", sample.mask)):
        with tifffile.TiffFile(tmp_path / "tubes/test" / folder / "0002.tif") as file:
            assert np.array_equal(file.asarray(), wanted)
            assert file.imagej_metadata["spacing"] == sample.spacing[0]
            number, pixels = file.pages[0].tags["XResolution"].value[::-1]
            assert number / pixels == pytest.approx(sample.spacing[2])
    assert "tubes (drawn)" in (tmp_path / "tubes/README.txt").read_text()


def test_figures_are_written_as_coco_keypoints(tmp_path):
    figures.write(tmp_path / "figures", 6, seed=0)
    coco = json.loads((tmp_path / "figures/train/keypoints.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [f"{k:04d}.png" for k in range(4)]
    for index, person in enumerate(coco["annotations"]):
        sample = figures.draw(0, index)
        points = np.reshape(person["keypoints"], (14, 3))
        assert np.abs(points - sample.joints).max() <= 0.0051
        assert person["num_keypoints"] == (sample.joints[:, 2] > 0).sum()
        picture = np.asarray(Image.open(tmp_path / f"figures/train/images/{index:04d}.png"))
        assert np.array_equal(picture, sample.picture)
    assert coco["categories"][0]["keypoints"] == list(figures.JOINTS)
    assert min(min(bone) for bone in coco["categories"][0]["skeleton"]) == 1
    assert coco["info"]["description"] == "figures (drawn)"
    people = open_keypoints(tmp_path / "figures")
    assert people.joints == figures.JOINTS and people.skeleton == figures.SKELETON
    assert np.abs(people.splits["train"].joints[0] - figures.draw(0, 0).joints).max() <= 0.0051


@pytest.mark.parametrize("kind", KINDS)
def test_writing_refuses_a_full_folder_and_too_few_samples(kind, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="empty"):
        KINDS[kind].write(tmp_path, 3, 0)
    with pytest.raises(BadInput, match="3 or more"):
        KINDS[kind].write(tmp_path / "new", 2, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("kind", "options"),
    [("cells", {"side": 16}), ("cells", {"cells": (0, 4)}), ("tubes", {"shape": (4, 32, 32)}),
     ("tubes", {"coarser": 0}), ("figures", {"side": 8})],
)  # fmt: skip
def test_options_that_cannot_be_drawn_are_refused(kind, options):
    with pytest.raises(ValueError, match="expected"):
        KINDS[kind].draw(0, 0, **options)
