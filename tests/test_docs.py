"""The pages on parts, networks and tasks: Python runs, every name in them is there, and none is missing."""

import fnmatch
import re
import shlex
from pathlib import Path

import pytest

from residua.cli.main import load
from residua.models import list_models, records
from residua.models.classifiers import CLASSIFIERS
from residua.nn import ACTIVATIONS, ANTIALIASES, MERGES, NORMS, ORDERS, SHORTCUTS
from residua.nn.attention import ATTENTIONS
from residua.nn.init import SCHEMES
from residua.nn.regularisers import DROPS

DOCS = Path(__file__).parents[1] / "docs"
NAMES = ("parts", "models", "segmentation", "pose")
PAGES = {name: (DOCS / f"{name}.md").read_text(encoding="utf-8") for name in NAMES}
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SPELLED = {name: set(re.findall(r"`([^`\n]+)`", text)) for name, text in PAGES.items()}


@pytest.mark.parametrize("block", [b for text in PAGES.values() for b in PYTHON.findall(text)])
def test_python_on_the_pages_runs(block):
    exec(compile(block, "docs", "exec"), {})


@pytest.mark.parametrize(
    "line",
    [x.strip() for text in PAGES.values() for x in re.findall(r"^    residua .*$", text, re.M)],
)
def test_commands_on_the_pages_are_understood(line):
    _, verb, *args = shlex.split(line, comments=True)
    load(verb).make_context(verb, args)


@pytest.mark.parametrize(
    "names",
    [
        SHORTCUTS,
        MERGES,
        ORDERS,
        NORMS,
        ACTIVATIONS,
        DROPS,
        SCHEMES,
        ATTENTIONS,
        ANTIALIASES,
        CLASSIFIERS,
    ],
    ids=lambda n: min(n),
)
def test_every_part_has_a_row(names):
    shown = {name.partition("(")[0] for name in SPELLED["parts"]}
    assert set(names) - shown == set()


def test_every_family_has_a_row_and_every_name_in_it_is_registered():
    rows = [row.split(" | ") for row in PAGES["models"].splitlines() if row.startswith("| `")]
    assert sorted(row[0].strip("| `") for row in rows) == sorted(
        {known.family for known in records().values()}
    )
    for family, networks, *_ in rows:
        for name in re.findall(r"`([^`]+)`", networks):
            (found,) = fnmatch.filter(list_models(), name) or fnmatch.filter(
                list_models(), f"*_{name}_cifar"
            )
            assert records()[found].family == family.strip("| `")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    text = re.sub(r"`[^`]*`", "", PAGES[page])
    for link in re.findall(r"\]\((?!https?://|#)([^)#\s]+)\)", text):
        assert (DOCS / link).exists(), link
