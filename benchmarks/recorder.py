"""What the flight recorder costs, as a share of the training step at its default interval.

    python benchmarks/recorder.py [--json] [--quick]

The recorder listens during one step in every `RECORD_EVERY` and has no hooks in the others, so

    share = (recorded step - other step) / (interval * other step)

Steps of our real training loop, with and without the recorder, take turns; the share is taken pair by
pair.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from _common import caption, machine, shown, spread
from _resident import NEVER, advance, make_loop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from residua.training.devices import choose_device
from residua.training.plan import RECORD_EVERY

TARGET = 0.02
WARM_STEPS = 3


@dataclass(frozen=True)
class Setting:
    """What is measured, and how often."""

    network: str
    batch: int
    size: int
    rounds: int
    options: dict[str, Any] = field(default_factory=dict)


SETTINGS = (
    Setting("resnet20_cifar", 128, 32, rounds=60),
    Setting("resnet9_cifar", 512, 32, rounds=30, options={"width": 32}),
)


def measure(setting: Setting, device: str) -> dict[str, Any]:
    """Return the seconds of a step with and without the recorder, and its share of the step."""
    loop = make_loop(setting.network, setting.batch, setting.size, device, setting.options)
    advance(loop, WARM_STEPS)
    seconds: dict[str, list[float]] = {"recorded": [], "other": []}
    console = Console(stderr=True)
    for _ in track(range(setting.rounds), setting.network, console=console):
        for kind, every in (("recorded", 1), ("other", NEVER)):
            loop.recorder.every = every
            seconds[kind].append(advance(loop, 1))
    if len(loop.state.traces.steps) < setting.rounds:
        raise RuntimeError("the recorder did not record")
    pairs = zip(seconds["recorded"], seconds["other"], strict=True)
    return {
        "network": setting.network,
        "batch": setting.batch,
        "options": setting.options,
        "interval": RECORD_EVERY,
        "seconds": {kind: spread(values) for kind, values in seconds.items()},
        "share": spread(
            (with_it - without) / (RECORD_EVERY * without) for with_it, without in pairs
        ),
    }


def table(results: list[dict[str, Any]]) -> Table:
    out = Table(title=f"the flight recorder, every {RECORD_EVERY} steps: target < {TARGET:.0%}")
    for heading in ("network", "recorded, ms", "other, ms", "share, %", "pairs"):
        out.add_column(heading, justify="left" if heading == "network" else "right")
    for found in results:
        times = found["seconds"]
        options = "".join(f", {key} {value}" for key, value in found["options"].items())
        out.add_row(
            f"{found['network']}{options}, batch {found['batch']}",
            f"{1e3 * times['recorded']['median']:,.1f}",
            f"{1e3 * times['other']['median']:,.1f}",
            shown({k: 100 * v for k, v in found["share"].items()}),
            str(found["share"]["n"]),
        )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="pairs of steps, instead of each network's own")
    parser.add_argument(
        "--device", default="auto", help="cpu or cuda; auto: cuda where there is one"
    )
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    results = []
    for setting in SETTINGS:
        if options.quick:
            setting = replace(setting, batch=8, rounds=3)
        if options.rounds:
            setting = replace(setting, rounds=options.rounds)
        results.append(measure(setting, options.device))
    facts = machine(choose_device(options.device))
    if options.json:
        json.dump({"machine": facts, "results": results}, sys.stdout, indent=2)
        print()
    else:
        console = Console()
        console.print(table(results))
        console.print(caption(facts))


if __name__ == "__main__":
    main()
