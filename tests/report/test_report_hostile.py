"""Names that try to break the page: nothing of them runs, and all of them can be read."""

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residua.report.html import script_json, web_link
from residua.report.training import TrainingReport


def test_only_our_own_scripts_are_there_and_their_hashes_are_allowed(hostile_page):
    policy = next(m["content"] for m in hostile_page.all("meta") if m.get("http-equiv"))
    run = [text for attrs, text in hostile_page.scripts if attrs.get("type") is None]
    assert len(run) == 2
    for text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_no_name_becomes_an_element_or_a_handler(hostile_page):
    assert hostile_page.mismatched == []
    for tag, attrs in hostile_page.elements:
        assert not [key for key in attrs if key.startswith("on")], (tag, attrs)
        assert attrs.get("src") != "x"
        assert not (attrs.get("href") or "").startswith("javascript:")


def test_the_page_has_the_same_elements_as_with_plain_names(hostile_page, page):
    kinds = {tag for tag, _ in page.elements}
    assert {tag for tag, _ in hostile_page.elements} <= kinds


def test_every_name_can_still_be_read(hostile_page, example):
    for name in example.HOSTILE:
        assert " ".join(name.split()) in hostile_page.text("classes")
    assert example.HOSTILE[0] in hostile_page.text("result")
    assert "{{ 7 * 7 }}" in hostile_page.text("data")
    assert "it's \"a\" file' onerror='alert(5)'.png" in hostile_page.text("mistakes")


def test_figures_carry_the_names_unchanged(hostile_page, example):
    data = {attrs["id"]: text for attrs, text in hostile_page.scripts if "id" in attrs}
    assert json.loads(data["figure-confusion"])["names"] == example.HOSTILE
    for text in data.values():
        assert not set(text) & set("<>&\u2028\u2029")


@given(st.recursive(st.text() | st.floats() | st.none(), st.lists, max_leaves=5))
def test_json_in_a_script_has_no_character_that_html_or_old_javascript_reads(value):
    text = str(script_json(value))
    assert not set(text) & set("<>&\u2028\u2029")
    json.loads(text)


@given(st.text())
def test_json_in_a_script_reads_back_as_it_was(text):
    assert json.loads(str(script_json(text))) == text


@pytest.mark.parametrize("text", ["javascript:alert(1)", "data:text/html,x", "//host/x", "", " x"])
def test_only_web_addresses_become_links(text):
    assert web_link(text) == ""


@given(name=st.text(min_size=1, max_size=30))
def test_any_class_name_leaves_the_structure_as_it_is(read, name):
    facts = TrainingReport(
        classes=[name, "b"],
        per_class=[{"name": name, "recall": 1.0, "precision": 1.0, "f1": 1.0, "support": 3}],
        warnings=[{"step": 1, "text": name}],
    )
    page = read(facts)
    assert page.mismatched == [] and page.open == []
    assert len([1 for attrs, _ in page.scripts if attrs.get("type") is None]) == 1
