"""Writing the page: whole or as it was before."""

import base64
import io
import sys

import numpy as np
import pytest
from PIL import Image

from residua.errors import ResiduaError
from residua.report.html import picture_uri, write_page
from residua.report.training import TrainingReport, write_training_report


def test_the_page_is_written_with_its_folder_and_nothing_else(out):
    write_training_report(out, TrainingReport(title="first"))
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert list(out.parent.iterdir()) == [out]


def test_a_full_disk_leaves_the_old_page(out, monkeypatch):
    write_training_report(out, TrainingReport(title="first"))
    before = out.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ResiduaError, match=r"cannot write the report .*No space left on device"):
        write_training_report(out, TrainingReport(title="second"))
    assert out.read_bytes() == before
    assert list(out.parent.iterdir()) == [out]


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResiduaError) as error:
        write_training_report(tmp_path / "file" / "report.html", TrainingReport())
    assert "\n" not in str(error.value) and "report.html" in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot exist there")
def test_a_name_that_is_not_unicode_does_not_stop_the_page(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    path = tmp_path / "report.html"
    write_page(path, f"<p>{name}</p>")
    assert path.read_text(encoding="utf-8") == "<p>caf?.png</p>"


def test_a_large_picture_is_reduced_and_a_small_one_is_kept():
    def back(picture):
        return Image.open(io.BytesIO(base64.b64decode(picture_uri(picture).split(",")[1])))

    small = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3)
    assert (np.asarray(back(small)) == small).all()
    assert (np.asarray(back(small[..., :1])) == small[..., 0]).all()
    assert back(np.zeros((2000, 1000, 3), np.uint8)).size == (128, 256)
