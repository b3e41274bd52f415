"""Stacks come back as they were written, with their spacing; damaged files are one line with their name."""

import builtins
import gzip
import pickle

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from residua.data import volumes
from residua.data.volumes import (
    lossless_name,
    read_labels,
    read_spacing,
    read_volume,
    write_mask,
    write_volume,
)
from residua.errors import BadInput, ResiduaError

ENDINGS = (".tif", ".nii", ".nii.gz", ".npy", ".npz")


def noise(shape, dtype="uint16", seed=0):
    drawn = np.random.default_rng(seed).integers(0, 200, shape)
    return drawn.astype(dtype)


def refusal(path, read=read_volume):
    with pytest.raises(BadInput) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 6), st.integers(5, 9), st.integers(5, 9)),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    ending=st.sampled_from(ENDINGS),
)
def test_a_stack_comes_back_in_its_own_type(tmp_path_factory, shape, dtype, ending):
    path = tmp_path_factory.mktemp("v") / f"a{ending}"
    array = noise(shape, dtype)
    write_volume(path, array)
    found = read_volume(path)
    assert found.array.dtype == dtype
    assert found.dims == 3
    assert np.array_equal(found.array[..., 0], array)
    assert np.array_equal(read_labels(path), array)


@pytest.mark.parametrize("ending", ENDINGS)
def test_channels_are_last_whatever_the_file_does(tmp_path, ending):
    array = noise((4, 6, 7, 2))
    write_volume(tmp_path / f"a{ending}", array)
    assert np.array_equal(read_volume(tmp_path / f"a{ending}").array, array)


def test_nifti_turns_x_y_z_round_and_keeps_spacing_and_affine(tmp_path):
    stored = noise((3, 4, 5), "int16")  # x, y, z
    affine = np.array([[0.0, -0.5, 0, 7], [0.25, 0, 0, 8], [0, 0, 3.0, 9], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "a.nii.gz")
    found = read_volume(tmp_path / "a.nii.gz")
    assert found.array.shape == (5, 4, 3, 1)
    assert found.array[4, 1, 2, 0] == stored[2, 1, 4]
    assert found.spacing == (3.0, 0.5, 0.25)
    assert found.unit == "mm"
    classes = (found.array[..., 0] > 99).astype(np.uint8)
    write_mask(tmp_path / "m.nii.gz", classes, (0, 255), like=tmp_path / "a.nii.gz")
    back = nibabel.load(tmp_path / "m.nii.gz")
    assert np.array_equal(back.affine, affine)
    assert np.array_equal(np.asanyarray(back.dataobj), np.where(stored > 99, 255, 0))
    assert back.get_data_dtype() == np.uint8
    assert back.header.get_xyzt_units()[0] == "mm"


def test_scaled_nifti_values_are_what_the_header_says(tmp_path):
    image = nibabel.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4))
    image.header.set_slope_inter(0.5, -1)
    nibabel.save(image, tmp_path / "a.nii")
    raw = nibabel.load(tmp_path / "a.nii")
    assert np.allclose(
        read_volume(tmp_path / "a.nii").array[..., 0], raw.get_fdata().transpose(2, 1, 0)
    )


def test_spacing_of_imagej_and_ome_is_read_in_z_y_x(tmp_path):
    array = noise((5, 8, 9))
    tifffile.imwrite(
        tmp_path / "ij.tif",
        array,
        imagej=True,
        resolution=(1 / 0.25, 1 / 0.5),
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": "um"},
    )
    assert read_volume(tmp_path / "ij.tif").spacing == pytest.approx((3.0, 0.5, 0.25))
    assert read_volume(tmp_path / "ij.tif").unit == "um"
    sizes = {"PhysicalSizeZ": 3.0, "PhysicalSizeY": 0.5, "PhysicalSizeX": 0.25}
    tifffile.imwrite(tmp_path / "o.ome.tif", array, metadata={"axes": "ZYX", **sizes})
    assert read_spacing(tmp_path / "o.ome.tif") == (3.0, 0.5, 0.25)
    tifffile.imwrite(tmp_path / "plain.tif", array)
    assert read_spacing(tmp_path / "plain.tif") is None
    write_mask(tmp_path / "m.tif", (array > 9).astype(np.uint8), like=tmp_path / "ij.tif")
    assert read_spacing(tmp_path / "m.tif") == pytest.approx((3.0, 0.5, 0.25))
    with tifffile.TiffFile(tmp_path / "m.tif") as tiff:
        assert tiff.pages[0].compression == tifffile.COMPRESSION.ADOBE_DEFLATE


def test_axes_of_a_tiff_are_told_by_their_names(tmp_path):
    array = noise((2, 5, 8, 9))  # channels first
    tifffile.imwrite(tmp_path / "a.ome.tif", array, metadata={"axes": "CZYX"})
    assert np.array_equal(read_volume(tmp_path / "a.ome.tif").array, np.moveaxis(array, 0, -1))
    tifffile.imwrite(tmp_path / "b.ome.tif", array[0, :2], metadata={"axes": "CYX"})
    assert read_volume(tmp_path / "b.ome.tif").array.shape == (8, 9, 2)
    tifffile.imwrite(tmp_path / "t.ome.tif", array, metadata={"axes": "TZYX"})
    assert "expected one stack" in refusal(tmp_path / "t.ome.tif")
    colour = noise((4, 8, 9, 3), "uint8")
    tifffile.imwrite(tmp_path / "c.tif", colour, photometric="rgb")
    assert np.array_equal(read_volume(tmp_path / "c.tif").array, colour)


def test_three_slices_that_were_written_as_colours_are_three_slices(tmp_path):
    array = noise((3, 8, 9), "uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_labels(tmp_path / "a.tif"), array)
    assert read_volume(tmp_path / "a.tif", dims=3).array.shape == (3, 8, 9, 1)
    assert read_volume(tmp_path / "a.tif").array.shape == (8, 9, 3)


def test_slices_that_imagej_took_for_channels_are_slices_where_that_is_known(tmp_path):
    array = noise((5, 8, 9))
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True)  # no axes given: channels
    assert np.array_equal(read_labels(tmp_path / "a.tif"), array)
    assert np.array_equal(read_volume(tmp_path / "a.tif", dims=3).array[..., 0], array)
    assert read_volume(tmp_path / "a.tif").array.shape == (8, 9, 5)


def test_a_mask_three_pixels_wide_is_no_colour_picture(tmp_path):
    classes = noise((5, 6, 3), "uint8") % 2
    for ending in ENDINGS:
        write_mask(tmp_path / f"a{ending}", classes)
        assert np.array_equal(read_labels(tmp_path / f"a{ending}"), classes), ending


def test_lzw_is_read_by_pillow_where_tifffile_lacks_the_decoder(tmp_path):
    pages = [Image.fromarray(noise((8, 9), "uint8", seed)) for seed in range(4)]
    pages[0].save(
        tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    expected = np.stack([np.asarray(page) for page in pages])
    assert np.array_equal(read_labels(tmp_path / "a.tif"), expected)


def test_a_mask_is_written_with_the_values_it_was_learnt_from(tmp_path):
    classes = np.array([[0, 1], [2, 1]], np.uint8)
    write_mask(tmp_path / "a.png", classes, (0, 127, 255))
    assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[0, 127], [255, 127]]
    write_mask(tmp_path / "a.tif", classes, (0, 300, 1000))
    assert read_labels(tmp_path / "a.tif").dtype == np.uint16
    assert read_labels(tmp_path / "a.tif").tolist() == [[0, 300], [1000, 300]]
    with pytest.raises(BadInput, match="PNG holds no stack"):
        write_mask(tmp_path / "b.png", np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(BadInput, match="expected an ending"):
        write_mask(tmp_path / "b.jpg", classes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.tif"]
    assert lossless_name("x/cell.jpg", "_mask") == "cell_mask.png"


def test_classes_of_any_whole_type_are_written_in_the_smallest_that_holds_them(tmp_path):
    for ending in (".png", *ENDINGS):
        write_mask(tmp_path / f"a{ending}", np.array([[0, 255], [7, 0]], np.int64))
        found = read_labels(tmp_path / f"a{ending}")
        assert found.reshape(2, 2).tolist() == [[0, 255], [7, 0]], ending
        assert found.dtype == np.uint8, ending


def test_common_pictures_are_read_unscaled(tmp_path):
    deep = noise((6, 7)) + np.uint16(3000)
    Image.fromarray(deep).save(tmp_path / "a.png")
    assert read_volume(tmp_path / "a.png").array.dtype == np.uint16
    assert np.array_equal(read_volume(tmp_path / "a.png").array[..., 0], deep)
    colour = noise((6, 7, 3), "uint8")
    Image.fromarray(colour).save(tmp_path / "b.png")
    assert np.array_equal(read_volume(tmp_path / "b.png").array, colour)
    tifffile.imwrite(tmp_path / "c.tif", noise((6, 7, 3)), photometric="rgb")
    assert np.array_equal(read_volume(tmp_path / "c.tif").array, noise((6, 7, 3)))
    (tmp_path / "d.jpg").write_text("no picture")
    assert "is not a JPEG" in refusal(tmp_path / "d.jpg")


def test_a_file_that_cannot_be_written_is_whole_or_absent(tmp_path, monkeypatch):
    write_mask(tmp_path / "a.npy", np.ones((2, 2), np.uint8))

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ResiduaError, match=r"a\.npy: cannot be written \(No space left"):
        write_mask(tmp_path / "a.npy", np.zeros((3, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.load(tmp_path / "a.npy").shape == (2, 2)
    with pytest.raises(BadInput, match=r"no/a\.npy: cannot be written"):
        write_mask(tmp_path / "no" / "a.npy", np.zeros((3, 3), np.uint8))


class _Danger:
    def __reduce__(self):
        return exec, ("raise SystemExit('pickled code ran')",)


def test_pickled_arrays_are_refused_and_never_run(tmp_path):
    array = np.array([_Danger()], object)
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "b.npz", array)
    (tmp_path / "c.npy").write_bytes(pickle.dumps(array))
    for name in ("a.npy", "b.npz", "c.npy"):
        assert "pickled objects" in refusal(tmp_path / name), name


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_missing_empty_or_cut_short_is_one_line(tmp_path, ending):
    assert "no such file" in refusal(tmp_path / f"none{ending}")
    (tmp_path / f"empty{ending}").touch()
    assert "empty" in refusal(tmp_path / f"empty{ending}")
    (tmp_path / f"text{ending}").write_text("no volume at all")
    refusal(tmp_path / f"text{ending}")
    whole = tmp_path / f"whole{ending}"
    write_volume(whole, noise((6, 40, 40)))
    data = whole.read_bytes()
    for share in (0.2, 0.6, 0.95):
        (tmp_path / f"cut{ending}").write_bytes(data[: int(share * len(data))])
        refusal(tmp_path / f"cut{ending}")
        refusal(tmp_path / f"cut{ending}", read_labels)


def test_pages_that_are_lost_are_noticed_though_those_before_can_be_read(tmp_path):
    pages = [Image.fromarray(noise((32, 32), "uint8", seed)) for seed in range(5)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) // 2])
    refusal(tmp_path / "cut.tif")


@pytest.mark.parametrize("ending", [".tif", ".nii.gz", ".npy"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(tmp_path, ending, value):
    array = np.zeros((3, 8, 9), np.float32)
    array[1, 2, 3] = value
    write_volume(tmp_path / f"a{ending}", array)
    assert "NaN or infinite" in refusal(tmp_path / f"a{ending}")


def test_wrong_axes_types_and_sizes_are_refused(tmp_path):
    np.save(tmp_path / "one.npy", np.zeros(9))
    assert "has 1 axes, shape (9,); expected 2 to 4" in refusal(tmp_path / "one.npy")
    np.save(tmp_path / "five.npy", np.zeros((1, 2, 3, 4, 5)))
    assert "5 axes" in refusal(tmp_path / "five.npy")
    np.save(tmp_path / "complex.npy", np.zeros((4, 5, 6), complex))
    assert "complex128" in refusal(tmp_path / "complex.npy")
    np.save(tmp_path / "none.npy", np.zeros((0, 5, 6)))
    assert "no pixels" in refusal(tmp_path / "none.npy")
    np.save(tmp_path / "many.npy", np.zeros((2, 3, 4, 99)))
    assert "99 channels" in refusal(tmp_path / "many.npy")
    np.savez(tmp_path / "two.npz", a=np.zeros(2), b=np.zeros(2))
    assert "holds 2 arrays (a, b); expected one" in refusal(tmp_path / "two.npz")
    tifffile.imwrite(tmp_path / "sizes.tif", np.zeros((4, 5), np.uint8))
    tifffile.imwrite(tmp_path / "sizes.tif", np.zeros((9, 9), np.uint8), append=True)
    assert "different size" in refusal(tmp_path / "sizes.tif")
    np.save(tmp_path / "flat.npy", np.zeros((4, 5)))
    assert "expected 3 or 4" in refusal(tmp_path / "flat.npy", lambda p: read_volume(p, dims=3))
    colour = noise((4, 8, 9, 3), "uint8")
    tifffile.imwrite(tmp_path / "colour.tif", colour, photometric="rgb")
    assert "in colour" in refusal(tmp_path / "colour.tif", read_labels)


def test_a_header_that_announces_absurd_sizes_is_refused_before_memory_is_asked_for(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (40_000, 40_000, 40_000)}
        np.lib.format.write_array_header_1_0(file, header)
    assert "announces 40,000 x 40,000 x 40,000 values" in refusal(tmp_path / "a.npy")
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[42:48] = np.array([30_000] * 3, "<i2").tobytes()  # dim[1..3]
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(raw)))
    assert "announces 30,000 x 30,000 x 30,000 values" in refusal(tmp_path / "a.nii.gz")


def test_a_missing_nibabel_names_the_extra(tmp_path, monkeypatch):
    write_volume(tmp_path / "a.nii", noise((3, 4, 5)))
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "nibabel":
            raise ModuleNotFoundError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'residua[volumes]'" in refusal(tmp_path / "a.nii")


def test_a_picture_and_a_stack_of_three_axes_are_told_apart(tmp_path):
    np.save(tmp_path / "colour.npy", noise((8, 9, 3), "uint8"))
    assert read_volume(tmp_path / "colour.npy").dims == 2
    assert read_volume(tmp_path / "colour.npy", dims=3).array.shape == (8, 9, 3, 1)
    np.save(tmp_path / "stack.npy", noise((8, 9, 7), "uint8"))
    assert read_volume(tmp_path / "stack.npy").dims == 3
    assert read_volume(tmp_path / "stack.npy", dims=2).array.shape == (8, 9, 7)
    assert volumes.stem("a/b.nii.gz") == "b"
