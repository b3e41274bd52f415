"""What a point of a loss landscape costs, and how long a whole plane takes.

    python benchmarks/landscape.py [--data DIR] [--run RUN] [--rounds 10] [--threads N]
    python benchmarks/landscape.py --plane [--data DIR] [--run RUN] [--points 51] [--full 5000] [--check 100]

DIR holds CLASS/ folders with pictures (at any depth); without it made-up pictures are written to files. RUN
gives the weights; without it the network is at its initialisation, with statistics of these pictures.

Without --plane, two ways measure the same points in turn, each in a process of its own:

    residua   pictures decoded once and resident, weights moved in place, norms folded, channels last
    plain     the way of the public tools, re-created: every point is a full pass through a DataLoader of two
              workers that decodes each picture with Pillow again, new weights are made for every point and
              assigned, the network runs as it is written in torch's default memory format, batch 128

The directions are the same; the losses have to agree to 1e-5 relative. residua's speed is also given as a
share of a plain matrix product's in the same process, both in multiply-adds a second. Processor seconds are
those of all threads and workers together: where others use the machine, they say more than the clock.

With --plane, the whole plane is measured coarse to fine and timed. Then random points of it are measured in
full: on the same pictures, which shows what interpolation did, and on --full pictures drawn anew, which
shows whether the stated standard errors hold: the root mean square of (stated - full) / standard error, the
error of the full measurement included, should be about 1. The points share their pictures, so that their
errors are one draw rather than many; differences from the centre share less.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import Contender, caption, common_options, machine, ratios, serve, shown, spread
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

from residua.data.decode import EXTENSIONS
from residua.models import create_model
from residua.training.api import open_run
from residua.training.devices import choose_device
from residua.xray.landscape import landscape, random_direction
from residua.xray.landscape.losses import Measure
from residua.xray.landscape.space import Space

TARGET = 1.8  # times faster a point
AGREE = 1e-5  # relative
MINUTES = 15.0  # for a plane
PRODUCT = 1536  # rows of the matrices
BATCH = 128
WORKERS = 2


# -- pictures, network ------------------------------------------------------------------------------------


def made_up(folder: Path, n: int) -> None:
    """Write n blurred noise pictures of 32 x 32 in ten classes."""
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        path = folder / f"class{i % 10}" / f"{i:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((32, 32), Image.Resampling.BICUBIC).save(path)


class Files(Dataset[tuple[torch.Tensor, int]]):
    """Pictures that are decoded whenever they are asked for."""

    def __init__(self, folder: Path, n: int, seed: int, norm: tuple[Any, Any]) -> None:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
        names = sorted({path.parent.name for path in paths})
        chosen = np.random.default_rng(seed).permutation(len(paths))[:n]
        self.paths = [paths[i] for i in chosen]
        self.labels = [names.index(path.parent.name) for path in self.paths]
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in norm)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB")))
        return (pixels.permute(2, 0, 1).float() / 255 - self.mean) / self.std, self.labels[index]

    def together(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        pictures = torch.stack([self[i][0] for i in range(len(self))])
        return pictures.to(device), torch.tensor(self.labels, device=device)


def prepared(request: dict[str, Any], n: int, seed: int) -> tuple[nn.Module, Files, torch.device]:
    """Return the network in evaluation mode, pictures, and the device."""
    device = choose_device(request["device"])
    norm: tuple[Any, Any] = ((0.5,) * 3, (0.25,) * 3)
    if request["run"]:
        run = open_run(request["run"])
        network, card = run.model, run.card.normalisation
        norm = (card.mean, card.std)
    files = Files(Path(request["data"]), n, seed, norm)
    if not request["run"]:
        torch.manual_seed(0)
        network = create_model(request["network"], 10)
        with torch.no_grad():
            network(Files(Path(request["data"]), 200, 0, norm).together(torch.device("cpu"))[0])
    network = network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return network.eval().to(device), files, device


def multiply_adds(network: nn.Module, picture: torch.Tensor) -> int:
    """Count those of convolutions and linear layers for one picture (1, C, H, W)."""
    counted = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel() * module.weight[0].numel()  # type: ignore[index, operator, union-attr]

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        network(picture)
    for handle in handles:
        handle.remove()
    return counted


class Clock:
    """Seconds that have passed, and those that this process and its loader's workers computed."""

    def __init__(self) -> None:
        self.began = self._now()

    def read(self) -> dict[str, float]:
        passed = self._now() - self.began
        return {"seconds": float(passed[0]), "processor": float(passed[1])}

    @staticmethod
    def _now() -> np.ndarray[Any, Any]:
        times = os.times()  # the children's count once they have ended: after each pass of a loader
        computed = times.user + times.system + times.children_user + times.children_system
        return np.array([time.perf_counter(), computed])


# -- the two ways -----------------------------------------------------------------------------------------

Answers = dict[str, Callable[..., Any]]


def plain(request: dict[str, Any]) -> Answers:
    """Every point one pass through a loader that decodes again."""
    network, files, device = prepared(request, request["pictures"], request["seed"])
    parameters = dict(network.named_parameters())
    weights = {name: p.detach().cpu().clone() for name, p in parameters.items()}
    pair = [random_direction(network, seed=request["seed"], pair=0, axis=axis) for axis in (0, 1)]
    directions = [
        {name: d.get(name, torch.zeros_like(w)) for name, w in weights.items()} for d in pair
    ]
    loader = DataLoader(files, batch_size=BATCH, num_workers=request["workers"])

    def points(where: Sequence[Sequence[float]]) -> dict[str, Any]:
        clock, losses = Clock(), []
        for a, b in where:
            changes = {n: a * directions[0][n] + b * directions[1][n] for n in weights}
            for name, parameter in parameters.items():
                parameter.data = (weights[name] + changes[name]).to(device)
            total = 0.0
            with torch.no_grad():
                for pictures, labels in loader:
                    output = network(pictures.to(device))
                    total += F.cross_entropy(output, labels.to(device)).item() * len(labels)
            losses.append(total / len(files))
        return clock.read() | {"losses": losses}

    return {"points": points}


def residua(request: dict[str, Any], stack: ExitStack) -> Answers:
    """The way that the toolkit takes."""
    network, files, device = prepared(request, request["pictures"], request["seed"])
    work = multiply_adds(network, files[0][0][None].to(device)) * len(files)
    pair = [random_direction(network, seed=request["seed"], pair=0, axis=axis) for axis in (0, 1)]
    space = stack.enter_context(Space(network, pair).attached())
    meter = stack.enter_context(Measure([files.together(device)]).of(space))
    left, right = (torch.randn(PRODUCT, PRODUCT, device=device) for _ in range(2))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def points(where: Sequence[Sequence[float]]) -> dict[str, Any]:
        clock = Clock()
        losses = [meter.at(point)[0] for point in where]
        return clock.read() | {"losses": losses, "work": work}

    def product() -> float:
        """Return the multiply-adds a second of a matrix product that takes as long as a point."""
        times = max(1, round(work / PRODUCT**3))
        wait()
        began = time.perf_counter()
        for _ in range(times):
            left @ right
        wait()
        return times * PRODUCT**3 / (time.perf_counter() - began)

    return {"points": points, "product": product}


def compare(request: dict[str, Any], rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(request["seed"])
    seconds: dict[str, list[float]] = {"residua": [], "plain": []}
    processor: dict[str, list[float]] = {"residua": [], "plain": []}
    difference, shares = 0.0, []
    with (
        Contender("residua", **request) as ours,
        Contender("plain", **request) as theirs,
    ):
        ways = {"residua": ours, "plain": theirs}
        for way in ways.values():  # the first one warms up; the centre
            way.ask("points", where=[(0.0, 0.0)])
        for _ in range(rounds):
            where = rng.uniform(-0.5, 0.5, (1, 2)).tolist()
            found = {name: way.ask("points", where=where) for name, way in ways.items()}
            speed = ours.ask("product")
            shares.append(found["residua"]["work"] / found["residua"]["seconds"] / speed)
            for name in ways:
                seconds[name].append(found[name]["seconds"])
                processor[name].append(found[name]["processor"])
            one, other = (np.array(found[name]["losses"]) for name in ways)
            difference = max(difference, float(np.max(np.abs(one - other) / np.abs(other))))
    return {
        "pictures": request["pictures"],
        "rounds": seconds,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratio": ratios(seconds["plain"], seconds["residua"]),
        "processor": {name: spread(values) for name, values in processor.items()},
        "processor_ratio": ratios(processor["plain"], processor["residua"]),
        "share": spread(shares),
        "difference": difference,
    }


# -- a whole plane ----------------------------------------------------------------------------------------


def plane(request: dict[str, Any], points: int, full: int, check: int) -> dict[str, Any]:
    network, files, device = prepared(request, request["pictures"], request["seed"])
    pictures = files.together(device)

    def tell(share: float, what: str) -> None:
        print(f"\r{time.perf_counter() - began:6.0f} s  {what:<60}", end="", file=sys.stderr)

    began = time.perf_counter()
    found = landscape(network, *pictures, points=points, seed=request["seed"], progress=tell)
    seconds = time.perf_counter() - began
    print(file=sys.stderr)
    rng = np.random.default_rng(request["seed"] + 1)
    chosen = rng.permutation(points * points)[:check]
    where = [(float(found.x[i % points]), float(found.y[i // points])) for i in chosen]
    stated = [getattr(found, name)[0].reshape(-1)[chosen] for name in ("loss", "error", "paired")]
    interpolation = found.interpolation[0].reshape(-1)[chosen]
    out: dict[str, Any] = {
        "points": points,
        "pictures": request["pictures"],
        "minutes": seconds / 60,
        "evaluated": found.facts["evaluated"],
        "controls": found.facts["controls"],
        "checked": check,
        "standard_error": spread(stated[1].tolist()),
        "centre": float(found.loss[0][found.centre]),
        "most": float(np.nanmax(found.loss[0])),
    }
    same = in_full(network, [pictures], where, request["seed"])[1:]
    guessed = interpolation > 0
    off = (stated[0] - same[:, 0])[guessed]
    out["interpolated"] = int(guessed.sum())
    out["interpolation"] = {
        "error": rms(off),
        "stated": rms(interpolation[guessed]),
        "worst_over_standard_error": float(np.max(np.abs(off) / stated[1][guessed], initial=0.0)),
    }
    others = prepared(request, full, request["seed"] + 7)[1]
    truth = in_full(network, [others.together(device)], where, request["seed"])
    centre, truth = truth[0], truth[1:]
    out["full_pictures"] = len(others)
    error = np.hypot(stated[1], truth[:, 1])
    out["z"] = rms((stated[0] - truth[:, 0]) / error)
    moved = (stated[0] - out["centre"]) - (truth[:, 0] - centre[0])
    away = np.hypot(stated[2], truth[:, 2]) > 0
    out["z_paired"] = rms(moved[away] / np.hypot(stated[2], truth[:, 2])[away])
    return out


def in_full(network: nn.Module, batches: Any, where: list[Any], seed: int) -> np.ndarray[Any, Any]:
    """Return loss, error, paired error and accuracy at the centre and at points, all evaluated."""
    pair = [random_direction(network, seed=seed, pair=0, axis=axis) for axis in (0, 1)]
    with Space(network, pair).attached() as space, Measure(batches).of(space) as meter:
        return np.array([meter.at(point) for point in [(0.0, 0.0), *where]])


def rms(values: np.ndarray[Any, Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else 0.0


# -- tables -----------------------------------------------------------------------------------------------


def point_table(found: dict[str, Any], name: str) -> Table:
    out = Table(
        "", "residua", "plain", "plain / residua", title=f"{name}, {found['pictures']} pictures"
    )
    for label, what, ratio in (
        ("seconds a point", "seconds", "ratio"),
        ("processor seconds a point", "processor", "processor_ratio"),
    ):
        values = [shown(found[what][way], ".3f") for way in ("residua", "plain")]
        out.add_row(label, *values, shown(found[ratio]))
    out.add_row("share of a matrix product's speed", shown(found["share"]), "", "")
    out.add_row("largest relative difference", f"{found['difference']:.1e}", "", "")
    return out


def plane_table(found: dict[str, Any], name: str) -> Table:
    out = Table("", "", title=f"{name}, {found['points']} x {found['points']} points")
    off = found["interpolation"]
    rows = {
        "minutes": f"{found['minutes']:.1f}",
        "pictures": f"{found['pictures']:,}",
        "points evaluated": f"{found['evaluated']:,} of {found['points'] ** 2:,}",
        "loss at the centre, most": f"{found['centre']:.3f}, {found['most']:.3g}",
        "stated standard error of a point": shown(found["standard_error"], ".3g"),
        f"interpolation at {found['interpolated']} of {found['checked']} random points: error (stated)": (
            f"{off['error']:.2g} ({off['stated']:.2g})"
        ),
        "the same over the standard error, worst": f"{off['worst_over_standard_error']:.2f}",
        f"(stated - full) / standard error, {found['full_pictures']:,} pictures anew": f"{found['z']:.2f}",
        "the same of differences from the centre": f"{found['z_paired']:.2f}",
    }
    for row in rows.items():
        out.add_row(*row)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="CLASS/ folders with pictures; default: made up")
    parser.add_argument("--run", help="a run whose network to take")
    parser.add_argument("--network", default="resnet56_cifar")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=WORKERS, help="of the plain way's loader")
    parser.add_argument(
        "--plane", action="store_true", help="a whole plane instead of single points"
    )
    parser.add_argument("--points", type=int, default=51, help="on a side of the plane")
    parser.add_argument("--full", type=int, default=5000, help="pictures of the full evaluation")
    parser.add_argument("--check", type=int, default=100, help="random points measured in full")
    parser.add_argument("--seed", type=int, default=0)
    common_options(parser)
    options = parser.parse_args()
    if options.serve is not None:
        request = options.serve
        if request["threads"] is not None:
            torch.set_num_threads(request["threads"])
        with ExitStack() as stack:
            serve(plain(request) if request["way"] == "plain" else residua(request, stack))
        return
    if options.quick:
        options.network, options.pictures, options.rounds = "resnet20_cifar", 16, 2
        options.points, options.full, options.check, options.workers = 7, 24, 5, 0
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        if options.data is None:
            made_up(Path(folder), options.pictures + options.full)
        names = ("run", "network", "pictures", "workers", "seed", "device", "threads")
        request = {name: getattr(options, name) for name in names} | {
            "data": options.data or folder
        }
        if options.plane:
            found = plane(request, options.points, options.full, options.check)
        else:
            found = compare(request, options.rounds)
    facts = machine(choose_device(options.device))
    if options.json:
        json.dump({"machine": facts, "results": found}, sys.stdout, indent=2)
        print()
    else:
        name = options.run or options.network
        console = Console()
        console.print((plane_table if options.plane else point_table)(found, name))
        console.print(caption(facts))
    if options.plane:
        failed = found["minutes"] > MINUTES
    else:
        failed = found["difference"] > AGREE or found["ratio"]["median"] < TARGET
    sys.exit(failed and not options.quick)


if __name__ == "__main__":
    main()
