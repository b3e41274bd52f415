"""A table of path,label is read in every usual spelling, and a wrong line is named."""

from __future__ import annotations

import pytest

from residua.data import table
from residua.data.pictures import open_pictures
from residua.errors import BadInput


@pytest.fixture
def write(tmp_path, save):
    """Write pictures a0..a3, b0..b3 and a table of the given text beside them."""
    for seed, letter in enumerate("ab"):
        for i in range(4):
            save(tmp_path / "pics" / f"{letter}{i}.png", seed=10 * seed + i)

    def make(text: str, name: str = "labels.csv", encoding: str = "utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return make


def refusal(path) -> str:
    with pytest.raises(BadInput) as caught:
        open_pictures(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


ROWS = "\n".join(f"pics/{letter}{i}.png,{letter}" for letter in "ab" for i in range(4)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        ROWS,
        "path,label\n" + ROWS,
        "Filename,Class\r\n" + ROWS.replace("\n", "\r\n"),
        "path;label\n" + ROWS.replace(",", ";"),
        "path\tlabel\n" + ROWS.replace(",", "\t"),
        "\ufeffpath,label\n" + ROWS,
        "path,label\n\n" + ROWS + "\n\n",
        'path,label\n"pics/a0.png","a"\n' + ROWS.split("\n", 1)[1],
    ],
)
def test_every_usual_spelling_is_read(write, text):
    found = table.read(write(text))
    assert found.classes == ("a", "b")
    assert found.pictures.labels.tolist() == [0] * 4 + [1] * 4
    assert found.pictures.names[0] == "pics/a0.png"
    assert found.pictures.read(5).shape == (8, 8, 3)
    assert found.given is None


def test_columns_are_found_by_name_in_any_order(write):
    rows = [f"{i},b,pics/b{i}.png\n" for i in range(4)] + ["9,a,pics/a0.png\n"]
    found = table.read(write("id,label,path\n" + "".join(rows)))
    assert found.pictures.names == [*(f"pics/b{i}.png" for i in range(4)), "pics/a0.png"]
    assert [found.classes[y] for y in found.pictures.labels] == [*"bbbb", "a"]


def test_a_split_column_is_followed(write):
    words = ["train", "Train", "valid", "test"]
    rows = [f"pics/{c}{i}.png,{c},{words[i]}\n" for c in "ab" for i in range(4)]
    opened = open_pictures(write("path,label,split\n" + "".join(rows)))
    assert {key: len(split) for key, split in opened.splits.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    assert set(opened.split_record["how"].values()) == {"given"}


def test_paths_may_be_absolute_or_relative_to_another_folder(write, tmp_path):
    rows = [f"{c}{i}.png,{c}\n" for c in "ab" for i in range(4)]
    assert len(table.read(write("".join(rows)), tmp_path / "pics").pictures) == 8
    rows = [f"{tmp_path}/pics/{c}{i}.png,{c}\n" for c in "ab" for i in range(4)]
    assert len(table.read(write("".join(rows))).pictures) == 8


def test_a_line_that_is_repeated_counts_once_with_a_note(write):
    found = table.read(write(ROWS + "pics/a0.png,a\n" + "./pics/b0.png,b\n"))
    assert len(found.pictures) == 8
    assert found.notes == ["2 repeated lines of labels.csv count once"]


def test_two_labels_of_one_file_are_refused(write):
    assert "line 9 lists pics/a0.png otherwise than line 1" in refusal(
        write(ROWS + "pics/a0.png,b")
    )


def test_a_missing_file_is_named_with_its_line(write):
    message = refusal(write(ROWS + "pics/gone.png,a\npics/too.png,a\n"))
    assert "line 9 names pics/gone.png" in message
    assert "2 are missing" in message


@pytest.mark.parametrize("header", ["path,colour", "name,label"])
def test_a_missing_column_is_named(write, header):
    column = "label" if header.startswith("path") else "path"
    assert f"no column {column}" in refusal(write(header + "\n" + ROWS))


@pytest.mark.parametrize("text", ["", "\n\n", "path,label\n"])
def test_an_empty_table_is_refused(write, text):
    assert "expected lines of path,label" in refusal(write(text))


def test_an_empty_label_is_named_with_its_line(write):
    assert "line 9 has no label" in refusal(write(ROWS + "pics/a0.png,\n"))


def test_a_short_line_is_named(write):
    assert "line 9 has 1 columns" in refusal(write(ROWS + "pics/a0.png\n"))


def test_an_unknown_split_is_named(write):
    message = refusal(write("path,label,split\npics/a0.png,a,holdout\n"))
    assert "line 2 has the split 'holdout'" in message


def test_four_columns_without_header_are_refused(write):
    assert "has 4 columns" in refusal(write("pics/a0.png,a,b,c\n"))


def test_a_table_that_is_not_utf8_is_refused(write):
    assert "not UTF-8" in refusal(write("path,label\npics/a0.png,é\n", encoding="latin-1"))
