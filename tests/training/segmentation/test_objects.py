"""Objects of predictions: told apart as the classes say, written beside the masks, counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from residua.cli import main
from residua.data.drawn import cells
from residua.errors import BadInput
from residua.training.segmentation.matching import found as matched
from residua.training.segmentation.objects import Apart
from tests.training.segmentation.made import made_run, noise

NO_NAMES = ("0", "1")


def certain(classes: np.ndarray, k: int) -> np.ndarray:
    """Return the probabilities of who is sure of the classes."""
    return (np.arange(k).reshape(-1, *[1] * classes.ndim) == classes).astype(np.float32)


def apart(names: tuple[str, ...], classes: np.ndarray, **more: Any) -> tuple[np.ndarray, dict]:
    return Apart.by(names).objects(classes, certain(classes, len(names)), **more)


@pytest.mark.parametrize(
    ("names", "border", "of"),
    [
        (("background", "cell", "border"), 2, (1,)),
        (("background", "Cell boundary", "cell"), 1, (2,)),
        (("membrane", "inside"), 0, (1,)),
        (("background", "nucleus", "cytoplasm"), None, (1, 2)),
        (("background", "bordeaux"), None, (1,)),
        (NO_NAMES, None, (1,)),
    ],
)
def test_names_of_classes_say_which_is_the_border(
    names: tuple[str, ...], border: int | None, of: tuple[int, ...]
) -> None:
    found = Apart.by(names)
    assert (found.border, found.of) == (border, of)


def test_classes_without_objects_are_one_line() -> None:
    with pytest.raises(BadInput, match="background, border none is one of objects"):
        Apart.by(("background", "border"))


@pytest.mark.parametrize("index", range(4))
def test_drawn_cells_come_back_from_their_classes(index: int) -> None:
    """The program that draws them knows which pixel is of which cell."""
    drawn = cells.draw(0, index, border=True)
    objects, counts = apart(cells.BORDER_CLASSES, drawn.mask)
    true = matched(objects, drawn.instances)
    assert len(true.pairs[0]) >= 0.97 * true.true
    assert true.predicted == counts["cell"] == objects.max()
    assert np.mean(true.pairs[0]) > 0.95


@given(st.integers(0, 99), st.integers(2, 3), st.sampled_from([0, 2]))
def test_objects_cover_what_has_a_seed_and_are_numbered_class_after_class(
    seed: int, dims: int, border: int
) -> None:
    rng = np.random.default_rng(seed)
    names = ["a", "b", "c", "d"]
    names[border] = "border"
    classes = rng.integers(0, 4, (9,) * dims)
    p = rng.dirichlet(np.ones(4), classes.shape).astype(np.float32)
    p = np.moveaxis(p, -1, 0)
    found, counts = Apart.by(names).objects(classes, p)
    total = 0
    for k, name in enumerate(names):
        if name not in counts:
            continue
        numbers = np.arange(total + 1, total + 1 + counts[name])
        total += counts[name]
        its = np.isin(found, numbers)
        assert set(np.unique(classes[its])) <= {k, border or k}
        assert its[classes == k].all()
        # a seed is a part that touches by faces; it may flow into no other
        assert counts[name] == ndimage.label(classes == k)[1]
    assert total == found.max(initial=0)
    assert not found[classes == 0].any()


def test_a_pixel_between_two_classes_goes_to_the_likelier_one() -> None:
    classes = np.array([[1, 3, 3, 2]])
    p = np.zeros((4, 1, 4), np.float32)
    p[1, 0], p[2, 0], p[3, 0] = (0.9, 0.3, 0.1, 0.0), (0.0, 0.1, 0.4, 0.9), (0.1, 0.6, 0.5, 0.1)
    found, counts = Apart.by(("background", "a", "b", "border")).objects(classes, p)
    assert found.tolist() == [[1, 1, 2, 2]] and counts == {"a": 1, "b": 1}


def test_two_discs_that_touch_are_two_where_no_class_is_a_border() -> None:
    y, x = np.indices((30, 60))
    classes = ((y - 15) ** 2 + (x - 18) ** 2 < 144) | ((y - 15) ** 2 + (x - 40) ** 2 < 144)
    assert ndimage.label(classes)[1] == 1
    found, counts = apart(NO_NAMES, classes.astype(np.uint8))
    assert counts == {"1": 2} and found[15, 18] != found[15, 40]
    assert ((found > 0) == classes).all()


def test_membranes_leave_the_parts_between_them() -> None:
    classes = np.ones((20, 20), np.uint8)
    classes[7], classes[:, 11] = 0, 0
    found, counts = apart(("membrane", "inside"), classes)
    assert counts == {"inside": 4} and ((found > 0) == (classes == 1)).all()


def test_small_objects_are_left_out() -> None:
    classes = np.zeros((20, 20), np.uint8)
    classes[2:4, 2:4], classes[8:16, 8:16] = 1, 1
    assert apart(NO_NAMES, classes, min_size=5)[1] == {"1": 1}
    assert apart(NO_NAMES, classes, min_size=4)[1] == {"1": 2}
    found, _ = apart(NO_NAMES, classes, min_size=5)
    assert np.unique(found).tolist() == [0, 1] and not found[2, 2]


def test_a_picture_gets_a_png_of_numbers_and_a_count_of_each_class(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    path = tmp_path / "a.png"
    Image.fromarray(noise(60, 50)).save(path)
    (row,) = run.predict(path, out=tmp_path / "out", instances=True)
    numbers = Image.open(row["instances"])
    assert numbers.mode == "I;16" and Path(row["instances"]).name == "a-instances.png"
    found, mask = np.asarray(numbers), np.asarray(Image.open(row["mask"]))
    assert row["objects"] == {"cell": ndimage.label(mask == 1)[1]} and found.max() > 10
    assert len(np.unique(found)) == found.max() + 1
    assert row["apart"] == "watershed over the class border"
    least = int(np.median(np.bincount(found.ravel())[1:]))
    (fewer,) = run.predict(path, out=tmp_path / "few", instances=True, min_size=least)
    kept = (np.bincount(found.ravel())[1:] >= least).sum()
    assert fewer["objects"] == {"cell": kept}


def test_a_run_with_itself_finds_the_objects_that_it_finds_alone(tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "other", seed=1)
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 44)).save(path)
    (alone,) = run.predict(path, out=tmp_path / "alone", instances=True)
    for vote in ("mean", "majority", "unanimity"):
        (row,) = run.predict(path, out=tmp_path / vote, instances=True, members=[run], vote=vote)
        assert Path(row["instances"]).read_bytes() == Path(alone["instances"]).read_bytes()
        (row,) = run.predict(path, out=tmp_path / vote, instances=True, members=[other], vote=vote)
        mask = np.asarray(Image.open(row["mask"]))
        assert row["objects"] == {"cell": ndimage.label(mask == 1)[1]}


@pytest.mark.parametrize("dims", [2, 3])
def test_objects_of_a_stack_go_through_its_slices(tmp_path: Path, dims: int) -> None:
    run = made_run(tmp_path / "run", dims=dims)
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, noise(10, 24, 20))
    (row,) = run.predict(path, out=tmp_path / "out", instances=True)
    found, mask = tifffile.imread(row["instances"]), tifffile.imread(row["mask"])
    assert found.shape == (10, 24, 20) and found.dtype == np.uint16
    assert row["objects"] == {"cell": ndimage.label(mask == 1)[1]}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("memory", [None, 1.8])
def test_a_volume_is_cut_into_the_planes_that_were_learnt(
    tmp_path: Path, axis: int, memory: float | None
) -> None:
    run = made_run(tmp_path / "run", axis=axis)
    volume = noise(34, 36, 40)
    tifffile.imwrite(tmp_path / "v.tif", volume)
    (row,) = run.predict(tmp_path / "v.tif", out=tmp_path / "out", memory_mb=memory)
    mask = tifffile.imread(row["mask"])
    assert mask.shape == volume.shape
    for k in (0, 7, 33):
        Image.fromarray(volume.take(k, axis)).save(tmp_path / f"{k}.png")
        (plane,) = run.predict(tmp_path / f"{k}.png", out=tmp_path / "planes")
        assert (np.asarray(Image.open(plane["mask"])) == mask.take(k, axis)).all()


def test_more_objects_than_a_png_can_number_are_a_tiff(tmp_path: Path) -> None:
    from residua.training.segmentation.masks import _write_objects

    many = np.arange(1, 70_001, dtype=np.int32).reshape(200, 350)
    path = _write_objects(tmp_path / "a.png", many, tmp_path / "a.jpg")
    assert path.name == "a-instances.tif" and (tifffile.imread(path) == many).all()


def test_the_command_line_counts_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path / "run")
    path = tmp_path / "a.png"
    Image.fromarray(noise(40, 44)).save(path)
    said = []
    for more in (["--json"], []):
        with pytest.raises(SystemExit) as done:
            main(["predict", str(run.path), str(path), "--instances", "--min-size", "9", *more])
        assert done.value.code == 0
        said.append(capsys.readouterr().out)
    n = json.loads(said[0])[0]["objects"]["cell"]
    assert f"objects: {n} cell" in said[1]
    assert "objects: watershed over the class border" in said[1]
