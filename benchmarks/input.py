"""Pictures a second from a folder of small JPEGs to augmented, normalised input, from epoch 2 on.

    python benchmarks/input.py --pictures 50000 [--folder DIR] [--json]

Ours decodes once into a memory-mapped cache, then crops (padding 4), flips and normalises whole
batches. The peer is a DataLoader whose workers, as is usual, decode each picture with Pillow in every
epoch and augment it alone: padding 4, random crop, flip, normalise. Both deliver float32
(B, 3, S, S); rounds are interleaved, and each is one epoch after a first one that is not counted
(decoding, start of workers). Reports the median, minimum and maximum over n rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from residua.data.augmentation import Augmentation
from residua.data.batches import Batches, to_input
from residua.data.cache import store
from residua.data.pictures import Split

PADDING = 4  # He et al. 2015, section 4.2
PEER_WORKERS = 2
CLASSES = 10
MEAN, STD = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])

Epoch = Callable[[], int]  # runs one epoch, returns the number of pictures delivered


def write_pictures(folder: Path, n: int, size: int) -> None:
    """Write n JPEGs of smooth noise: about the bytes and decoding time of photographs."""
    generator = np.random.default_rng(0)
    for k in track(range(n), "writing pictures", console=Console(stderr=True)):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        target = folder / f"class{k % CLASSES}" / f"{k:06d}.jpg"
        target.parent.mkdir(exist_ok=True)
        coarse.resize((size, size), Image.Resampling.BICUBIC).save(target, quality=90)


class PictureByPicture(Dataset[tuple[torch.Tensor, int]]):
    """What a training script usually does for each picture, with torchvision's transforms' steps."""

    def __init__(self, paths: list[Path], labels: np.ndarray, size: int) -> None:
        self.paths, self.labels, self.size = paths, labels, size
        self.mean, self.std = MEAN.view(3, 1, 1), STD.view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[index]) as opened:
            picture = ImageOps.expand(opened.convert("RGB"), PADDING)
        left, top = torch.randint(0, 2 * PADDING + 1, (2,)).tolist()
        picture = picture.crop((left, top, left + self.size, top + self.size))
        if torch.rand(1) < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
        return (pixels.float().div(255) - self.mean) / self.std, int(self.labels[index])


def consume(batches: Iterable[Any]) -> int:
    """Run through batches of input and labels and return the number of pictures."""
    return sum(len(inputs) for inputs, _ in batches)


def our_epoch(pictures: Any, labels: np.ndarray, size: int, batch: int, workers: int) -> Epoch:
    batches = Batches(
        pictures,
        labels,
        batch_size=batch,
        seed=0,
        size=size,
        train=True,
        augmentation=Augmentation(crop_padding=PADDING, flip=True),
        workers=workers,
    )
    steps = batches.steps_per_epoch
    epochs = iter(range(10**9))

    def run() -> int:
        start = next(epochs) * steps
        made = batches.iterate(start, start + steps)
        return consume((to_input(b.pictures, MEAN, STD), b.labels) for b in made)

    return run


def peer_epoch(paths: list[Path], labels: np.ndarray, size: int, batch: int) -> Epoch:
    loader = DataLoader(
        PictureByPicture(paths, labels, size),
        batch_size=batch,
        shuffle=True,
        num_workers=PEER_WORKERS,
        persistent_workers=True,
    )
    return lambda: consume(loader)


def measure(paths: list[Path], options: argparse.Namespace) -> dict[str, list[float]]:
    """Return pictures a second of each way, one number a round, and the seconds of decoding once."""
    names = sorted({path.parent.name for path in paths})
    labels = np.array([names.index(path.parent.name) for path in paths], dtype=np.int64)
    with Image.open(paths[0]) as first:
        size = min(first.size)
    split = Split(labels, [str(path) for path in paths], 3, paths=paths)
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        pictures = store(split, size=size, channels=3, folder=Path(cache))
        speeds = {"decoding once": [len(paths) / (time.perf_counter() - start)]}
        ways = {
            "residua, in process": our_epoch(pictures, labels, size, options.batch, 0),
            "residua, 2 workers": our_epoch(pictures, labels, size, options.batch, 2),
            "DataLoader, 2 workers": peer_epoch(paths, labels, size, options.batch),
        }
        for run in ways.values():
            run()
        for _ in track(range(options.rounds), "rounds", console=Console(stderr=True)):
            for name, run in ways.items():
                start = time.perf_counter()
                delivered = run()
                speeds.setdefault(name, []).append(delivered / (time.perf_counter() - start))
    return speeds


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "cores": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
    }


def table(speeds: dict[str, list[float]], n: int, options: argparse.Namespace) -> Table:
    out = Table(
        title=f"{n:,} JPEGs, batch {options.batch}: pictures a second",
        caption=", ".join(f"{key} {value}" for key, value in versions().items()),
    )
    for heading in ("way", "median", "min", "max", "n", "ratio"):
        out.add_column(heading, justify="left" if heading == "way" else "right")
    peer = statistics.median(speeds["DataLoader, 2 workers"])
    for name, values in speeds.items():
        median = statistics.median(values)
        numbers = [f"{v:,.0f}" for v in (median, min(values), max(values))]
        out.add_row(name, *numbers, str(len(values)), f"{median / peer:.1f}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=50_000, help="how many, at most")
    parser.add_argument("--folder", type=Path, help="class folders of small JPEGs of one size")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=32, help="pixels, where pictures are made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if options.folder is None:
            write_pictures(Path(made), options.pictures, options.size)
        paths = sorted((options.folder or Path(made)).glob("*/*.jpg"))
        order = np.random.default_rng(0).permutation(len(paths))[: options.pictures]
        paths = [paths[i] for i in np.sort(order)]
        if not paths:
            parser.error(f"{options.folder}: expected class folders that hold .jpg files")
        speeds = measure(paths, options)
    if options.json:
        facts = {"pictures": len(paths), "batch": options.batch, "versions": versions()}
        print(json.dumps(facts | {"pictures_per_second": speeds}, indent=2))
    else:
        Console().print(table(speeds, len(paths), options))


if __name__ == "__main__":
    main()
