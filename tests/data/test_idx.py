"""IDX files are read plain and packed, and a header that does not fit its file is named."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as arrays

from residua.data.idx import FASHION_CLASSES, read_idx
from residua.data.pictures import open_pictures
from residua.errors import BadInput


def idx_bytes(values: np.ndarray) -> bytes:
    sizes = struct.pack(f">{values.ndim}I", *values.shape)
    return bytes([0, 0, 8, values.ndim]) + sizes + values.tobytes()


@pytest.fixture
def mnist_files(draw):
    """Write the four files of a small MNIST; return the arrays."""

    def make(folder: Path, packed: bool, classes: int = 10):
        folder.mkdir(parents=True, exist_ok=True)
        found = {}
        for seed, (split, n) in enumerate({"train": 40, "t10k": 20}.items()):
            found[split] = draw((n, 6, 5), seed), np.arange(n, dtype=np.uint8) % classes
            for what, values in zip(("images-idx3", "labels-idx1"), found[split], strict=True):
                data, name = idx_bytes(values), f"{split}-{what}-ubyte"
                if packed:
                    data, name = gzip.compress(data), f"{name}.gz"
                (folder / name).write_bytes(data)
        return found

    return make


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)))
def test_any_array_of_bytes_comes_back(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "any-idx"
    path.write_bytes(idx_bytes(values))
    assert np.array_equal(read_idx(path), values)


@pytest.mark.parametrize("packed", [True, False])
def test_a_folder_of_idx_files_is_a_set(tmp_path, mnist_files, packed):
    arrays_ = mnist_files(tmp_path / "mine", packed)
    opened = open_pictures(tmp_path / "mine")
    assert opened.channels == 1
    assert opened.classes == tuple("0123456789")
    test = opened.splits["test"]
    assert np.array_equal(np.stack([test.read(i)[..., 0] for i in range(20)]), arrays_["t10k"][0])
    assert test.labels.tolist() == arrays_["t10k"][1].tolist()
    assert len(opened.splits["train"]) + len(opened.splits["val"]) == 40


@pytest.mark.parametrize("place", [".", "fashion_mnist", "FashionMNIST/raw"])
def test_a_named_set_is_found_where_it_usually_lies(tmp_path, mnist_files, place):
    mnist_files(tmp_path / place, packed=True)
    opened = open_pictures("fashion-mnist", data=tmp_path, download=False)
    assert opened.classes == FASHION_CLASSES
    assert opened.name == "fashion_mnist"


def test_labels_with_gaps_become_classes_without(tmp_path, draw):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(draw((12, 4, 4))))
    labels = np.array([1, 26, 7] * 4, np.uint8)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    opened = open_pictures(tmp_path)
    assert opened.classes == ("1", "7", "26")
    assert set(opened.splits) == {"train", "val"}


def test_a_missing_file_of_a_named_set_says_what_to_get_and_where_to_put_it(tmp_path):
    with pytest.raises(BadInput) as caught:
        open_pictures("mnist", data=tmp_path, download=False)
    message = str(caught.value)
    assert "\n" not in message
    assert "get train-images-idx3-ubyte.gz from https://" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is no IDX file"),
        (b"\x89PNG", "is no IDX file"),
        (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", "IDX type 0x0d; expected bytes"),
        (b"\0\0\x08\3\0\0", "ends within its header"),
        (b"\0\0\x08\1\0\0\0\5abc", "announces 5 values but it holds 3"),
        (b"\0\0\x08\1\0\0\0\2abc", "announces 2 values but it holds more"),
        (b"\0\0\x08\3" + b"\xff" * 12 + b"abc", "but it holds 3"),
    ],
)
def test_a_header_that_does_not_fit_is_named(tmp_path, data, expected):
    for name, content in {"a-idx": data, "a-idx.gz": gzip.compress(data)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput) as caught:
            read_idx(tmp_path / name)
        assert expected in str(caught.value)
        assert name in str(caught.value)


def test_a_truncated_packed_file_is_named(tmp_path, draw):
    packed = gzip.compress(idx_bytes(draw((50, 9, 9))))
    (tmp_path / "a-idx.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadInput, match=r"a-idx\.gz: cannot be read"):
        read_idx(tmp_path / "a-idx.gz")


def test_labels_that_do_not_match_their_pictures_are_named(tmp_path, draw):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx_bytes(draw((12, 4, 4))))
    with pytest.raises(BadInput, match="no labels for train"):
        open_pictures(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(draw((11,))))
    with pytest.raises(BadInput, match="11 labels for 12 pictures"):
        open_pictures(tmp_path)


def test_a_label_beyond_the_classes_of_a_named_set_is_refused(tmp_path, mnist_files):
    mnist_files(tmp_path, packed=False, classes=12)
    with pytest.raises(BadInput, match=r"has the label 11; expected 0\.\.9"):
        open_pictures("mnist", data=tmp_path, download=False)
