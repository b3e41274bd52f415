"""Is Monte Carlo batch norm better calibrated than the plain softmax?

    python benchmarks/calibration.py --data DIR [--model resnet20_cifar] [--steps 2000] [--samples 32]

DIR holds class folders (or train/ and test/ of them); without --data it is scikit-learn's digits. A
network is trained with each seed, by the recipe `quick` without smoothed labels, averaged weights and
mirrored evaluation, which change the calibration too. Then every test picture is predicted twice: with
the running statistics (plain), and under the statistics of `--samples` training batches, as they were
trained on, the probabilities averaged (Teye et al. 2018). What is printed: expected calibration error of
the top label in 15 bins (Guo et al. 2017), negative log likelihood, accuracy, and their differences seed
by seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from _common import caption, machine
from rich.console import Console
from rich.table import Table

import residua
from residua.data.batches import to_input
from residua.nn.norms.monte_carlo import collect_statistics
from residua.training.classification import inputs
from residua.training.classification.materials import decide, gather, training_batches
from residua.training.classification.measures import Predictions, calibration, summary
from residua.training.devices import choose_device
from residua.training.recipe import with_overrides
from residua.training.recipes import load_recipe
from residua.training.request import Request
from residua.training.state import Watcher

WAYS = ("plain", "monte_carlo")
MEASURES = ("ece", "loss", "accuracy")
SETTINGS = ("label_smoothing=0", "ema=0", "evaluation.flip=false", "max_epochs=null")


def measure(predictions: Predictions, classes: int) -> dict[str, float]:
    found = summary(predictions, classes)
    return {
        "ece": calibration(predictions)["ece"],
        "loss": found["loss"],
        "accuracy": found["accuracy"],
    }


def one_seed(arguments: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Train a network and measure it in both ways."""
    device = choose_device(arguments.device)
    own = [f"model={arguments.model}", f"steps={arguments.steps}"]
    recipe = with_overrides(load_recipe("quick"), [*SETTINGS, *arguments.set, *own])
    with tempfile.TemporaryDirectory() as folder:
        run = residua.train(
            arguments.data,
            out=Path(folder) / "run",
            recipe=recipe,
            seed=seed,
            device=arguments.device,
            workers=0,
        )
        model, card = run.model.to(device), run.card
    request = Request(source=arguments.data, recipe=recipe, seed=seed, device=arguments.device)
    material = gather(request, None, Watcher())
    card = decide(material, request, device, Watcher())
    mean, std = (t.to(device) for t in card.normalisation.tensors())
    training = training_batches(material, card, request, device, 0, 1)
    seen = itertools.islice(training.iterate(0, arguments.samples), arguments.samples)
    samples = collect_statistics(model, (to_input(b.pictures, mean, std) for b in seen))
    name = "test" if "test" in material.pictures.splits else "val"
    labels = material.pictures.splits[name].labels
    parts: dict[str, list[Predictions]] = {way: [] for way in WAYS}
    pictures = inputs.evaluation_batches(material.stores[name], labels, card.shape, 256, device)
    for batch in pictures.iterate(0, pictures.steps_per_epoch):
        x = to_input(batch.pictures, mean, std)
        with torch.no_grad():
            scores = {
                "plain": model(x),
                "monte_carlo": samples.predict(model, x).mean.clamp_min(1e-30).log(),
            }
        for way in WAYS:
            parts[way].append(Predictions.of(scores[way], batch.labels, batch.indices))
    return {way: measure(Predictions.joined(parts[way]), len(card.classes)) for way in WAYS}


def show(found: dict[str, Any]) -> None:
    seeds = found["seeds"]
    table = Table(title=f"{found['model']}, {found['samples']} training batches, n = {len(seeds)}")
    for column in ("", *WAYS, "difference, seed by seed"):
        table.add_column(column, justify="left" if not column else "right")
    for what in MEASURES:
        cells = []
        for way in WAYS:
            cells.append(_spread([s[way][what] for s in seeds]))
        cells.append(_spread([s["monte_carlo"][what] - s["plain"][what] for s in seeds]))
        table.add_row(what, *cells)
    console = Console(width=120)
    console.print(table)
    console.print(caption(found["machine"]))


def _spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{statistics.mean(values):.4f} ({low:.4f} .. {high:.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="a folder of class folders")
    parser.add_argument("--model", default="resnet20_cifar")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=32, help="training batches")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="a trial of the script itself")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.steps, arguments.samples, arguments.seeds = 20, 2, 2
    seeds = []
    for seed in range(arguments.seeds):
        seeds.append(one_seed(arguments, seed))
        print(f"seed {seed}: {seeds[-1]}", file=sys.stderr, flush=True)
    found = {
        "model": arguments.model,
        "steps": arguments.steps,
        "samples": arguments.samples,
        "seeds": seeds,
        "machine": machine(choose_device(arguments.device)),
    }
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
