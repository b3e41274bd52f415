"""Sentences and figures say what the numbers say, and no more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.report.figures import Clock, log_ticks, mark_steps, thin
from residua.report.numbers import percent, wilson_interval
from residua.report.reading import (
    Matrix,
    calibration_sentence,
    class_sentence,
    learning_sentences,
    size_sentence,
)


def test_the_wilson_interval_is_where_the_score_test_turns():
    """Its ends p solve (k/n - p)^2 = z^2 p (1 - p) / n."""
    for correct, n in ((0, 10), (7, 10), (9310, 10_000), (10, 10)):
        for p in wilson_interval(correct, n):
            assert (correct / n - p) ** 2 == pytest.approx(
                1.959963984540054**2 * p * (1 - p) / n, abs=1e-12
            )


@given(st.floats(0, 1))
def test_only_all_is_called_100_percent_and_only_nothing_0(share):
    text = percent(share)
    if 1e-7 < share < 1 - 1e-7:
        assert 0 < float(text[:-2]) < 100


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=500), st.integers(1, 50))
def test_thinning_keeps_the_mean_and_the_order(values, most):
    xs, ys = thin(list(range(len(values))), values, most)
    assert len(xs) == len(ys) <= max(most, 1)
    assert xs == sorted(xs)
    if len(values) % most == 0 and len(values) > most:
        assert sum(ys) / len(ys) == pytest.approx(sum(values) / len(values), abs=1e-6)


def test_thinning_leaves_out_what_is_not_finite():
    assert thin([0, 1, 2, 3], [None, 2.0, None, None], 2) == ([0.5, 2.5], [2.0, None])


def test_the_clock_goes_straight_between_rows_and_on_after_the_last():
    clock = Clock(
        [{"step": 10, "epoch": 1, "minutes": 2.0}, {"step": 20, "epoch": 2, "minutes": 3}]
    )
    assert [clock.at("minutes", step) for step in (0, 5, 10, 15, 20, 30)] == [0, 1, 2, 2.5, 3, 4]
    assert clock.units == ["minutes", "epoch", "step"]
    assert mark_steps(clock, [15]) == [{"minutes": 2.5, "epoch": 1.5, "step": 15}]


def test_a_clock_without_history_knows_steps_only():
    assert Clock([]).units == ["step"]
    assert Clock([{"step": math.nan, "epoch": 1}]).x_by([3]) == {"step": [3]}


@given(st.floats(1e-9, 1e3), st.floats(3, 1e9))
def test_a_logarithmic_axis_has_round_ticks_within_it(low, ratio):
    ticks = log_ticks(low, low * ratio)
    assert 1 <= len(ticks) <= 12
    assert all(low / 1.06 <= tick <= low * ratio * 1.06 for tick in ticks)


def test_confusions_are_sorted_by_pictures_then_by_share():
    matrix = Matrix.of([[8, 2, 0], [0, 3, 2], [1, 0, 9]], ["a", "b", "c"])
    assert [(c.truth, c.answer, c.number, c.total) for c in matrix.top(9)] == [
        ("b", "c", 2, 5), ("a", "b", 2, 10), ("c", "a", 1, 10),
    ]  # fmt: skip
    assert (matrix.pictures, matrix.mistakes, matrix.commonest_share) == (25, 5, 0.4)
    assert matrix.most_confused(2) == [1, 2]


def test_a_class_without_a_name_gets_its_number():
    assert Matrix.of([[1, 0], [0, 1]], ["a"]).names == ["a", "class 1"]


@pytest.mark.parametrize(
    ("confidence", "accuracy", "words"),
    [(0.9, 0.7, "too sure of itself"), (0.7, 0.9, "more often right"), (0.8, 0.8, "as sure as it")],
)
def test_calibration_says_which_way_it_leans(confidence, accuracy, words):
    bins = [{"confidence": confidence, "accuracy": accuracy, "count": 10}]
    ece = abs(confidence - accuracy)
    assert words in calibration_sentence({"ece": ece, "bins": bins})


def test_a_rising_validation_loss_is_named():
    rows = [{"epoch": e, "val_loss": loss} for e, loss in enumerate([2.0, 1.0, 1.5])]
    assert "rose by 50 %" in learning_sentences(rows)[0].replace("\xa0", " ")
    assert learning_sentences([*rows[:2], {"epoch": 3, "val_loss": 1.01}]) == []


def test_the_best_accuracy_is_told_with_its_end():
    rows = [{"epoch": e, "val_accuracy": a} for e, a in enumerate([0.5, 0.9, 0.8])]
    (text,) = learning_sentences(rows)
    assert "best (epoch 1) at 90.0 %; it ended at 80.0 %" in text.replace("\xa0", " ")


def test_classes_found_equally_often_have_no_best():
    rows = [{"name": name, "recall": 0.5} for name in "ab"]
    assert "equally often" in class_sentence(rows)


def test_sizes_are_told_as_width_by_height():
    assert size_sentence({"min": [8, 8], "median": [8, 8], "max": [8, 8]}) == "8 × 8 pixels"
    sizes = {"min": [90, 120], "median": [375, 500], "max": [768, 1024]}
    assert size_sentence(sizes) == "120 × 90 to 1024 × 768, median 500 × 375 pixels"
