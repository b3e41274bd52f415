"""Training steps a second and peak memory, against the same network in a plain loop.

    python benchmarks/training.py [--json] [--quick] [--networks resnet20_cifar resnet50]

Three ways, all on made-up pictures that are in memory already, with the same weights to begin with:

    residua   our network and our training loop, as `residua train` runs them: uint8 pictures are taken by
              index and normalised, channels last, fused SGD, the flight recorder at its default interval
    plain     the network as torchvision defines it, float32 input that is ready, torch's default memory
              format, zero_grad, forward, backward, torch.optim.SGD's step
    bare      forward, backward and step on residua's network with the same input, and nothing around it:
              what our loop costs is residua / bare - 1

The outputs of the two networks are compared first. On a CUDA device residua and plain compute in bfloat16
(autocast), pictures and batches on the device.

residua and plain are processes of their own that take turns; bare takes its turn inside residua's. The
ratio is taken pair by pair. Peak memory is the process's (CPU) or that of its tensors (CUDA).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from _common import Contender, caption, machine, peak_megabytes, ratios, serve, shown, spread
from _plain import PLAIN, take_weights
from _resident import (
    BATCHES,
    LR,
    MEAN,
    MOMENTUM,
    STD,
    WEIGHT_DECAY,
    advance,
    make_loop,
    make_pictures,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from residua.data.batches import to_input
from residua.models import create_model, record
from residua.training.devices import choose_device
from residua.training.plan import synchronise

TOLERANCE = 1e-9  # of the outputs in float64, relative to the largest
WARM_STEPS = 3


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often."""

    network: str
    batch: int
    size: int
    rounds: int
    steps: int  # a round
    target: float  # times as fast as plain, on 2 CPU cores
    device: str = "auto"
    threads: int | None = None  # None: as many as torch takes
    torchvision: bool = False  # its own definition rather than the one written here


SETTINGS = {
    "resnet20_cifar": Setting("resnet20_cifar", 128, 32, rounds=12, steps=10, target=1.2),
    "resnet50": Setting("resnet50", 16, 224, rounds=8, steps=2, target=1.4),
}


def settings(options: argparse.Namespace) -> list[Setting]:
    found = []
    for name in options.networks:
        setting = replace(
            SETTINGS[name],
            device=options.device,
            threads=options.threads,
            torchvision=options.torchvision,
        )
        if options.quick:
            size = min(setting.size, 64)
            setting = replace(setting, batch=8, size=size, rounds=2, steps=1)
        if options.rounds:
            setting = replace(setting, rounds=options.rounds)
        found.append(setting)
    return found


# -- the ways -----------------------------------------------------------------------------------------


def make_plain(setting: Setting) -> nn.Module:
    """Return the peer with the weights that ours begins with."""
    torch.manual_seed(0)
    ours = create_model(setting.network)
    if setting.torchvision and setting.network == "resnet50":
        import torchvision  # type: ignore[import-not-found]

        peer: nn.Module = torchvision.models.resnet50()
    else:
        peer = PLAIN[setting.network]()
    take_weights(peer, ours)
    return peer


def serve_plain(setting: Setting) -> None:
    device = choose_device(setting.device)
    model = make_plain(setting).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    criterion = nn.CrossEntropyLoss()
    pixels, labels = make_pictures(setting.batch, setting.size, classes(setting))
    ready = torch.from_numpy(pixels).to(device)
    inputs = to_input(ready, torch.tensor(MEAN), torch.tensor(STD)).contiguous()
    truth = torch.from_numpy(labels).to(device)
    batches = list(zip(*(torch.split(t, setting.batch) for t in (inputs, truth)), strict=True))

    def run(steps: int) -> float:
        synchronise(device)
        start = time.perf_counter()
        model.train()
        for step in range(steps):
            inputs, targets = batches[step % BATCHES]
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = criterion(model(inputs), targets)
            loss.backward()
            optimizer.step()
        synchronise(device)
        return time.perf_counter() - start

    serve({"plain": run, "peak": lambda: peak_megabytes(device)})


def serve_residua(setting: Setting) -> None:
    loop = make_loop(setting.network, setting.batch, setting.size, setting.device)
    device = loop.fabric.device

    def bare(steps: int) -> float:
        batch = loop.batches.batch(0)
        synchronise(device)
        start = time.perf_counter()
        for _ in range(steps):
            x = loop.objective.inputs(batch)
            with loop.fabric.autocast():
                loss = F.cross_entropy(loop.model(x), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            loop.optimiser.step()
            loop.optimiser.zero_grad()
        synchronise(device)
        return time.perf_counter() - start

    serve(
        {
            "residua": lambda steps: advance(loop, steps),
            "bare": bare,
            "peak": lambda: peak_megabytes(device),
        }
    )


def classes(setting: Setting) -> int:
    return record(setting.network).num_classes


# -- measuring ----------------------------------------------------------------------------------------


@torch.no_grad()
def difference(setting: Setting) -> float:
    """Return the largest difference of the two networks' scores, relative to the largest score.

    In float64, where rounding hides nothing, and in training mode, so that norms use the batch.
    RuntimeError above the tolerance.
    """
    torch.manual_seed(0)
    ours = create_model(setting.network).double()
    x = torch.randn(4, 3, setting.size, setting.size, dtype=torch.float64)
    expected = make_plain(setting).double()(x)
    scores = ours(x.contiguous(memory_format=torch.channels_last))
    found = float((scores - expected).abs().max() / expected.abs().max())
    if not found <= TOLERANCE:
        raise RuntimeError(f"{setting.network}: the two networks differ by {found:.1e}")
    return found


def measure(setting: Setting) -> dict[str, Any]:
    """Return the pictures a second of each way, one number a round, and all that follows."""
    seconds: dict[str, list[float]] = {"residua": [], "plain": [], "bare": []}
    facts = asdict(setting)
    found: dict[str, Any] = {"setting": facts, "difference": difference(setting)}
    with Contender("residua", setting=facts) as ours, Contender("plain", setting=facts) as plain:
        turns = {"residua": ours, "plain": plain, "bare": ours}
        for way in ("residua", "plain"):
            turns[way].ask(way, steps=WARM_STEPS)
        found["peak_megabytes"] = {way: turns[way].ask("peak") for way in ("residua", "plain")}
        ours.ask("bare", steps=1)
        console = Console(stderr=True)
        for _ in track(range(setting.rounds), setting.network, console=console):
            for way, contender in turns.items():
                seconds[way].append(contender.ask(way, steps=setting.steps))
        device = choose_device(setting.device)
        if device.type != "cpu":  # on a CPU the peak is the process's, and ours has run `bare` too
            for way in ("residua", "plain"):
                found["peak_megabytes"][way] = turns[way].ask("peak")
    pictures = setting.batch * setting.steps
    overhead = [
        ours / bare - 1 for ours, bare in zip(seconds["residua"], seconds["bare"], strict=True)
    ]
    return found | {
        "pictures_per_second": {
            w: spread(pictures / s for s in all_) for w, all_ in seconds.items()
        },
        "ratio": ratios(seconds["plain"], seconds["residua"]),
        "loop_overhead": spread(overhead),
        "rounds": {way: [pictures / s for s in all_] for way, all_ in seconds.items()},
    }


def table(found: dict[str, Any]) -> Table:
    setting = Setting(**found["setting"])
    percent = {key: 100 * value for key, value in found["loop_overhead"].items()}
    out = Table(
        title=f"{setting.network}, batch {setting.batch}, {setting.size} x {setting.size}",
        caption=f"residua / plain: {shown(found['ratio'])}, target {setting.target}\n"
        f"loop overhead: {shown(percent, '.1f', ' %')}, target < 3 %\n"
        f"outputs of the two networks, in float64, differ by {found['difference']:.0e}",
        caption_justify="left",
    )
    for heading in ("way", "pictures a second", "ms a step", "peak MB", "rounds"):
        out.add_column(heading, justify="left" if heading == "way" else "right")
    for way, speed in found["pictures_per_second"].items():
        peak = found["peak_megabytes"].get(way)
        out.add_row(
            way,
            shown(speed, ",.1f"),
            f"{1e3 * setting.batch / speed['median']:,.1f}",
            "" if peak is None else f"{peak:,.0f}",
            f"{speed['n']} x {setting.steps}",
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, help="instead of those of each network")
    parser.add_argument(
        "--device", default="auto", help="cpu or cuda; auto: cuda where there is one"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--torchvision", action="store_true", help="its own definition of resnet50")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        request = json.loads(options.serve)
        setting = Setting(**request["setting"])
        if setting.threads is not None:
            torch.set_num_threads(setting.threads)
        {"residua": serve_residua, "plain": serve_plain}[request["way"]](setting)
        return
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    facts = machine(choose_device(options.device))
    console = Console(stderr=options.json)
    results = []
    for setting in settings(options):
        results.append(measure(setting))
        if not options.json:
            console.print(table(results[-1]))
    if not options.json:
        console.print(caption(facts))
    else:
        json.dump({"machine": facts, "results": results}, sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
