"""`residua evaluate`: measure a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli.output import console, print_json


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
    """Measure a trained network on its test pictures or on others."""
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
    table = Table("class", "precision", "recall", "F1", "pictures")
    for row in found["per_class"]:
        numbers = [f"{row[key]:.3f}" for key in ("precision", "recall", "f1")]
        table.add_row(escape(row["name"]), *numbers, f"{row['support']:,}")
    console().print(table)
    low, high = found["interval"]
    console().print(
        f"accuracy {found['accuracy']:.2%} (95 % interval {low:.2%} to {high:.2%}), loss"
        f" {found['loss']:.4f}, calibration error {found['calibration']['ece']:.4f},"
        f" {found['n']:,} pictures ({found['split']})",
        soft_wrap=True,
    )
