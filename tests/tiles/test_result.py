import json
import math
import resource
import signal
import subprocess
import sys

import numpy as np
import pytest

from residua.tiles import CannotWrite, Geometry, predict
from residua.tiles.plan import Wish, make_plan
from tests.tiles.nets import Down, noise

MB = 2**20
OPTIONS = {"classes": 3, "tile": 16, "overlap": 0.6, "exact": False, "dtype": "float32"}
LOCAL = Geometry("", ((20, 20),) * 3, (4,) * 3, (0,) * 3, None, False, 256.0)


def test_a_file_holds_what_memory_would(tmp_path):
    net, picture = Down(2, 1), noise(50, 40)
    expected = predict(net, picture, **OPTIONS)
    found = predict(net, picture, **OPTIONS, out=tmp_path / "p.npy")
    assert np.array_equal(np.load(tmp_path / "p.npy"), expected) and np.array_equal(found, expected)
    assert [path.name for path in tmp_path.iterdir()] == ["p.npy"]


class Killed(BaseException):
    pass


def stopped_after(tiles, net, picture, out, **options):
    def stop(done, _):
        if done >= tiles:
            raise Killed

    with pytest.raises(Killed):
        predict(net, picture, **OPTIONS | options, out=out, progress=stop)


@pytest.mark.parametrize("exact", [False, True], ids=["blend", "exact"])
@pytest.mark.parametrize("tiles", [1, 30, 80])
def test_what_was_stopped_goes_on_to_the_same_bits(tmp_path, tiles, exact):
    net, picture, out = Down(2, 1), noise(90, 70), tmp_path / "p.npy"
    options = {"exact": True, "overlap": None, "tile": 26} if exact else {}
    expected = predict(net, picture, **OPTIONS | options)
    stopped_after(min(tiles, 20) if exact else tiles, net, picture, out, **options)
    assert not out.exists()
    told = []
    predict(net, picture, **OPTIONS | options, out=out, progress=lambda done, _: told.append(done))
    assert np.array_equal(np.load(out), expected)


KILLED = """
import os, signal, sys
import numpy as np
from residua.tiles import predict
from tests.tiles.nets import Down, noise

def stop(done, _):
    if done >= 110:
        os.kill(os.getpid(), signal.SIGKILL)

predict(Down(2, 1), noise(90, 70), classes=3, tile=16, overlap=0.6, exact=False,
        out=sys.argv[1], progress=stop)
"""


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(tmp_path):
    out = tmp_path / "p.npy"
    process = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    done = json.loads((tmp_path / "p.npy.progress.json").read_text())["done"]
    assert done > 0
    net, picture, told = Down(2, 1), noise(90, 70), []
    predict(net, picture, **OPTIONS, out=out, progress=lambda d, total: told.append((d, total)))
    assert told[-1][0] < told[-1][1]  # not all of it again
    assert np.array_equal(np.load(out), predict(net, picture, **OPTIONS))


def test_progress_of_other_settings_is_refused_in_one_line(tmp_path):
    net, picture, out = Down(2, 1), noise(90, 70), tmp_path / "p.npy"
    stopped_after(40, net, picture, out)
    with pytest.raises(ValueError, match=r"begun with another flips \(\[\], now \[0\]\)") as caught:
        predict(net, picture, **OPTIONS, out=out, flips=(0,))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="another pixels of the first tile"):
        predict(net, noise(90, 70, seed=1), **OPTIONS, out=out)
    predict(net, picture, **OPTIONS, out=out, flips=(0,), resume=False)
    assert np.array_equal(np.load(out), predict(net, picture, **OPTIONS, flips=(0,)))


def test_a_damaged_progress_is_refused_in_one_line(tmp_path):
    (tmp_path / "p.npy.part").write_bytes(b"")
    (tmp_path / "p.npy.progress.json").write_text("{")
    with pytest.raises(ValueError, match="not the progress of a prediction"):
        predict(Down(2, 1), noise(40, 40), **OPTIONS, out=tmp_path / "p.npy")


def test_a_full_disk_is_one_line_before_any_tile_is_computed(tmp_path):
    net, picture, told = Down(2, 1), noise(300, 300), []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CannotWrite, match=r"p\.npy: cannot be written \(") as caught:
            predict(
                net,
                picture,
                **OPTIONS,
                out=tmp_path / "p.npy",
                progress=lambda *_: told.append(1),
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert "\n" not in str(caught.value) and not told
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_memory_does_not_hold_asks_for_a_file():
    with pytest.raises(ValueError, match=r"the result has .* MB, more than half .*out="):
        predict(Down(2, 1), noise(600, 600), **OPTIONS, memory_mb=4)


@pytest.mark.parametrize("exact", [False, True], ids=["blend", "exact"])
@pytest.mark.parametrize("memory_mb", [1024, 2048, 8192])
def test_a_volume_of_2000_x_2000_x_200_with_60_classes_is_planned_within_memory(memory_mb, exact):
    shape = (200, 2000, 2000)
    wish = Wish(60, None, None, exact, "gaussian", None, memory_mb, "classes")
    plan = make_plan(shape, LOCAL, wish, channels=1, in_memory=False)
    assert plan.memory(in_memory=False) <= memory_mb * MB
    naive = 60 * math.prod(shape) * 4
    assert naive > 170 * 2**30 > 20 * plan.memory(in_memory=False)
    covered = np.zeros((4, 4), int)
    for strip in plan.strips:  # every pixel is in one strip
        (a, b), (c, d) = strip.pixels
        covered[a // 500 : -(-b // 500), c // 500 : -(-d // 500)] += 1
    assert sum(math.prod(b - a for a, b in s.pixels) for s in plan.strips) == 2000 * 2000
    assert covered.all()


MEASURED = """
import resource, sys
import numpy as np, torch
from torch import nn
from residua.tiles import geometry_of, plan_for, predict

torch.set_num_threads(1)
shape, classes, memory = tuple(map(int, sys.argv[2].split("x"))), int(sys.argv[3]), int(sys.argv[4])
class Volume:
    shape = (1, *shape)
    def __getitem__(self, slices):
        sides = [s.stop - s.start for s in slices[1:]]
        return np.random.default_rng(0).normal(size=(1, *sides)).astype(np.float32)
volume = Volume()
volume.shape = (1, *shape)
net = nn.Conv3d(1, classes, 3, padding=1)
options = dict(classes=classes, tile=32, overlap=0.25, exact=False, memory_mb=memory, dtype="classes")
plan = plan_for(net, volume, in_memory=False, **options)
predict(net, np.zeros((1, 32, 32, 32), np.float32), classes=classes, tile=32, exact=False)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
predict(net, volume, out=sys.argv[1], **options)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(plan.memory(False) / 2**20, (after - before) / 1024, len(plan.strips))
"""


def measured(tmp_path, shape, classes, memory_mb):
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "p.npy")]
    sizes = ["x".join(map(str, shape)), str(classes), str(memory_mb)]
    done = subprocess.run(command + sizes, check=True, capture_output=True, text=True)
    planned, used, strips = map(float, done.stdout.split())
    assert np.load(tmp_path / "p.npy", mmap_mode="r").shape == shape
    return planned, used, strips


def test_peak_memory_stays_within_what_was_given(tmp_path):
    shape, classes, memory_mb = (48, 160, 96), 60, 80
    planned, used, strips = measured(tmp_path, shape, classes, memory_mb)
    assert 4 * classes * math.prod(shape) / MB > 2 * memory_mb  # one buffer would not be
    assert strips > 1
    assert planned <= memory_mb and used <= memory_mb


def test_strips_share_the_memory_of_their_sums(tmp_path):
    planned, used, strips = measured(tmp_path, (32, 200, 400), 60, 400)
    assert strips > 1 and planned <= 400 and used <= 400


@pytest.mark.slow
def test_peak_memory_of_a_large_volume_stays_within_what_was_given(tmp_path):
    shape, classes, memory_mb = (200, 500, 500), 60, 512
    planned, used, _ = measured(tmp_path, shape, classes, memory_mb)
    assert 4 * classes * math.prod(shape) / MB > 20 * memory_mb
    assert planned <= memory_mb and used <= memory_mb
