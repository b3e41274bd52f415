"""Very deep networks take training steps: 1000 blocks without a norm, and ResNet-1001 with recomputation.

    python benchmarks/deep.py [--steps 10] [--batch 32] [--data digits] [--networks NAME ...]

Every network has a process of its own, which takes the steps on one batch: the first pictures of each
class in turn, resized to 32 pixels, less the mean picture, over the standard deviation; SGD with momentum.
A loss below the entropy of the batch's labels has learned from the pictures. --data: anything that
`residua train` takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _common import (
    Contender,
    caption,
    common_options,
    machine,
    peak_megabytes,
    serve,
    shown,
    spread,
)
from rich.console import Console
from rich.table import Table

from residua.data.pictures import open_pictures
from residua.models import create_model
from residua.training.devices import choose_device

SIZE = 32
MOMENTUM = 0.9


@dataclass(frozen=True)
class Setting:
    """A network, and the learning rate at which it trains; of scalar parameters, `scalars` times that."""

    network: str
    lr: float = 0.1
    scalars: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


SETTINGS = (
    Setting("stable_resnet2002_cifar"),
    Setting("skipinit_resnet2002_cifar"),
    Setting("fixup_resnet2002_cifar", lr=0.3, scalars=0.1),  # as the authors train it
    Setting("preact_resnet1001_cifar", options={"recompute": True}),
)
QUICK = (
    Setting("stable_resnet20_cifar"),
    Setting("skipinit_resnet20_cifar"),
    Setting("fixup_resnet20_cifar", lr=0.3, scalars=0.1),
    Setting("preact_resnet20_cifar", options={"recompute": True}),
)


def one_batch(data: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures (N, 3, 32, 32) and their labels, as many of each class as can be."""
    found = open_pictures(data)
    split = found.splits["train"]
    labels = np.asarray(split.labels)
    turns = np.array([(labels[:i] == label).sum() for i, label in enumerate(labels)])
    rows = np.lexsort((labels, turns))[:count]
    pictures = torch.stack([_picture(split.read(int(row))) for row in rows])
    pictures = pictures - pictures.mean(0)
    return pictures / pictures.std(), torch.from_numpy(labels[rows])


def _picture(pixels: np.ndarray) -> torch.Tensor:
    picture = torch.from_numpy(pixels).float().permute(2, 0, 1)
    sized = F.interpolate(picture[None], (SIZE, SIZE), mode="bilinear", antialias=True)
    return sized[0].expand(3, -1, -1)


class Trainer:
    """One network in a process of its own."""

    def __init__(
        self, setting: dict[str, Any], data: str, batch: int, device: str, threads: int | None
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.manual_seed(0)
        self.device = choose_device(device)
        pictures, labels = one_batch(data, batch)
        self.batch = pictures.to(self.device), labels.to(self.device)
        classes = int(labels.max()) + 1
        self.model = create_model(setting["network"], classes, **setting["options"])
        self.model.to(self.device)
        lr, groups = setting["lr"], []
        for scalar, rate in ((False, lr), (True, lr * setting["scalars"])):
            chosen = [p for p in self.model.parameters() if (p.dim() == 0) == scalar]
            groups.append({"params": chosen, "lr": rate})
        self.optimiser = torch.optim.SGD(groups, momentum=MOMENTUM)

    def step(self) -> dict[str, float]:
        """Take a step; return the loss before it, and its seconds."""
        start = time.perf_counter()
        pictures, labels = self.batch
        loss = F.cross_entropy(self.model(pictures), labels)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        value = loss.item()  # waits for the device
        return {"loss": value, "seconds": time.perf_counter() - start}

    def memory(self) -> float:
        """Return the most megabytes that the process has held."""
        return peak_megabytes(self.device)

    def entropy(self) -> float:
        """Return the least loss of a constant answer: the entropy of the labels."""
        shares = torch.bincount(self.batch[1]).double() / len(self.batch[1])
        return float(-(shares * shares.clamp_min(1e-12).log()).sum())


def measure(setting: Setting, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return losses, seconds a step and memory of one network."""
    facts = {
        "data": options.data,
        "batch": options.batch,
        "device": options.device,
        "threads": options.threads,
    }
    steps = []
    with Contender(setting.network, setting=asdict(setting), **facts) as network:
        with console.status(setting.network) as status:
            for number in range(options.steps):
                steps.append(network.ask("step"))
                status.update(f"{setting.network}: step {number + 1}, {steps[-1]['loss']:.4f}")
        megabytes, entropy = network.ask("memory"), network.ask("entropy")
    losses = [step["loss"] for step in steps]
    return asdict(setting) | {
        "batch": options.batch,
        "losses": losses,
        "entropy": entropy,
        "falls": losses[-1] < min(losses[0], entropy),
        "seconds": spread(step["seconds"] for step in steps),
        "peak_megabytes": megabytes,
    }


def table(results: list[dict[str, Any]]) -> Table:
    out = Table(title="very deep networks: the loss falls, and below the entropy of the labels")
    for heading in ("network", "losses", "entropy", "seconds a step", "peak, MB"):
        out.add_column(heading, justify="left" if heading == "network" else "right")
    for found in results:
        out.add_row(
            found["network"],
            " ".join(f"{loss:.3f}" for loss in found["losses"]),
            f"{found['entropy']:.3f}",
            shown(found["seconds"]),
            f"{found['peak_megabytes']:,.0f}",
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument(
        "--data", default="digits", help="pictures; scikit-learn's digits by default"
    )
    parser.add_argument("--networks", nargs="+", help="some of them only")
    common_options(parser)
    options = parser.parse_args()
    if options.serve is not None:
        facts = {key: value for key, value in options.serve.items() if key != "way"}
        trainer = Trainer(**facts)
        serve({"step": trainer.step, "memory": trainer.memory, "entropy": trainer.entropy})
        return
    settings = QUICK if options.quick else SETTINGS
    if options.quick:
        options.steps, options.batch = min(options.steps, 4), min(options.batch, 10)
    if options.networks:
        settings = tuple(s for s in settings if s.network in options.networks)
    console = Console(stderr=True)
    results = [measure(setting, options, console) for setting in settings]
    facts = machine(choose_device(options.device))
    if options.json:
        json.dump({"machine": facts, "results": results}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(table(results))
        console.print(caption(facts))
    if not options.quick and not all(found["falls"] for found in results):
        sys.exit(1)


if __name__ == "__main__":
    main()
