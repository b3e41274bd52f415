"""Writing drawn samples as files: train, val and test folders that the readers open, and a README.txt.

The folder is written aside and renamed when it is complete, so that it is whole or absent.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from residua.data.naming import shown
from residua.errors import BadInput

FEWEST = 3  # samples: one for each of train, val and test
HELD_OUT = 0.15  # the share of val, and of test

Save = Callable[[Sequence[int], Path], None]


def splits(n: int) -> dict[str, range]:
    """Return the numbers of the samples of each split, train first. Raises `BadInput` below 3.

    >>> {name: len(numbers) for name, numbers in splits(20).items()}
    {'train': 14, 'val': 3, 'test': 3}
    """
    if n < FEWEST:
        raise BadInput(f"{n} drawn samples: expected {FEWEST} or more, one for train, val and test")
    held_out = max(1, round(HELD_OUT * n))
    ends = n - 2 * held_out, n - held_out
    return {"train": range(ends[0]), "val": range(*ends), "test": range(ends[1], n)}


def write_splits(
    folder: Path, n: int, name: str, files: str, save: Save, classes: Sequence[str] = ()
) -> None:
    """Write n samples by `save(numbers, folder of the split)`, and what they are as README.txt.

    classes: names of the masks' values 0, 1, 2, ..., written as classes.txt, a value and a name a line.
    Raises `BadInput` for fewer than 3 samples or a folder that already holds something.
    """
    parts = splits(n)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{shown(folder)}: expected a folder that is empty or not there yet")
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for split, numbers in parts.items():
        (aside / split).mkdir()
        save(numbers, aside / split)
    counts = ", ".join(f"{len(numbers)} {split}" for split, numbers in parts.items())
    (aside / "README.txt").write_text(
        f"{name}\n\nThese samples are drawn by a program (residua): nothing was photographed, and no"
        f"\nscore on them says anything about real pictures.\n\n{counts}. {files}\n",
        encoding="utf-8",
    )
    if classes:
        lines = "".join(f"{value}: {name}\n" for value, name in enumerate(classes))
        (aside / "classes.txt").write_text(lines, encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    aside.rename(folder)


def stems(numbers: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield the file name without its end, and the number, of each sample.

    >>> list(stems(range(7, 9)))
    [('0007', 7), ('0008', 8)]
    """
    return ((f"{number:04d}", number) for number in numbers)


def save_png(path: Path, pixels: npt.NDArray[Any]) -> None:
    """Write uint8 (H, W), (H, W, 1), (H, W, 3) or uint16 (H, W) as PNG, making its folder."""
    path.parent.mkdir(exist_ok=True)
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    Image.fromarray(np.ascontiguousarray(flat)).save(path)
