"""Scores of classes, surfaces and splits against torchmetrics, scikit-image, scikit-learn and brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, hausdorff_distance
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torchmetrics.functional.classification import multiclass_jaccard_index
from torchmetrics.functional.segmentation import dice_score, mean_iou

from residua.data.masks import IGNORED
from residua.training.segmentation.rand import best_foreground_rand, foreground_rand
from residua.training.segmentation.scores import Scores, confusion
from residua.training.segmentation.surfaces import surface_distances, surface_scores

sizes = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


def maps(size, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, size), rng.integers(0, classes, size)


def scored(predicted, truth, classes=3):
    scores = Scores(tuple(f"c{k}" for k in range(classes)))
    scores.add(0, np.asarray(predicted), np.asarray(truth))
    return scores.result()


def column(result, name):
    return [row[name] for row in result["per_class"]]


# -- counts of pixels -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(size=sizes, classes=st.integers(2, 5), seed=st.integers(0, 99))
def test_the_confusion_is_that_of_scikit_learn(size, classes, seed):
    predicted, truth = maps(size, classes, seed)
    theirs = confusion_matrix(truth.ravel(), predicted.ravel(), labels=range(classes))
    assert np.array_equal(confusion(predicted, truth, classes), theirs)


def test_iou_dice_precision_and_recall_are_those_of_the_libraries():
    predicted, truth = maps((4, 16, 16), 5)
    result = scored(predicted, truth, 5)
    said, true = torch.from_numpy(predicted)[None], torch.from_numpy(truth)[None]
    iou = mean_iou(said, true, 5, per_class=True, input_format="index")[0]
    dice = dice_score(said, true, 5, average="none", input_format="index")[0]
    precision, recall, _, support = precision_recall_fscore_support(
        truth.ravel(), predicted.ravel()
    )
    assert column(result, "iou") == pytest.approx(iou.tolist())
    assert column(result, "dice") == pytest.approx(dice.tolist())
    assert column(result, "precision") == pytest.approx(precision.tolist())
    assert column(result, "recall") == pytest.approx(recall.tolist())
    assert column(result, "support") == support.tolist()
    assert result["mean_iou"] == pytest.approx(iou.mean().item())
    assert result["foreground_dice"] == pytest.approx(dice[1:].mean().item())


def test_ignored_pixels_count_for_nothing_as_in_torchmetrics():
    predicted, truth = maps((32, 32), 4)
    truth[:9] = IGNORED
    theirs = multiclass_jaccard_index(
        torch.from_numpy(predicted),
        torch.from_numpy(truth),
        4,
        average="none",
        ignore_index=IGNORED,
    )
    result = scored(predicted, truth, 4)
    assert column(result, "iou") == pytest.approx(theirs.tolist())
    assert result["pixels"] == 23 * 32
    assert result["pixel_accuracy"] == pytest.approx((predicted == truth)[9:].mean())
    assert result["pixel_error"] == pytest.approx((predicted != truth)[9:].mean())


def test_a_class_that_is_absent_from_both_has_no_score_and_no_part_in_a_mean():
    result = scored([0, 0, 1, 1], [0, 0, 1, 0], 4)
    assert column(result, "iou") == [pytest.approx(2 / 3), 0.5, None, None]
    assert column(result, "dice")[2] is None
    assert result["mean_iou"] == pytest.approx((2 / 3 + 0.5) / 2)
    assert result["foreground_iou"] == 0.5


def test_an_all_background_picture_has_no_foreground_score_unless_something_is_made_up():
    empty = np.zeros((8, 8), int)
    assert scored(empty, empty)["foreground_dice"] is None
    assert scored(empty, empty)["mean_dice"] == 1.0
    wrong = empty.copy()
    wrong[0, 0] = 1
    result = scored(wrong, empty)
    assert result["foreground_dice"] == 0.0
    assert result["per_class"][1]["recall"] is None
    assert result["per_class"][1]["precision"] == 0.0
    assert scored(empty, wrong)["per_class"][1]["precision"] is None


def test_a_picture_that_is_ignored_whole_has_no_score_at_all():
    result = scored(np.zeros(5, int), np.full(5, IGNORED))
    assert result["mean_iou"] is None
    assert result["pixel_accuracy"] is None
    assert result["pixel_error"] is None


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(6)), st.integers(0, 6))
def test_ranks_add_up_to_the_whole_and_a_padded_duplicate_counts_once(order, at):
    pairs = [maps((3, 4), seed=seed) for seed in range(6)]
    whole, one, other = (Scores(("a", "b", "c")) for _ in range(3))
    for key, pair in enumerate(pairs):
        whole.add(key, *pair)
    for key in order[:at]:
        one.add(key, *pairs[key])
    for key in [*order[at:], *order[:1]]:
        other.add(key, *pairs[key])
    one.merge(other)
    assert one.result() == whole.result()


def test_a_picture_in_parts_is_the_picture():
    predicted, truth = maps((8, 9))
    parts = Scores(("a", "b", "c"))
    for rows in (slice(0, 3), slice(3, 8)):
        parts.add_part(0, predicted[rows], truth[rows])
    assert parts.confusion().tolist() == confusion(predicted, truth, 3).tolist()


def test_rows_are_worst_first_and_those_without_a_score_last():
    truth = np.array([0, 0, 1, 1])
    scores = Scores(("a", "b"))
    scores.add("nothing", truth, np.full(4, IGNORED))
    scores.add("right", truth, truth)
    scores.add("wrong", 1 - truth, truth)
    scores.add("half", np.array([0, 0, 0, 1]), truth)
    assert [row["key"] for row in scores.rows()] == ["wrong", "half", "right", "nothing"]
    assert [row["mean_iou"] for row in scores.rows()][::3] == [0.0, None]


def test_tensors_and_arrays_of_any_whole_type_count_the_same():
    predicted, truth = maps((6, 6))
    expected = confusion(predicted, truth, 3).tolist()
    for kind in (np.uint8, np.int32, np.uint16):
        assert confusion(predicted.astype(kind), truth.astype(kind), 3).tolist() == expected
    assert confusion(torch.from_numpy(predicted), torch.from_numpy(truth), 3).tolist() == expected


def test_wrong_classes_and_shapes_are_one_clear_line():
    with pytest.raises(ValueError, match="predicted classes 0 to 1, not 0 to 2"):
        confusion(np.array([0, 2]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match="true classes 0 to 1, not -1 to 0"):
        confusion(np.array([0, 0]), np.array([0, -1]), 2)
    with pytest.raises(ValueError, match="expected classes"):
        confusion(np.zeros(3), np.zeros(4), 2)
    with pytest.raises(ValueError, match="expected scores of"):
        Scores(("a", "b")).merge(Scores(("b", "a")))


# -- surfaces -------------------------------------------------------------------------------------------


def surface_of(mask):
    """Pixels with a face on something else, or on the picture's edge, one by one."""
    points = []
    for at in np.argwhere(mask):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            beside = at.copy()
            beside[axis] += step
            outside = not 0 <= beside[axis] < mask.shape[axis]
            if outside or not mask[tuple(beside)]:
                points.append(at)
                break
    return np.array(points)


def by_hand(said, true, spacing, tolerance):
    p, t = (surface_of(mask) * np.array(spacing) for mask in (said, true))
    far = np.linalg.norm(p[:, None] - t[None], axis=2)
    d_p, d_t = far.min(1), far.min(0)
    q, r = (d_p <= tolerance).mean(), (d_t <= tolerance).mean()
    both = np.concatenate([d_p, d_t])
    return {
        "hd95": max(np.percentile(d_p, 95), np.percentile(d_t, 95)),
        "mean_distance": both.mean(),
        "surface_dice": (both <= tolerance).mean(),
        "boundary_f1": 2 * q * r / (q + r) if q + r else 0.0,
        "missed": False,
    }


@settings(deadline=None, max_examples=40)
@given(
    size=st.lists(st.integers(2, 7), min_size=1, max_size=3).map(tuple),
    seed=st.integers(0, 999),
    spacing=st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=3, max_size=3),
)
def test_surface_scores_are_those_of_every_pair_of_points(size, seed, spacing):
    rng = np.random.default_rng(seed)
    said, true = (rng.random(size) < 0.6 for _ in range(2))
    said.flat[0] = true.flat[-1] = True
    spacing = spacing[: len(size)]
    (ours,) = surface_scores(said.astype(int), true.astype(int), 2, tolerance=1.0, spacing=spacing)
    assert ours == pytest.approx({"class": 1} | by_hand(said, true, spacing, 1.0))


def test_the_largest_distance_is_scikit_images_hausdorff_distance_of_the_surfaces():
    rng = np.random.default_rng(3)
    said, true = (rng.random((20, 20)) < 0.1 for _ in range(2))
    p, t = surface_distances(said, true)
    assert max(p.max(), t.max()) == pytest.approx(hausdorff_distance(said, true))


def test_a_cube_moved_by_one_slice_is_one_slice_thickness_away():
    true, said = np.zeros((2, 9, 9, 9), int)
    true[2:6, 2:6, 2:6] = 1
    said[3:7, 2:6, 2:6] = 1
    spacing = (4.0, 1.0, 1.0)
    (row,) = surface_scores(said, true, 2, tolerance=0.5, spacing=spacing)
    assert row["hd95"] == 4.0
    (same,) = surface_scores(true, true, 2, tolerance=0.0, spacing=spacing)
    assert (same["hd95"], same["mean_distance"], same["surface_dice"]) == (0.0, 0.0, 1.0)


def test_absent_classes_have_no_distance_and_a_missed_one_says_so():
    empty, one = np.zeros((5, 5), int), np.zeros((5, 5), int)
    one[2, 2] = 1
    (both,) = surface_scores(empty, empty, 2, tolerance=1.0)
    assert both["hd95"] is both["surface_dice"] is both["boundary_f1"] is None
    assert not both["missed"]
    for said, true in ((empty, one), (one, empty)):
        (row,) = surface_scores(said, true, 2, tolerance=1.0)
        assert row["hd95"] is row["mean_distance"] is None
        assert (row["surface_dice"], row["boundary_f1"], row["missed"]) == (0.0, 0.0, True)


def test_ignored_pixels_are_of_no_surface():
    truth = np.zeros((6, 6), int)
    truth[1:3, 1:3] = 1
    truth[4:] = IGNORED
    said = np.where(truth == IGNORED, 1, truth)
    (row,) = surface_scores(said, truth, 2, tolerance=0.0)
    assert row["hd95"] == 0.0


def test_surfaces_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected classes"):
        surface_scores(np.zeros((2, 2)), np.zeros((2, 3)), 2, tolerance=1.0)
    with pytest.raises(ValueError, match="spacing of 2 lengths"):
        surface_scores(np.zeros((2, 2)), np.zeros((2, 2)), 2, tolerance=1.0, spacing=(1.0,))


# -- splits and mergers ---------------------------------------------------------------------------------

# Two cells with a membrane between them, and what a network may make of them.
TWO = np.repeat([[1, 1, 1, 0, 2, 2, 2]], 6, axis=0)


def pairs_of(true, said):
    """V by its definition: over all ordered pairs of different pixels inside true segments."""
    inside = np.flatnonzero(true.ravel())
    t, s = true.ravel()[inside], said.ravel()[inside]
    same_t, same_s = t[:, None] == t[None], s[:, None] == s[None]
    other = ~np.eye(len(inside), dtype=bool)
    both, in_t, in_s = ((x & other).sum() for x in (same_t & same_s, same_t, same_s))
    return both / (0.5 * in_t + 0.5 * in_s), both / in_t, both / in_s


def test_the_right_answer_scores_one_whatever_the_width_of_its_border():
    assert foreground_rand(TWO, TWO > 0) == {"rand": 1.0, "split": 1.0, "merge": 1.0}
    wide = TWO.copy()
    wide[:, 2:5] = 0
    assert foreground_rand(TWO, wide > 0)["rand"] == 1.0
    assert foreground_rand(TWO, wide > 0, thinned=False)["rand"] < 0.8


def test_a_merger_lowers_merge_and_a_split_lowers_split():
    merged = foreground_rand(TWO, np.ones_like(TWO))
    assert merged["split"] == 1.0
    assert merged["merge"] < 0.5
    cut = TWO.copy()
    cut[3:, :3] = 3
    split = foreground_rand(TWO, cut)
    assert split["merge"] == 1.0
    assert split["split"] < 0.8


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.booleans())
def test_the_scores_are_those_of_every_pair_of_pixels_and_of_scikit_image(seed, volume):
    rng = np.random.default_rng(seed)
    size = (3, 4, 4) if volume else (6, 7)
    true, said = rng.integers(0, 4, size), rng.integers(1, 4, size)
    ours = foreground_rand(true, said, thinned=False)
    expected = pairs_of(true, said)
    assert [ours["rand"], ours["split"], ours["merge"]] == pytest.approx(list(expected))
    assert 1 - ours["rand"] == pytest.approx(adapted_rand_error(true, said)[0])


def test_predicted_border_pixels_that_are_not_thinned_are_segments_of_their_own():
    rng = np.random.default_rng(5)
    true, said = rng.integers(0, 4, (6, 7)), rng.integers(0, 3, (6, 7))
    alone = np.where(said == 0, 100 + np.arange(42).reshape(6, 7), said)
    ours = foreground_rand(true, said, thinned=False)
    assert [ours["rand"], ours["split"], ours["merge"]] == pytest.approx(
        list(pairs_of(true, alone))
    )


def test_what_is_predicted_on_true_borders_does_not_matter_to_the_pairs():
    said = np.where(TWO == 0, 7, TWO)
    assert foreground_rand(TWO, said)["rand"] == 1.0


def test_a_mask_is_cut_into_its_parts_that_touch_by_faces():
    corner = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]], bool)
    apart = np.where(corner, [[1], [1], [2], [2]], 0)
    assert foreground_rand(apart, corner)["rand"] == 1.0
    assert foreground_rand(corner, corner)["rand"] == 1.0


def test_a_prediction_without_segments_scores_zero_and_an_empty_truth_nothing():
    assert foreground_rand(TWO, np.zeros_like(TWO, bool))["rand"] == 0.0
    assert foreground_rand(np.zeros_like(TWO), TWO > 0)["rand"] is None


def test_the_best_threshold_is_the_one_that_opens_no_membrane():
    probability = np.where(TWO > 0, 0.9, 0.45)
    best = best_foreground_rand([(TWO, probability), (TWO > 0, probability)])
    assert best["rand"] == 1.0
    assert best["threshold"] == 0.5
    assert [t for t, value in best["curve"] if value < 1.0] == [0.1, 0.2, 0.3, 0.4, 0.9]


def test_segmentations_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected a prediction"):
        foreground_rand(TWO, TWO[1:])
