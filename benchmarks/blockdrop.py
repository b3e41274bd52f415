"""What BlockDrop saves on a trained network, and what it costs in accuracy: real time, whole batches.

    python benchmarks/blockdrop.py --data DIR --run runs/NAME --budget 20m [--threads N] [--bf16]

RUN is a finished run of residual blocks, as `residua train DIR --model resnet110_cifar` makes it. A policy is
trained for it on the run's own training pictures and augmentation, alone at first (the curriculum), then
together with the network; the budget is divided between the two. Then, on the test pictures:

    accuracy   of the trained network and of the pair, one look a picture
    time       of a batch, the policy's included, with gathered blocks. Network and pair take turns batch by
               batch, on the same pictures; the ratio is taken batch by batch

--out keeps the training's checkpoint (a run that was killed goes on from it), the pair as one file, and the
numbers as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from _common import caption, machine, ratios, shown, spread
from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table
from torch import nn

import residua
from residua.data.batches import Batches, to_input
from residua.data.pictures import open_pictures
from residua.training.blockdrop import BlockDrop, BlockDropSettings, save_pair, train_policy
from residua.training.classification import inputs
from residua.training.folder import read_json
from residua.training.memory import keep_freed_memory
from residua.training.recipe import build, read_yaml, seconds
from residua.training.run import Run

TIMED_STEPS = 3  # of each phase, to make steps of a budget
CURRICULUM, FINETUNING = 0.4, 0.5  # of a budget; the policy alone, for all blocks, has what is left
WARM_BATCHES = 3
TEST_BATCH = 250
DIGITS = ("steps=60", "batch_size=64", "optimiser.lr=0.1")  # the run of --quick


class Pictures:
    """The run's own training batches, and the test pictures in memory."""

    def __init__(self, run: Run, data: str | None, batch: int, seed: int) -> None:
        config, card = read_yaml(run.folder.config), run.card
        found = open_pictures(
            data or config["source"],
            split_record=read_json(run.folder.split),
            classes=card.classes,
        )
        shape = card.shape
        stores = {
            key: inputs.open_store(found.splits[key], shape, (shape.stored, shape.stored), None)
            for key in ("train", "test")
        }
        how = inputs.augmentation_of(build(config["recipe"], "recipe"), card.classes, shape)
        self.train = Batches(
            stores["train"],
            found.splits["train"].labels,
            batch_size=batch,
            seed=seed,
            size=shape.size,
            train=True,
            augmentation=how,
        )
        self.mean, self.std = card.normalisation.tensors()
        self.test = self._all(stores["test"], found.splits["test"].labels, shape)

    def _all(self, store: Any, labels: Any, shape: inputs.Shape) -> tuple[torch.Tensor, ...]:
        batch = inputs.evaluation_batches(store, labels, shape, len(labels), torch.device("cpu"))
        whole = batch.batch(0)
        return to_input(whole.pictures, self.mean, self.std), whole.labels


def planned(
    options: argparse.Namespace, network: nn.Module, pictures: Pictures
) -> BlockDropSettings:
    """Return the settings with the numbers of steps that fit the budget."""
    settings = BlockDropSettings(
        gamma=options.gamma,
        finetune_gamma=options.finetune_gamma,
        soft=options.soft,
        start=options.start,
        alpha=options.alpha,
        freeze_norms=options.freeze_norms,
        lr=options.lr,
        finetune_lr=options.finetune_lr,
        shrink=options.shrink,
        bf16=options.bf16,
        seed=options.seed,
    )
    if options.steps:
        curriculum, policy, finetune = options.steps
        return replace(
            settings, curriculum_steps=curriculum, policy_steps=policy, finetune_steps=finetune
        )
    a_step = {}
    for phase in ("policy_steps", "finetune_steps"):
        none = dict.fromkeys(("curriculum_steps", "policy_steps", "finetune_steps"), 0)
        trial = replace(settings, **none | {phase: TIMED_STEPS})
        marks = [time.perf_counter()]
        train_policy(
            network,
            pictures.train,
            pictures.mean,
            pictures.std,
            trial,
            progress=lambda _, marks=marks: marks.append(time.perf_counter()),
        )
        a_step[phase] = min(b - a for a, b in itertools.pairwise(marks))
    budget = seconds(options.budget)
    alone = budget * (1 - FINETUNING) / a_step["policy_steps"]
    return replace(
        settings,
        curriculum_steps=max(1, int(alone * CURRICULUM / (1 - FINETUNING))),
        policy_steps=max(1, int(alone * (1 - CURRICULUM / (1 - FINETUNING)))),
        finetune_steps=max(1, int(budget * FINETUNING / a_step["finetune_steps"])),
    )


def trained(
    options: argparse.Namespace,
    network: nn.Module,
    pictures: Pictures,
    settings: BlockDropSettings,
) -> tuple[BlockDrop, dict[str, Any]]:
    """Return the pair, and how long it took."""
    began, rows = time.monotonic(), []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training the policy", total=settings.steps)

        def tell(row: dict[str, Any]) -> None:
            rows.append(row)
            recent = rows[-50:]
            said = {
                key: sum(r[key] for r in recent) / len(recent) for key in ("accuracy", "blocks")
            }
            text = f"{row['phase']}: {said['blocks']:.1f} blocks, {said['accuracy']:.1%}"
            bar.update(task, completed=row["step"], description=text)
            if row["step"] % options.say_every == 0:
                print(f"step {row['step']:6,} of {row['steps']:,}  {text}", file=sys.stderr)

        pair = train_policy(
            network,
            pictures.train,
            pictures.mean,
            pictures.std,
            settings,
            checkpoint=options.out / "blockdrop-training.safetensors" if options.out else None,
            progress=tell,
        )
    return pair, {"seconds": time.monotonic() - began}


# -- measuring ----------------------------------------------------------------------------------------


def accuracy(
    model: Callable[[torch.Tensor], torch.Tensor], test: tuple[torch.Tensor, ...], bf16: bool
) -> float:
    hits = 0
    parts = zip(*(tensor.split(TEST_BATCH) for tensor in test), strict=True)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for x, labels in parts:
            hits += int((model(x).argmax(1) == labels).sum())
    return hits / len(test[1])


def policies(pair: BlockDrop, x: torch.Tensor, bf16: bool) -> dict[str, Any]:
    """Return how many blocks the pictures keep, and how many different choices there are."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        keep = torch.cat([pair.keep(part) for part in x.split(TEST_BATCH)])
    kept = keep.sum(1).float()
    return {
        "blocks": keep.shape[1],
        "kept": {"mean": float(kept.mean()), "sd": float(kept.std())},
        "different": len(keep.unique(dim=0)),
        "kept_by_share": [round(float(share), 4) for share in keep.float().mean(0)],
    }


def timed(
    ways: dict[str, Callable[[torch.Tensor], Any]],
    x: torch.Tensor,
    batch: int,
    rounds: int,
    bf16: bool,
) -> dict[str, list[float]]:
    """Return the seconds a picture of each way, batch by batch in turns."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    whole = [part for part in x.split(batch) if len(part) == batch] or [x]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for i in track(range(-WARM_BATCHES, rounds), "timing", console=Console(stderr=True)):
            part = whole[i % len(whole)].clone(memory_format=torch.channels_last)
            for name, way in ways.items():
                start = time.perf_counter()
                way(part)
                if i >= 0:
                    took[name].append((time.perf_counter() - start) / len(part))
    return took


def measure(options: argparse.Namespace, run: Run) -> dict[str, Any]:
    pictures = Pictures(run, options.data, options.train_batch, options.seed)
    network = run.model.eval()
    settings = planned(options, network, pictures)
    pair, training = trained(options, network, pictures, settings)
    x = pictures.test[0]
    ways = {"network": network, "pair": pair, "policy": pair.policy}
    found = {
        "n": len(x),
        "batch": options.batch,
        "model": run.card.name,
        "settings": asdict(settings),
        "training": training,
        "machine": machine(torch.device("cpu")),
        "precision": "bf16" if options.bf16 else "float32",
        "accuracy": {
            "network": accuracy(network, pictures.test, options.bf16),
            "pair": accuracy(pair, pictures.test, options.bf16),
        },
        "policies": policies(pair, x, options.bf16),
    }
    took = timed(ways, x, options.batch, options.rounds, options.bf16)
    found["seconds"] = {name: spread(values) for name, values in took.items()}
    found["ratio"] = ratios(took["pair"], took["network"])
    if options.out:
        save_pair(options.out / "blockdrop.safetensors", pair, run.card, found["accuracy"])
    return found


def table(found: dict[str, Any]) -> Table:
    kept, settings = found["policies"], found["settings"]
    steps = [settings[key] for key in ("curriculum_steps", "policy_steps", "finetune_steps")]
    out = Table(
        title=f"BlockDrop on {found['model']}: {found['n']:,} test pictures, batch {found['batch']},"
        f" {found['precision']}",
        caption=f"{kept['kept']['mean']:.1f} +- {kept['kept']['sd']:.1f} of {kept['blocks']} blocks kept,"
        f" {kept['different']:,} different choices; trained for {' + '.join(f'{s:,}' for s in steps)} steps,"
        f" {found['training']['seconds'] / 60:.1f} minutes",
    )
    for heading in ("", "accuracy, %", "ms a picture", "time, of the network's", "batches"):
        out.add_column(heading, justify="right" if heading else "left")
    for name, label in (
        ("network", "the network"),
        ("pair", "BlockDrop"),
        ("policy", "its policy"),
    ):
        times = {k: 1e3 * v for k, v in found["seconds"][name].items()}
        out.add_row(
            label,
            f"{100 * found['accuracy'][name]:.2f}" if name != "policy" else "",
            shown(times, ".3f"),
            shown(found["ratio"], ".3f") if name == "pair" else "",
            str(found["seconds"][name]["n"]),
        )
    return out


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", help="the pictures, if they are no longer where the run had them")
    parser.add_argument("--run", type=Path, help="the folder of a finished run")
    parser.add_argument("--budget", default="20m", help="of the policy's training, as 90s or 20m")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=3,
        metavar=("CURRICULUM", "POLICY", "FINETUNE"),
        help="instead of a budget",
    )
    default = BlockDropSettings()
    for name in ("gamma", "finetune-gamma", "start", "alpha", "lr", "finetune-lr"):
        value = getattr(default, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--soft", action="store_true", help="reward probabilities: less noise")
    parser.add_argument("--freeze-norms", action="store_true", help="in finetuning")
    parser.add_argument("--shrink", type=int, default=2, help="of what the policy sees")
    parser.add_argument("--train-batch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64, help="that is timed")
    parser.add_argument("--rounds", type=int, default=100, help="batches that are timed")
    parser.add_argument("--threads", type=int, help="of the CPU; 1 where others use the machine")
    parser.add_argument("--bf16", action="store_true", help="bfloat16, for all of it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--say-every", type=int, default=50, help="steps")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cpu", choices=("auto", "cpu"))
    parser.add_argument("--quick", action="store_true", help="digits: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.quick and options.run is None:
        parser.error("--run RUN, or --quick")
    if options.quick:
        options.steps, options.rounds, options.batch = (4, 2, 4), 3, 16
    return options


def main() -> None:
    options = read_options()
    keep_freed_memory()  # as a training does, so that both ways find their memory
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as made:
        if options.quick:
            options.data = "digits"
            run = residua.train(
                "digits", out=Path(made) / "run", model="resnet20_cifar", settings=DIGITS
            )
        else:
            run = residua.open_run(options.run)
        found = measure(options, run)
    if options.out:
        (options.out / "blockdrop.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    console.print(table(found))
    console.print(caption(found["machine"]))


if __name__ == "__main__":
    main()
