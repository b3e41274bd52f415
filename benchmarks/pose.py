"""Joints of people: the share found over the minutes of a budget, with 2 hourglasses, and drawings of them.

    python benchmarks/pose.py --data DIR --budget 30m [--size N] [--set KEY=VALUE] [--out runs/pose] [--json]

DIR holds pictures with COCO keypoints (or MPII's); without --data they are jointed figures, drawn here.
It is residua.train with the recipe `quick` and the stacked hourglass of 2 (Newell, Yang, Deng 2016), and
everything counts: looking at the folder, planning, evaluations, the report.

Prints PCK@0.2 of every evaluation on the held-out people (joints within 0.2 torsos), that of the finished
network with a 95 % interval, and whether the curve still rises: the slope of a line through the last
evaluations, with its standard error. A cycle ends at learning rate 0, and so does a curve in the end: a flat
end says that the cycle is over, not that more minutes would not help. Heatmaps that say nothing are counted.

The sheet shows held-out people, evenly spaced in the list and not chosen: truth left, answer right. Lines are
drawn between joints that the network is sure of by 0.1 or more.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import caption, common_options, machine
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import linregress

import residua
from residua.data.drawn import figures
from residua.data.keypoints import PoseSplit, open_keypoints
from residua.training.cards import PoseCard
from residua.training.devices import choose_device
from residua.training.folder import read_json
from residua.training.pose.drawing import beside
from residua.training.pose.evaluation import Found, find_all
from residua.training.state import Watcher

MODEL = "hourglass2"
LAST = 5  # evaluations through which the line is laid
SURE = 2.0  # standard errors of a slope that rises
PEOPLE, COLUMNS = 12, 4  # of the sheet
TILE = (240, 240)  # pixels that a pair of drawings fits into
AROUND = 0.15  # of a person's box, seen on each side of it
COLOURS = 128  # of the sheet: small files


class _Listener(Watcher):
    """Keeps the row of every evaluation, and says it."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.console = Console(stderr=True)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False)

    def evaluated(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.console.print(f"{row['minutes']:6.2f} min  PCK {row['val_pck']:.2%}")


def ending(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the slope of PCK over the last evaluations, in points a minute, and what it says.

    >>> rows = [{"minutes": m, "val_pck": 0.1 * m, "lr": 0.0} for m in (1.0, 2.0, 3.0)]
    >>> ending(rows)["verdict"]
    'rising'
    """
    last = rows[-LAST:]
    minutes, found = ([row[key] for row in last] for key in ("minutes", "val_pck"))
    if len(last) < 3:
        return {"evaluations": len(last), "verdict": "too few evaluations to say"}
    line = linregress(minutes, found)
    slope, error = 100 * float(line.slope), 100 * float(line.stderr)
    verdict = "flat"
    if abs(slope) > SURE * error:
        verdict = "rising" if slope > 0 else "falling"
    return {
        "evaluations": len(last),
        "points_a_minute": slope,
        "standard_error": error,
        "lr": last[-1]["lr"],
        "verdict": verdict,
    }


def draw(found: Found, part: PoseSplit, card: PoseCard, path: Path) -> None:
    """Write truth beside answer for some people, each cut out around the box."""
    chosen = np.unique(np.linspace(0, len(part) - 1, PEOPLE).astype(int)).tolist()
    tall = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (TILE[0] * COLUMNS, TILE[1] * tall), (255, 255, 255))
    for k, i in enumerate(chosen):
        picture = part.read(i)
        cut, corner = _cut(picture, part.boxes[i])
        truth = part.joints[i].copy()
        truth[:, :2] -= corner
        pair = beside(
            cut,
            truth,
            found.joints[i] - corner,
            card.classes,
            card.skeleton,
            confidence=found.confidence[i],
        )
        pair.thumbnail((TILE[0] - 6, TILE[1] - 6))
        sheet.paste(pair, (k % COLUMNS * TILE[0], k // COLUMNS * TILE[1]))
    sheet.quantize(COLOURS).save(path, optimize=True)


def _cut(picture: Any, box: Any) -> tuple[Any, Any]:
    """Return a picture's part around a box (left, top, right, bottom), and where its corner was."""
    left, top, right, bottom = (float(value) for value in box)
    wide, high = AROUND * (right - left), AROUND * (bottom - top)
    x, y = max(0, int(left - wide)), max(0, int(top - high))
    return picture[y : int(bottom + high) + 1, x : int(right + wide) + 1], np.array([x, y])


def measure(options: argparse.Namespace, data: Path, out: Path) -> dict[str, Any]:
    watcher = _Listener()
    length = {"epochs": 1.0} if options.quick else {"budget": options.budget}
    settings = [*options.set, *([f"size={options.size}"] if options.size else [])]
    start = time.monotonic()
    run: Any = residua.train(
        data,
        out=out,
        model=MODEL,
        settings=settings,
        seed=options.seed,
        device=options.device,
        task="pose",
        overwrite=True,
        watcher=watcher,
        **length,
    )
    took = time.monotonic() - start
    people = open_keypoints(data, split_record=read_json(run.folder.split))
    reached = run.measures
    part = people.splits[reached["split"]]
    part.channels = run.card.channels
    found = find_all(run.fabric, run.model, run.card, part, flip=run.card.flip)
    draw(found, part, run.card, options.out / "pose.png")
    plan = read_json(run.folder.setup)["plan"]
    return {
        "machine": machine(choose_device(options.device)),
        "budget": options.budget,
        "seconds": took,
        "seed": options.seed,
        "network": {"name": run.card.name, "options": run.card.options, "size": run.card.size},
        "people": {key: len(split) for key, split in people.splits.items()},
        "plan": {key: plan[key] for key in ("steps", "precision", "threads", "seconds_per_step")},
        "history": watcher.rows,
        "ending": ending(watcher.rows),
        "reached": {key: value for key, value in reached.items() if key != "curve"},
    }


def table(found: dict[str, Any]) -> Table:
    network, plan = found["network"], found["plan"]
    options = "".join(f", {key} {value}" for key, value in network["options"].items())
    out = Table(
        title=f"PCK@0.2 on held-out people: {network['name']}{options}, crops of {network['size']}",
        caption=f"{found['people']['train']:,} people to train on; {plan['steps']:,} steps,"
        f" {plan['precision']}, {found['seconds']:.0f} s in all; {caption(found['machine'])}",
    )
    for heading in ("minute", "step", "PCK, %", "loss", "training loss", "learning rate"):
        out.add_column(heading, justify="right")
    for row in found["history"]:
        out.add_row(
            f"{row['minutes']:.1f}",
            f"{row['step']:,}",
            f"{100 * row['val_pck']:.2f}",
            f"{row['val_loss']:.4g}",
            f"{row['train_loss']:.4g}",
            f"{row['lr']:.2g}",
        )
    return out


def sentences(found: dict[str, Any]) -> str:
    """Return what was reached and how the curve ends."""
    reached, end = found["reached"], found["ending"]
    low, high = reached["interval"]
    text = (
        f"finished network: PCK@0.2 {reached['pck']:.2%} (95 % interval {low:.2%} to {high:.2%}) of"
        f" {reached['joints']:,} joints of {reached['n']:,} people ({reached['split']}), of the"
        f" {reached['normalised_by']}"
    )
    if "points_a_minute" in end:
        text += (
            f"\nthe last {end['evaluations']} evaluations: {end['points_a_minute']:+.3f} points a"
            f" minute (standard error {end['standard_error']:.3f}), so {end['verdict']};"
            f" learning rate {end['lr']:.2g} at the end"
        )
    else:
        text += f"\n{end['verdict']}"
    silent = reached["silent"]
    return f"{text}\nheatmaps that say nothing: {', '.join(silent) if silent else 'none'}"


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="pictures with keypoints; default: drawn figures")
    parser.add_argument("--budget", default="30m", help="as 90s or 30m")
    parser.add_argument("--size", type=int, help="pixels of a crop; default: the recipe's")
    parser.add_argument("--out", type=Path, default=Path("runs/pose"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe"
    )
    common_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.budget, options.size = "1 epoch", 64
        options.set += ["batch_size=4", "model_options.width=16"]
    return options


def main() -> None:
    options = read_options()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        data = options.data
        if data is None:
            data = Path(made) / "figures"
            figures.write(data, 24 if options.quick else 2000, seed=0)
        found = measure(options, data, options.out / "run")
    (options.out / "pose.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    console.print(table(found))
    console.print(sentences(found))
    console.print(f"{options.out / 'pose.json'}, {options.out / 'pose.png'}")


if __name__ == "__main__":
    main()
