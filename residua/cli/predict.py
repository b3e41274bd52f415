"""`residua predict`: name what pictures show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from residua.cli.output import console, print_json


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name a picture.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON.")] = False,
) -> None:
    """Name what pictures show, with a trained network."""
    from rich.markup import escape
    from rich.table import Table

    from residua.cli.progress import TerminalWatcher
    from residua.training.api import open_run

    opened = open_run(run)
    opened.device = device
    watcher = TerminalWatcher(quiet=as_json)
    rows = opened.predict(
        pictures, top=top, progress=lambda done, n: watcher.progress("predicting", done, n)
    )
    watcher.end()
    if as_json:
        print_json(rows)
    else:
        table = Table("picture", "class", "confidence", "next")
        for row in rows:
            if "error" in row:
                table.add_row(escape(row["path"]), "[red]unreadable[/]", "", escape(row["error"]))
                continue
            others = ", ".join(f"{t['class']} {t['confidence']:.0%}" for t in row["top"][1:3])
            confidence = f"{row['confidence']:.1%}"
            table.add_row(escape(row["path"]), escape(row["class"]), confidence, escape(others))
        console().print(table)
    if all("error" in row for row in rows):
        raise typer.Exit(1)
