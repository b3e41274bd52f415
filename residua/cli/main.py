"""The command `residua`: its list of verbs, and what a user sees when something goes wrong.

A verb is a function of the same name in its own file, `residua/cli/<verb>.py`. The file is
imported when the verb is called; the list needs only the line kept here, so that `residua --help`
imports neither torch nor a verb.

Exit codes: 0 done, 1 a failed run, 2 bad usage or bad input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from residua.cli.failures import explain

VERBS = {
    "train": "Train a network on pictures and write a report.",
    "evaluate": "Measure a trained network on its test pictures or on others.",
    "predict": "Name what pictures show, write their masks, or find their joints.",
    "xray": "Say what is wrong with a network, where, how sure, and what to change.",
    "landscape": "Draw the loss around a trained network: planes and lines in the space of its weights.",
    "models": "List the networks that can be built, with their sizes and papers.",
}


class VerbGroup(TyperGroup):
    """A group that knows its verbs by their line of help and imports one when it is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, line in VERBS.items():
            self.add_command(TyperCommand(name, help=line))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the name, the command (imported now) and the arguments that are left for it."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load(name) if name in VERBS else command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an interruption passes as it is, where typer would make it a code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interruption:
            raise Interrupted from interruption


class Interrupted(BaseException):
    """Ctrl-C that the verb did not handle itself."""


def load(name: str) -> Any:
    """Import the file of a verb and return its command."""
    one = typer.Typer(add_completion=False)
    one.command(name, help=None)(getattr(import_module(f"residua.cli.{name}"), name))
    return typer.main.get_command(one)


app = typer.Typer(
    cls=VerbGroup,
    help="Residual networks: train them on your own pictures, measure them, use them.",
    epilog="'residua VERB --help' says what a verb takes.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"residua {version('residua')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    given = list(sys.argv[1:] if args is None else args)
    try:
        code = run(given or ["--help"])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as in `residua models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush
        code = 1
    sys.exit(code if given else 2)


def run(args: list[str]) -> int:
    """Run one command and return its exit code; a failure has been said in one line."""
    try:
        result = typer.main.get_command(app).main(
            args=args, prog_name="residua", standalone_mode=False
        )
    except BrokenPipeError:
        raise
    except (Exception, Interrupted) as failure:
        return explain(failure, as_json="--json" in args)
    return result if isinstance(result, int) else 0
