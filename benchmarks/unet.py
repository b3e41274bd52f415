"""Training steps a second and peak memory of a base-64 U-Net, against a plain PyTorch definition.

    python benchmarks/unet.py [--batch 2] [--size 256] [--rounds 8] [--json] [--quick]

On the same made-up pictures and masks, with the same weights to begin with, SGD with momentum, and
cross-entropy over every pixel:

    residua   our `unet`, channels last, fused SGD, freed memory kept, as `residua train` runs them
    plain     the network as it is usually written (two of conv-norm-relu a level, max pooling, transposed
              convolution, torch.cat), torch's default memory format, torch.optim.SGD

each in float32 and, where the device has instructions for it and `residua train` therefore tries it, in
bfloat16 (autocast). The outputs of the two networks are compared first. Each way is a process of its own;
they take turns, and ratios are taken round by round: to the plain loop in float32, as people write it, and
to the plain loop in the same precision. Peak memory is that of the process (CPU) or of its tensors (CUDA),
in processes that have done nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from _common import (
    Contender,
    caption,
    common_options,
    machine,
    peak_megabytes,
    ratios,
    serve,
    shown,
    spread,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from residua.models import create_model
from residua.training.devices import choose_device
from residua.training.memory import keep_freed_memory
from residua.training.plan import autocast, likely_precision, synchronise
from residua.training.recipes import load_recipe

TARGET = 1.2  # times as fast, with less memory
TOLERANCE = 1e-9  # of the outputs in float64, relative to the largest
CLASSES, BATCHES, WARM_STEPS = 2, 2, 2
LR, MOMENTUM = 1e-3, 0.9
PLAIN = "plain, float32"  # a loop as people write it
PRECISIONS = {"32-true": "float32", "bf16-mixed": "bfloat16", "16-mixed": "float16"}


class Double(nn.Sequential):
    """Two of conv, norm, relu."""

    def __init__(self, cin: int, cout: int) -> None:
        layers: list[nn.Module] = []
        for channels in (cin, cout):
            layers += [
                nn.Conv2d(channels, cout, 3, padding=1, bias=False),
                nn.BatchNorm2d(cout),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Plain(nn.Module):
    """A U-Net as it is usually written: lists of what goes down and what comes up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(5)]
        self.down = nn.ModuleList(Double(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[-2::-1])
        self.join = nn.ModuleList(Double(2 * w, w) for w in widths[-2::-1])
        self.score = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = []
        for block in self.down:
            x = block(self.pool(x) if maps else x)
            maps.append(x)
        for up, block, skip in zip(self.up, self.join, maps[-2::-1], strict=True):
            x = block(torch.cat((skip, up(x)), 1))
        y: torch.Tensor = self.score(x)
        return y


def take_weights(peer: Plain, ours: nn.Module) -> None:
    """Copy ours: its layers, in the order of its forward pass, are the peer's in the order of its own."""
    order: list[nn.Module] = []
    handles = [
        m.register_forward_hook(lambda m, *_: order.append(m))
        for m in ours.modules()
        if [*m.parameters(recurse=False)]
    ]
    ours.eval()
    with torch.no_grad():
        ours(torch.zeros(1, 3, 16, 16))
    ours.train()
    for handle in handles:
        handle.remove()
    theirs = [*peer.down.modules()]
    for up, block in zip(peer.up, peer.join, strict=True):
        theirs += [up, *block.modules()]
    layers = [m for m in [*theirs, peer.score] if [*m.parameters(recurse=False)]]
    for mine, other in zip(order, layers, strict=True):
        other.load_state_dict(mine.state_dict())


def make(way: str, width: int) -> nn.Module:
    torch.manual_seed(0)
    ours = create_model("unet", width=width, num_classes=CLASSES)
    if way == "residua":
        return ours
    peer = Plain(width)
    take_weights(peer, ours)
    return peer


@torch.no_grad()
def difference(width: int) -> float:
    """Return the largest difference of the scores, relative to the largest score; in training mode."""
    x = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    ours = make("residua", width).double()(x.contiguous(memory_format=torch.channels_last))
    expected = make("plain", width).double()(x)
    found = float((ours - expected).abs().max() / expected.abs().max())
    if not found <= TOLERANCE:
        raise RuntimeError(f"the two networks differ by {found:.1e}")
    return found


def serve_way(facts: dict[str, Any]) -> None:
    if facts["threads"] is not None:
        torch.set_num_threads(facts["threads"])
    device, ours = choose_device(facts["device"]), facts["network"] == "residua"
    if ours and device.type == "cpu":
        keep_freed_memory()
    model = make(facts["network"], facts["width"]).to(device)
    generator = torch.Generator().manual_seed(0)
    shape = (BATCHES, facts["batch"], 3, facts["size"], facts["size"])
    pictures = torch.randn(shape, generator=generator).to(device)
    masks = (pictures[:, :, 0] > 0).long()
    if ours:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, fused=True if ours else None
    )

    def run(steps: int) -> float:
        synchronise(device)
        start = time.perf_counter()
        for step in range(steps):
            x = pictures[step % BATCHES]
            if ours:
                x = x.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with autocast(device, facts["precision"]):
                loss = F.cross_entropy(model(x), masks[step % BATCHES])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        synchronise(device)
        return time.perf_counter() - start

    serve({"run": run, "peak": lambda: peak_megabytes(device)})


def ways(device: torch.device) -> dict[str, dict[str, str]]:
    """Return what is compared: name -> network and precision; first ours, as it would be trained."""
    trained = likely_precision(load_recipe("quick", "segmentation"), device)
    return {
        f"{network}, {PRECISIONS[precision]}": {"network": network, "precision": precision}
        for precision in dict.fromkeys((trained, "32-true"))
        for network in ("residua", "plain")
    }


def measure(facts: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Return seconds a step of each way, one number a round, their ratios, and the peaks."""
    compared = ways(choose_device(facts["device"]))
    found: dict[str, Any] = {"setting": facts, "difference": difference(facts["width"])}
    seconds: dict[str, list[float]] = {way: [] for way in compared}
    with ExitStack() as stack:
        turns = {
            way: stack.enter_context(Contender(way, **facts, **what))
            for way, what in compared.items()
        }
        for contender in turns.values():
            contender.ask("run", steps=WARM_STEPS)
        for _ in track(range(rounds), "unet", console=Console(stderr=True)):
            for way, contender in turns.items():
                seconds[way].append(contender.ask("run", steps=1))
        found["peak_megabytes"] = {way: turns[way].ask("peak") for way in compared}
    return found | {
        "seconds": {way: spread(all_) for way, all_ in seconds.items()},
        "ratio": {way: ratios(seconds[PLAIN], all_) for way, all_ in seconds.items()},
        "equal": {
            way: ratios(seconds[way.replace("residua", "plain")], all_)
            for way, all_ in seconds.items()
        },
        "rounds": seconds,
    }


def table(found: dict[str, Any]) -> Table:
    facts, peaks = found["setting"], found["peak_megabytes"]
    out = Table(
        title=f"unet, width {facts['width']}, batch {facts['batch']}, {facts['size']} x {facts['size']}",
        caption=f"the target is {TARGET} times as fast, with less memory; n = {found['ratio'][PLAIN]['n']}"
        f"\noutputs in float64 differ by {found['difference']:.0e}",
        caption_justify="left",
    )
    for heading in ("way", "seconds a step", f"to {PLAIN}", "to plain, as precise", "peak MB"):
        out.add_column(heading, justify="left" if heading == "way" else "right")
    for way, peak in peaks.items():
        times = (shown(found[key][way], unit="x") for key in ("ratio", "equal"))
        share = f"{peak:,.0f} ({peak / peaks[PLAIN]:.2f})"
        out.add_row(way, shown(found["seconds"][way], ".3f"), *times, share)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    common_options(parser)
    options = parser.parse_args()
    if options.serve is not None:
        serve_way(options.serve)
        return
    facts = {key: getattr(options, key) for key in ("batch", "size", "width", "device", "threads")}
    rounds = options.rounds
    if options.quick:
        facts |= {"batch": 1, "size": 32, "width": 4}
        rounds = 2
    found = measure(facts, rounds)
    about = machine(choose_device(options.device))
    if options.json:
        json.dump({"machine": about, "results": [found]}, sys.stdout, indent=2)
        print()
        return
    console = Console()
    console.print(table(found))
    console.print(caption(about))


if __name__ == "__main__":
    main()
