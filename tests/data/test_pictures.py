"""Whatever the source, a set opens the same way; what is wrong with it is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from residua.data.pictures import Split, open_pictures
from residua.errors import BadInput


def refusal(*args, **options) -> str:
    with pytest.raises(BadInput) as caught:
        open_pictures(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_set_of_grey_files_has_one_channel_and_one_colour_file_makes_it_three(
    tmp_path, class_folders, save
):
    root = class_folders(tmp_path / "set", {"a": 40, "b": 40}, mode="L")
    assert open_pictures(root).channels == 1
    save(root / "b" / "77.png", seed=999)
    opened = open_pictures(root)
    assert opened.channels == 3
    assert {split.read(0).shape for split in opened.splits.values()} == {(8, 8, 3)}


def test_the_record_survives_json_and_gives_the_same_set(tmp_path, class_folders):
    root = class_folders(tmp_path, {"a": 30, "b": 30})
    first = open_pictures(root, seed=5)
    record = json.loads(json.dumps(first.split_record))
    again = open_pictures(root, seed=6, split_record=record)
    for key, split in first.splits.items():
        assert split.names == again.splits[key].names
        assert np.array_equal(split.labels, again.splits[key].labels)
    other = open_pictures(root, seed=6)
    assert other.splits["val"].names != first.splits["val"].names


def test_a_record_keeps_its_classes_where_a_class_folder_has_gone(tmp_path, class_folders):
    root = class_folders(tmp_path, {"a": 6, "b": 6, "c": 6})
    record = open_pictures(root).split_record
    record["splits"] = {
        key: [name for name in names if not name.startswith("a/")]
        for key, names in record["splits"].items()
    }
    shutil.rmtree(root / "a")
    again = open_pictures(root, split_record=record)
    assert again.classes == ("a", "b", "c")
    assert set(again.splits["train"].labels.tolist()) == {1, 2}


def test_a_folder_with_the_name_of_a_set_is_pointed_to(tmp_path, class_folders, monkeypatch):
    class_folders(tmp_path / "digits", {"a": 3, "b": 3})
    monkeypatch.chdir(tmp_path)
    opened = open_pictures("digits")
    assert len(opened.classes) == 10
    assert opened.notes[0] == "digits is the named data set, not the folder here (that is ./digits)"
    assert open_pictures("./digits").classes == ("a", "b")


def test_classes_fix_the_labels_even_where_the_data_lacks_one(tmp_path, class_folders):
    root = class_folders(tmp_path, {"a": 6, "c": 6})
    opened = open_pictures(root, classes=("c", "b", "a"))
    assert opened.classes == ("c", "b", "a")
    for split in opened.splits.values():
        for name, label in zip(split.names, split.labels, strict=True):
            assert opened.classes[label] == name.split("/")[0]


def test_a_class_that_is_not_expected_is_refused_with_the_nearest_names(tmp_path, class_folders):
    root = class_folders(tmp_path, {"cats": 6, "dog": 6})
    message = refusal(root, classes=("cat", "dog"))
    assert (
        "has the class cats, which is not among the 2 expected ones. Did you mean cat?" in message
    )


def test_an_unknown_name_gets_the_nearest_ones():
    message = refusal("cifar01")
    assert "no such file or folder, and no named data set" in message
    assert "Did you mean cifar10" in message


@pytest.mark.parametrize("name", ["notes.txt", "set.zip", "a.png"])
def test_a_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert name in refusal(tmp_path / name)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 2])
def test_a_fraction_outside_0_to_1_is_refused(fraction):
    assert "val_fraction" in refusal("digits", val_fraction=fraction)


def test_a_digest_depends_on_the_content_alone(tmp_path, save, draw):
    paths = [
        save(tmp_path / "a.png", seed=1),
        save(tmp_path / "b.png", seed=1),
        save(tmp_path / "c.png"),
    ]
    files = Split(np.zeros(3, np.int64), ["a", "b", "c"], paths=paths)
    assert files.digest(0) == files.digest(1) != files.digest(2)
    pixels = draw((3, 4, 4, 1))
    pixels[1] = pixels[0]
    rows = Split(np.zeros(3, np.int64), ["a", "b", "c"], 1, array=pixels)
    assert rows.digest(0) == rows.digest(1) != rows.digest(2)
    assert len(rows.digest(0)) == len(files.digest(0)) == 32
    paths[0].unlink()
    with pytest.raises(BadInput, match=r"a\.png"):
        files.digest(0)


def test_looking_at_data_does_not_import_torch(tmp_path, class_folders):
    root = class_folders(tmp_path, {"a": 3, "b": 3})
    code = (
        "import sys; from residua.data.pictures import open_pictures; "
        "from residua.data.check import check; from residua.data.cache import store; "
        f"check(open_pictures({str(root)!r})); print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
