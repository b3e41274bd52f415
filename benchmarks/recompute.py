"""What recomputation saves in memory and costs in time, and that it changes no bit of any gradient.

    python benchmarks/recompute.py [--network preact_resnet1001_cifar] [--batch 64] [--json] [--quick]

One training step of the network, plain and with recompute=True, each in a process of its own, from the same
seed on the same pictures (scikit-learn's digits, resized). Activations are counted in two ways: what
autograd keeps when the forward pass ends (bytes of the storages that it saved, parameters left out), and
the peak of the process's memory over what it held before the step (on CUDA, of its tensors). Gradients and
running statistics of both are compared value by value.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _common import Contender, caption, common_options, machine, peak_megabytes, serve
from deep import one_batch
from rich.console import Console
from rich.table import Table
from torch.autograd.graph import saved_tensors_hooks

from residua.models import create_model
from residua.training.devices import choose_device

TARGET = 0.2  # of the plain step's activations, at most
MEGABYTE = 2**20
WAYS = {"plain": False, "recomputed": True}


class Kept:
    """The storages that autograd has saved, each counted once."""

    def __init__(self, model: torch.nn.Module) -> None:
        held = [*model.parameters(), *model.buffers()]
        self.others = {tensor.untyped_storage().data_ptr() for tensor in held}
        self.sizes: dict[int, int] = {}

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note a tensor that is saved, and save it as it is."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.others:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def megabytes(self) -> float:
        """Return the sum of their sizes."""
        return sum(self.sizes.values()) / MEGABYTE


def held_megabytes(device: torch.device) -> float:
    """Return what the process holds now, or on CUDA what its tensors do."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / MEGABYTE
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:  # no such file on this system: the peak until now is at least as much
        return peak_megabytes(device)
    return int(pages) * 4096 / MEGABYTE


def step(request: dict[str, Any], file: str) -> dict[str, float]:
    """Take one step, write gradients and buffers to `file`; return memory and seconds."""
    device = choose_device(request["device"])
    torch.manual_seed(0)
    recompute = WAYS[request["way"]]
    model = create_model(request["network"], recompute=recompute).to(device)
    pictures, labels = (part.to(device) for part in one_batch("digits", request["batch"]))
    kept = Kept(model)
    before, start = held_megabytes(device), time.perf_counter()
    with saved_tensors_hooks(kept, lambda tensor: tensor):
        loss = F.cross_entropy(model(pictures), labels)
    megabytes = kept.megabytes()
    loss.backward()
    seconds, value = time.perf_counter() - start, loss.item()
    peak = peak_megabytes(device) - before
    gradients = {name: p.grad for name, p in model.named_parameters()}
    torch.save({"gradients": gradients, "buffers": dict(model.named_buffers())}, file)
    return {"loss": value, "kept": megabytes, "peak": peak, "seconds": seconds}


def differing(files: list[Path]) -> list[str]:
    """Return the names of gradients and buffers that are not equal in every bit."""
    first, second = (torch.load(file, weights_only=True) for file in files)
    if any(first[kind].keys() != second[kind].keys() for kind in first):
        raise RuntimeError("the two networks have other parts")
    return [
        name
        for kind in first
        for name, value in first[kind].items()
        if not torch.equal(value, second[kind][name])
    ]


def measure(network: str, batch: int, device: str, threads: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"network": network, "batch": batch}
    facts = {"network": network, "batch": batch, "device": device, "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{way}.pt" for way in WAYS]
        for way, file in zip(WAYS, files, strict=True):
            with Contender(way, **facts) as contender:
                found[way] = contender.ask("step", file=str(file))
        found["different"] = differing(files)
    for what in ("kept", "peak", "seconds"):
        found[f"{what}_ratio"] = found["recomputed"][what] / found["plain"][what]
    return found


def table(found: dict[str, Any]) -> Table:
    title = f"{found['network']}, batch {found['batch']}: target < {TARGET:.0%} of the memory"
    out = Table(title=title)
    for heading in ("", *WAYS, "ratio"):
        out.add_column(heading, justify="right" if heading else "left")
    for label, what in (("kept, MB", "kept"), ("peak, MB", "peak"), ("seconds", "seconds")):
        values = [f"{found[way][what]:,.1f}" for way in WAYS]
        out.add_row(label, *values, f"{found[f'{what}_ratio']:.3f}")
    out.add_row("differing gradients and statistics", "", str(len(found["different"])), "")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", default="preact_resnet1001_cifar")
    parser.add_argument("--batch", type=int, default=64)
    common_options(parser)
    options = parser.parse_args()
    if options.serve is not None:
        request = options.serve
        if request["threads"] is not None:
            torch.set_num_threads(request["threads"])
        serve({"step": lambda file: step(request, file)})
        return
    if options.quick:
        options.network, options.batch = "preact_resnet20_cifar", 8
    found = measure(options.network, options.batch, options.device, options.threads)
    facts = machine(choose_device(options.device))
    if options.json:
        json.dump({"machine": facts, "results": found}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(table(found))
        console.print(caption(facts))
    ratio = max(found["kept_ratio"], found["peak_ratio"])
    if found["different"] or (ratio >= TARGET and not options.quick):
        sys.exit(1)


if __name__ == "__main__":
    main()
