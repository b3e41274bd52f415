"""What an x-ray costs: seconds of `residua.xray` over seconds of one training step, in turns.

    python benchmarks/xray.py [--model resnet50] [--batch 8] [--rounds 3]

A training step is forward, cross-entropy, backward and SGD with momentum on the same batch, in the memory
format that residua trains in. The x-ray is run with effort quick and normal; its parts are timed too. Beside
the seconds on the wall stand those of the processor, which stray less where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import torch
from _common import caption, machine, spread
from rich.console import Console
from rich.table import Table

import residua
from residua.models import record
from residua.training.devices import choose_device

Taken = tuple[float, float]  # seconds on the wall, seconds of the processor


def now() -> Taken:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def since(began: Taken) -> Taken:
    wall, processor = now()
    return wall - began[0], processor - began[1]


def step_seconds(
    model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int
) -> list[Taken]:
    """Return the seconds of each of some training steps, after one that does not count."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    taken = []
    for _ in range(steps + 1):
        began = now()
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
        taken.append(since(began))
    return taken[1:]


def median(taken: list[Taken]) -> Taken:
    wall, processor = zip(*taken, strict=True)
    return statistics.median(wall), statistics.median(processor)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(arguments.device)
    side = arguments.side or record(arguments.model).input_size
    torch.manual_seed(0)
    model = residua.create_model(arguments.model).to(device, memory_format=torch.channels_last)
    x = torch.randn(arguments.batch, 3, side, side)
    x = x.to(device, memory_format=torch.channels_last)
    y = torch.randint(0, record(arguments.model).num_classes, (arguments.batch,)).to(device)
    steps: list[Taken] = []
    looks: dict[str, list[Taken]] = {effort: [] for effort in arguments.efforts}
    parts: dict[str, dict[str, float]] = {}
    for _ in range(arguments.rounds):
        for effort in arguments.efforts:
            steps += step_seconds(model, x, y, 3)
            fresh = residua.create_model(arguments.model).to(
                device, memory_format=torch.channels_last
            )
            began = now()
            report = residua.xray(fresh, x, y, effort=effort)
            looks[effort].append(since(began))
            parts[effort] = dict(report.seconds)
    step = median(steps)
    return {
        "model": arguments.model,
        "batch": arguments.batch,
        "side": side,
        "step": spread([wall for wall, _ in steps]),
        "looks": {effort: spread([wall for wall, _ in taken]) for effort, taken in looks.items()},
        "ratios": {
            effort: [taken / one for taken, one in zip(median(all_), step, strict=True)]
            for effort, all_ in looks.items()
        },
        "parts": {e: {n: s / step[0] for n, s in p.items()} for e, p in parts.items()},
        "machine": machine(device),
    }


def show(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['model']}, batch {found['batch']}, {found['side']} pixels")
    for column in ("what", "seconds", "training steps", "by processor time"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("a training step", f"{found['step']['median']:.2f}", "1", "1")
    for effort, taken in found["looks"].items():
        table.add_row(
            f"x-ray, {effort}",
            f"{taken['median']:.2f}",
            *(f"{ratio:.1f}" for ratio in found["ratios"][effort]),
        )
        for name, share in found["parts"][effort].items():
            table.add_row(f"    {name}", f"{share * found['step']['median']:.2f}", f"{share:.1f}")
    console = Console(width=100)
    console.print(table)
    console.print(f"medians of n = {found['step']['n']} steps; {caption(found['machine'])}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--side", type=int, help="pixels; default: the model's own")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--efforts", nargs="*", default=["quick", "normal"])
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto: cuda if there is one")
    parser.add_argument("--quick", action="store_true", help="a trial of the script itself")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.model, arguments.batch, arguments.rounds = "resnet20_cifar", 4, 1
        arguments.efforts = ["quick"]
    found = measure(arguments)
    if arguments.json:
        json.dump(found, sys.stdout, indent=1)
        print()
    else:
        show(found)


if __name__ == "__main__":
    main()
