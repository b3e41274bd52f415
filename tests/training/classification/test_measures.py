"""Loss and measures against their definitions, scikit-learn and brute force."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import (
    confusion_matrix,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from residua.training.classification.measures import (
    Predictions,
    calibration,
    classification_loss,
    scores_by_class,
    summary,
    wilson,
)


def scores(n, classes, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, classes, generator=generator) * scale
    return z, torch.randint(classes, (n,), generator=generator)


def predictions(n=200, classes=7, seed=0, scale=2.0):
    z, labels = scores(n, classes, seed, scale)
    return Predictions.of(z, labels, np.arange(n)), z, labels


# -- the loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_minus_the_sum_of_targets_times_log_softmax(smoothing):
    z, labels = scores(50, 6)
    targets = F.one_hot(labels, 6) * (1 - smoothing) + smoothing / 6
    by_hand = -(targets * (z - z.logsumexp(1, keepdim=True))).sum(1).mean()
    found = classification_loss("cross_entropy", z, labels, smoothing)
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_is_a_mean_over_classes_and_pictures(smoothing):
    z, labels = scores(50, 6)
    t = F.one_hot(labels, 6) * (1 - smoothing) + smoothing / 6
    s = 1 / (1 + (-z).exp())
    by_hand = -(t * s.log() + (1 - t) * (1 - s).log()).mean()
    found = classification_loss("binary_cross_entropy", z, labels, smoothing)
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy"])
def test_soft_targets_are_taken_as_they_are_and_one_hot_ones_are_class_numbers(kind):
    z, labels = scores(50, 6)
    hot = F.one_hot(labels, 6).float()
    of_numbers = classification_loss(kind, z, labels)
    torch.testing.assert_close(classification_loss(kind, z, hot), of_numbers)
    # `mix` has smoothed soft targets already: smoothing them again would change them
    torch.testing.assert_close(classification_loss(kind, z, hot, 0.3), of_numbers)
    half = (hot + hot.roll(1, 0)) / 2
    mean = (of_numbers + classification_loss(kind, z, hot.roll(1, 0))) / 2
    torch.testing.assert_close(classification_loss(kind, z, half), mean)


# -- predictions -----------------------------------------------------------------------------------------


def test_predictions_are_read_off_the_scores():
    found, z, labels = predictions()
    p = z.double().softmax(1).numpy()
    rows = np.arange(len(p))
    assert np.array_equal(found.predicted, p.argmax(1))
    assert found.confidence == pytest.approx(p.max(1), rel=1e-5)
    assert found.truth_confidence == pytest.approx(p[rows, labels], rel=1e-5)
    assert found.loss == pytest.approx(-np.log(p[rows, labels]), rel=1e-5)


def test_joined_parts_are_in_the_order_of_their_index():
    whole, z, labels = predictions(90)
    order = np.random.default_rng(0).permutation(90)
    parts = [
        Predictions.of(z[rows], labels[rows], rows) for rows in np.split(order, [10, 11, 60, 60])
    ]
    joined = Predictions.joined(parts)
    for name in Predictions.__annotations__:
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name


def test_a_summary_is_what_scikit_learn_says():
    found, z, labels = predictions()
    p = z.double().softmax(1).numpy()
    measures = summary(found, 7)
    assert measures["n"] == 200
    assert measures["accuracy"] == pytest.approx((p.argmax(1) == labels.numpy()).mean())
    assert measures["top5"] == pytest.approx(top_k_accuracy_score(labels, p, k=5))
    assert measures["loss"] == pytest.approx(log_loss(labels, p), rel=1e-6)
    assert measures["interval"] == wilson(int(found.correct.sum()), 200)


def test_top_5_is_left_out_where_it_says_nothing():
    found, *_ = predictions(classes=5)
    assert summary(found, 5)["top5"] is None


@settings(deadline=None)
@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_wilsons(case):
    hits, n = case
    theirs = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


# -- by class --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_scores_by_class_are_scikit_learns(classes):
    found, *_ = predictions(60, classes, scale=1.0)
    # the last class is never predicted, and the first has no pictures
    found.predicted[found.predicted == classes - 1] = 0
    found.label[found.label == 0] = 1
    names = tuple(f"class {k}" for k in range(classes))
    result = scores_by_class(found, names)
    known = list(range(classes))
    assert (
        result["confusion"] == confusion_matrix(found.label, found.predicted, labels=known).tolist()
    )
    precision, recall, f1, support = precision_recall_fscore_support(
        found.label, found.predicted, labels=known, zero_division=0
    )
    for k, row in enumerate(result["per_class"]):
        assert row["name"] == names[k]
        expected = (precision[k], recall[k], f1[k], support[k])
        assert (row["precision"], row["recall"], row["f1"], row["support"]) == pytest.approx(
            expected
        )


# -- calibration -----------------------------------------------------------------------------------------


def expected_calibration_error(confidence, correct, bins=15):
    total = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total


@pytest.mark.parametrize("scale", [0.5, 2.0, 8.0])
def test_the_calibration_error_is_that_of_guo_2017(scale):
    found, *_ = predictions(500, 7, scale=scale)
    result = calibration(found)
    by_hand = expected_calibration_error(found.confidence.astype(np.float64), found.correct)
    assert result["ece"] == pytest.approx(by_hand, abs=1e-5)


def test_the_bins_hold_every_picture_once_and_add_up_to_the_error():
    found, *_ = predictions(500, 7)
    result = calibration(found)
    counts = np.array([b["count"] for b in result["bins"]])
    gaps = np.array([abs(b["confidence"] - b["accuracy"]) for b in result["bins"]])
    assert counts.sum() == 500
    assert (counts > 0).all()
    assert (counts * gaps).sum() / 500 == pytest.approx(result["ece"], abs=1e-5)


def test_a_network_that_is_sure_and_right_is_calibrated_one_that_is_sure_and_wrong_is_not():
    labels = torch.arange(40) % 4
    z = F.one_hot(labels, 4) * 200.0  # the softmax is 1 in float32
    right = Predictions.of(z, labels, np.arange(40))
    wrong = Predictions.of(z, (labels + 1) % 4, np.arange(40))
    assert calibration(right)["ece"] == pytest.approx(0.0, abs=1e-6)
    assert calibration(wrong)["ece"] == pytest.approx(1.0, abs=1e-6)
    assert calibration(wrong)["bins"] == [{"confidence": 1.0, "accuracy": 0.0, "count": 40}]


def test_a_mixed_picture_shows_both_its_classes_where_a_threshold_says_so() -> None:
    z = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    mixed = torch.tensor([[0.7, 0.3, 0.0]], dtype=torch.float64)
    both = torch.tensor([[1.0, 1.0, 0.0]], dtype=torch.float64)
    found = classification_loss("binary_cross_entropy", z, mixed, threshold=0.2)
    assert found == classification_loss("binary_cross_entropy", z, both)
    rare = classification_loss("binary_cross_entropy", z, mixed, threshold=0.5)
    assert rare > 0 and rare != found
