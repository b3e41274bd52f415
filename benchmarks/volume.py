"""A volume that does not fit into memory: 2,000 x 2,000 x 200 voxels, 60 classes, class numbers to disk.

    python benchmarks/volume.py [--shape 200 2000 2000] [--classes 60] [--memory 1024] [--out FILE.npy]

A 3-D U-Net with random weights predicts a volume that is made up where it is read, in exact tiles, in a
process that is killed (SIGKILL) at half and started again. Probabilities of the whole would be
shape x classes x 4 bytes. Reported: what the plan says it takes, the most that either process held beside
what it had held before, the time, and tiles done before and after the kill. In the end cubes at random places
are predicted by the network itself, from the volume around them, and compared.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Contender, caption, machine, peak_megabytes, serve
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from residua.models import create_model
from residua.tiles import geometry_of, plan_for, predict
from residua.training.devices import choose_device

PERIOD = 61  # voxels after which the noise comes again: no multiple of any stride
CUBES, SIDE = 20, 4  # that are compared, and their voxels a side
KILL_AT = 0.5  # of the tiles
MEGABYTE = 2**20


class Volume:
    """Noise (1, D, H, W) that is made up where it is read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = (1, *shape)
        self.noise = np.random.default_rng(0).normal(size=(PERIOD,) * 3).astype(np.float32)

    def __getitem__(self, slices: Any) -> NDArray[np.float32]:
        found = self.noise
        for axis, (span, side) in enumerate(zip(slices[1:], self.shape[1:], strict=True)):
            places = np.arange(*span.indices(side))
            # slow waves, so that no two places of the volume are alike
            found = found.take(places % PERIOD, axis)
            wave = np.sin(places / 97).astype(np.float32)
            found = found + wave.reshape([-1 if i == axis else 1 for i in range(3)])
        return found[None]


def network(options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    return create_model(
        "unet3d",
        num_classes=options["classes"],
        in_channels=1,
        width=options["width"],
        depth=options["depth"],
    ).eval()


def serve_way(options: dict[str, Any]) -> None:
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    net, volume = network(options), Volume(tuple(options["shape"]))
    common = {"classes": options["classes"], "dtype": "classes", "exact": True}
    common["memory_mb"] = options["memory"]
    small = Volume((16, 16, 16))
    predict(net, small, classes=options["classes"])  # what torch loads is not on the account

    def run(kill: bool) -> dict[str, Any]:
        plan = plan_for(net, volume, in_memory=False, **common)
        first: list[int] = []
        before, start = peak_megabytes(torch.device("cpu")), time.perf_counter()

        def progress(done: int, total: int) -> None:
            first.append(done)
            if kill and done >= KILL_AT * total:
                facts = {"seconds": time.perf_counter() - start, "tiles": done}
                facts["used"] = peak_megabytes(torch.device("cpu")) - before
                Path(options["out"]).with_suffix(".killed").write_text(json.dumps(facts))
                os.kill(os.getpid(), signal.SIGKILL)

        predict(net, volume, out=options["out"], progress=progress, **common)
        return {
            "seconds": time.perf_counter() - start,
            "tiles": first[-1],
            "used": peak_megabytes(torch.device("cpu")) - before,
            "planned": plan.memory(False) / MEGABYTE,
            "tile": list(plan.tile),
            "exact": plan.exact,
            "total": plan.tiles,
        }

    serve({"run": run})


@torch.inference_mode()
def wrong(options: dict[str, Any]) -> int:
    """Return how many voxels of cubes at random places are not what the network says of them alone."""
    net, volume = network(options), Volume(tuple(options["shape"]))
    found = np.load(options["out"], mmap_mode="r")
    geometry = geometry_of(net, 1, 3)
    generator, different = np.random.default_rng(1), 0
    for _ in range(CUBES):
        inside, around = [], []
        each = zip(volume.shape[1:], geometry.halo, geometry.stride, strict=True)
        for side, (before, after), stride in each:
            at = int(generator.integers(side - SIDE + 1))
            low = max(at - before, 0) // stride * stride
            high = min(side, -(-(at + SIDE + after) // stride) * stride)
            inside.append((at, low))
            around.append(slice(low, high))
        scores = net(torch.from_numpy(volume[(slice(None), *around)])[None])[0]
        alone = scores[(slice(None), *(slice(a - b, a - b + SIDE) for a, b in inside))].argmax(0)
        there = found[tuple(slice(a, a + SIDE) for a, _ in inside)]
        different += int((alone.numpy() != there).sum())
    return different


def measure(options: dict[str, Any]) -> dict[str, Any]:
    killed = Path(options["out"]).with_suffix(".killed")
    try:
        with Contender("volume", **options) as first:
            first.ask("run", kill=True)
    except RuntimeError:
        before = json.loads(killed.read_text())
    with Contender("volume", **options) as second:
        after = second.ask("run", kill=False)
    whole = 4 * options["classes"] * math.prod(options["shape"]) / MEGABYTE
    return {
        "setting": options,
        "before": before,
        "after": after,
        "probabilities": whole,
        "wrong": wrong(options),
        "compared": CUBES * SIDE**3,
    }


def table(found: dict[str, Any]) -> Table:
    facts, before, after = found["setting"], found["before"], found["after"]
    out = Table(
        title=f"{' x '.join(f'{n:,}' for n in facts['shape'])} voxels, {facts['classes']} classes,"
        f" {facts['memory']:,} MB given; tiles of {' x '.join(map(str, after['tile']))},"
        f" {'exact' if after['exact'] else 'blended'}",
        caption=f"planned {after['planned']:,.0f} MB; the probabilities of all would be"
        f" {found['probabilities']:,.0f} MB; {found['wrong']} of {found['compared']:,} voxels differ from"
        " what the network says of their surroundings alone",
    )
    for heading in ("process", "seconds", "tiles", "peak MB"):
        out.add_column(heading, justify="left" if heading == "process" else "right")
    for name, row in (("until it was killed", before), ("after that", after)):
        out.add_row(name, f"{row['seconds']:,.0f}", f"{row['tiles']:,}", f"{row['used']:,.0f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[200, 2000, 2000])
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--memory", type=float, default=1024, help="MB that the prediction may use")
    parser.add_argument("--width", type=int, default=4)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--out", type=Path, help="the .npy file; default: one that is removed")
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve_way(options.serve)
        return
    if options.quick:
        options.shape, options.classes, options.memory = [160, 40, 40], 5, 24
    facts = {key: getattr(options, key) for key in ("shape", "classes", "memory", "width")}
    facts |= {"depth": options.depth, "threads": options.threads}
    with tempfile.TemporaryDirectory() as made:
        out = options.out or Path(made) / "classes.npy"
        found = measure(facts | {"out": str(out)})
    about = machine(choose_device("cpu"))
    if options.json:
        json.dump({"machine": about, "results": found}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(table(found))
        console.print(caption(about))
    used = max(found[key]["used"] for key in ("before", "after"))
    if found["wrong"] or (used > options.memory and not options.quick):
        sys.exit(1)


if __name__ == "__main__":
    main()
