"""Test accuracy over the minutes of a budget: `residua train` against a plain loop.

    python benchmarks/minutes.py --data DIR --budget 10m [--minutes-every 1] [--out runs/minutes]

DIR holds train/CLASS/ and test/CLASS/ with pictures of one square size; without --data it is
scikit-learn's digits. Each way has the whole budget, one after the other, in a process of its own:

    residua   residua.train with the recipe `quick`: everything counts, from looking at the folder and
              decoding (the cache is empty) over planning to the report
    plain     the very same network and initial weights in a plain loop: float32, torch's default memory
              format, a DataLoader of 2 workers that decodes with Pillow and crops, flips and normalises
              each picture in every epoch, the same loss, batch size and SGD with Nesterov and decay, the
              same one-cycle schedule over the steps that it makes in the budget. It is told the size,
              the channels' mean and deviation, the learning rate and the batch size, and it trains on
              the pictures, too, that residua holds out for validation.

At every mark the network (residua's: the average of its weights) is evaluated on the test pictures, which
are in memory for both; that time is taken off the clock. Nothing learns from it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Contender, caption, machine, serve
from _plain import PictureByPicture
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader

from residua.data.batches import to_input
from residua.data.decode import EXTENSIONS
from residua.data.naming import natural_key
from residua.models import create_model
from residua.training.cards import ModelCard
from residua.training.classification.inputs import augmentation_of
from residua.training.classification.measures import classification_loss
from residua.training.devices import choose_device
from residua.training.fit import Loop
from residua.training.folder import RunFolder
from residua.training.optimisers import lr_factor, parameter_groups
from residua.training.recipe import Recipe, build, seconds, with_overrides
from residua.training.recipes import load_recipe
from residua.training.request import Request
from residua.training.run import Run
from residua.training.session import Session
from residua.training.state import State, Watcher

WORKERS = 2
TEST_BATCH = 250
RESOLUTION = 100_000  # steps that the plain loop's schedule is divided into


class Clock:
    """Minutes of training: evaluations at the marks stop it, and keep what they find."""

    def __init__(self, every: float, evaluate: Callable[[], float]) -> None:
        self.every, self.evaluate = every, evaluate
        self.rows: list[dict[str, float]] = []
        self.began, self.paused = time.monotonic(), 0.0

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.began - self.paused) / 60

    def look(self, step: int) -> None:
        """Evaluate if a mark has come; several that passed in one step share what is found."""
        passed = int(self.minutes / self.every + 1e-9) - len(self.rows)
        if passed > 0:
            self.rows += [self._evaluate(step)] * passed

    def finish(self, step: int, budget: float) -> dict[str, float]:
        """Evaluate the result, which stands for the marks left of the budget (in minutes).

        A way that took longer than its budget keeps what it had at the last mark.
        """
        marks = max(1, round(budget / self.every))
        end = self._evaluate(step)
        self.rows = (self.rows + [end] * marks)[:marks]
        return end

    def _evaluate(self, step: int) -> dict[str, float]:
        minutes, start = self.minutes, time.monotonic()
        accuracy = self.evaluate()
        print(f"{minutes:6.2f} min  step {step:6,}  {accuracy:.2%}", file=sys.stderr)
        self.paused += time.monotonic() - start
        return {"minutes": minutes, "step": step, "accuracy": accuracy}


# -- the test pictures --------------------------------------------------------------------------------


def listed(folder: Path) -> tuple[list[str], list[Path], list[int]]:
    """Return classes, pictures and labels of class folders."""
    names = sorted((f.name for f in folder.iterdir() if f.is_dir()), key=natural_key)
    paths, labels = [], []
    for label, name in enumerate(names):
        found = [f for f in sorted((folder / name).iterdir()) if f.suffix.lower() in EXTENSIONS]
        paths += found
        labels += [label] * len(found)
    return names, paths, labels


class TestPictures:
    """The held-out pictures, decoded once: pixels uint8 (N, S, S, C), labels (N,)."""

    __test__ = False  # for pytest: these are no tests

    def __init__(self, folder: Path) -> None:
        self.classes, paths, labels = listed(folder)
        with Image.open(paths[0]) as first:
            mode, side = "L" if first.mode in ("1", "L") else "RGB", first.width
        decoded = [np.asarray(Image.open(path).convert(mode)) for path in paths]
        if any(picture.shape[:2] != (side, side) for picture in decoded):
            raise SystemExit(f"{folder}: expected pictures of one square size")
        pixels = np.stack(decoded)
        self.pixels = torch.from_numpy(pixels.reshape(*pixels.shape[:3], -1))
        self.labels = torch.tensor(labels)

    @torch.no_grad()
    def accuracy(self, model: nn.Module, card: ModelCard, channels_last: bool) -> float:
        """Return the share that a network recognises; its mode is given back as it was."""
        if list(card.classes) != self.classes:
            raise RuntimeError("test and training pictures do not have the same classes")
        device, mode = next(model.parameters()).device, model.training
        mean, std = card.normalisation.tensors()
        model.eval()
        hits = 0
        parts = [torch.split(tensor, TEST_BATCH) for tensor in (self.pixels, self.labels)]
        for pixels, labels in zip(*parts, strict=True):
            x = to_input(pixels.to(device), mean, std)
            predicted = model(x if channels_last else x.contiguous()).argmax(1)
            hits += int((predicted.cpu() == labels).sum())
        model.train(mode)
        return hits / len(self.labels)


# -- residua ------------------------------------------------------------------------------------------


class _Timed(Session):
    """A session that hands its loop to the watcher."""

    def _loop(self, *parts: Any) -> Loop:
        loop = super()._loop(*parts)
        assert isinstance(self.watcher, _EachMinute)
        self.watcher.loop = loop
        self.watcher.card = next(part for part in parts if isinstance(part, ModelCard))
        return loop


class _EachMinute(Watcher):
    """Looks at the clock after each step that the loop tells of (a thousand a run, or all)."""

    loop: Loop
    card: ModelCard

    def __init__(self, test: TestPictures, every: float) -> None:
        self.clock = Clock(every, lambda: test.accuracy(self.loop.result, self.card, True))

    def step(self, state: State, loss: float, lr: float) -> None:
        self.clock.look(state.step)


def train_residua(
    data: str, out: str, settings: Sequence[str], every: float, seed: int, device: str
) -> dict[str, Any]:
    test = TestPictures(Path(data) / "test")
    recipe = with_overrides(load_recipe("quick"), settings)
    request = Request(source=data, recipe=recipe, seed=seed, device=device)
    watcher = _EachMinute(test, every)
    run: Run = _Timed(RunFolder(Path(out)), request, watcher).start(overwrite=True)
    clock, plan = watcher.clock, watcher.loop.plan
    clock.evaluate = lambda: test.accuracy(run.model, run.card, True)
    end = clock.finish(plan.steps, seconds(str(recipe.budget)) / 60)
    return {
        "rows": clock.rows,
        "end": end,
        "card": run.card.as_dict(),
        "recipe": watcher.loop.recipe.model_dump(mode="json"),
        "plan": plan.as_dict(),
        "evaluate": {key: run.measures.get(key) for key in ("split", "accuracy")},
    }


# -- plain --------------------------------------------------------------------------------------------


def train_plain(
    data: str, card: dict[str, Any], recipe: dict[str, Any], every: float, seed: int, device: str
) -> dict[str, Any]:
    told, settings = ModelCard.from_dict(card), build(recipe, "recipe")
    test, where = TestPictures(Path(data) / "test"), choose_device(device)
    torch.manual_seed(seed)
    model = create_model(told.name, len(told.classes), told.shape.channels, **told.options)
    model.to(where)
    clock = Clock(every, lambda: test.accuracy(model, told, False))
    budget = seconds(str(settings.budget)) / 60
    step = _plain_loop(model, _loader(Path(data), told, settings), settings, clock, budget, where)
    clock.finish(step, budget)
    return {"rows": clock.rows}


def _loader(data: Path, card: ModelCard, recipe: Recipe) -> DataLoader[Any]:
    _, paths, labels = listed(data / "train")
    how = augmentation_of(recipe, card.classes, card.shape)
    pictures = PictureByPicture(
        paths,
        labels,
        channels=card.shape.channels,
        mean=card.normalisation.mean,
        std=card.normalisation.std,
        padding=how.crop_padding,
        padding_mode=how.padding_mode,
        flip=how.flip,
    )
    return DataLoader(
        pictures,
        batch_size=recipe.batch,
        shuffle=True,
        drop_last=len(pictures) >= recipe.batch,
        num_workers=WORKERS,
        persistent_workers=True,
    )


def _plain_loop(
    model: nn.Module,
    loader: DataLoader[Any],
    recipe: Recipe,
    clock: Clock,
    budget: float,
    device: torch.device,
) -> int:
    """Train until the budget (in minutes) is used up; return the number of steps."""
    section = recipe.optimiser
    assert section.name == "sgd" and not isinstance(section.lr, str)
    optimizer = torch.optim.SGD(
        parameter_groups(model, section),
        lr=section.lr,
        momentum=section.momentum,
        nesterov=section.nesterov,
    )
    step = 0
    while True:
        model.train()
        for inputs, targets in loader:
            inputs, targets = inputs.to(device), targets.to(device)
            now = int(min(clock.minutes / budget, 1.0) * (RESOLUTION - 1))
            for group in optimizer.param_groups:
                group["lr"] = section.lr * lr_factor(recipe.schedule, now, RESOLUTION, RESOLUTION)
            optimizer.zero_grad()
            loss = classification_loss(recipe.loss, model(inputs), targets, recipe.label_smoothing)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
            if clock.minutes >= budget:
                return step
            clock.look(step)


# -- both ---------------------------------------------------------------------------------------------


def write_digits(folder: Path) -> None:
    """Write scikit-learn's 1,797 digits as pictures, every fifth one for the test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for i, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("train" if i % 5 else "test") / str(label) / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(picture * 255 / 16).astype(np.uint8)).save(path)


def measure(options: argparse.Namespace, data: Path) -> dict[str, Any]:
    common = {"every": options.minutes_every, "seed": options.seed, "device": options.device}
    wanted = [f"budget={options.budget}", *options.set]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["RESIDUA_CACHE"] = cache
        with Contender("residua") as ours:
            out = str(options.out / "run")
            found = ours.ask("train", data=str(data), out=out, settings=wanted, **common)
    told = {key: found[key] for key in ("card", "recipe")}
    with Contender("plain") as peer:
        rows = peer.ask("train", data=str(data), **told, **common)["rows"]
    return {
        "budget": options.budget,
        "minutes_every": options.minutes_every,
        "seed": options.seed,
        "machine": machine(choose_device(options.device)),
        "accuracy": {"residua": found.pop("rows"), "plain": rows},
        "residua": found,
    }


def table(found: dict[str, Any]) -> Table:
    card, plan = found["residua"]["card"], found["residua"]["plan"]
    options = "".join(f", {key} {value}" for key, value in card["options"].items())
    out = Table(
        title=f"test accuracy over {found['budget']}: {card['name']}{options}",
        caption=f"batch {found['residua']['recipe']['batch_size']}; residua in {plan['precision']},"
        f" all done (report included) after {found['residua']['end']['minutes']:.2f} minutes",
    )
    for heading in ("minute", "residua, %", "plain, %", "ahead by", "steps", "steps, plain"):
        out.add_column(heading, justify="right")
    both = zip(found["accuracy"]["residua"], found["accuracy"]["plain"], strict=True)
    for i, (ours, plain) in enumerate(both, start=1):
        first, second = 100 * ours["accuracy"], 100 * plain["accuracy"]
        out.add_row(
            f"{i * found['minutes_every']:.3g}",
            f"{first:.2f}",
            f"{second:.2f}",
            f"{first - second:+.2f}",
            f"{ours['step']:,}",
            f"{plain['step']:,}",
        )
    return out


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    looks = {"residua": ("residua train", "#1f6f8b", "-"), "plain": ("plain loop", "#b5651d", "--")}
    for way, rows in found["accuracy"].items():
        label, colour, line = looks[way]
        accuracies = [100 * row["accuracy"] for row in rows]
        marks = [(i + 1) * found["minutes_every"] for i in range(len(rows))]
        axes.plot(marks, accuracies, line, color=colour, marker="o", markersize=4, label=label)
    axes.set_xlabel("minutes, evaluations not counted")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="train/CLASS and test/CLASS; default: digits")
    parser.add_argument("--budget", default="1m", help="of each way, as 90s or 10m")
    parser.add_argument("--minutes-every", type=float, help="default: 1, or a tenth of the budget")
    parser.add_argument("--out", type=Path, default=Path("runs/minutes"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="digits for 6 s: shows that it runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.budget, options.data = "6s", None
    if options.minutes_every is None:
        options.minutes_every = min(1.0, seconds(options.budget) / 600)
    return options


def main() -> None:
    options = read_options()
    if options.serve:
        way = json.loads(options.serve)["way"]
        ways: dict[str, Callable[..., Any]] = {"residua": train_residua, "plain": train_plain}
        serve({"train": ways[way]})
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        data = options.data
        if data is None:
            data = Path(made) / "digits"
            write_digits(data)
        found = measure(options, data)
    (options.out / "minutes.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    draw(found, options.out / "minutes.png")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    console.print(table(found))
    console.print(caption(found["machine"]))
    console.print(f"{options.out / 'minutes.json'}, {options.out / 'minutes.png'}")


if __name__ == "__main__":
    main()
