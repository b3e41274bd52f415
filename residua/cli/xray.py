"""`residua xray`: what is wrong with a network, where, how sure, what to change."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from residua.cli.output import console, print_json, remarks

if TYPE_CHECKING:
    from residua.xray.findings import Finding
    from residua.xray.report import XrayReport

MORE_BATCHES = 2  # beyond the first, for intervals; a quick look has none
COLOURS = {"severe": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def xray(
    target: Annotated[
        str,
        typer.Argument(
            help="Folder of a run; file.py:function, a callable that returns a module (the file is"
            " executed as your own code); or a name that `residua models` lists."
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="Shape of one sample, as 3x224x224; default: the model's own, smaller for those with"
            " an answer a pixel.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a batch.")] = 8,
    data: Annotated[
        str | None,
        typer.Option(help="Pictures for the batch; default: a run's own, else random numbers."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Another depth of the same family: resnet50 --depth 200.")
    ] = None,
    no_norm: Annotated[
        bool, typer.Option("--no-norm", help="Build the model without normalisation.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="OPTION=VALUE", help="An option of the model, e.g. norm=group."
        ),
    ] = None,
    analyses: Annotated[
        str | None, typer.Option(help="Names, joined by commas; default: all of the effort.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the cheap analyses, and no remedies tried.")
    ] = False,
    lr: Annotated[
        float | None,
        typer.Option(help="Learning rate of plain gradient descent, to judge its steps."),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Momentum that goes with --lr.")] = 0.0,
    weight_decay: Annotated[
        float | None, typer.Option(help="L2 on the weights that goes with --lr.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides everything that is drawn.")] = 0,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("xray.html"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say what is wrong with a network, where, how sure, and what to change."""
    import shlex

    from residua import xray as look
    from residua.cli.examples import choose_examples
    from residua.cli.share import share_bar
    from residua.cli.targets import open_target, parse_input, parse_settings
    from residua.training.devices import choose_device

    where = choose_device(device)
    opened = open_target(
        target,
        seed=seed,
        depth=depth,
        no_norm=no_norm,
        settings=parse_settings(settings or []),
        shape=None if shape is None else parse_input(shape),
    )
    opened.model.to(where)
    batches = 1 if quick else 1 + MORE_BATCHES
    examples = choose_examples(opened, batch, data, seed, where, batches)
    with share_bar(quiet=as_json) as progress:
        report = look(
            opened.model,
            examples.inputs[0],
            examples.targets,
            examples.loss,
            analyses=None if analyses is None else [a.strip() for a in analyses.split(",")],
            effort="quick" if quick else "normal",
            seed=seed,
            rebuild=opened.rebuild_on(where),
            more_batches=examples.inputs[1:],
            learning_rate=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            progress=progress,
            name=opened.name,
        )
    report.command = shlex.join(["residua", *sys.argv[1:]])
    report.facts |= {"pictures": examples.origin, "targets": examples.meaning}
    page = report.save(out)
    if as_json:
        print_json(report.as_json() | {"page": str(page)})
    else:
        _print(report, page)


def _print(report: XrayReport, page: Path) -> None:
    from rich.markup import escape

    say = console().print
    say(f"[bold]{escape(report.name)}[/]: {escape(report.headline)}", soft_wrap=True)
    for finding in report.findings:
        _print_finding(finding)
    for line in report.not_done:
        remarks().print(f"[bold yellow]not done:[/] {escape(line)}", soft_wrap=True)
    for note in report.notes:
        remarks().print(escape(note), soft_wrap=True)
    say(f"page: {page}", soft_wrap=True, markup=False)


def _print_finding(finding: Finding) -> None:
    from rich.markup import escape

    from residua.xray.report import finding_lines

    head, *lines = finding_lines(finding)
    colour = COLOURS[finding.severity]
    text = escape(head.removeprefix(f"{finding.severity}: "))
    console().print(f"\n[{colour}]{finding.severity}[/] {text}", soft_wrap=True)
    for line in lines:
        console().print(line, soft_wrap=True, markup=False)
