"""`residua predict`: name what pictures show, write their masks, find joints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residua.cli.output import console, print_json
from residua.errors import BadInput

if TYPE_CHECKING:
    from rich.table import Table


def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name a picture.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for masks or drawings; default: masks or poses in the run's folder."
        ),
    ] = None,
    members: Annotated[
        list[Path] | None,
        typer.Option(
            "--with", help="Another run on the same masks that decides together with this."
        ),
    ] = None,
    vote: Annotated[
        str, typer.Option(help="How several runs decide on masks: mean, majority or unanimity.")
    ] = "mean",
    boxes: Annotated[
        Path | None,
        typer.Option(
            help="For joints: COCO JSON of boxes, or of keypoints, that lists the pictures; each person"
            " is looked for in a box of their own. Without it a picture is one person who fills it."
        ),
    ] = None,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write how unsure each pixel's class is.")
    ] = False,
    instances: Annotated[
        bool,
        typer.Option(
            "--instances", help="Also write the objects of each mask, numbered, and count them."
        ),
    ] = False,
    min_size: Annotated[
        int,
        typer.Option(min=0, help="With --instances: pixels of the smallest object that counts."),
    ] = 0,
    memory: Annotated[
        float | None,
        typer.Option(
            help="MB that masks may take beside networks and pictures; larger ones stream to the disk."
            " Default: half of what is free."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the predictions as JSON.")] = False,
) -> None:
    """Name what pictures show, write their masks, or find their joints."""
    from residua.cli.progress import TerminalWatcher
    from residua.training.api import open_run

    opened = open_run(run)
    opened.device = device
    watcher = TerminalWatcher(quiet=as_json)
    options: dict[str, Any] = {"top": top}
    if opened.kind.task != "segmentation":
        _refuse_for_others(
            members or vote != "mean" or uncertainty or instances or min_size or memory
        )
    if min_size and not instances:
        raise BadInput("--min-size goes with --instances")
    if opened.kind.task != "pose" and boxes is not None:
        raise BadInput("--boxes goes with runs on joints")
    if opened.kind.task == "segmentation":
        options = {
            "out": out,
            "members": [open_run(other) for other in members or []],
            "vote": vote,
            "uncertainty": uncertainty,
            "instances": instances,
            "min_size": min_size,
            "memory_mb": memory,
            "tell": lambda what, done, n: watcher.progress(f"predicting {what}", done, n),
        }
    elif opened.kind.task == "pose":
        options = {"out": out, "boxes": boxes}
    elif out is not None:
        raise BadInput("--out goes with runs on masks or joints")
    rows = opened.predict(
        pictures, progress=lambda done, n: watcher.progress("predicting", done, n), **options
    )
    watcher.end()
    if as_json:
        print_json(rows)
    else:
        console().print(_table(opened.kind.task, rows))
        for how in dict.fromkeys(row["apart"] for row in rows if "apart" in row):
            console().print(f"objects: {how}", markup=False, soft_wrap=True)
    if all("error" in row for row in rows):
        raise typer.Exit(1)


def _refuse_for_others(asked: object) -> None:
    """Raise BadInput where something was asked for that only masks have."""
    if asked:
        raise BadInput(
            "--with, --vote, --uncertainty, --instances, --min-size and --memory go with runs on masks"
        )


def _table(task: str, rows: list[dict[str, Any]]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    titles, cells = SHOWN[task]
    table = Table("picture", *titles)
    for row in rows:
        if "error" in row:
            table.add_row(escape(row["path"]), "[red]unreadable[/]", escape(row["error"]))
        else:
            table.add_row(escape(row["path"]), *(escape(cell) for cell in cells(row)))
    return table


def _named(row: dict[str, Any]) -> tuple[str, ...]:
    others = ", ".join(f"{t['class']} {t['confidence']:.0%}" for t in row["top"][1:3])
    return row["class"], f"{row['confidence']:.1%}", others


def _masked(row: dict[str, Any]) -> tuple[str, ...]:
    shares = ", ".join(f"{name} {share:.1%}" for name, share in row["shares"].items())
    if "objects" in row:
        shares += "; objects: " + ", ".join(f"{n:,} {name}" for name, n in row["objects"].items())
    return row["mask"], shares


def _posed(row: dict[str, Any]) -> tuple[str, ...]:
    people = len(row["people"]) if "people" in row else 1
    return row["drawing"], str(people), f"{row['confidence']:.2f}" if people else "-"


SHOWN: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], tuple[str, ...]]]] = {
    "classification": (("class", "confidence", "next"), _named),
    "segmentation": (("mask", "shares of the pixels"), _masked),
    "pose": (("drawing", "people", "confidence"), _posed),
}
