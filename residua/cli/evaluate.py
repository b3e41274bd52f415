"""`residua evaluate`: measure a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli.output import console, print_json

COLUMNS = {
    "iou": "IoU",
    "dice": "Dice",
    "pck": "PCK",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "support": "number",
}


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors.")],
    data: Annotated[
        str | None,
        typer.Argument(help="Other pictures; their classes are matched by name. Default: its own."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; default: test where there is one.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the measures as JSON.")] = False,
) -> None:
    """Measure a trained network on its test pictures or on others.

    The table has a row a class, or a joint; its number is that of pictures, pixels or joints.
    """
    from rich.markup import escape
    from rich.table import Table

    from residua.cli.progress import TerminalWatcher
    from residua.training.api import open_run

    opened = open_run(run)
    opened.device = device
    watcher = TerminalWatcher(quiet=as_json)
    found = opened.evaluate(
        data, split=split, progress=lambda done, n: watcher.progress("measuring", done, n)
    )
    watcher.end()
    if as_json:
        print_json(found)
        return
    names = {key: title for key, title in COLUMNS.items() if key in found["per_class"][0]}
    table = Table("class", *names.values())
    for row in found["per_class"]:
        table.add_row(escape(row["name"]), *(_shown(row[key]) for key in names))
    console().print(table)
    console().print(opened.sentence(found) + f", loss {found['loss']:.4f}", soft_wrap=True)
    if "oks_ap" in found:
        from residua.training.pose.precision import shown

        console().print(shown(found), soft_wrap=True, markup=False, highlight=False)
    if "calibration" in found:
        console().print(f"calibration error {found['calibration']['ece']:.4f}")


def _shown(value: float | int | None) -> str:
    """Return a score, or a number of pictures or pixels; nothing for a class that is not there."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
