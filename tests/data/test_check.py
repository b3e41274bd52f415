"""The check names what would stop a training and what would spoil its result."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from residua.data.check import Findings, check, readable
from residua.data.pictures import open_pictures
from residua.data.scan import scan
from residua.errors import BadInput


def lines(findings) -> list[str]:
    every = findings.errors + findings.warnings
    assert all("\n" not in line for line in every)
    json.dumps(findings.as_dict())
    return every


def test_a_good_set_has_no_findings_and_a_readable_summary(tmp_path, class_folders):
    findings = check(open_pictures(class_folders(tmp_path / "pets", {"cat": 60, "dog": 60})))
    assert lines(findings) == []
    text = findings.text()
    assert text.startswith("pets: 120 pictures, 2 classes, colour, 8 x 8 pixels")
    assert "train        96   48 a class" in text
    assert findings.facts["splits"]["test"] == {"pictures": 12, "classes": {"cat": 6, "dog": 6}}


def test_sizes_and_kinds_are_counted(tmp_path, save):
    for i, size in enumerate([(4, 10), (6, 8), (8, 6)]):
        save(tmp_path / "a" / f"{i}.png", size, seed=i)
        save(tmp_path / "b" / f"{i}.png", size, seed=10 + i, mode="L")
    findings = check(open_pictures(tmp_path))
    assert findings.facts["sizes"] == {"min": [6, 4], "median": [8, 6], "max": [10, 8]}
    assert findings.facts["kinds"] == {"grey": 3, "colour": 3}


def test_a_picture_on_its_side_counts_as_it_is_seen(tmp_path, draw):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            pixels = draw((10, 20, 3), ord(name) + i)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.jpg", exif=exif)
    assert check(open_pictures(tmp_path)).facts["sizes"]["max"] == [20, 10]


def test_one_class_is_an_error(tmp_path, class_folders):
    findings = check(open_pictures(class_folders(tmp_path, {"only": 5})))
    assert len(findings.errors) == 1
    assert "has one class only (only)" in findings.errors[0]


def spoil_truncated(path, draw) -> None:
    Image.fromarray(draw((64, 64, 3))).save(path)
    path.write_bytes(path.read_bytes()[:2000])


def spoil_zero(path, draw) -> None:
    path.write_bytes(b"")


def spoil_text(path, draw) -> None:
    path.write_text("no picture")


@pytest.mark.parametrize("spoil", [spoil_truncated, spoil_zero, spoil_text])
@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path, class_folders, draw, spoil, ending):
    class_folders(tmp_path, {"a": 5, "b": 5})
    bad = tmp_path / "a" / f"bad.{ending}"
    spoil(bad, draw)
    findings = check(open_pictures(tmp_path))
    assert len(findings.errors) == 1
    assert str(bad) in findings.errors[0]
    assert lines(findings)


def test_a_huge_picture_is_an_error_from_its_header(tmp_path, class_folders, huge_png):
    class_folders(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "huge.png").write_bytes(huge_png)
    (error,) = check(open_pictures(tmp_path)).errors
    assert "huge.png: has more than" in error


def test_nan_in_a_tiff_is_an_error_that_names_it(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 5, "b": 5})
    tifffile.imwrite(tmp_path / "a" / "nan.tif", np.array([[0.5, np.nan]], np.float32))
    (error,) = check(open_pictures(tmp_path)).errors
    assert "nan.tif: holds NaN" in error


def test_a_whole_tiff_of_any_kind_is_no_error(tmp_path, class_folders, draw):
    class_folders(tmp_path, {"a": 5, "b": 5})
    values = draw((8, 8, 3)).astype(np.float32) / 255
    tifffile.imwrite(tmp_path / "a" / "float.tif", values, photometric="rgb")
    assert check(open_pictures(tmp_path)).errors == []


def test_a_jpeg_with_bytes_after_its_end_is_no_error(tmp_path, class_folders, draw):
    class_folders(tmp_path, {"a": 5, "b": 5})
    Image.fromarray(draw((8, 8, 3))).save(tmp_path / "a" / "x.jpg")
    with (tmp_path / "a" / "x.jpg").open("ab") as file:
        file.write(b"\0" * 20)
    assert check(open_pictures(tmp_path)).errors == []


def test_many_unreadable_files_are_three_names_and_a_count(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 10, "b": 10})
    for i in range(5):
        (tmp_path / "a" / f"{i}.png").write_bytes(b"")
    (error,) = check(open_pictures(tmp_path)).errors
    assert error.startswith("5 of 20 pictures cannot be read: ")
    assert error.endswith("and 2 more")


@pytest.mark.parametrize(
    ("errors", "line"),
    [(["a: bad"], "a: bad"), (["a: bad", "b: bad", "c: bad"], "a: bad (and 2 more)")],
)
def test_errors_refuse_a_set_in_one_line(errors, line):
    with pytest.raises(BadInput) as refusal:
        Findings(errors=errors).refuse()
    assert str(refusal.value) == line


def test_warnings_refuse_nothing():
    Findings(warnings=["a: strange"]).refuse()


def test_unreadable_files_can_be_left_out(tmp_path, class_folders):
    class_folders(tmp_path, {"a": 10, "b": 10})
    bad = tmp_path / "a" / "3.png"
    # Damage that header and end do not show.
    data = bytearray(bad.read_bytes())
    data[len(data) // 2] ^= 255
    bad.write_bytes(data)
    opened = open_pictures(tmp_path)
    findings = check(opened, skip_unreadable=True)
    assert findings.errors == []
    assert "left out" in findings.warnings[0]
    rest = readable(opened, findings)
    assert sum(len(split) for split in rest.splits.values()) == 19
    for key, split in rest.splits.items():
        assert split.names == rest.split_record["splits"][key]
        assert "a/3.png" not in split.names
        for i in range(len(split)):
            split.read(i)


def test_a_class_without_training_pictures_is_an_error(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"a": 5, "b": 5})
    class_folders(tmp_path / "test", {"a": 2, "new": 2}, seed=1)
    findings = check(open_pictures(tmp_path))
    (error,) = findings.errors
    assert "new is in test but has no pictures in train" in error
    assert any("1 of 3 classes have no pictures in test (b)" in w for w in findings.warnings)


def test_a_class_missing_from_test_is_a_warning(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"a": 9, "b": 9, "c": 9})
    class_folders(tmp_path / "test", {"a": 3, "b": 3}, seed=1)
    findings = check(open_pictures(tmp_path))
    assert findings.errors == []
    assert findings.warnings == [
        "1 of 3 classes have no pictures in test (c): nothing will be known of them there"
    ]


def test_the_same_picture_in_train_and_test_is_a_warning_that_names_both(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"a": 9, "b": 9})
    class_folders(tmp_path / "val", {"a": 3, "b": 3}, seed=1)
    class_folders(tmp_path / "test", {"a": 3, "b": 3}, seed=2)
    shutil.copy(tmp_path / "train" / "a" / "4.png", tmp_path / "test" / "a" / "copy.png")
    findings = check(open_pictures(tmp_path))
    assert findings.facts["duplicates"] == {"train/test": 1, "train/val": 0, "val/test": 0}
    (warning,) = findings.warnings
    assert "1 of the 7 pictures in test are in train too" in warning
    assert "train/a/4.png = test/a/copy.png" in warning


def test_one_picture_with_two_labels_is_a_warning(tmp_path, class_folders):
    class_folders(tmp_path / "train", {"a": 9, "b": 9})
    class_folders(tmp_path / "val", {"a": 3, "b": 3}, seed=1)
    shutil.copy(tmp_path / "train" / "a" / "4.png", tmp_path / "train" / "b" / "copy.png")
    findings = check(open_pictures(tmp_path))
    assert findings.warnings == ["1 pictures have two labels (train/a/4.png = train/b/copy.png)"]


def test_equal_rows_of_arrays_are_found(draw):
    opened = open_pictures("digits")
    assert check(opened).facts["duplicates"]["train/test"] == 0
    opened.splits["test"].array[7] = opened.splits["train"].array[3]
    assert check(opened).facts["duplicates"]["train/test"] == 1


def test_classes_of_very_different_size_are_a_warning(tmp_path, class_folders):
    findings = check(open_pictures(class_folders(tmp_path, {"many": 60, "few": 6})))
    assert any("very different size in train: many has" in w for w in findings.warnings)


def test_few_pictures_of_a_class_are_a_warning(tmp_path, class_folders):
    findings = check(open_pictures(class_folders(tmp_path, {"a": 8, "b": 3})))
    assert "fewer than 5 training pictures of b" in findings.warnings


def test_a_class_that_the_data_lacks_is_a_warning(tmp_path, class_folders):
    root = class_folders(tmp_path, {"a": 8, "b": 8})
    findings = check(open_pictures(root, classes=("a", "b", "c")))
    assert "no pictures of c" in findings.warnings


def test_without_depth_no_file_is_opened(tmp_path, class_folders):
    opened = open_pictures(class_folders(tmp_path, {"a": 5, "b": 5}))
    for split in opened.splits.values():
        for path in split.paths:
            path.unlink()
    assert check(opened, deep=False).errors == []


def test_a_second_look_reads_nothing_until_a_file_changes(tmp_path, class_folders):
    opened = open_pictures(class_folders(tmp_path, {"a": 9, "b": 9}))
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    first = check(opened, progress=progress)
    assert calls == [(18, 18)]
    assert check(opened, progress=progress).as_dict() == first.as_dict()
    assert calls == [(18, 18)]
    os.utime(tmp_path / "a" / "0.png", ns=(5, 5))
    check(opened, progress=progress)
    assert calls == [(18, 18), (18, 18)]


def test_a_look_without_a_place_to_keep_it_works(tmp_path, class_folders):
    opened = open_pictures(class_folders(tmp_path / "set", {"a": 9, "b": 9}))
    (tmp_path / "file").write_text("in the way")
    assert check(opened, folder=tmp_path / "file" / "c").errors == []


def test_a_scan_is_in_the_order_of_the_files_that_were_given(tmp_path, save):
    paths = [save(tmp_path / f"{i}.png", (i + 1, 2), seed=i) for i in range(12)]
    for order in (paths, paths[::-1]):
        assert scan(order).widths.tolist() == [int(p.stem) + 1 for p in order]


def test_names_with_markup_and_line_breaks_stay_on_one_line(tmp_path, class_folders):
    class_folders(tmp_path, {"<b>x\ny": 5, "b": 5})
    (tmp_path / "b" / "bad\n.png").write_bytes(b"")
    findings = check(open_pictures(tmp_path))
    assert any("bad\\n.png: is empty" in line for line in lines(findings))
    assert len(findings.text().splitlines()) == 1 + 2 + 1 + len(lines(findings))
