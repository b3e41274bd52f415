"""The digits are scikit-learn's, scaled to the full range, and need no network."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from residua.data.pictures import open_pictures


def test_digits_are_the_1797_pictures_of_scikit_learn_scaled_to_255():
    opened = open_pictures("digits")
    assert opened.classes == tuple("0123456789")
    assert opened.channels == 1
    bunch = load_digits()
    seen = 0
    for split in opened.splits.values():
        assert split.array is not None and split.array.shape[1:] == (8, 8, 1)
        for i, name in enumerate(split.names):
            row = int(name.split("/")[1])
            assert np.array_equal(split.read(i)[..., 0], np.rint(bunch.images[row] * 255 / 16))
            assert split.labels[i] == bunch.target[row]
            seen += 1
    assert seen == 1797


def test_digits_are_divided_80_10_10_with_every_class_in_each():
    splits = open_pictures("digits").splits
    assert {key: len(split) for key, split in splits.items()} == {
        "train": 1437,
        "val": 180,
        "test": 180,
    }
    for split in splits.values():
        assert np.bincount(split.labels).min() >= 0.09 * len(split)
