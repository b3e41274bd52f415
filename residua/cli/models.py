"""`residua models`: the networks that can be built, from their records; none is built for it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residua.cli.output import console, print_json
from residua.errors import BadInput, nearest

if TYPE_CHECKING:
    from rich.table import Table

    from residua.models import Record


def models(
    pattern: Annotated[
        str, typer.Argument(help="A name with wild cards, in quotes: 'resnet*_cifar'.")
    ] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """List the networks that can be built, with their sizes and papers.

    Multiply-adds count convolutions and linear layers, for one picture of the size in the table.
    """
    from residua.models import records

    known = records()
    chosen = [record for name, record in known.items() if fnmatchcase(name, pattern.lower())]
    if not chosen:
        hint = nearest(pattern.strip("*?").lower(), known)
        raise BadInput(
            f"no model is called {pattern!r}.{hint} `residua models` lists all {len(known)}."
        )
    if as_json:
        print_json([_facts(record) for record in chosen])
    else:
        console().print(_table(chosen))


def _facts(record: Record) -> dict[str, Any]:
    fields = "name", "family", "parameters", "multiply_adds", "input_size", "num_classes", "paper"
    return {field: getattr(record, field) for field in fields}


def _table(chosen: list[Record]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("multiply-adds", justify="right", no_wrap=True)
    table.add_column("picture", justify="right", no_wrap=True)
    table.add_column("paper")
    for record in chosen:
        table.add_row(
            record.name,
            f"{record.parameters:,}",
            in_short(record.multiply_adds),
            f"{record.input_size}x{record.input_size}",
            record.paper,
        )
    return table


def in_short(count: int) -> str:
    """Return a count to three digits, with the letter of its thousands.

    >>> in_short(4089184256), in_short(40813184), in_short(999_999)
    ('4.09 G', '40.8 M', '1.00 M')
    """
    value, letters = float(count), iter(" kMGTP")
    letter = next(letters)
    while value >= 999.5:
        value, letter = value / 1000, next(letters)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {letter}".strip()
