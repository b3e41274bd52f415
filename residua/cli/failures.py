"""What a user reads when a command fails: one line, an exit code, and never a traceback."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback

import typer

from residua.cli.output import one_line, print_json
from residua.errors import ResiduaError

INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it

# Conditions of the machine and not faults of this program.
_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT}


def explain(failure: BaseException, *, as_json: bool = False) -> int:
    """Print one line about `failure` on standard error and return the exit code.

    With `as_json`, `{"error": line}` goes to standard output as well. With RESIDUA_DEBUG=1 the
    traceback is printed too.
    """
    if os.environ.get("RESIDUA_DEBUG") == "1":
        traceback.print_exception(failure)
    line, code = _describe(failure)
    print(f"error: {line}" if code != INTERRUPTED else line, file=sys.stderr)
    if as_json:
        print_json({"error": line})
    return code


def _describe(failure: BaseException) -> tuple[str, int]:
    """Return the line and the exit code."""
    if isinstance(failure, ResiduaError):
        return one_line(failure), failure.exit_code
    if isinstance(failure, typer.Abort) or not isinstance(failure, Exception):
        return "interrupted", INTERRUPTED
    if hasattr(failure, "format_message"):  # a usage error; its class is typer's own or click's
        return _sentence(failure.format_message()) + _hint(failure), 2
    if isinstance(failure, OSError) and failure.errno in _OF_THE_MACHINE:
        name = f": {failure.filename}" if failure.filename else ""
        return f"{one_line(failure.strerror)}{name}", 1
    return f"internal error: {type(failure).__name__}: {one_line(failure)} ({_keep(failure)})", 1


def _sentence(text: str) -> str:
    line = one_line(text)
    return line if line.endswith((".", "?", "!")) else f"{line}."


def _hint(failure: Exception) -> str:
    context = getattr(failure, "ctx", None)
    return f" Try '{context.command_path} --help'." if context else ""


def _keep(failure: BaseException) -> str:
    """Write the traceback to a file in the temporary folder and say where."""
    text = "".join(traceback.format_exception(failure))
    try:
        handle, name = tempfile.mkstemp(prefix="residua-traceback-", suffix=".txt", text=True)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as reason:
        return f"no traceback written: {one_line(reason)}; see it with RESIDUA_DEBUG=1"
    return f"traceback in {name}; see it at once with RESIDUA_DEBUG=1"
