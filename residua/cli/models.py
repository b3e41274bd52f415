"""`residua models`: the networks that can be built, from their records; none is built for it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import groupby
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
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Only models for classification, segmentation or pose.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")] = False,
) -> None:
    """List the networks that can be built, with their sizes and papers.

    One name alone shows the options that it takes. Multiply-adds count convolutions and linear
    layers, for one picture of the size in the table.
    """
    from residua.models import list_models, records

    known = {name: records()[name] for name in list_models(task=task)}
    families = {record.family for record in known.values()}
    if family is not None and family not in families:
        hint = nearest(family, families)
        raise BadInput(f"no family is called {family!r}.{hint} There are {_listed(families)}.")
    chosen = [
        record
        for name, record in known.items()
        if fnmatchcase(name, pattern.lower()) and family in (None, record.family)
    ]
    if not chosen:
        if family is not None:
            raise BadInput(f"no model of the family {family} is called {pattern!r}.")
        hint = nearest(pattern.strip("*?").lower(), known)
        raise BadInput(
            f"no model is called {pattern!r}.{hint} `residua models` lists all {len(known)}."
        )
    if as_json:
        print_json([_facts(record) for record in chosen])
        return
    console().print(_table(chosen))
    if pattern.lower() == chosen[0].name:
        console().print(_options(chosen[0]))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _facts(record: Record) -> dict[str, Any]:
    fields = (
        *("name", "family", "task", "dims", "parameters", "multiply_adds"),
        *("input_size", "smallest", "num_classes", "paper"),
    )
    return {field: getattr(record, field) for field in fields}


def _table(chosen: list[Record]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("family", no_wrap=True)
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_column("multiply-adds", justify="right", no_wrap=True)
    table.add_column("picture", justify="right", no_wrap=True)
    table.add_column("paper")
    for family, members in groupby(chosen, key=lambda record: record.family):
        for k, record in enumerate(members):
            table.add_row(
                family if k == 0 else "",
                record.name,
                f"{record.parameters:,}",
                in_short(record.multiply_adds),
                "x".join([str(record.input_size)] * record.dims),
                record.paper,
            )
        table.add_section()
    return table


def _options(record: Record) -> str:
    """Return the options with their defaults, and what the builder says of them."""
    lines = [
        f"Options of create_model({record.name!r}, ...), as --set model_options.NAME=VALUE:",
        "",
    ]
    lines += [f"  {name} = {default!r}" for name, default in defaults(record).items()]
    said = inspect.getdoc(record.builder) or ""
    about = said.partition("Args:\n")[2].partition("\n\n")[0]
    return "\n".join([*lines, "", about.rstrip()]).replace("[", r"\[")


def defaults(record: Record) -> dict[str, Any]:
    """Return the value that each option of a model has where none is given."""
    usual = {"num_classes": record.num_classes, "in_channels": 3}
    for name, parameter in inspect.signature(record.builder).parameters.items():
        if name not in record.preset and name not in usual:
            usual[name] = parameter.default
    return usual | dict(record.defaults)


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
