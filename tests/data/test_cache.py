"""The cache gives back what the files hold, notices when they change, and survives bad disks."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from residua.data.cache import PixelStore, default_folder, fitted, in_order, store
from residua.data.pictures import Split, open_pictures
from residua.errors import BadInput, ResiduaError


def split_of(paths: list[Path], channels: int = 3) -> Split:
    return Split(
        labels=np.zeros(len(paths), np.int64),
        names=[p.name for p in paths],
        channels=channels,
        paths=paths,
    )


def write(folder: Path, pictures: list[np.ndarray]) -> list[Path]:
    paths = [folder / f"{i}.png" for i in range(len(pictures))]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return paths


@pytest.fixture
def files(tmp_path, draw) -> list[Path]:
    return write(tmp_path, [draw((8, 8, 3), seed) for seed in range(10)])


class Calls:
    """Counts what a progress callback is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.seen.append((done, total))


shapes = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=5)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(shapes=shapes, channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_pictures_no_larger_than_asked_for_come_back_as_they_are(
    tmp_path_factory, draw, shapes, channels, seed
):
    folder = tmp_path_factory.mktemp("ragged")
    pictures = [draw((*shape, channels), seed + i) for i, shape in enumerate(shapes)]
    split = split_of(write(folder, pictures), channels)
    for _ in range(2):  # made, then found
        found = store(split, size=12, channels=channels, uniform=False, folder=folder)
        assert len(found) == len(pictures)
        assert all(np.array_equal(found[i], p) for i, p in enumerate(pictures))
    assert np.array_equal(found[-1], pictures[-1])
    with pytest.raises(IndexError):
        found[len(pictures)]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 9), size=st.integers(1, 10), channels=st.sampled_from([1, 3]))
def test_pictures_of_the_size_asked_for_come_back_as_they_are(
    tmp_path_factory, draw, count, size, channels
):
    folder = tmp_path_factory.mktemp("uniform")
    pictures = [draw((size, size, channels), seed) for seed in range(count)]
    split = split_of(write(folder, pictures), channels)
    for _ in range(2):
        found = store(split, size=size, channels=channels, folder=folder)
        assert found.pixels.shape == (count, size, size, channels)
        assert np.array_equal(found.pixels, np.stack(pictures))


def test_more_pictures_than_a_chunk_stay_in_order(tmp_path, draw):
    pictures = [np.full((2, 2, 1), i % 251, np.uint8) for i in range(700)]
    found = store(split_of(write(tmp_path, pictures), 1), size=2, channels=1, folder=tmp_path)
    assert found.pixels[:, 0, 0, 0].tolist() == [i % 251 for i in range(700)]


def test_the_second_time_nothing_is_decoded(files, tmp_path):
    first, second = Calls(), Calls()
    store(split_of(files), size=8, channels=3, folder=tmp_path / "c", progress=first)
    store(split_of(files), size=8, channels=3, folder=tmp_path / "c", progress=second)
    assert first.seen[-1] == (10, 10)
    assert second.seen == []


@pytest.mark.parametrize("change", ["content", "time", "size asked for", "order", "one more"])
def test_any_change_is_noticed(files, tmp_path, draw, save, change):
    split, size = split_of(files), 8
    store(split, size=size, channels=3, folder=tmp_path / "c")
    if change == "content":
        Image.fromarray(draw((8, 8, 3), 77)).save(files[4])
    elif change == "time":
        os.utime(files[4], ns=(1, 1))
    elif change == "size asked for":
        size = 6
    elif change == "order":
        split = split_of(files[::-1])
    else:
        split = split_of([*files, save(tmp_path / "more.png")])
    calls = Calls()
    found = store(split, size=size, channels=3, folder=tmp_path / "c", progress=calls)
    assert calls.seen
    if change == "content":
        assert np.array_equal(found[4], draw((8, 8, 3), 77))


def test_a_uniform_picture_is_the_centre_of_the_resized_one(tmp_path):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 20:60] = 200  # the central square
    (path,) = write(tmp_path, [pixels])
    found = store(split_of([path]), size=10, channels=3, folder=tmp_path / "c")
    assert found.pixels.shape == (1, 10, 10, 3)
    assert np.all(np.abs(found[0][:, 2:-2].astype(int) - 200) <= 1)


def test_a_small_picture_is_enlarged_in_a_uniform_store_only(tmp_path, draw):
    paths = write(tmp_path, [draw((4, 6, 3))])
    assert store(split_of(paths), size=8, channels=3, folder=tmp_path)[0].shape == (8, 8, 3)
    ragged = store(split_of(paths), size=8, channels=3, uniform=False, folder=tmp_path)
    assert ragged[0].shape == (4, 6, 3)


def test_a_ragged_picture_is_reduced_to_its_short_side_and_keeps_its_aspect(tmp_path, draw):
    paths = write(tmp_path, [draw((40, 20, 3)), draw((30, 90, 3))])
    found = store(split_of(paths), size=10, channels=3, uniform=False, folder=tmp_path)
    assert [found[i].shape for i in range(2)] == [(20, 10, 3), (10, 30, 3)]
    assert not found.uniform


@pytest.mark.parametrize("uniform", [True, False])
def test_one_picture_decoded_alone_is_the_one_of_the_store(tmp_path, draw, uniform):
    split = split_of(write(tmp_path, [draw((40, 20, 3)), draw((5, 9, 3))]))
    found = store(split, size=10, channels=3, uniform=uniform, folder=tmp_path)
    for i in range(2):
        assert np.array_equal(fitted(split, i, 10, 3, uniform=uniform), found[i])


def test_an_array_of_the_right_size_is_used_without_a_copy(tmp_path, draw):
    split = Split(np.zeros(3, np.int64), ["a", "b", "c"], 1, array=draw((3, 8, 8, 1)))
    assert store(split, size=8, channels=1, folder=tmp_path).pixels is split.array
    assert list(tmp_path.iterdir()) == []


def test_an_array_of_another_size_is_resized(tmp_path, draw):
    split = Split(np.zeros(3, np.int64), ["a", "b", "c"], 1, array=draw((3, 8, 8, 1)))
    assert store(split, size=16, channels=3, folder=tmp_path).pixels.shape == (3, 16, 16, 3)


@pytest.mark.parametrize("uniform", [True, False])
def test_a_store_sent_to_a_worker_is_small_and_reads_the_same(files, tmp_path, uniform):
    found = store(split_of(files * 50), size=8, channels=3, uniform=uniform, folder=tmp_path)
    sent = pickle.dumps(found)
    assert len(sent) < found.pixels.nbytes / 2
    again: PixelStore = pickle.loads(sent)
    assert np.array_equal(again.pixels, found.pixels)
    assert np.array_equal(again[7], found[7])


def test_unreadable_pictures_are_named_together(files, tmp_path):
    for i in (2, 5, 6, 8):
        files[i].write_bytes(files[i].read_bytes()[:40])
    with pytest.raises(BadInput) as caught:
        store(split_of(files), size=8, channels=3, folder=tmp_path / "c")
    message = str(caught.value)
    assert message.startswith("4 pictures cannot be read: ")
    assert "2.png" in message
    assert message.endswith("and 1 more")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_damaged_entry_is_made_again(files, tmp_path):
    first = np.array(store(split_of(files), size=8, channels=3, folder=tmp_path / "c").pixels)
    (entry,) = (tmp_path / "c").iterdir()
    with (entry / "pixels.npy").open("r+b") as file:
        file.truncate(500)
    again = store(split_of(files), size=8, channels=3, folder=tmp_path / "c")
    assert np.array_equal(again.pixels, first)


SEVERAL = """
import sys
from pathlib import Path
import numpy as np
from residua.data.cache import store
from residua.data.pictures import Split
paths = sorted(Path(sys.argv[1]).glob("*.png"))
split = Split(np.zeros(len(paths), np.int64), [p.name for p in paths], 3, paths=paths)
for size in range(3, 30):
    found = store(split, size=size, channels=3, folder=Path(sys.argv[2]))
    assert found.pixels.shape == (len(paths), size, size, 3) and not found.note
"""


def test_several_processes_may_write_the_same_entry_at_once(files, tmp_path):
    cache = tmp_path / "c"
    command = [sys.executable, "-c", SEVERAL, str(tmp_path), str(cache)]
    writers = [subprocess.Popen(command) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(list(cache.iterdir())) == 27  # one a size, and nothing aside


def test_a_split_without_pictures_is_an_empty_store(tmp_path):
    found = store(split_of([]), size=4, channels=3, folder=tmp_path)
    assert found.pixels.shape == (0, 4, 4, 3)
    assert len(found) == 0


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from residua.data.cache import store
from residua.data.pictures import Split
paths = sorted(Path(sys.argv[1]).glob("*.png"))
split = Split(np.zeros(len(paths), np.int64), [p.name for p in paths], 3, paths=paths)
kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL)
store(split, size=8, channels=3, folder=Path(sys.argv[2]), progress=kill)
"""


def test_a_writer_killed_on_the_way_leaves_no_entry(files, tmp_path):
    cache = tmp_path / "c"
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(cache)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (aside,) = cache.iterdir()
    assert ".aside-" in aside.name
    calls = Calls()
    found = store(split_of(files), size=8, channels=3, folder=cache, progress=calls)
    assert calls.seen
    assert found.path is not None and found.path.parent == cache
    assert aside.exists()  # it might belong to another process that is still writing
    for path in (*aside.iterdir(), aside):
        os.utime(path, (1, 1))
    store(split_of(files), size=4, channels=3, folder=cache)
    assert not aside.exists()


@pytest.mark.parametrize("uniform", [True, False])
def test_a_cache_folder_that_cannot_be_made_leaves_the_pictures_in_memory(files, tmp_path, uniform):
    (tmp_path / "file").write_text("in the way")
    split = split_of(files)
    found = store(split, size=8, channels=3, uniform=uniform, folder=tmp_path / "file" / "cache")
    assert "are kept in memory" in found.note
    assert "Not a directory" in found.note
    assert all(np.array_equal(found[i], split.read(i)) for i in range(len(split)))
    assert np.array_equal(pickle.loads(pickle.dumps(found))[3], split.read(3))


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from residua.data.cache import store
from residua.data.pictures import Split
paths = sorted(Path(sys.argv[1]).glob("*.png"))
split = Split(np.zeros(len(paths), np.int64), [p.name for p in paths], 3, paths=paths)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
found = store(split, size=8, channels=3, folder=Path(sys.argv[2]))
assert all(np.array_equal(found[i], split.read(i)) for i in range(len(split)))
print(found.note)
"""


def test_a_disk_that_fills_up_leaves_the_pictures_in_memory_and_no_rest(files, tmp_path):
    cache = tmp_path / "c"
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(cache)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "File too large): the pictures are kept in memory" in ended.stdout
    assert list(cache.iterdir()) == []


def test_pictures_that_fit_nowhere_say_what_to_do(files, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResiduaError, match="set RESIDUA_CACHE to a folder with room") as caught:
        store(split_of(files), size=200_000, channels=3, folder=tmp_path / "file" / "c")
    assert "\n" not in str(caught.value)


def test_the_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "x"))
    assert default_folder() == tmp_path / "x"
    monkeypatch.delenv("RESIDUA_CACHE")
    assert default_folder() == Path.home() / ".cache" / "residua"


def test_an_error_in_one_chunk_ends_the_work():
    def work(rows: range) -> None:
        if 30 in rows:
            raise ValueError("chunk")

    with pytest.raises(ValueError, match="chunk"):
        list(in_order(1000, 10, work))


def test_pictures_are_mapped_and_cannot_be_changed_by_mistake(files, tmp_path):
    found = store(split_of(files), size=8, channels=3, folder=tmp_path / "c")
    with pytest.raises(ValueError, match="read-only"):
        found[0][...] = 0


def test_an_opened_set_goes_through_the_cache(tmp_path, class_folders):
    opened = open_pictures(class_folders(tmp_path / "set", {"a": 5, "b": 5}))
    for split in opened.splits.values():
        found = store(split, size=8, channels=opened.channels)
        assert all(np.array_equal(found[i], split.read(i)) for i in range(len(split)))
