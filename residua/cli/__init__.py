"""The command line: one file a verb, imported when it is called."""

from __future__ import annotations

from residua.cli.main import main

__all__ = ["main"]
