"""What is on disk: resumed after a kill, shared by ranks, read again by other programs; pages and figures."""

import json
import multiprocessing
import os
import re
import signal

import numpy as np
import pytest
import torch

from residua.errors import BadInput, ResiduaError
from residua.models import create_model
from residua.report.landscape import rings
from residua.xray.landscape import landscape, storage
from residua.xray.landscape.losses import Meter
from residua.xray.landscape.storage import Store, ranks, whole

NAMES = ("x", "y", "loss", "error", "paired", "accuracy", "evaluated", "interpolation")
PROCESSES = multiprocessing.get_context("fork")


def measured(out=None, progress=None, **options):
    torch.manual_seed(0)
    model = create_model("resnet20_cifar", 4).eval()
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    given = {"points": 9, "span": (-0.7, 0.8), "pairs": 2, "tolerance": 0.2} | options
    return landscape(model, x, y, out=out, progress=progress, **given)


@pytest.fixture(scope="module")
def plain():
    return measured()


def same(left, right):
    return all(
        np.array_equal(getattr(left, name), getattr(right, name), equal_nan=True) for name in NAMES
    )


def killed(folder, after):
    """Be killed in the middle, with SIGKILL: nothing can tidy up."""
    storage.FLUSH_SECONDS = 0.0
    done = 0

    def progress(share, what):
        nonlocal done
        done += 1
        if done > after:
            os.kill(os.getpid(), signal.SIGKILL)

    measured(folder, progress)


@pytest.mark.parametrize("after", [3, 60, 100])
def test_what_was_killed_goes_on_and_ends_with_the_same_bits(tmp_path, plain, after, monkeypatch):
    process = PROCESSES.Process(target=killed, args=(tmp_path, after))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    kept = sum(len(np.load(shard)["point"]) for shard in tmp_path.glob("points-*.npz"))
    assert kept > 0
    evaluated = 0
    at = Meter.at

    def counted(meter, where):
        nonlocal evaluated
        evaluated += 1
        return at(meter, where)

    monkeypatch.setattr(Meter, "at", counted)
    again = measured(tmp_path)
    assert same(again, plain)
    assert evaluated == plain.evaluated.sum() - kept


def as_rank(folder, rank, world):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
    measured(folder)


def test_two_ranks_do_what_one_does(tmp_path, plain):
    processes = [PROCESSES.Process(target=as_rank, args=(tmp_path, rank, 2)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    shares = [np.load(tmp_path / f"points-{rank}-of-2.npz")["point"] for rank in (0, 1)]
    assert not set(shares[0]) & set(shares[1])
    assert abs(len(shares[0]) - len(shares[1])) <= 0.2 * len(shares[0])
    assert same(measured(tmp_path), plain)


def test_a_folder_with_another_landscape_is_refused(tmp_path):
    measured(tmp_path, points=3, pairs=1)
    with pytest.raises(BadInput, match=r"another landscape is there \(seed 0, asked for 1\)"):
        measured(tmp_path, points=3, pairs=1, seed=1)
    (tmp_path / "points-0-of-1.npz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match=r"points-0-of-1\.npz: cannot be read"):
        measured(tmp_path, points=3, pairs=1)


def test_ranks_without_a_folder_and_strange_ranks_are_refused(monkeypatch):
    with pytest.raises(BadInput, match="need a folder"):
        Store(None, {}, 0, 2)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadInput, match="below the size"):
        ranks()
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(BadInput, match="not numbers"):
        ranks()


def test_a_rank_that_is_left_alone_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    store = Store(tmp_path, {}, 0, 2)
    with pytest.raises(ResiduaError, match="no other rank"):
        store.wait([1])


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(RuntimeError), whole(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ResiduaError, match="cannot write"), whole(tmp_path) as file:
        file.write(b"a folder is there")


def read_vtk(path):
    """Read a binary structured grid of the legacy format, as its description has it."""
    data = path.read_bytes()
    head = re.match(
        rb"# vtk DataFile Version 3\.0\n([^\n]{0,255})\nBINARY\nDATASET STRUCTURED_GRID\n"
        rb"DIMENSIONS (\d+) (\d+) 1\nPOINTS (\d+) double\n",
        data,
    )
    columns, rows, n = (int(head[k]) for k in (2, 3, 4))
    at = head.end()
    points = np.frombuffer(data, ">f8", 3 * n, at).reshape(rows, columns, 3)
    at += 24 * n
    section = f"\nPOINT_DATA {n}\n".encode()
    assert data[at : at + len(section)] == section
    at += len(section)
    values = {}
    while at < len(data):
        name = re.compile(rb"SCALARS (\S+) double 1\nLOOKUP_TABLE default\n").match(data, at)
        values[name[1].decode()] = np.frombuffer(data, ">f8", n, name.end()).reshape(rows, columns)
        at = name.end() + 8 * n
        assert data[at : at + 1] == b"\n"
        at += 1
    return points, values


def test_files_hold_what_was_measured_and_no_row_is_shifted(tmp_path, plain):
    written = plain.save(tmp_path)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    arrays = np.load(tmp_path / "landscape.npz")
    assert all(np.array_equal(arrays[name], getattr(plain, name)) for name in NAMES)
    for pair in (0, 1):
        points, values = read_vtk(tmp_path / f"landscape-{pair}.vtk")
        assert np.array_equal(values["loss"], plain.loss[pair])
        assert np.array_equal(values["standard_error"], plain.error[pair])
        assert np.array_equal(points[..., 2], plain.loss[pair])
        for row in range(9):
            assert np.array_equal(points[row, :, 0], plain.x)
            assert (points[row, :, 1] == plain.y[row]).all()
    assert (tmp_path / "contour.png").read_bytes().startswith(b"\x89PNG")


def figure(page, name):
    found = re.search(rf'<script type="application/json" id="figure-{name}">(.*?)</script>', page)
    return json.loads(found[1])


def test_the_page_loads_nothing_and_shows_the_numbers(tmp_path, plain):
    plain.facts["name"] = "<i>mine</i>"
    plain.save(tmp_path)
    page = (tmp_path / "landscape.html").read_text(encoding="utf-8")
    assert "<i>mine</i>" not in page and "&lt;i&gt;mine" in page
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(?!data:)', page)
    surface = figure(page, "surface")["data"][0]
    heights = np.array(surface["z"])
    expected = np.log10(plain.loss[0]) if plain.page_facts().logarithmic else plain.loss[0]
    np.testing.assert_allclose(heights, expected, rtol=1e-4, atol=1e-4)
    for pair in (0, 1):
        assert figure(page, f"contour-{pair}")["data"][0]["type"] == "contour"
    assert len(figure(page, "profile")["data"]) == 2


def test_the_profile_is_the_mean_over_rings():
    found = measured(points=11, span=(-1, 1), tolerance=0, pairs=1)
    radii, (means,) = rings(found.page_facts())
    np.testing.assert_allclose(radii, np.linspace(0, 1, 6))
    assert means[0] == found.loss[0][found.centre]
    for k, mean in enumerate(means):
        on_ring = [
            found.loss[0, row, column]
            for row, b in enumerate(found.y)
            for column, a in enumerate(found.x)
            if abs(np.hypot(a, b) - radii[k]) < 0.1
        ]
        assert mean == pytest.approx(np.mean(on_ring))


@pytest.mark.parametrize("options", [{"line": True}, {"line": True, "pairs": 1}])
def test_a_line_has_a_page_of_its_own(tmp_path, options):
    found = measured(**options)
    assert found.is_line and found.loss.shape == (options.get("pairs", 2), 1, 9)
    found.save(tmp_path)
    page = (tmp_path / "landscape.html").read_text(encoding="utf-8")
    assert len(figure(page, "line")["data"]) == len(found.loss)


def test_a_trajectory_is_drawn_over_its_plane(tmp_path):
    torch.manual_seed(0)
    model = create_model("resnet20_cifar", 4)
    states = [
        {
            name: value + 0.05 * k * torch.randn(value.shape)
            for name, value in model.state_dict().items()
        }
        for k in (2, 1)
    ]
    found = measured(directions="pca", trajectory=states, pairs=1, span=None, points=5)
    assert found.path.shape == (2, 2)
    assert (found.path.min(0) > [found.x[0], found.y[0]]).all()
    assert (found.path.max(0) < [found.x[-1], found.y[-1]]).all()
    found.save(tmp_path)
    page = (tmp_path / "landscape.html").read_text(encoding="utf-8")
    drawn = figure(page, "contour-0")["data"][-1]
    assert drawn["x"][:2] == pytest.approx(found.path[:, 0].tolist(), rel=1e-3)
    assert (drawn["x"][2], drawn["y"][2]) == (0.0, 0.0)
