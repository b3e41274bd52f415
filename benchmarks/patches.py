"""Patches a second, cut, turned, scaled, bent and toned, from pictures in memory.

    python benchmarks/patches.py [--size 256] [--side 512] [--rounds 7] [--threads 1] [--json]

Every patch is rotated, scaled, bent elastically, mirrored, and given brightness, contrast, gamma and noise
(each with probability 1), with its mask. The peer does the same, from the same draws, as common tools do:
scipy's map_coordinates for each patch, pictures linear (or cubic, a common default) and masks nearest. The
way "slices" shows what remains when nothing is drawn. Rounds are interleaved, each over the same patches.
Reports median, minimum and maximum over n rounds, by the clock and by processor time (which others on the
machine disturb less), and how far the two ways' patches are apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any
from unittest import mock

import numpy as np
import torch
from _common import caption, common_options, machine, ratios, shown, spread
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.ndimage import gaussian_filter, map_coordinates

from residua.data import patches as ours
from residua.data.deform import Cut, Warp, displacements, turned
from residua.data.patch_augmentation import PatchAugmentation
from residua.data.patches import Patches

CLASSES, BATCH = 3, 8
OURS, LINEAR, CUBIC, SLICES = "residua", "scipy, linear", "scipy, cubic", "residua, slices"
AUGMENTATION = PatchAugmentation(
    flip=True,
    rotation=45,
    scale=(0.7, 1.4),
    elastic=10,
    brightness=0.3,
    contrast=(0.75, 1.25),
    gamma=(0.7, 1.5),
    noise=0.2,
)


def pictures(n: int, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pictures of smooth blobs (H, W, 1), and what is bright in them as masks."""
    generator = np.random.default_rng(0)
    made = []
    for _ in range(n):
        field = gaussian_filter(generator.standard_normal((side, side)), 6, mode="wrap")
        field = np.clip(128 + 45 * field / field.std(), 0, 255)
        made.append((field.astype(np.uint8)[..., None], np.digitize(field, (110, 160))))
    return [(picture, mask.astype(np.uint8)) for picture, mask in made]


def by_map_coordinates(order: int) -> Callable[..., Cut]:
    """Return `deform` as it is commonly done: float64 coordinates, then scipy for every channel."""

    def deform(
        picture: np.ndarray,
        mask: np.ndarray,
        shape: tuple[int, ...],
        centre: list[float],
        warp: Warp,
        **_: Any,
    ) -> Cut:
        lines = [np.arange(n) - (n - 1) / 2 for n in shape]
        places = np.stack(np.meshgrid(*lines, indexing="ij"))
        places += displacements(warp.elastic, shape)
        places = np.einsum("ij,jhw->ihw", warp.matrix, places)
        places += np.reshape(centre, (-1, 1, 1))
        values = picture.astype(np.float32)
        channels = [
            map_coordinates(values[..., k], places, order=order, mode="mirror")
            for k in range(values.shape[-1])
        ]
        labels = map_coordinates(mask, places, order=0, mode="mirror")
        return Cut(turned(np.stack(channels, -1), warp), turned(labels, warp), None)

    return deform


def runner(way: str, patches: Patches) -> Callable[[int], torch.Tensor]:
    """Return the making of a step's pictures in one of the ways."""
    if way not in (LINEAR, CUBIC):
        return lambda step: patches.batch(step).pictures
    peer = by_map_coordinates(1 if way == LINEAR else 3)

    def run(step: int) -> torch.Tensor:
        with mock.patch.object(ours, "deform", peer):
            return patches.batch(step).pictures

    return run


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return patches a second of each way, one number a round, and how far apart they are."""
    store = pictures(options.pictures, options.side)
    common = {
        "batch_size": BATCH,
        "seed": 0,
        "size": options.size,
        "train": True,
        "classes": CLASSES,
    }
    bent = Patches(store, augmentation=AUGMENTATION, **common)
    plain = Patches(store, **common)
    ways = {
        way: runner(way, plain if way == SLICES else bent) for way in (OURS, LINEAR, CUBIC, SLICES)
    }
    first = {way: run(0).numpy().astype(float) for way, run in ways.items()}
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    count = options.steps * BATCH
    for _ in track(range(options.rounds), "rounds", console=Console(stderr=True)):
        for way, run in ways.items():
            start, began = time.perf_counter(), time.process_time()
            for step in range(options.steps):
                run(step)
            busy[way].append(1e3 * (time.process_time() - began) / count)
            speeds[way].append(count / (time.perf_counter() - start))
    return {
        "patches_per_second": {way: spread(values) for way, values in speeds.items()},
        "processor_ms": {way: spread(values) for way, values in busy.items()},
        "ratio": {way: ratios(speeds[OURS], speeds[way]) for way in (LINEAR, CUBIC)},
        "processor_ratio": {way: ratios(busy[way], busy[OURS]) for way in (LINEAR, CUBIC)},
        "rounds": speeds,
        "levels_apart": float(np.abs(first[OURS] - first[LINEAR]).mean()),
    }


def table(found: dict[str, Any], options: argparse.Namespace, facts: dict[str, str]) -> Table:
    out = Table(
        title=f"Patches of {options.size} x {options.size} from {options.side} x {options.side} a second",
        caption=f"residua and scipy are {found['levels_apart']:.3f} levels of 255 apart on average;"
        f" {caption(facts)}",
    )
    headings = ("way", "patches a second", "residua is faster", "processor ms", "by it", "n")
    for heading in headings:
        out.add_column(heading, justify="left" if heading == "way" else "right")
    for way, speeds in found["patches_per_second"].items():
        faster = [found[key].get(way) for key in ("ratio", "processor_ratio")]
        by_clock, by_processor = ("" if r is None else shown(r, ".1f", "x") for r in faster)
        busy = shown(found["processor_ms"][way], ".2f")
        out.add_row(way, shown(speeds, ".0f"), by_clock, busy, by_processor, str(speeds["n"]))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="pixels of a patch's side")
    parser.add_argument("--side", type=int, default=512, help="pixels of a picture's side")
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help=f"in a round, of {BATCH} patches")
    parser.add_argument("--rounds", type=int, default=7)
    common_options(parser)  # of which the device is not used: augmentation runs on the CPU
    options = parser.parse_args()
    if options.quick:
        options.size, options.side, options.pictures = 32, 64, 2
        options.steps, options.rounds = 1, 2
    if options.threads:
        torch.set_num_threads(options.threads)
    found = measure(options)
    facts = machine(torch.device("cpu")) | {"scipy": version("scipy")}
    if options.json:
        print(json.dumps({"versions": facts} | found, indent=2))
    else:
        Console().print(table(found, options, facts))


if __name__ == "__main__":
    main()
