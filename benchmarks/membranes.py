"""Membranes in slices of tissue: a budget in 2-D, in 3-D, for five small networks, in a plain loop.

    python benchmarks/membranes.py --data DIR --budget 10m [--ways 2d 3d ensemble plain] [--seeds 1]
                                   [--out runs/membranes] [--json]

DIR holds pictures beside masks of two values, the larger one inside of cells (as in the ISBI challenge of
2012); without --data they are drawn here. Every way has the whole budget, in a process of its own, and the
same held-out slices, a block that `residua train` would hold out:

    2d        residua.train, the recipe `quick`; everything counts, from looking at the folder to the report
    3d        the same on the slices as one volume, dims=3
    ensemble  five 2-D networks of --small channels, a fifth of the budget each; they decide by the mean of
              their probabilities, by majority, and inside only where all five agree (Prince, figure 11.11c)
    plain     a U-Net over a ResNet-34, decoder 256, 128, 64, 32, 16 with batch norm, as in
              segmentation_models.pytorch, which is used where it can be imported; float32, AdamW at 1e-3
              with a cosine over the budget, Dice and cross-entropy, batches of 8 random crops of 256,
              mirrored and turned by quarters. The whole budget is steps: nothing else is on its clock

Initial weights are random everywhere. Nothing is chosen on the held-out slices: residua's networks are
evaluated at the end alone, instead of on the way. Predictions are made afterwards, off the clock: residua's
as `predict` makes them, averaged over mirrored pictures; the plain loop's without and with mirroring.

Scores on the held-out slices: mean IoU of both classes and pixel error at probability 1/2, and the
foreground-restricted Rand score after borders are thinned (residua.training.segmentation.rand), at the
threshold that is best on the last training slices, as many as are held out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Contender, caption, common_options, machine, serve
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from residua.data.pairs import Pairs, open_pairs
from residua.models import create_model
from residua.models.encoder_unet import maps
from residua.tiles import predict
from residua.training.devices import choose_device
from residua.training.folder import RunFolder, read_json
from residua.training.plan import Plan
from residua.training.recipe import seconds, with_overrides
from residua.training.recipes import load_recipe
from residua.training.request import Request
from residua.training.segmentation.ensemble import Ensemble
from residua.training.segmentation.materials import VALIDATION
from residua.training.segmentation.predicting import probabilities
from residua.training.segmentation.rand import best_foreground_rand, foreground_rand
from residua.training.segmentation.scores import Scores, mean
from residua.training.session import Session
from residua.training.state import Watcher

WAYS = ("2d", "3d", "ensemble", "plain")
MEMBERS = 5
CROP, BATCH, LR = 256, 8, 1e-3  # of the plain loop
WIDTHS = (256, 128, 64, 32, 16)  # of its decoder
MULTIPLE = 32  # of the sides that its network takes
SHOWN = 256  # pixels of a picture in the sheet
QUICK_SLICES, QUICK_SIDE = 15, 64

Floats = NDArray[np.float32]


# -- residua ------------------------------------------------------------------------------------------


class _AtTheEnd(Session):
    """A session that looks at the held-out slices once, after its last step."""

    def _plan(self, *parts: Any) -> Plan:
        plan = super()._plan(*parts)
        return replace(
            plan, evaluate_every=10 * plan.steps
        )  # never on the way, however long it gets


def train_residua(
    data: str, out: str, settings: list[str], length: str, seed: int, device: str, target: str
) -> dict[str, Any]:
    """Train once; save the probabilities of inside, and return steps, seconds and plan."""
    recipe = with_overrides(load_recipe("quick", "segmentation"), [length, *settings])
    request = Request(source=data, recipe=recipe, seed=seed, device=device, task="segmentation")
    start = time.monotonic()
    run = _AtTheEnd(RunFolder(Path(out)), request, Watcher()).start(overwrite=True)
    took = time.monotonic() - start
    where, card = choose_device(device), run.card
    model = run.model.to(where)

    def inside(picture: NDArray[Any]) -> Floats:
        found: Floats = probabilities(model, card, picture, where, flips=card.flips)[1].numpy()
        return found

    pairs = open_pairs(Path(data), dims=card.dims)
    _save(target, pairs, inside)
    plan = read_json(run.folder.setup)["plan"]
    shown = {key: plan[key] for key in ("steps", "precision", "threads", "seconds_per_step")}
    batch = recipe.batch
    return shown | {
        "seconds": took,
        "batch": batch,
        "model": card.name,
        "options": card.options,
        "patch": list(card.patch),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _save(target: str, pairs: Pairs, inside: Any) -> None:
    """Save (slices, H, W) of the probability of inside: training slices at the end, held-out ones."""
    train, val = pairs.splits["train"], pairs.splits["val"]
    if pairs.dims == 3:
        held = inside(val.read(0)[0])
        chosen = inside(train.read(0)[0])[-len(held) :]
    else:
        held = np.stack([inside(val.read(i)[0]) for i in range(len(val))])
        last = range(max(0, len(train) - len(val)), len(train))
        chosen = np.stack([inside(train.read(i)[0]) for i in last])
    np.savez(target, chosen=chosen, held=held)


# -- plain --------------------------------------------------------------------------------------------


class PlainUNet(nn.Module):
    """The U-Net of segmentation_models.pytorch over our ResNet-34: (B, C, H, W) -> (B, K, H, W)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = create_model("resnet34", in_channels=channels, features_only=True)
        before, skips = 512, (256, 128, 64, 64, 0)
        blocks = []
        for skip, width in zip(skips, WIDTHS, strict=True):
            layers: list[nn.Module] = []
            for cin in (before + skip, width):
                conv = nn.Conv2d(cin, width, 3, padding=1, bias=False)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            blocks.append(nn.Sequential(*layers))
            before = width
        self.decoder = nn.ModuleList(blocks)
        self.head = nn.Conv2d(before, classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *skips, y = maps(self.encoder, x)
        for block, skip in zip(self.decoder, [*reversed(skips), None], strict=True):
            y = functional.interpolate(y, scale_factor=2.0, mode="nearest")
            y = block(y if skip is None else torch.cat([y, skip], dim=1))
        scores: torch.Tensor = self.head(y)
        return scores


def plain_network(channels: int, classes: int) -> tuple[nn.Module, str]:
    """Return the network and where it is from."""
    try:
        library = importlib.import_module("segmentation_models_pytorch")
    except ImportError:
        return PlainUNet(channels, classes), "its architecture, in our own words"
    network = library.Unet("resnet34", encoder_weights=None, in_channels=channels, classes=classes)
    return network, f"segmentation_models_pytorch {library.__version__}"


def plain_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return Dice over the batch, its mean over classes, plus cross-entropy."""
    p = scores.softmax(1)
    g = functional.one_hot(labels, p.shape[1]).movedim(-1, 1).to(p.dtype)
    axes = (0, 2, 3)
    dice = (2 * (p * g).sum(axes) + 1e-5) / (p.sum(axes) + g.sum(axes) + 1e-5)
    return (1 - dice).mean() + functional.cross_entropy(scores, labels)


def plain_batch(
    pictures: torch.Tensor, masks: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random crops, mirrored and turned: (B, C, side, side), (B, side, side)."""
    xs, ys = [], []
    for i in torch.randint(len(pictures), (BATCH,)).tolist():
        top, left = (int(torch.randint(n - side + 1, ())) for n in masks.shape[1:])
        window = (..., slice(top, top + side), slice(left, left + side))
        x, y = pictures[i][window], masks[i][window]
        if torch.rand(()) < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        turns = int(torch.randint(4, ()))
        xs.append(torch.rot90(x, turns, (-2, -1)))
        ys.append(torch.rot90(y, turns, (-2, -1)))
    return torch.stack(xs), torch.stack(ys)


def train_plain(data: str, length: str, seed: int, device: str, target: str) -> dict[str, Any]:
    """Train to the end of the length; save the probabilities of inside, with and without mirroring."""
    unit, _, amount = length.partition("=")
    pairs, where = open_pairs(Path(data), dims=2), choose_device(device)
    train = [pairs.splits["train"].read(i) for i in range(len(pairs.splits["train"]))]
    pixels, labels = (np.stack([pair[i] for pair in train]) for i in range(2))
    pictures = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    masks = torch.from_numpy(labels).long()
    average, std = float(pictures.mean()), float(pictures.std())
    pictures = (pictures - average) / std
    side = min(CROP, *(n // MULTIPLE * MULTIPLE for n in masks.shape[1:]))
    torch.manual_seed(seed)
    network, source = plain_network(pictures.shape[1], len(pairs.classes))
    network.to(where).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LR)
    start, steps, done = time.monotonic(), 0, 0.0
    while done < 1.0:
        for group in optimizer.param_groups:
            group["lr"] = LR * 0.5 * (1 + np.cos(np.pi * done))
        x, y = plain_batch(pictures, masks, side)
        optimizer.zero_grad()
        plain_loss(network(x.to(where)), y.to(where)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
        spent = time.monotonic() - start
        done = spent / seconds(amount) if unit == "budget" else steps / int(amount)
    took = time.monotonic() - start
    network.eval()

    def prepare(pixels: NDArray[Any]) -> Floats:
        normal: Floats = (pixels.astype(np.float32) / 255 - average) / std
        return normal

    for name, flips in ((target, ()), (_mirrored(target), (0, 1))):

        def inside(picture: NDArray[Any], flips: tuple[int, ...] = flips) -> Floats:
            array = np.moveaxis(picture, -1, 0)
            sides = array.shape[1:]
            spare = [(0, -n % MULTIPLE) for n in sides]
            array = np.pad(array, [(0, 0), *spare], mode="reflect")
            p = predict(
                network, array, classes=2, tile=array.shape[1:], flips=flips, prepare=prepare
            )
            found: Floats = p[1, : sides[0], : sides[1]]
            return found

        _save(name, pairs, inside)
    return {
        "steps": steps,
        "seconds": took,
        "batch": BATCH,
        "patch": [side, side],
        "precision": "32-true",
        "model": source,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _mirrored(target: str) -> str:
    return str(Path(target).with_suffix("")) + "-mirrored.npz"


# -- both ---------------------------------------------------------------------------------------------


def link_splits(data: Path, folder: Path) -> Pairs:
    """Fill a folder with train/ and val/, split as a run would, and return its pictures."""
    found = open_pairs(data, val_fraction=VALIDATION, dims=2)
    if len(found.classes) != 2:
        raise SystemExit(f"{data}: expected masks of two values, not of {len(found.classes)}")
    for split, part in found.splits.items():
        for i, name in enumerate(part.names):
            picture, mask = part.read(i)
            for kind, array in (("images", picture), ("masks", 255 * mask[..., None])):
                path = folder / split / kind / f"{Path(name).stem}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path)
    return open_pairs(folder, dims=2)


def draw_slices(folder: Path) -> None:
    """Write slices of cells that drift: dark walls where two of some moving points are as near."""
    generator = np.random.default_rng(0)
    points = generator.uniform(0, QUICK_SIDE, (14, 2))
    drift = generator.uniform(-1, 1, points.shape)
    grid = np.stack(np.mgrid[:QUICK_SIDE, :QUICK_SIDE], -1)[..., None, :]
    for k in range(QUICK_SLICES):
        distances = np.sort(np.hypot.reduce(grid - (points + k * drift), axis=-1), axis=-1)
        mask = distances[..., 1] - distances[..., 0] > 2.5
        picture = 110 + 60 * mask + generator.normal(0, 10, mask.shape)
        for kind, array in (("images", picture.clip(0, 255)), ("masks", 255 * mask)):
            path = folder / kind / f"{k:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(path)


def train(
    way: str, seed: int, data: Path, out: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Train a way in a process of its own; return what it did, and its probabilities' files."""
    common = {"data": str(data), "seed": seed, "device": options.device}
    name = str(out / f"{way}-{seed}")
    with Contender(way, threads=options.threads) as process:
        if way == "plain":
            target = f"{name}.npz"
            found = process.ask("plain", length=_length(options), target=target, **common)
            return found | {"files": [target]}
        settings = [f"segmentation.dims={3 if way == '3d' else 2}", *options.set]
        members = MEMBERS if way == "ensemble" else 1
        if way == "ensemble":
            settings.append(f"model_options.width={options.small}")
        rows, files = [], []
        for k in range(members):
            files.append(f"{name}-{k}.npz")
            told = common | {"seed": seed * MEMBERS + k, "settings": settings}
            target = {
                "out": f"{name}-{k}",
                "target": files[-1],
                "length": _length(options, members),
            }
            rows.append(process.ask("residua", **told, **target))
    together = {key: sum(row[key] for row in rows) for key in ("seconds", "steps", "parameters")}
    return rows[0] | together | {"files": files}


def _length(options: argparse.Namespace, parts: int = 1) -> str:
    """Return how long each of so many networks trains; what only shows that it runs counts steps."""
    return "steps=2" if options.quick else f"budget={seconds(options.budget) / parts:g}s"


def decide(way: str, files: list[str]) -> dict[str, dict[str, Floats]]:
    """Return the probabilities (or decisions of 0 and 1) of every answer that a way gives."""
    members = [dict(np.load(file)) for file in files]
    if way == "plain":
        return {"plain": members[0], "plain, mirrored": dict(np.load(_mirrored(files[0])))}
    if way != "ensemble":
        return {f"residua, {way[0]}-D": members[0]}
    answers: dict[str, dict[str, Floats]] = {}
    for key in ("chosen", "held"):
        stacks = [torch.from_numpy(member[key]) for member in members]
        heard = Ensemble.of(torch.stack([1 - p, p]) for p in stacks)
        for how, found in (
            ("mean", heard.mean()[1]),
            ("majority", heard.majority().float()),
            ("unanimity", heard.unanimous().float()),
        ):
            answers.setdefault(f"five small, {how}", {})[key] = found.numpy()
    return answers


def score(answer: dict[str, Floats], pairs: Pairs) -> dict[str, Any]:
    """Return IoU and pixel error at 1/2, and Rand at the threshold of the training slices."""
    truths = {key: _masks(pairs, key) for key in ("train", "val")}
    held, chosen = answer["held"], answer["chosen"]
    scores = Scores(pairs.classes)
    for i, (p, truth) in enumerate(zip(held, truths["val"], strict=True)):
        scores.add(i, (p > 0.5).astype(np.uint8), truth)
    found = scores.result()
    known = zip(truths["train"][-len(chosen) :] == 1, chosen, strict=True)
    threshold = best_foreground_rand(known)["threshold"]
    rows = [
        foreground_rand(truth == 1, p > threshold)
        for p, truth in zip(held, truths["val"], strict=True)
    ]
    means = {key: mean([row[key] for row in rows]) for key in ("rand", "split", "merge")}
    return {
        "iou": found["mean_iou"],
        "pixel_error": found["pixel_error"],
        "threshold": threshold,
        "n": found["pictures"],
        "slices": [row["mean_iou"] for row in sorted(scores.rows(), key=lambda row: row["key"])],
    } | means


def _masks(pairs: Pairs, split: str) -> NDArray[np.uint8]:
    part = pairs.splits[split]
    return np.stack([part.read(i)[1] for i in range(len(part))])


def measure(options: argparse.Namespace, data: Path, folder: Path) -> dict[str, Any]:
    pairs = link_splits(data, folder / "data")
    held = pairs.splits["val"]
    picture, truth = held.read(0)
    panels = {"picture": picture[..., 0], "truth": 255 * truth}
    answers: dict[str, list[dict[str, Any]]] = {}
    trained: dict[str, list[dict[str, Any]]] = {}
    console = Console(stderr=True)
    for seed in range(options.seeds):
        for way in options.ways:
            found = train(way, seed, folder / "data", folder, options)
            for name, answer in decide(way, found.pop("files")).items():
                row = score(answer, pairs)
                answers.setdefault(name, []).append(row)
                console.print(f"seed {seed}, {name}: IoU {row['iou']:.4f}, Rand {row['rand']}")
                if seed == 0:
                    panels[name] = (255 * (answer["held"][0] > 0.5)).astype(np.uint8)
            trained.setdefault(way, []).append(found)
    draw(panels, options.out / "membranes.png")
    return {
        "budget": options.budget,
        "seeds": options.seeds,
        "slices": {key: len(part) for key, part in pairs.splits.items()},
        "trained": trained,
        "scores": answers,
    }


def draw(panels: dict[str, NDArray[np.uint8]], path: Path) -> None:
    """Write a held-out slice, its truth, and every answer, side by side under their names."""
    band = 14
    sheet = Image.new("L", ((SHOWN + 4) * len(panels) - 4, SHOWN + band), 255)
    canvas = ImageDraw.Draw(sheet)
    for k, (name, pixels) in enumerate(panels.items()):
        how = Image.Resampling.BILINEAR if name == "picture" else Image.Resampling.NEAREST
        sheet.paste(Image.fromarray(pixels).resize((SHOWN, SHOWN), how), (k * (SHOWN + 4), band))
        canvas.text((k * (SHOWN + 4) + 2, 1), name, fill=0)
    sheet.save(path, optimize=True)


def table(found: dict[str, Any], facts: dict[str, str]) -> Table:
    slices = found["slices"]
    out = Table(
        title=f"{slices['val']} held-out slices after {found['budget']} on {slices['train']};"
        f" {found['seeds']} seed{'s' * (found['seeds'] > 1)}",
        caption="medians (smallest .. largest over seeds); Rand: foreground-restricted, borders thinned,"
        f" at the threshold best on {slices['val']} training slices; {caption(facts)}",
    )
    for heading in ("answer", "mean IoU, %", "pixel error, %", "Rand, %", "split, %", "merge, %"):
        out.add_column(heading, justify="left" if heading == "answer" else "right")
    for name, rows in found["scores"].items():
        keys = ("iou", "pixel_error", "rand", "split", "merge")
        out.add_row(name, *(_shown([row[key] for row in rows]) for key in keys))
    return out


def _shown(shares: list[float | None]) -> str:
    """Return shares in percent; without a segment in the prediction there is none that joins others."""
    values = [100 * share for share in shares if share is not None]
    if not values:
        return "-"
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} .. {max(values):.2f})"


def lengths(found: dict[str, Any]) -> Table:
    """Return what each way trained, and for how long."""
    out = Table(title="trained")
    for heading in ("way", "network", "parameters", "patch", "batch", "steps", "precision", "s"):
        out.add_column(heading, justify="left" if heading in ("way", "network") else "right")
    for way, rows in found["trained"].items():
        row = rows[0]
        options = "".join(f", {key} {value}" for key, value in row.get("options", {}).items())
        out.add_row(
            way,
            row["model"] + options,
            f"{row['parameters']:,}",
            " x ".join(str(n) for n in row["patch"]),
            str(row["batch"]),
            ", ".join(f"{r['steps']:,}" for r in rows),
            row["precision"],
            ", ".join(f"{r['seconds']:.0f}" for r in rows),
        )
    return out


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="pictures beside masks; default: drawn")
    parser.add_argument("--budget", default="10m", help="of each way, as 90s or 10m")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--small", type=int, default=16, help="channels of an ensemble's networks")
    parser.add_argument("--out", type=Path, default=Path("runs/membranes"))
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="of residua's recipe"
    )
    common_options(parser)
    options = parser.parse_args()
    if options.quick:
        options.budget, options.small = "2 steps", 4
        options.set += ["model_options.width=4", "precision=32-true"]
    return options


def main() -> None:
    options = read_options()
    if options.serve:
        if options.serve["threads"]:
            torch.set_num_threads(options.serve["threads"])
        serve({"residua": train_residua, "plain": train_plain})
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ["RESIDUA_CACHE"] = str(folder / "cache")
        if options.data is None:
            draw_slices(folder / "drawn")
        found = measure(options, options.data or folder / "drawn", folder)
    if options.threads:
        torch.set_num_threads(options.threads)
    facts = machine(choose_device(options.device))
    found = {"machine": facts} | found
    (options.out / "membranes.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    if options.json:
        print(json.dumps(found, indent=2))
        return
    console = Console()
    console.print(table(found, facts))
    console.print(lengths(found))
    console.print(f"{options.out / 'membranes.json'}, {options.out / 'membranes.png'}")


if __name__ == "__main__":
    main()
