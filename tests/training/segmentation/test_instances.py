"""Touching objects: targets by definition, taken apart again, and scores against brute force."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.detection import PanopticQuality

from residua.training.segmentation.instances import (
    BACKGROUND,
    BORDER,
    INSIDE,
    distance_target,
    from_border_classes,
    from_distance,
    from_foreground,
    to_border_classes,
)
from residua.training.segmentation.matching import (
    THRESHOLDS,
    InstanceScores,
    matched,
    overlaps,
)


def balls(dims, seed=0):
    """Touching balls of radius 5 to 7 in a row, numbered with gaps: each cuts the one before."""
    rng = np.random.default_rng(seed)
    labels = np.zeros([40] + [18] * (dims - 1), int)
    grid = np.indices(labels.shape)
    for number, x in enumerate((8, 19, 30)):
        centre = np.array([x] + [9] * (dims - 1)).reshape(-1, *[1] * dims)
        labels[((grid - centre) ** 2).sum(0) <= rng.integers(5, 8) ** 2] = 3 * number + 2
    return labels


def same(one, other):
    """Equal but for the numbers."""
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    first, second = pairs
    zero = ((first == 0) == (second == 0)).all()
    return zero and len(set(first)) == len(first) and len(set(second)) == len(second)


def one_hot(classes):
    return np.stack([classes == k for k in range(3)]).astype(np.float32)


# -- targets --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_border_is_every_pixel_of_an_object_beside_something_else(dims):
    labels = balls(dims)
    classes = to_border_classes(labels)
    padded = np.pad(labels, 1, mode="edge")
    for at in np.ndindex(labels.shape):
        around = padded[tuple(slice(i, i + 3) for i in at)]
        alone = INSIDE if (around == labels[at]).all() else BORDER
        assert classes[at] == (alone if labels[at] else BACKGROUND)


def test_the_thinnest_object_keeps_one_pixel_inside():
    labels = np.zeros((5, 9), int)
    labels[2, 1:8] = 4
    labels[0, 0] = 9
    classes = to_border_classes(labels)
    for number in (4, 9):
        assert (classes[labels == number] == INSIDE).sum() == 1
    assert same(from_border_classes(one_hot(classes)), labels)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_distance_is_to_the_nearest_pixel_of_another_label(dims):
    labels = balls(dims)[:26]
    spacing = (0.5, 2.0, 1.0)[:dims]
    ours = distance_target(labels, spacing=spacing, normalise=False)
    points = np.indices(labels.shape).reshape(dims, -1).T * spacing
    flat = labels.ravel()
    for at in range(0, flat.size, 7):
        others = points[flat != flat[at]]
        nearest = np.linalg.norm(others - points[at], axis=1).min() if flat[at] else 0.0
        assert ours.ravel()[at] == pytest.approx(nearest, rel=1e-6)


def test_every_object_is_one_in_its_middle():
    labels = balls(2)
    distance = distance_target(labels)
    assert [distance[labels == n].max() for n in (2, 5, 8)] == [1.0, 1.0, 1.0]
    assert (distance[labels == 0] == 0).all()
    assert (distance[labels > 0] > 0).all()


def test_an_object_that_fills_the_picture_has_no_border():
    full = np.full((4, 6), 3)
    assert (to_border_classes(full) == INSIDE).all()
    assert (distance_target(full) == 1.0).all()
    assert (distance_target(full, normalise=False) == 6.0).all()
    assert same(from_foreground(full.astype(float)), full)


def test_a_picture_without_objects_stays_without():
    empty = np.zeros((4, 6), int)
    assert not to_border_classes(empty).any()
    assert not distance_target(empty).any()
    assert not from_border_classes(one_hot(empty)).any()
    assert not from_distance(empty.astype(float)).any()
    assert not from_foreground(empty.astype(float)).any()


# -- taken apart ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_touching_objects_come_back_from_their_targets(dims, seed):
    labels = balls(dims, seed)
    scores = InstanceScores()
    scores.add("border", from_border_classes(one_hot(to_border_classes(labels))), labels)
    scores.add("distance", from_distance(distance_target(labels), foreground=0.0), labels)
    assert scores.result()["ap"][0.95] == 1.0


@pytest.mark.parametrize("dims", [2, 3])
def test_touching_balls_come_apart_by_their_shape_alone(dims):
    labels = balls(dims)
    scores = InstanceScores()
    scores.add(0, from_foreground((labels > 0).astype(float)), labels)
    assert scores.result()["predicted"] == 3
    assert scores.result()["ap"][0.75] == 1.0


def test_small_objects_go_and_the_others_are_numbered_without_gaps():
    labels = balls(2)
    labels[0, 0] = 20
    classes = one_hot(to_border_classes(labels))
    assert len(np.unique(from_border_classes(classes))) == 5
    kept = from_border_classes(classes, min_size=2)
    assert np.unique(kept).tolist() == [0, 1, 2, 3]
    assert kept[0, 0] == 0


def test_three_classes_are_expected():
    with pytest.raises(ValueError, match="expected 3 classes, not 2"):
        from_border_classes(np.zeros((2, 4, 4)))


# -- scores ---------------------------------------------------------------------------------------------


def crowd(seed, size=(8, 8), objects=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, objects + 1, size)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), dims=st.integers(1, 3))
def test_overlaps_are_the_iou_of_each_pair_of_masks(seed, dims):
    size = (5,) * dims
    truth, predicted = crowd(seed, size), crowd(seed + 1, size)
    ours = overlaps(predicted, truth).toarray()
    true, said = ([n for n in np.unique(x) if n] for x in (truth, predicted))
    assert ours.shape == (len(true), len(said))
    for (i, a), (j, b) in itertools.product(enumerate(true), enumerate(said)):
        both = ((truth == a) & (predicted == b)).sum()
        either = ((truth == a) | (predicted == b)).sum()
        assert ours[i, j] == pytest.approx(both / either)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    seed=st.integers(0, 999),
    t=st.floats(0.1, 0.9),
)
def test_no_other_pairing_has_more_pairs_or_a_larger_iou(rows, columns, seed, t):
    iou = np.random.default_rng(seed).random((rows, columns))
    wide = iou if rows <= columns else iou.T
    best = max(
        (sum(v >= t for v in values), sum(v for v in values if v >= t))
        for values in (
            [wide[i, j] for i, j in enumerate(chosen)]
            for chosen in itertools.permutations(range(wide.shape[1]), wide.shape[0])
        )
    )
    found = iou[matched(iou, t)]
    assert (len(found), found.sum()) == pytest.approx(best)


def test_average_precision_of_a_case_by_hand():
    # Three true objects of 10 pixels: one found whole, one found to 8 of 10, one missed; one made up.
    truth = np.repeat([1, 2, 3, 0], 10)
    predicted = np.concatenate([[7] * 10, [8] * 8, [0] * 12, [9] * 10])
    scores = InstanceScores()
    scores.add("a", predicted, truth)
    result = scores.result()
    for threshold, value in result["ap"].items():
        assert value == pytest.approx(2 / 4 if threshold <= 0.8 else 1 / 5)
    assert result["mean_ap"] == pytest.approx((7 * 0.5 + 3 * 0.2) / 10)
    assert result["f1"] == pytest.approx(4 / 6)
    assert (result["precision"], result["recall"]) == pytest.approx((2 / 3, 2 / 3))
    assert result["pq"] == pytest.approx(1.8 / (2 + 0.5 + 0.5))
    assert result["pq"] == pytest.approx(result["sq"] * result["rq"])


def test_thresholds_are_reached_by_the_iou_that_equals_them():
    for threshold in THRESHOLDS:
        n = round(threshold * 20)
        truth = np.ones(20, int)
        predicted = (np.arange(20) < n).astype(int)
        scores = InstanceScores()
        scores.add(0, predicted, truth)
        assert scores.result()["ap"][threshold] == 1.0


def test_an_object_split_in_halves_is_found_once_and_has_no_quality():
    scores = InstanceScores()
    scores.add(0, np.repeat([1, 2], 10), np.ones(20, int))
    assert scores.result()["ap"][0.5] == 0.5  # IoU 0.5 twice; one pair alone
    assert scores.result()["pq"] == 0.0  # no IoU above 0.5


@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_is_that_of_torchmetrics(seed):
    rng = np.random.default_rng(seed)
    theirs = PanopticQuality(things={1}, stuffs={0}, return_per_class=True)
    ours = InstanceScores()
    for key in range(3):
        truth = np.kron(crowd(seed + key, (4, 4), 6), np.ones((3, 3), int))
        predicted = np.where(rng.random(truth.shape) < 0.2, 0, truth)
        predicted[predicted == 2] = 3
        ours.add(key, predicted, truth)
        theirs.update(
            *(
                torch.from_numpy(np.stack([x > 0, x], -1).astype(int))[None]
                for x in (predicted, truth)
            )
        )
    assert ours.result()["pq"] == pytest.approx(theirs.compute()[0, 0].item())


def test_pictures_without_objects_have_no_score_and_change_no_other():
    truth = balls(2)
    one, two = InstanceScores(), InstanceScores()
    for scores in (one, two):
        scores.add("cells", truth, truth)
    two.add("empty", np.zeros((4, 4), int), np.zeros((4, 4), int))
    assert two.result() == one.result() | {"pictures": 2}
    assert [row["key"] for row in two.rows()] == ["cells", "empty"]
    assert two.rows()[1]["mean_ap"] is two.rows()[1]["pq"] is None
    assert InstanceScores().result()["mean_ap"] is None


def test_an_object_where_none_is_scores_zero():
    scores = InstanceScores()
    scores.add(0, balls(2), np.zeros_like(balls(2)))
    assert (scores.result()["mean_ap"], scores.result()["pq"]) == (0.0, 0.0)
    assert scores.result()["recall"] is None


def test_ranks_add_up_to_the_whole_and_a_padded_duplicate_counts_once():
    pairs = [(crowd(2 * i), crowd(2 * i + 1)) for i in range(4)]
    whole, one, other = InstanceScores(), InstanceScores(), InstanceScores()
    for key, pair in enumerate(pairs):
        whole.add(key, *pair)
    for scores, keys in ((one, (0, 2)), (other, (1, 3, 0))):
        for key in keys:
            scores.add(key, *pairs[key])
    one.merge(other)
    assert one.result() == whole.result()


def test_ignored_pixels_are_of_no_object():
    truth = np.repeat([1, 1, 0], 10)
    predicted = np.repeat([1, 2, 2], 10)
    scores = InstanceScores()
    scores.add(0, predicted, truth, ignored=np.arange(30) >= 10)
    assert scores.result()["mean_ap"] == 1.0


def test_objects_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="expected objects"):
        overlaps(np.zeros((2, 2), int), np.zeros((2, 3), int))
