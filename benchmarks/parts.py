"""What each part does to a small network: test accuracy after a fixed number of steps, time of a step.

    python benchmarks/parts.py --data DIR [--steps 400] [--seeds 3] [--only 'merge=*'] [--results FILE]

DIR holds train/CLASS/ and test/CLASS/ with small pictures; without --data it is scikit-learn's digits.
The baseline and every other row train the same network from the same seeds with the same recipe (SGD
with Nesterov momentum, batch 128, one-cycle learning rate, crops and mirror images), and differ in the
options that name the row. A row is measured on the test pictures, which decide nothing.

The time of a step is taken with rows and baseline in turn, on made-up pictures; the table shows
the median ratio. With --results what is done is kept after every run and not done again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from _common import caption, machine, ratios, shown
from _resident import advance, make_loop
from rich.console import Console
from rich.progress import Progress

import residua
from residua.errors import ResiduaError
from residua.models import record
from residua.nn import ACTIVATIONS, ANTIALIASES, MERGES, NORMS, ORDERS, SHORTCUTS
from residua.nn.init import SCHEMES
from residua.nn.regularisers import DROPS
from residua.training.devices import choose_device
from residua.training.recipe import Recipe, build

BASELINE = "baseline"
RATE = 0.2  # at which drops drop the last block
NEVER = 1e6  # epochs
TIMED = (128, 32)  # batch and pixels of the timed steps
ROUNDS = 7


@dataclass(frozen=True)
class Part:
    """A row: the options that it changes, of the network or of the recipe."""

    options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The row's name, as --only matches it and --set takes it."""
        given = {"model": self.model} if self.model else {}
        given |= self.options | self.recipe
        return ", ".join(f"{key}={value}" for key, value in given.items()) or BASELINE


def parts(network: str) -> Iterator[Part]:
    """Yield the baseline, the other networks of its depth, then one part after the other."""
    yield Part()
    depth = re.search(r"\d+_cifar$", network)
    if depth is not None:
        for name in residua.list_models(f"*[!0-9]{depth[0]}"):
            if name != network:
                yield Part(model=name)
    for shortcut in SHORTCUTS:
        if shortcut != record(network).defaults.get("shortcut", "B"):
            yield Part({"shortcut": shortcut})
    yield Part({"shortcut_dropout": 0.5})
    for order in ORDERS:
        if ORDERS[order].norms and order != "original":
            yield Part({"order": order})
    for merge in MERGES:
        if merge != "add":
            yield Part({"merge": merge})
    for merge in ("add", "sqrt_half", "stable", "stable_decreasing", "skip_init", "layer_scale"):
        yield Part({"norm": "none", "merge": merge})
    for norm in NORMS:
        if norm not in ("batch", "none"):
            yield Part({"norm": norm})
    for activation in ACTIVATIONS:
        if activation != "relu":
            yield Part({"activation": activation})
    yield Part({"attention": "se"})
    yield Part({"attention": "se", "attention_at": "inside"})
    for antialias in ANTIALIASES:
        yield Part({"antialias": antialias})
    yield Part({"dropout": 0.1})
    for drop in DROPS:
        yield Part({"stochastic_depth": RATE, "drop": drop})
    yield Part({"stochastic_depth": RATE, "drop_decay": "constant"})
    yield Part({"stochastic_depth": RATE, "drop_per": "batch"})
    for scheme in SCHEMES:
        if scheme != "he":
            yield Part({"init": scheme})
    yield Part({"fan": "fan_in"})
    yield Part({"zero_init_last": True})
    yield Part({"recompute": True})
    yield Part(recipe={"optimiser.decay_norms_and_biases": True})


def recipe_of(part: Part, network: str, steps: int, batch: int) -> Recipe:
    """Return the recipe that all rows share, with the row's options."""
    values: dict[str, Any] = {
        "model": part.model or network,
        "model_options": part.options,
        "steps": steps,
        "batch_size": batch,
        "optimiser": {"lr": 0.1, "weight_decay": 5e-4},
        "schedule": {"name": "one_cycle", "peak": 0.2},
        "augmentation": {"crop_padding": 4, "padding_mode": "reflect"},
        "evaluation": {"every_epochs": NEVER},
        "compile": "no",
    }
    for key, value in part.recipe.items():
        section, _, name = key.partition(".")
        values[section] = values[section] | {name: value}
    return build(values, part.name)


def accuracy(recipe: Recipe, data: str, seed: int, device: str) -> float:
    """Train once; return the share of the test pictures that the network recognises."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = residua.train(data, out=out, recipe=recipe, seed=seed, device=device)
        return float(run.measures["accuracy"])


def time_ratio(part: Part, network: str, rounds: int, device: str) -> dict[str, Any]:
    """Return the spread of (seconds of the row's step) / (of the baseline's), turn by turn."""
    loops = [
        make_loop(name, *TIMED, device, options)
        for name, options in ((network, {}), (part.model or network, part.options))
    ]
    for loop in loops:
        advance(loop, 1)
    seconds = [[advance(loop, 1) for loop in loops] for _ in range(rounds)]
    usual, other = map(list, zip(*seconds, strict=True))
    return ratios(other, usual)


@dataclass
class Results:
    """What was measured so far, in a file if there is one: {setting, parts: {name: row}}.

    A row holds {accuracy: {seed: share}, time: spread}, or {failed: why}.
    """

    setting: dict[str, Any]
    file: Path | None
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.file is None or not self.file.exists():
            return
        kept = json.loads(self.file.read_text(encoding="utf-8"))
        if kept["setting"] != self.setting:
            raise SystemExit(f"{self.file} is of another setting: {kept['setting']}")
        self.rows = kept["parts"]

    def row(self, name: str) -> dict[str, Any]:
        """Return the row of a part, to be filled."""
        return self.rows.setdefault(name, {"accuracy": {}})

    def save(self) -> None:
        """Write the file aside and rename it."""
        if self.file is None:
            return
        aside = self.file.with_name(self.file.name + ".part")
        values = {"setting": self.setting, "parts": self.rows}
        aside.write_text(json.dumps(values, indent=1), encoding="utf-8")
        aside.replace(self.file)


def measure(part: Part, seed: int, results: Results, rounds: int, device: str) -> None:
    """Fill in what the row lacks; a part that cannot be trained says why in its row."""
    row, setting = results.row(part.name), results.setting
    if str(seed) in row["accuracy"] or "failed" in row:
        return
    try:
        if "time" not in row:
            row["time"] = time_ratio(part, setting["network"], rounds, device)
        recipe = recipe_of(part, setting["network"], setting["steps"], setting["batch"])
        row["accuracy"][str(seed)] = accuracy(recipe, setting["data"], seed, device)
    except (ResiduaError, ValueError, RuntimeError) as error:
        row["failed"] = re.split(r" \(|\n", str(error))[0]
    results.save()


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| part | test accuracy, %: mean (least .. most) | seeds | time of a step / baseline's |",
        "|---|---:|---:|---:|",
    ]
    for name, row in rows.items():
        values = [100 * value for value in row["accuracy"].values()]
        found = row.get("failed", "")
        if values:
            found = f"{statistics.mean(values):.2f} ({min(values):.2f} .. {max(values):.2f})" + (
                f"; then {found}" if found else ""
            )
        time = shown(row["time"]) if "time" in row else ""
        lines.append(f"| `{name}` | {found} | {len(values)} | {time} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", default="digits", help="a folder of train/CLASS and test/CLASS")
    parser.add_argument("--network", default="resnet20_cifar")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=1, help="runs a row: seeds 0, 1, ...")
    parser.add_argument("--only", default="*", help="rows whose name matches, besides the baseline")
    parser.add_argument(
        "--results", type=Path, help="a JSON file to keep results in, and go on from"
    )
    parser.add_argument("--device", default="auto", help="cpu or cuda; auto: cuda if there is one")
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--quick", action="store_true", help="tiny: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    steps, batch, rounds = options.steps, options.batch, ROUNDS
    if options.quick:
        steps, batch, rounds = 3, 16, 1
    setting = {
        "network": options.network,
        "data": options.data,
        "steps": steps,
        "batch": batch,
    }
    results = Results(setting, options.results)
    chosen = [
        part
        for part in parts(options.network)
        if part.name == BASELINE or fnmatchcase(part.name, options.only)
    ]
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=options.seeds * len(chosen))
        for seed in range(options.seeds):  # a whole table first, then the spread
            for part in chosen:
                progress.update(bar, description=f"seed {seed}, {part.name}")
                measure(part, seed, results, rounds, options.device)
                progress.advance(bar)
    facts = machine(choose_device(options.device))
    rows = {part.name: results.rows[part.name] for part in chosen}
    if options.json:
        json.dump({"machine": facts, "setting": setting, "parts": rows}, sys.stdout, indent=1)
        print()
    else:
        print(table(rows))
        shared = ", ".join(f"{key} {value}" for key, value in setting.items())
        print(f"\n{shared}; {caption(facts)}")


if __name__ == "__main__":
    main()
