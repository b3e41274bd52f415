"""What README shows is true: its Python runs, its commands exist, its links lead somewhere.

A block that a test cannot run (it needs pictures of yours, or minutes) is preceded by the comment
`<!-- not run: REASON -->`; its syntax and the names it uses are still checked.
"""

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import residua
from residua.cli.main import VERBS, load, main

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8") if README.exists() else ""
BLOCK = re.compile(
    r"(?P<mark><!-- not run: [^\n]+ -->\n+)?"
    r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
INDENTED = re.compile(r"(?:^|\n\n)((?: {4}[^\n]*\n)+)")
LINK = re.compile(
    r"\]\((?!https?://|mailto:|#)([^)#\s]+)|<(?:img|source)[^>]*\bsrc(?:set)?=\"(?!http)([^\"]+)\""
)


class Block(NamedTuple):
    language: str
    text: str
    runs: bool


BLOCKS = [
    Block(found["language"], found["text"], found["mark"] is None) for found in BLOCK.finditer(TEXT)
]
PYTHON = [block for block in BLOCKS if block.language in {"python", "py"}]


def command_lines() -> list[list[str]]:
    """Return the words of every command line, from fenced and from indented blocks."""
    fenced = [block.text for block in BLOCKS if block.language not in {"python", "py"}]
    indented = INDENTED.findall(BLOCK.sub("", TEXT))
    lines = "".join([*fenced, *indented]).replace("\\\n", " ").splitlines()
    return [shlex.split(line.strip().removeprefix("$ "), comments=True) for line in lines if line]


COMMANDS = [words for words in command_lines() if words and words[0] in {"residua", "make"}]


def test_readme_begins_with_an_installation_and_a_training() -> None:
    assert README.exists()
    shown = {tuple(words[:2]) for words in COMMANDS}
    assert {("make", "demo"), ("residua", "train")} <= shown
    assert PYTHON


@pytest.mark.parametrize("block", [block for block in PYTHON if block.runs])
def test_python_in_readme_runs(block: Block, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", PYTHON)
def test_python_in_readme_uses_names_that_exist(block: Block) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "residua"
    }
    assert used <= set(residua.__all__)


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "residua"], ids=shlex.join)
def test_commands_in_readme_are_understood(words: list[str]) -> None:
    _, verb, *args = words
    if verb.startswith("-"):
        with pytest.raises(SystemExit) as done:
            main([verb])
        assert done.value.code == 0
        return
    assert verb in VERBS
    if "--help" not in args:
        load(verb).make_context(verb, args)  # reads the options; runs nothing


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] == "make"], ids=shlex.join)
def test_make_in_readme_names_targets_that_exist(words: list[str]) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {word for word in words[1:] if "=" not in word} <= set(targets)


@pytest.mark.parametrize("link", ["".join(pair) for pair in LINK.findall(TEXT)])
def test_links_in_readme_lead_to_files(link: str) -> None:
    assert (ROOT / link).exists()
