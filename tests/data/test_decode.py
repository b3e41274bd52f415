"""One picture file of any format and depth becomes uint8 (H, W, C), or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from residua.data.decode import decode, load
from residua.errors import BadInput


def refusal(path: Path) -> str:
    """Return the message of the refusal, which names the file and is one line."""
    with pytest.raises(BadInput) as caught:
        decode(path, 3)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "PNG"])
def test_a_lossless_file_decodes_to_the_pixels_that_were_saved(tmp_path, draw, ending):
    pixels = draw((5, 7, 3))
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path)
    assert np.array_equal(decode(path, 3), pixels)


@pytest.mark.parametrize(
    ("ending", "options"), [("jpg", {"quality": 95}), ("webp", {"lossless": True})]
)
def test_jpeg_and_webp_are_read(tmp_path, ending, options):
    pixels = np.tile(np.arange(0, 240, 10, dtype=np.uint8)[None, :, None], (24, 1, 3))
    Image.fromarray(pixels).save(tmp_path / f"a.{ending}", **options)
    assert np.abs(decode(tmp_path / f"a.{ending}", 3).astype(int) - pixels).max() <= 4


def test_a_grey_file_gives_one_channel_or_three_equal_ones(tmp_path, draw):
    pixels = draw((4, 6))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 1)[..., 0], pixels)
    assert np.array_equal(decode(tmp_path / "a.png", 3), np.repeat(pixels[..., None], 3, -1))


def test_a_colour_file_becomes_luma_where_one_channel_is_asked_for(tmp_path):
    Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 1).ravel().tolist() == [76] * 4  # 0.299 * 255


@pytest.mark.parametrize("channels", [1, 3])
def test_transparency_is_composited_on_white(tmp_path, channels):
    Image.fromarray(
        np.array([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 128]]], np.uint8), "RGBA"
    ).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", channels)[0, :, 0].tolist() == [255, 0, 127]


def test_grey_with_alpha_is_composited_on_white(tmp_path):
    Image.fromarray(np.array([[[0, 0], [10, 255]]], np.uint8), "LA").save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 1)[0, :, 0].tolist() == [255, 10]


def test_a_palette_is_looked_up(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 3)[0].tolist() == [[9, 8, 7], [200, 100, 50]]


def test_a_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (1, 1))
    image.putpalette([9, 8, 7])
    image.save(tmp_path / "a.png", transparency=0)
    assert decode(tmp_path / "a.png", 3)[0, 0].tolist() == [255, 255, 255]


def test_one_bit_pictures_are_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png", 1).ravel().tolist() == [255, 0]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_by_their_range_and_never_clipped(tmp_path, ending):
    values = np.array([[0, 257, 1000, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    expected = np.rint(values / 257.0)
    assert decode(tmp_path / f"a.{ending}", 1)[..., 0].tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.uint8])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_integers_of_any_depth_are_scaled_by_the_range_of_their_type(tmp_path, dtype, order):
    limits = np.iinfo(dtype)
    values = np.array([[limits.min, limits.max, limits.max // 2]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order)
    span = float(limits.max) - float(limits.min)
    expected = np.rint((values.astype(np.float64) - float(limits.min)) / span * 255)
    assert decode(tmp_path / "a.tif", 1)[..., 0].tolist() == expected.tolist()


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_sixteen_bit_colour_tiff_keeps_its_three_channels(tmp_path, planar):
    values = np.zeros((5, 6, 3), np.uint16)
    values[..., 0], values[..., 1], values[..., 2] = 65535, 32896, 0
    saved = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "a.tif", saved, photometric="rgb", planarconfig=planar)
    assert decode(tmp_path / "a.tif", 3)[2, 3].tolist() == [255, 128, 0]


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_float_tiff_between_zero_and_one_is_scaled(tmp_path, shape):
    values = np.full(shape, 0.5, np.float32)
    values[0, 0] = 1
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if len(shape) == 3 else None)
    found = decode(tmp_path / "a.tif", 3)
    assert found.shape == (3, 4, 3)
    assert found[0, 0].tolist() == [255] * 3
    assert found[2, 2].tolist() == [128] * 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, orientation, ending):
    # One bright corner: where it must come to lie is the definition of the eight orientations.
    stored = np.zeros((16, 32, 3), np.uint8)
    stored[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"a.{ending}", exif=exif)
    found = decode(tmp_path / f"a.{ending}", 1)[..., 0]
    assert found.shape == ((16, 32) if orientation < 5 else (32, 16))
    rows = {1: 0, 2: 0, 3: -1, 4: -1, 5: 0, 6: 0, 7: -1, 8: -1}
    columns = {1: 0, 2: -1, 3: -1, 4: 0, 5: 0, 6: -1, 7: -1, 8: 0}
    corners = {(r, c): int(found[r, c]) for r in (0, -1) for c in (0, -1)}
    bright = rows[orientation], columns[orientation]
    assert corners.pop(bright) > 200
    assert max(corners.values()) < 60


def test_cmyk_jpeg_is_read_as_colour(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = decode(tmp_path / "a.jpg", 3)[4, 4].tolist()
    assert red > 200 > 60 > max(green, blue)


def test_a_large_jpeg_may_come_smaller_but_never_below_twice_the_size_asked_for(tmp_path, draw):
    Image.fromarray(draw((400, 640, 3))).save(tmp_path / "a.jpg")
    assert min(load(tmp_path / "a.jpg", 3, short_side=32).size) in range(64, 128)
    assert load(tmp_path / "a.jpg", 3).size == (640, 400)


def test_a_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(tmp_path / "gone.png")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "zero.jpg").touch()
    assert "is empty (0 bytes)" in refusal(tmp_path / "zero.jpg")


def test_text_with_the_name_of_a_picture_is_refused(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert "is not a JPEG, PNG" in refusal(tmp_path / "text.png")


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, draw, ending, share):
    path = tmp_path / f"cut.{ending}"
    Image.fromarray(draw((64, 64, 3))).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    refusal(path)


def test_a_huge_picture_is_refused_from_its_header(tmp_path, huge_png):
    (tmp_path / "huge.png").write_bytes(huge_png)
    assert "more than" in refusal(tmp_path / "huge.png")


def test_nan_in_a_float_tiff_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "nan.tif", np.array([[0.5, np.nan]], np.float32))
    assert "NaN" in refusal(tmp_path / "nan.tif")


def test_floats_beyond_one_are_refused_rather_than_guessed(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 4095]], np.float32))
    assert "expected 0..1" in refusal(tmp_path / "a.tif")


def test_a_stack_of_pages_is_refused(tmp_path, draw):
    tifffile.imwrite(tmp_path / "stack.tif", draw((4, 8, 8)), photometric="minisblack")
    assert "stack of 4 pages" in refusal(tmp_path / "stack.tif")


def test_a_file_name_with_a_line_break_stays_on_one_line(tmp_path):
    path = tmp_path / "a\nb.png"
    path.write_text("no picture")
    with pytest.raises(BadInput) as caught:
        decode(path, 3)
    assert "\n" not in str(caught.value)
