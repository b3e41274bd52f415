"""Reading a page with the standard library's parser, and the example reports, made once."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from residua.report.training import TrainingReport, training_page

VOID = {"meta", "link", "img", "input", "br", "path", "rect", "circle"}


class Page(HTMLParser):
    """A parsed page: its elements, scripts, and the text that a person sees of each section."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.mismatched: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
            self.sections[self._section] = ""
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.mismatched.append(tag)
        if self._section and tag in {"td", "th", "dt", "dd", "p", "li"}:
            self.sections[self._section] += " "
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif self._section:
            self.sections[self._section] += data

    def text(self, section: str) -> str:
        """The text of a section, spaces of any kind made single."""
        return " ".join(self.sections[section].split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="session")
def parse() -> type[Page]:
    return Page


@pytest.fixture(scope="session")
def example() -> ModuleType:
    """The generator of example reports beside this file."""
    path = Path(__file__).with_name("example.py")
    spec = importlib.util.spec_from_file_location("report_example", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def read() -> Callable[[TrainingReport], Page]:
    return lambda facts: Page(training_page(facts))


@pytest.fixture(scope="session")
def facts(example: ModuleType) -> TrainingReport:
    return example.digits()


@pytest.fixture(scope="session")
def page(facts: TrainingReport) -> Page:
    return Page(training_page(facts))


@pytest.fixture(scope="session")
def hostile_page(example: ModuleType) -> Page:
    return Page(training_page(example.hostile()))


@pytest.fixture
def out(tmp_path: Path) -> Any:
    return tmp_path / "run" / "report.html"
