"""Masks: whatever values a file stores become classes without gaps, or one line says why not."""

import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from residua.data.masks import IGNORED, mask_values, read_mask
from residua.errors import BadInput

SQUARE = np.array([[0, 1, 2], [2, 1, 0]])


def save(path, pixels, mode=None):
    Image.fromarray(np.asarray(pixels), mode).save(path)
    return path


def classes(path, **options):
    return read_mask(path, mask_values([path], **options), **options).tolist()


def refusal(path, act=lambda path: mask_values([path])):
    with pytest.raises(BadInput) as caught:
        act(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "values", [(0, 1, 2), (0, 127, 255), (0, 3, 7), (10, 20, 30), (253, 254, 255)]
)
@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp"])
def test_values_with_gaps_become_classes_in_their_order(tmp_path, values, ending):
    pixels = np.array(values, np.uint8)[SQUARE]
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, **({"lossless": True} if ending == "webp" else {}))
    assert mask_values([path]) == values
    assert classes(path) == SQUARE.tolist()


def test_black_and_white_are_the_classes_0_and_1_at_any_depth(tmp_path):
    on = np.array([[0, 1], [1, 1]], bool)
    for name, pixels in {
        "one bit": on,
        "eight": np.uint8(255) * on,
        "sixteen": np.uint16(65535) * on,
        "three": np.uint8(255) * np.repeat(on[..., None], 3, -1),
        "four": np.concatenate(
            [np.uint8(255) * np.repeat(on[..., None], 3, -1), np.full((2, 2, 1), 255, np.uint8)], -1
        ),
    }.items():
        path = save(tmp_path / f"{name}.png", pixels)
        assert classes(path) == on.astype(int).tolist(), name


def test_classes_are_of_all_masks_together_even_where_one_lacks_some(tmp_path):
    first = save(tmp_path / "a.png", np.array([[0, 7]], np.uint8))
    second = save(tmp_path / "b.png", np.array([[3, 3]], np.uint8))
    values = mask_values([first, second])
    assert values == (0, 3, 7)
    assert read_mask(first, values).tolist() == [[0, 2]]
    assert read_mask(second, values).tolist() == [[1, 1]]


def test_a_palette_is_read_by_index_and_not_by_colour(tmp_path):
    image = Image.fromarray(np.array([[0, 5], [5, 1]], np.uint8), "P")
    image.putpalette([9, 9, 9] * 256)  # every colour the same
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=0)
    assert mask_values([tmp_path / "a.png"]) == (0, 1, 5)
    assert classes(tmp_path / "a.png") == classes(tmp_path / "b.png") == [[0, 2], [2, 1]]


def test_one_value_may_count_for_nothing(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 15], [255, 15]], np.uint8))
    assert mask_values([path], ignore=255) == (0, 15)
    assert classes(path, ignore=255) == [[0, 1], [IGNORED, 1]]


def test_16_and_32_bit_values_are_never_scaled(tmp_path):
    pixels = np.array([[0, 300], [1000, 300]])
    tifffile.imwrite(tmp_path / "a.tif", pixels.astype(np.uint16))
    tifffile.imwrite(tmp_path / "b.tif", pixels.astype(np.int32) - 1)
    tifffile.imwrite(tmp_path / "c.tif", pixels.astype(np.float32))
    assert mask_values([tmp_path / "a.tif"]) == mask_values([tmp_path / "c.tif"]) == (0, 300, 1000)
    assert mask_values([tmp_path / "b.tif"]) == (-1, 299, 999)
    for name in "abc":
        assert classes(tmp_path / f"{name}.tif") == [[0, 1], [2, 1]]


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.integers(0, 65535), min_size=1, max_size=9, unique=True),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 99),
)
def test_looking_values_up_gives_the_mask_back(tmp_path_factory, values, size, seed):
    drawn = np.random.default_rng(seed).integers(0, len(values), size)
    path = tmp_path_factory.mktemp("mask") / "a.png"
    save(path, np.array(values, np.uint16)[drawn])
    assert np.array_equal(read_mask(path, values), drawn)  # in any order of the values
    known = mask_values([path])
    assert np.array_equal(np.array(known)[read_mask(path, known)], np.array(values)[drawn])


def test_another_value_than_those_known_is_named_with_its_file(tmp_path):
    path = save(tmp_path / "a.png", np.array([[0, 7, 9, 255]], np.uint8))
    assert refusal(path, lambda p: read_mask(p, (0, 1))).endswith(
        "holds the values 7, 9, 255; expected 0, 1"
    )
    assert refusal(path, lambda p: read_mask(p, (0, 7, 9), ignore=254)).endswith(
        "holds the value 255; expected 0, 7, 9, 254"
    )
    many = save(tmp_path / "b.png", np.arange(256, dtype=np.uint8)[None])
    assert "0, 1, 2, 3, 4, 5, 6, 7, ... (256 in all)" in refusal(
        many, lambda p: read_mask(p, (300,))
    )


def test_a_picture_in_place_of_a_mask_is_refused(tmp_path, draw):
    colour = save(tmp_path / "colour.png", draw((4, 4, 3)))
    assert "picture in colour" in refusal(colour)
    deep = save(tmp_path / "deep.png", np.arange(400, dtype=np.uint16).reshape(20, 20))
    assert "with it the masks have 400 values" in refusal(deep)
    jpeg = save(tmp_path / "a.jpg", np.zeros((8, 8), np.uint8))
    assert "is a JPEG, which smears" in refusal(jpeg)
    clear = save(tmp_path / "clear.png", np.array([[[0, 0, 0, 0], [9, 9, 9, 255]]], np.uint8))
    assert "transparent" in refusal(clear)
    tifffile.imwrite(tmp_path / "half.tif", np.array([[0.0, 0.5]], np.float32))
    assert "fractions" in refusal(tmp_path / "half.tif")
    tifffile.imwrite(tmp_path / "nan.tif", np.array([[0.0, np.nan]], np.float32))
    assert "fractions" in refusal(tmp_path / "nan.tif")
    tifffile.imwrite(
        tmp_path / "stack.tif", np.zeros((3, 4, 4), np.uint8), photometric="minisblack"
    )
    assert "stack of 3 pages" in refusal(tmp_path / "stack.tif")
    image = Image.new("L", (2, 3))
    image.getexif()[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=image.getexif())
    assert "rotation" in refusal(tmp_path / "turned.png")


def test_a_file_that_is_missing_empty_cut_off_or_a_bomb_is_one_line(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.png")
    (tmp_path / "empty.png").touch()
    assert "is empty" in refusal(tmp_path / "empty.png")
    (tmp_path / "text.png").write_text("a mask")
    assert "is not a" in refusal(tmp_path / "text.png")
    whole = save(tmp_path / "whole.png", np.arange(4096, dtype=np.uint16).reshape(64, 64) % 5)
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:-40])
    assert "cannot be decoded" in refusal(tmp_path / "cut.png")
    bomb = bytearray(whole.read_bytes())
    bomb[16:24] = (2_000_000).to_bytes(4, "big") * 2  # width and height
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(bomb)
    assert "pixels" in refusal(tmp_path / "bomb.png")


@pytest.mark.parametrize("values", [(0, 0), tuple(range(256))])
def test_values_must_differ_and_fit(tmp_path, values):
    with pytest.raises(ValueError, match="expected different values, 255 at most"):
        read_mask(tmp_path / "a.png", values)
