"""Drawn sets by name, as `residua train cells` takes them: written once into the cache folder, then read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from residua.data.cache import default_folder
from residua.data.drawn import cells, figures, tubes

VERSION = 1  # of the drawings: others get another folder
SEED = 0  # of the set: the same pictures for everybody, whatever the seed of a training

SEGMENTED: dict[str, tuple[str, int, Callable[[Path, int, int], None]]] = {
    "cells": (cells.NAME, 80, partial(cells.write, border=True)),
    "tubes": (tubes.NAME, 20, tubes.write),
}
POSED: dict[str, tuple[str, int, Callable[[Path, int, int], None]]] = {
    "figures": (figures.NAME, 400, figures.write)
}


def drawn_folder(name: str, folder: Path | None = None) -> Path:
    """Return the folder of a drawn set, which is drawn now if it is not there; KeyError if unknown."""
    title, n, write = (SEGMENTED | POSED)[name]
    found = (folder or default_folder()) / f"drawn-{VERSION}-{n}" / title
    if not (found / "README.txt").exists():
        found.parent.mkdir(parents=True, exist_ok=True)
        write(found, n, SEED)
    return found
