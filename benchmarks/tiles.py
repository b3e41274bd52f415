"""Prediction in tiles against MONAI's sliding-window inference: pixels a second at equal overlap.

    python benchmarks/tiles.py [--size 512] [--tile 128] [--overlap 0.5] [--classes 2] [--rounds 5]

One network, one picture, the same tiles in batches of the same number, Gaussian weights, probabilities. The
two take turns, round by round, and the ratio is taken round by round. The network is given to both as it was
made; `residua.tiles` puts its weights and maps into channels-last order while it predicts. Results are
compared with constant weights, for which both state the same formula (MONAI raises small Gaussian weights to
0.001, which changes the border of the picture).

Where MONAI cannot be imported, its documented method stands in for it: windows at steps of (1 - overlap) of a
tile, the last one shifted, a sum of weighted outputs and a map of summed weights, one division.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from _common import caption, machine, ratios, shown, spread
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from residua.models import create_model
from residua.tiles import geometry_of, predict
from residua.training.devices import choose_device

TARGET = 1.2  # times MONAI's pixels a second
CLOSE = 1e-5
NETWORKS = {2: "unet", 3: "unet3d"}

Way = Callable[[str], np.ndarray]


def plain_loop(
    picture: Tensor, tile: tuple[int, ...], batch: int, run: Any, overlap: float, mode: str
) -> Tensor:
    """Return what the documented method gives for (1, C, *S), in a plain loop."""
    sides = picture.shape[2:]
    steps = [max(int(t * (1 - overlap)), 1) for t in tile]
    starts = [
        sorted({*range(0, n - t, s), n - t}) for n, t, s in zip(sides, tile, steps, strict=True)
    ]
    weight = torch.ones((), device=picture.device)
    for t in tile:
        x = torch.arange(t, device=picture.device) - (t - 1) / 2
        line = torch.exp(-0.5 * (x / (t / 8)) ** 2) if mode == "gaussian" else torch.ones_like(x)
        weight = weight[..., None] * line
    total: Any = 0
    count = torch.zeros(sides, device=picture.device)
    places = [
        tuple(slice(a, a + t) for a, t in zip(corner, tile, strict=True))
        for corner in itertools.product(*starts)
    ]
    for first in range(0, len(places), batch):
        some = places[first : first + batch]
        outputs = run(torch.cat([picture[(slice(None), slice(None), *p)] for p in some]))
        if first == 0:
            total = torch.zeros((outputs.shape[1], *sides), device=picture.device)
        for place, output in zip(some, outputs, strict=True):
            total[(slice(None), *place)] += weight * output
            count[place] += weight
    return (total / count)[None]


def peer() -> tuple[str, Any]:
    """Return the name of the other way and its function."""
    try:
        from monai.inferers import sliding_window_inference
    except ImportError:
        return "MONAI's method in a plain loop", plain_loop
    try:
        name = f"MONAI {version('monai')}"
    except PackageNotFoundError:
        name = "MONAI"
    return name, sliding_window_inference


def ways(network: nn.Module, picture: np.ndarray, options: argparse.Namespace) -> dict[str, Way]:
    device = next(network.parameters()).device
    given = torch.from_numpy(picture)[None]
    tile = (options.tile,) * options.dims
    known = geometry_of(network, 1, options.dims)
    _, function = peer()

    def theirs(mode: str) -> np.ndarray:
        with torch.inference_mode():
            found = function(
                given.to(device),
                tile,
                options.batch,
                lambda x: network(x).softmax(1),
                overlap=options.overlap,
                mode=mode,
            )
            return np.asarray(found[0].cpu().numpy())

    def ours(mode: str) -> np.ndarray:
        return predict(
            network,
            picture,
            classes=options.classes,
            tile=tile,
            overlap=options.overlap,
            exact=False,
            blend=mode,
            batch=options.batch,
            geometry=known,
        )

    return {"theirs": theirs, "ours": ours}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network = create_model(
        NETWORKS[options.dims], num_classes=options.classes, in_channels=1, width=options.width
    )
    network = network.to(choose_device(options.device)).eval()
    shape = (1, *(options.size,) * options.dims)
    picture = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    both = ways(network, picture, options)
    difference = float(np.abs(both["theirs"]("constant") - both["ours"]("constant")).max())
    seconds: dict[str, list[float]] = {name: [] for name in both}
    for _ in range(options.rounds):
        for name, way in both.items():
            start = time.perf_counter()
            way("gaussian")  # ends on the CPU: nothing is left to wait for
            seconds[name].append(time.perf_counter() - start)
    pixels = options.size**options.dims
    found: dict[str, Any] = {
        name: spread(pixels / s / 1e6 for s in values) for name, values in seconds.items()
    }
    return found | {"ratio": ratios(seconds["theirs"], seconds["ours"]), "difference": difference}


def table(found: dict[str, Any], options: argparse.Namespace) -> Table:
    title = (
        f"{NETWORKS[options.dims]}, width {options.width}, {options.classes} classes,"
        f" {options.size} pixels a side, tiles of {options.tile}, overlap {options.overlap},"
        f" batches of {options.batch}; n = {found['ratio']['n']}; target {TARGET} times"
    )
    out = Table(title=title)
    for heading in ("", "million pixels a second: median (min .. max)"):
        out.add_column(heading, justify="right" if heading else "left")
    out.add_row(peer()[0], shown(found["theirs"], ".3f"))
    out.add_row("residua", shown(found["ours"], ".3f"))
    out.add_row("ratio", shown(found["ratio"]))
    out.add_row("largest difference, constant weights", f"{found['difference']:.1e}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("size", 512), ("tile", 128), ("classes", 2), ("width", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dims", type=int, default=2, choices=sorted(NETWORKS))
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto: cuda if there is one")
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.size, options.tile, options.width, options.rounds = 64, 32, 4, 1
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    found = measure(options)
    facts = machine(choose_device(options.device)) | {"peer": peer()[0]}
    if options.json:
        json.dump({"machine": facts, "results": found}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(table(found, options))
        console.print(caption(facts))
    if found["difference"] > CLOSE or (found["ratio"]["median"] < TARGET and not options.quick):
        sys.exit(1)


if __name__ == "__main__":
    main()
