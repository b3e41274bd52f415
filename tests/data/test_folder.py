"""Class folders of every layout give their pictures; what is no picture is left out with a note."""

from __future__ import annotations

import os

import pytest

from residua.data import folder
from residua.data.pictures import open_pictures
from residua.errors import BadInput


def refusal(root) -> str:
    with pytest.raises(BadInput) as caught:
        open_pictures(root)
    message = str(caught.value)
    assert "\n" not in message
    assert str(root) in message
    return message


def test_classes_are_in_natural_order(tmp_path, class_folders):
    root = class_folders(tmp_path, {"10": 2, "2": 2, "b": 1, "A": 1})
    found = folder.read(root)
    assert found.classes == ("2", "10", "A", "b")
    assert [found.classes[y] for y in found.pictures.labels] == ["2", "2", "10", "10", "A", "b"]
    assert found.pictures.names[:3] == ["2/0.png", "2/1.png", "10/0.png"]


def test_folders_within_a_class_belong_to_it(tmp_path, save):
    save(tmp_path / "cat" / "old" / "1" / "x.png")
    save(tmp_path / "dog" / "y.png")
    found = folder.read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.pictures.names == ["cat/old/1/x.png", "dog/y.png"]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Validation", "VAL"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Train", "TEST")])
def test_split_folders_are_recognised_in_any_case(tmp_path, class_folders, train, val, test):
    for seed, (name, count) in enumerate({train: 4, val: 2, test: 3}.items()):
        class_folders(tmp_path / name, {"a": count, "b": count}, seed)
    found = folder.read(tmp_path)
    assert {k: len(v) for k, v in found.given.items()} == {"train": 8, "val": 4, "test": 6}
    assert found.classes == ("a", "b")
    assert found.pictures.names[0] == f"{train}/a/0.png"


def test_two_folders_for_one_split_are_refused(tmp_path, class_folders):
    for name in ("train", "val", "valid"):
        class_folders(tmp_path / name, {"a": 1, "b": 1})
    assert "has both val and valid" in refusal(tmp_path)


def test_a_class_may_be_called_train(tmp_path, class_folders):
    class_folders(tmp_path, {"train": 3, "plane": 3})
    found = folder.read(tmp_path)
    assert found.classes == ("plane", "train")
    assert found.given is None


def test_a_class_missing_from_test_does_not_shift_labels(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"a": 4, "b": 4, "c": 4})
    class_folders(tmp_path / "test", {"a": 2, "c": 2}, seed=1)
    opened = open_pictures(tmp_path)
    assert opened.classes == ("a", "b", "c")
    assert opened.splits["test"].labels.tolist() == [0, 0, 2, 2]


def test_hidden_files_and_strangers_are_left_out_with_a_note(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / ".hidden.png").write_text("x")
    (tmp_path / "a" / "Thumbs.db").write_text("x")
    (tmp_path / "a" / "readme.txt").write_text("x")
    (tmp_path / ".git").mkdir()
    found = folder.read(tmp_path)
    assert len(found.pictures) == 4
    assert found.classes == ("a", "b")
    assert any("3 hidden files or files that are no pictures" in note for note in found.notes)


def test_pipes_and_links_to_nowhere_are_left_out_with_a_note(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 2, "b": 2})
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    found = folder.read(tmp_path)
    assert len(found.pictures) == 4
    assert any("dangling.png" in note and "pipe.png" in note for note in found.notes)


def test_loose_pictures_and_empty_class_folders_are_noted(tmp_path, class_folders, save):
    class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "empty").mkdir()
    save(tmp_path / "loose.png")
    found = folder.read(tmp_path)
    assert found.classes == ("a", "b")
    assert "class folders without pictures are left out: empty" in found.notes
    assert "1 pictures outside class folders are left out: loose.png" in found.notes


def test_a_loop_of_links_ends_and_counts_each_file_once(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 2, "b": 2})
    (tmp_path / "a" / "up").symlink_to(tmp_path / "a", target_is_directory=True)
    (tmp_path / "a" / "in").mkdir()
    (tmp_path / "a" / "in" / "back").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(folder.read(tmp_path).pictures) == 4


def test_linked_files_and_folders_are_followed(tmp_path, class_folders, save):
    root = class_folders(tmp_path / "set", {"a": 2})
    save(tmp_path / "elsewhere" / "x.png")
    (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "a" / "linked.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    assert folder.read(root).pictures.names == ["a/0.png", "a/1.png", "a/linked.png", "b/x.png"]


@pytest.mark.parametrize("name", ["<b>&amp;", "日本 語", "a'b\"c", "x,y;z", "-rf", "new\nline"])
def test_a_class_may_have_any_name(tmp_path, class_folders, name):
    class_folders(tmp_path, {name: 3, "other": 3})
    opened = open_pictures(tmp_path)
    assert name.replace("\n", "\\n") in opened.classes
    assert opened.splits["train"].read(0).shape == (8, 8, 3)


def test_a_name_that_is_no_text_is_read(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 3, "b": 3})
    target = os.fsencode(tmp_path / "a") + b"/\xff\xfe.png"
    os.rename(os.fsencode(tmp_path / "a" / "0.png"), target)  # noqa: PTH104 - bytes
    opened = open_pictures(tmp_path)
    assert sum(len(s) for s in opened.splits.values()) == 6


def test_an_empty_folder_is_refused(tmp_path):
    assert "is empty; expected pictures in class folders" in refusal(tmp_path)


def test_class_folders_without_any_picture_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert "holds no pictures" in refusal(tmp_path)


def test_pictures_without_class_folders_are_refused(tmp_path, save):
    for i in range(3):
        save(tmp_path / f"{i}.png")
    assert "holds 3 pictures but no class folders" in refusal(tmp_path)


def test_a_table_beside_the_pictures_is_pointed_to(tmp_path, save):
    save(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("path,label\n0.png,a\n")
    assert "labels.csv" in refusal(tmp_path)


def test_split_folders_without_class_folders_are_refused(tmp_path, save):
    save(tmp_path / "train" / "0.png")
    save(tmp_path / "test" / "0.png")
    assert "holds 1 pictures but no class folders" in refusal(tmp_path)


def test_test_without_train_is_refused(tmp_path, class_folders):
    class_folders(tmp_path / "test", {"a": 1, "b": 1})
    assert "no train folder" in refusal(tmp_path)


def test_one_folder_too_high_says_where_the_classes_are(tmp_path, class_folders):
    class_folders(tmp_path / "inner" / "train", {"a": 2, "b": 2})
    assert f"did you mean {tmp_path / 'inner'}?" in refusal(tmp_path)
