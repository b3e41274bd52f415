"""`residua train`: from a folder of pictures to a trained network and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from residua.cli.output import console, print_json
from residua.errors import BadInput


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A folder of class folders (in train/val/test folders, if there are), a CSV of"
            " path,label, an archive, or a named set: digits, cifar10, cifar100, mnist,"
            " fashion_mnist; pictures beside masks, or volumes; keypoint JSON beside pictures;"
            " or drawn samples: cells, tubes, figures."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: the next free one in runs/.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of a named set's files, or of a CSV's pictures.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A name that `residua models` lists; default: by the size.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="quick (default), he2015-cifar, wrn-cifar, he2015-imagenet, rsb-a1, rsb-a2,"
            " rsb-a3, or a .yaml file."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Wall clock for everything: 90s, 10m, 1.5h.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training data.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change the recipe, e.g. optimiser.lr=0.05."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Decides everything that is drawn; default: 0.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that prepare pictures; no effect on them.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A checkpoint to start from: ours, torchvision's or timm's; for masks also a"
            " classification network's, which goes into the encoder of a U-Net or FPN that has one."
        ),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="keep, or new: leave the checkpoint's last layers out (of masks and joints, keep"
            " takes them where there are as many classes or joints)."
        ),
    ] = "keep",
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run: after a crash, or (with --epochs or --budget) for longer."
        ),
    ] = None,
    find_lr: Annotated[
        bool, typer.Option("--find-lr", help="Only run a learning-rate range test and say it.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run that is in --out.")
    ] = False,
    task: Annotated[
        str | None,
        typer.Option(help="classification, segmentation or pose; default: what the data is for."),
    ] = None,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave pictures out that cannot be read.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON, and no progress.")
    ] = False,
) -> None:
    """Train a network on pictures and write a report."""
    import shlex
    import signal
    import sys

    from residua.cli.progress import TerminalWatcher
    from residua.training import api
    from residua.training.devices import is_main

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, wherever it comes
    watcher = TerminalWatcher(quiet=as_json)
    asked = settings or []
    if resume is not None:
        flags = overwrite, find_lr, skip_unreadable, head != "keep"
        given = (
            source,
            out,
            data,
            model,
            recipe,
            weights,
            seed,
            task,
            *(flag or None for flag in flags),
        )
        _only_length(*given)
        run = api.resume(
            resume,
            budget=budget,
            epochs=epochs,
            settings=asked,
            workers=workers,
            device=device,
            watcher=watcher,
        )
    elif source is None:
        raise BadInput("train: name the pictures, e.g. `residua train path/to/pictures`")
    else:
        settled: dict[str, Any] = {
            "data": data,
            "model": model,
            "recipe": recipe or "quick",
            "budget": budget,
            "epochs": epochs,
            "settings": asked,
            "seed": seed or 0,
            "workers": workers,
            "device": device or "auto",
            "weights": weights,
            "head": head,
            "skip_unreadable": skip_unreadable,
            "task": task,
            "watcher": watcher,
        }
        if find_lr:
            _find_lr(api.find_lr(source, **settled), as_json)
            return
        command = shlex.join(["residua", *sys.argv[1:]])
        run = api.train(source, out=out, overwrite=overwrite, command=command, **settled)
    measures = run.measures
    if not is_main():
        return
    if as_json:
        print_json(
            {
                "run": str(run.path),
                "report": str(run.report),
                "model": run.card.name,
                "classes": list(run.classes),
            }
            | measures
        )
        return
    console().print(f"[bold]{run.card.name}[/]: {run.sentence(measures)}", soft_wrap=True)
    console().print(f"report: {run.report}", soft_wrap=True, markup=False)


def _only_length(*given: Any) -> None:
    if any(value is not None for value in given):
        raise BadInput(
            "--resume goes on with a run as it was asked for: only --epochs, --budget, --workers,"
            " --device and --set of a length go with it"
        )


def _find_lr(test: Any, as_json: bool) -> None:
    if as_json:
        print_json({"suggestion": test.suggestion, "lr": test.lrs, "loss": test.losses})
        return
    rows = list(zip(test.lrs, test.losses, strict=True))
    high = max(loss for _, loss in rows)
    for lr, loss in rows[:: max(1, len(rows) // 20)]:
        bar = "#" * round(40 * loss / high)
        console().print(f"lr {lr:9.2e}  loss {loss:7.3f}  {bar}", markup=False)
    console().print(f"suggested: --set optimiser.lr={test.suggestion:.3g}", markup=False)
