"""Two networks in the same wall-clock budget: which one is the more accurate at its end?

    python benchmarks/families.py --data DIR --pair densenet_bc100_12_cifar resnet110_cifar --budget 10m

DIR holds class folders (or train/ and test/ of them); without --data it is scikit-learn's digits. Steps
of the two are timed in turns, in both precisions, on the machine as it is; each network then trains, in
the precision that is faster for it, as many steps as fit in the budget, once with every seed, by the
recipe `quick` with what --set changes. Deciding, decoding and the final evaluation are not in the budget:
they are the same for both. As the number of steps is settled beforehand, whatever else the machine does
later takes nothing from either. --together trains the two at the same time, for a machine with cores to
spare; OMP_NUM_THREADS gives each its number.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from _common import Contender, caption, machine, serve, spread
from rich.console import Console
from rich.table import Table

import residua
from residua.models import record
from residua.training.classification.materials import decide, gather, training_batches
from residua.training.devices import choose_device
from residua.training.memory import keep_freed_memory
from residua.training.plan import Trial
from residua.training.recipe import Recipe, seconds, with_overrides
from residua.training.recipes import load_recipe
from residua.training.request import Request
from residua.training.state import Watcher
from residua.training.tasks import TASKS

PRECISIONS = ("32-true", "bf16-mixed")
ROUNDS, QUICK_ROUNDS = 5, 1
TIMED_SECONDS, QUICK_SECONDS = 4.0, 0.1  # a round, a precision


def recipe_for(model: str, settings: list[str], steps: int = 1) -> Recipe:
    """Return the recipe `quick` for one of the networks."""
    return with_overrides(
        load_recipe("quick"), [*settings, f"model={model}", f"steps={steps}", "max_epochs=null"]
    )


class Network:
    """One of the two, in a process of its own."""

    def __init__(self, model: str, data: str, settings: list[str], device: str) -> None:
        self.model, self.data, self.settings, self.device = model, data, settings, device
        request = Request(source=data, recipe=recipe_for(model, settings), device=device)
        chosen = choose_device(device)
        if chosen.type == "cpu":
            keep_freed_memory()  # as a training does
        material = gather(request, None, Watcher())
        card = decide(material, request, chosen, Watcher())
        self.recipe = material.recipe
        batches = training_batches(material, card, request, chosen, 0, 1)
        objective = TASKS[card.task].objective(material, card, 0, chosen)
        torch.manual_seed(0)
        self.trial = Trial(card.build().to(chosen), batches, objective, chosen)

    def time(self, precision: str, limit: float) -> float:
        """Return the seconds of a step, timed anew."""
        self.trial.known.clear()
        return self.trial.time_step(self.recipe, precision, self.trial.batches.size, limit)

    def train(self, steps: int, precision: str, seed: int) -> dict[str, float]:
        """Return what a whole training gives."""
        recipe = recipe_for(self.model, [*self.settings, f"precision={precision}"], steps)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            run = residua.train(
                self.data, out=out, recipe=recipe, seed=seed, device=self.device, workers=0
            )
            state = run.measures
        return {"accuracy": state["accuracy"], "loss": state["loss"]}


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time both, train both with every seed."""
    names, budget = arguments.pair, seconds(arguments.budget)
    rounds, limit = (QUICK_ROUNDS, QUICK_SECONDS) if arguments.quick else (ROUNDS, TIMED_SECONDS)
    facts = {"data": arguments.data, "settings": arguments.set, "device": arguments.device}
    results: list[dict[str, Any]] = []
    with Contender(names[0], **facts) as first, Contender(names[1], **facts) as second:
        pair = (first, second)
        timed: dict[int, dict[str, list[float]]] = {i: {p: [] for p in PRECISIONS} for i in (0, 1)}
        for _ in range(rounds):
            for precision in PRECISIONS:
                for i, network in enumerate(pair):
                    took = network.ask("time", precision=precision, limit=limit)
                    timed[i][precision].append(took)
        for i, name in enumerate(names):
            medians = {p: statistics.median(times) for p, times in timed[i].items()}
            precision = min(medians, key=lambda p: medians[p])
            steps = max(1, int(budget / medians[precision]))
            known = record(name)
            results.append(
                {
                    "model": name,
                    "parameters": known.parameters,
                    "multiply_adds": known.multiply_adds,
                    "precision": precision,
                    "seconds_per_step": spread(timed[i][precision]),
                    "steps": steps,
                    "accuracy": [],
                }
            )
        print(json.dumps(results), file=sys.stderr, flush=True)
        for seed in range(arguments.seeds):

            def train(i: int, seed: int = seed) -> dict[str, float]:
                asked = {key: results[i][key] for key in ("steps", "precision")}
                found: dict[str, float] = pair[i].ask("train", seed=seed, **asked)
                return found

            with ThreadPoolExecutor(2 if arguments.together else 1) as pool:
                for result, found in zip(results, pool.map(train, (0, 1)), strict=True):
                    result["accuracy"].append(found["accuracy"])
                    print(f"seed {seed} {result['model']} {found}", file=sys.stderr, flush=True)
    return {
        "budget_seconds": budget,
        "results": results,
        "machine": machine(choose_device(arguments.device)),
    }


def show(found: dict[str, Any]) -> None:
    table = Table(title=f"test accuracy after {found['budget_seconds']:.0f} s of training")
    for column in ("network", "parameters", "multiply-adds", "ms a step", "steps", "accuracy"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for row in found["results"]:
        marks = row["accuracy"]
        deviation = f" +- {statistics.stdev(marks):.2%}" if len(marks) > 1 else ""
        table.add_row(
            f"{row['model']} ({row['precision']})",
            f"{row['parameters']:,}",
            f"{row['multiply_adds'] / 1e6:,.0f} M",
            f"{row['seconds_per_step']['median'] * 1e3:.0f}",
            f"{row['steps']:,}",
            f"{statistics.mean(marks):.2%}{deviation} (n = {len(marks)})",
        )
    console = Console(width=120)
    console.print(table)
    first, second = (statistics.mean(row["accuracy"]) for row in found["results"])
    console.print(f"difference {100 * (first - second):+.2f} points; {caption(found['machine'])}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="a folder of class folders")
    parser.add_argument("--pair", nargs=2, default=["densenet_bc100_12_cifar", "resnet110_cifar"])
    parser.add_argument("--budget", default="10m", help="of training, for each network and seed")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--together", action="store_true", help="train the two at the same time")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="a trial of the script itself")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        facts = json.loads(arguments.serve)
        network = Network(facts["way"], facts["data"], facts["settings"], facts["device"])
        serve({"time": network.time, "train": network.train})
        return
    if arguments.quick:
        arguments.budget, arguments.seeds = "1s", 1
    found = compare(arguments)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
