"""CIFAR archives are read in all forms, and a pickle that would run code is not run."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from residua.data import cifar, unpickle
from residua.data.pictures import open_pictures
from residua.errors import BadInput

N = 4  # pictures a batch


def refusal(source, **options) -> str:
    with pytest.raises(BadInput) as caught:
        open_pictures(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def batch(seed: int, classes: int) -> tuple[np.ndarray, list[int]]:
    random = np.random.default_rng(seed)
    planes = random.integers(0, 256, (N, 3072), dtype=np.uint8)
    return planes, random.integers(0, classes, N // 2).repeat(2).tolist()


def python_form(name: str, protocol: int = 2) -> dict[str, bytes]:
    """Return the files of the python form, with the keys that the official ones have."""
    ten = name == "cifar10"
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if ten else ["train", "test"]
    content = {}
    for seed, file in enumerate(files):
        planes, labels = batch(seed, 10 if ten else 100)
        table = {b"data": planes, b"batch_label": b"batch", b"filenames": [b"x.png"] * N}
        if ten:
            table[b"labels"] = labels
        else:
            table |= {b"fine_labels": labels, b"coarse_labels": [0] * N}
        content[file] = pickle.dumps(table, protocol=protocol)
    return content


def binary_form(name: str) -> dict[str, bytes]:
    ten = name == "cifar10"
    files = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"] if ten else ["train", "test"]
    content = {}
    for seed, file in enumerate(files):
        planes, labels = batch(seed, 10 if ten else 100)
        coarse = b"" if ten else b"\x00"
        records = [coarse + bytes([y]) + p.tobytes() for p, y in zip(planes, labels, strict=True)]
        content[f"{file}.bin"] = b"".join(records)
    return content


def unpacked(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def packed(path: Path, files: dict[str, bytes], prefix: str = "cifar/") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def assert_is_what_was_written(opened, name: str) -> None:
    batches = 6 if name == "cifar10" else 2
    classes = 10 if name == "cifar10" else 100
    planes, labels = zip(*(batch(seed, classes) for seed in range(batches)), strict=True)
    pixels = np.concatenate(planes).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    wanted = dict(
        zip(
            enumerate_names(batches),
            zip(pixels, np.concatenate(labels).tolist(), strict=True),
            strict=True,
        )
    )
    assert opened.name == name
    assert len(opened.classes) == classes
    assert sum(len(split) for split in opened.splits.values()) == N * batches
    assert len(opened.splits["test"]) == N
    for split in opened.splits.values():
        for i, picture in enumerate(split.names):
            assert np.array_equal(split.read(i), wanted[picture][0])
            assert split.labels[i] == wanted[picture][1]


def enumerate_names(batches: int) -> list[str]:
    train = [f"train/{i:05d}" for i in range(N * (batches - 1))]
    return [*train, *(f"test/{i:05d}" for i in range(N))]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", [python_form, binary_form])
@pytest.mark.parametrize("make", ["archive", "folder"])
def test_every_form_gives_the_pictures_that_were_written(tmp_path, name, form, make):
    files = form(name)
    write, place = (packed, "x.tar.gz") if make == "archive" else (unpacked, "x")
    source = write(tmp_path / place, files)
    assert_is_what_was_written(open_pictures(source), name)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_any_protocol_is_read(tmp_path, protocol):
    source = unpacked(tmp_path / "x", python_form("cifar10", protocol))
    assert_is_what_was_written(open_pictures(source), "cifar10")


def test_an_array_of_python_2_is_read():
    # As python 2.7 with numpy 1.7 wrote it: protocol 2, names of the old modules, strings as bytes.
    raw = (
        b"\x80\x02}U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        b"U\x01b\x87R(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06abcdeftbs."
    )
    table = unpickle.loads(raw, "batch")
    assert table[b"data"].tolist() == [[97, 98, 99], [100, 101, 102]]


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10", "cifar-10-python.tar.gz"), ("cifar100", "cifar-100-python.tar.gz")],
)
def test_a_named_set_is_found_in_its_folder(tmp_path, name, file):
    packed(tmp_path / file, python_form(name))
    assert_is_what_was_written(open_pictures(name, data=tmp_path, download=False), name)
    assert_is_what_was_written(open_pictures(name, data=tmp_path / file, download=False), name)


def test_a_named_set_is_found_unpacked_below_its_folder(tmp_path):
    unpacked(tmp_path / "cifar-10-batches-py", python_form("cifar10"))
    unpacked(tmp_path / "cifar-100-binary", binary_form("cifar100"))
    for name in ("cifar10", "cifar100"):
        assert_is_what_was_written(open_pictures(name, data=tmp_path, download=False), name)


def test_class_names_are_the_official_ones():
    assert len(cifar.CLASSES_100) == len(set(cifar.CLASSES_100)) == 100
    assert list(cifar.CLASSES_100) == sorted(cifar.CLASSES_100)
    assert cifar.CLASSES_10[3] == "cat"


@pytest.mark.parametrize("form", [python_form, binary_form])
def test_class_names_that_the_archive_brings_are_taken(tmp_path, form):
    names = [f"kind {i}" for i in range(10)]
    if form is python_form:
        meta = {"batches.meta": pickle.dumps({b"label_names": [n.encode() for n in names]}, 2)}
    else:
        meta = {"batches.meta.txt": "\n".join(names).encode() + b"\n\n"}
    source = unpacked(tmp_path / "x", form("cifar10") | meta)
    assert open_pictures(source).classes == tuple(names)


class Harmful:
    """Pickles as a call of os.system."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    files = python_form("cifar10")
    files["data_batch_3"] = pickle.dumps({b"data": Harmful(tmp_path / "mark")}, protocol=2)
    message = refusal(packed(tmp_path / "x.tar.gz", files))
    assert "data_batch_3" in message
    assert "posix.system" in message or "nt.system" in message
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "text",
    [
        b"cbuiltins\neval\n(V1+1\ntR.",
        b"cnumpy\nload\n(Vx\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cnumpy.core.multiarray\nscalar\n.",
        b"Pid\n.",
    ],
)
def test_nothing_but_plain_data_and_arrays_is_let_in(text):
    with pytest.raises(BadInput, match=r"asks for .* not run"):
        unpickle.loads(text, "batch")


def test_an_array_of_objects_is_refused():
    data = pickle.dumps(np.array([{}, []], dtype=object), protocol=2)
    with pytest.raises(BadInput, match="array of 'O8'"):
        unpickle.loads(data, "batch")


@pytest.mark.parametrize("cut", [0, 1, 10, 3000])
def test_a_damaged_pickle_is_named(tmp_path, cut):
    files = python_form("cifar10")
    files["data_batch_2"] = files["data_batch_2"][:cut]
    assert "data_batch_2: is no readable pickle" in refusal(unpacked(tmp_path / "x", files))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([1, 2], "holds no table"),
        ({b"data": [1], b"labels": [1]}, "no array of bytes under 'data'"),
        ({b"data": np.zeros((1, 3072), np.uint8)}, "no list of numbers under 'labels'"),
        ({b"data": np.zeros((1, 9), np.uint8), b"labels": [1]}, "expected (1, 3072)"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "the label 10; expected 0..9"),
    ],
)
def test_a_batch_with_other_content_is_named(tmp_path, table, expected):
    files = python_form("cifar10") | {"data_batch_4": pickle.dumps(table, 2)}
    message = refusal(unpacked(tmp_path / "x", files))
    assert "data_batch_4" in message
    assert expected in message


def test_a_missing_batch_is_named(tmp_path):
    files = python_form("cifar10")
    del files["data_batch_5"]
    assert "data_batch_5 is missing" in refusal(unpacked(tmp_path / "x", files))


def test_a_binary_file_of_the_wrong_length_is_named(tmp_path):
    files = binary_form("cifar10")
    files["test_batch.bin"] = files["test_batch.bin"][:-1]
    assert "expected a multiple of 3,073" in refusal(unpacked(tmp_path / "x", files))


def test_a_truncated_archive_is_named(tmp_path):
    source = packed(tmp_path / "x.tar.gz", python_form("cifar10"))
    source.write_bytes(source.read_bytes()[:20_000])
    assert "x.tar.gz: is no whole .tar.gz archive" in refusal(source)


def test_an_archive_of_something_else_is_named(tmp_path):
    assert "holds no CIFAR files" in refusal(packed(tmp_path / "x.tar.gz", {"a.txt": b"a"}))
    (tmp_path / "y.tar.gz").write_bytes(gzip.compress(b"no tar"))
    assert "y.tar.gz" in refusal(tmp_path / "y.tar.gz")


def test_the_other_cifar_is_named(tmp_path):
    packed(tmp_path / "cifar-10-python.tar.gz", python_form("cifar100"))
    assert "holds cifar100, expected cifar10" in refusal("cifar10", data=tmp_path, download=False)


def test_links_in_an_archive_are_not_followed(tmp_path):
    path = tmp_path / "x.tar.gz"
    files = python_form("cifar10")
    (tmp_path / "secret").write_bytes(files.pop("test_batch"))
    packed(path, files)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo("test_batch")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(link)
    assert "holds no CIFAR files" in refusal(path)


def test_class_folders_given_as_cifar_are_pointed_to(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"cat": 2, "dog": 2})
    assert f"residua train {tmp_path}" in refusal("cifar10", data=tmp_path)
