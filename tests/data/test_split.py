"""A split is disjoint, complete, stratified, and decided by the seed and the names alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.data import split
from residua.data.pictures import Source, Split
from residua.errors import BadInput

sizes = st.lists(st.integers(0, 60), min_size=1, max_size=6).filter(lambda n: max(n) >= 2)
seeds = st.integers(0, 2**31)
fractions = st.floats(0.02, 0.5)


def source(counts, given=None) -> Source:
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{label}/{i}" for i, label in enumerate(labels)]
    pixels = np.zeros((len(labels), 1, 1, 1), np.uint8)
    classes = tuple(str(i) for i in range(len(counts)))
    return Source("made", "here", classes, Split(labels, names, 1, array=pixels), given)


@given(sizes, seeds, fractions)
def test_every_picture_is_in_exactly_one_split(counts, seed, fraction):
    rows, record, _ = split.divide(source(counts), seed=seed, val_fraction=fraction)
    every = np.concatenate(list(rows.values()))
    assert sorted(every.tolist()) == list(range(sum(counts)))
    assert ("test" in rows) == (sum(counts) >= 100)
    assert len(rows["val"]) >= 1
    assert sum(len(names) for names in record["splits"].values()) == sum(counts)


@given(sizes, seeds, fractions)
def test_each_class_gives_its_share_and_keeps_one_for_training(counts, seed, fraction):
    made = source(counts)
    rows = np.arange(sum(counts))
    held, rest = split.hold_out(made.pictures.names, made.pictures.labels, rows, fraction, seed)
    for label, n in enumerate(counts):
        got = int((made.pictures.labels[held] == label).sum())
        assert abs(got - n * fraction) <= 1
        assert n == 0 or (made.pictures.labels[rest] == label).any()
        assert n < 3 or got >= 1


@given(sizes, seeds, fractions)
def test_the_number_held_out_is_right_up_to_one_for_each_small_class(counts, seed, fraction):
    made = source(counts)
    rows = np.arange(sum(counts))
    held, _ = split.hold_out(made.pictures.names, made.pictures.labels, rows, fraction, seed)
    assert abs(len(held) - round(sum(counts) * fraction)) <= len(counts)


@given(sizes, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_files_does_not_matter(counts, seed, random):
    made = source(counts)
    order = list(range(sum(counts)))
    random.shuffle(order)
    shuffled = Source("made", "here", made.classes, made.pictures.take(order))
    _, first, _ = split.divide(made, seed=seed, val_fraction=0.1)
    _, second, _ = split.divide(shuffled, seed=seed, val_fraction=0.1)
    for key, names in first["splits"].items():
        assert set(names) == set(second["splits"][key])


def test_the_seed_decides():
    made = source([200, 200])
    splits = [split.divide(made, seed=s, val_fraction=0.1)[1]["splits"]["val"] for s in (1, 1, 2)]
    assert splits[0] == splits[1]
    assert splits[0] != splits[2]


def test_a_hundred_pictures_or_more_are_divided_80_10_10():
    rows, record, _ = split.divide(source([500, 500]), seed=0, val_fraction=0.1)
    assert {key: len(index) for key, index in rows.items()} == {
        "train": 800,
        "val": 100,
        "test": 100,
    }
    assert record["how"] == {"train": "made", "val": "made", "test": "made"}


def test_given_train_and_test_stay_and_validation_is_held_out_of_train():
    given = {"train": np.arange(0, 80), "test": np.arange(80, 100)}
    rows, record, _ = split.divide(source([50, 50], given), seed=3, val_fraction=0.25)
    assert rows["test"].tolist() == list(range(80, 100))
    assert len(rows["val"]) == 20
    assert set(rows["val"]) | set(rows["train"]) == set(range(80))
    assert record["how"] == {"train": "made", "val": "made", "test": "given"}


def test_given_splits_are_not_touched():
    given = {"train": np.arange(0, 6), "val": np.arange(6, 8), "test": np.arange(8, 10)}
    rows, record, notes = split.divide(source([5, 5], given), seed=0, val_fraction=0.5)
    assert {key: index.tolist() for key, index in rows.items()} == {
        key: index.tolist() for key, index in given.items()
    }
    assert set(record["how"].values()) == {"given"}
    assert notes == []


@given(sizes, seeds)
def test_a_record_gives_the_same_split_again_after_a_trip_through_json(counts, seed):
    made = source(counts)
    rows, record, _ = split.divide(made, seed=seed, val_fraction=0.2)
    again, second, notes = split.repeat(made, json.loads(json.dumps(record)))
    assert {k: v.tolist() for k, v in rows.items()} == {k: v.tolist() for k, v in again.items()}
    assert second == record
    assert notes == []


def test_a_record_whose_picture_is_gone_names_it():
    _, record, _ = split.divide(source([20, 20]), seed=0, val_fraction=0.2)
    with pytest.raises(BadInput, match=r"1 of the recorded pictures are gone \(1/39\)"):
        split.repeat(source([20, 19]), record)


def test_new_pictures_do_not_enter_a_recorded_split():
    _, record, _ = split.divide(source([20, 20]), seed=0, val_fraction=0.2)
    rows, _, notes = split.repeat(source([20, 22]), record)
    assert sum(len(index) for index in rows.values()) == 40
    assert notes == ["2 pictures are not in the recorded split and are left out"]


def test_a_damaged_record_is_refused():
    with pytest.raises(BadInput, match="splits"):
        split.repeat(source([3, 3]), {"how": {}})


def test_one_picture_a_class_cannot_be_split():
    with pytest.raises(BadInput, match="no class with two pictures"):
        split.divide(source([1, 1, 1]), seed=0, val_fraction=0.1)
