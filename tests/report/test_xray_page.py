"""The page of an x-ray: findings first, the network drawn, hostile names inert, small for 1,000 units."""

import base64
import hashlib
import json
import math
import random
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.report.evidence import dot_and_interval
from residua.report.network import (
    flags,
    path_words,
    paths_by_length,
    trunk_drawing,
    unraveled,
)
from residua.report.slim import inert, slim_figures, thinned
from residua.report.xray import ROWS, write_xray_page, xray_page

HOSTILE = "</script><img src=x onerror=alert(1)>{{ 7 * 7 }} & \u2028 '\""


def unit(index, stage=0, **more):
    return {
        "index": index, "name": f"layer{stage}.{index}", "source": "/home/a/b/c/net.py:3",
        "stage": stage, "merge": "add", "shortcut": "identity", "order": "original",
        "text": "conv norm relu conv norm | add | relu", "parent": None, "shape": [8, 16, 32, 32],
    } | more  # fmt: skip


def finding(**more):
    return {
        "check": "explosion", "severity": "severe", "confidence": "high",
        "what": "The second moment doubles with each block.", "where": ("layer0.1", "layer0.2.conv1"),
        "lines": ("/home/a/b/c/net.py:3",),
        "evidence": ({
            "quantity": "second_moment_growth", "measured": 2.01, "law": "2^K, He initialisation",
            "expected": 1.0, "interval": (1.93, 2.09), "n": 5, "over": "seeds",
        },),
        "remedy": "Multiply by 1/sqrt 2 after each addition.", "prescription": "inv_sqrt2",
        "change": {"quantity": "second_moment_growth", "before": 2.01, "after": 1.004},
        "analysis": "signal",
    } | more  # fmt: skip


def analysis(name="signal", rows=30, label="second moment"):
    columns = [
        {"name": "unit", "meaning": "Its path.", "unit": ""},
        {"name": "second_moment", "meaning": "E[x²] over everything.", "unit": "1"},
    ]
    table = {
        "title": "Forward, by unit", "columns": columns,
        "rows": [{"unit": f"u{i}", "second_moment": 1.5**i} for i in range(rows)],
    }  # fmt: skip
    trace = {"type": "scatter", "name": label, "x": [0, 1], "y": [1.0, 2.0]}
    figure = {"data": [trace], "layout": {"yaxis": {"title": {"text": "second moment"}}}}
    return {
        "name": name, "help": "growth of the trunk", "seconds": 1.5, "tables": {"forward": table},
        "summary": {"second_moment": 2.0, "law": "x2"}, "figures": {"forward": figure},
        "notes": ["Norms on batch statistics."],
    }  # fmt: skip


def facts(**more):
    return {
        "name": "resnet20", "headline": "1 severe finding", "findings": [finding()],
        "analyses": [analysis()], "not_done": ["paths: internal error at x.py:3: ValueError: no"],
        "notes": [], "units": [unit(i, i // 3) for i in range(9)], "no_units": "", "seed": 0,
        "facts": {"parameters": 272474, "inputs": [[8, 3, 32, 32]], "outputs": [[8, 10]],
                  "gradient_of": "cross-entropy", "device": "cpu"},
        "effort": "normal", "command": "residua xray resnet20", "versions": {"torch": "2.13"},
        "created": "2026-01-01",
    } | more  # fmt: skip


@pytest.fixture(scope="module")
def page(parse):
    return parse(xray_page(facts()))


@pytest.fixture(scope="module")
def hostile_page(parse):
    bad = facts(
        name=HOSTILE, headline=HOSTILE, not_done=[HOSTILE], notes=[HOSTILE], command=HOSTILE,
        no_units=HOSTILE, versions={HOSTILE: HOSTILE},
        units=[unit(i, name=HOSTILE, order=HOSTILE, text=HOSTILE, shortcut=HOSTILE) for i in range(3)],
        analyses=[analysis(HOSTILE, label=HOSTILE)],
        findings=[finding(what=HOSTILE, where=(HOSTILE,), lines=(HOSTILE,), remedy=HOSTILE, check=HOSTILE)],
    )  # fmt: skip
    table = bad["analyses"][0]["tables"]["forward"]
    table["columns"][0] = {"name": HOSTILE, "meaning": HOSTILE, "unit": HOSTILE}
    table["rows"] = [{HOSTILE: HOSTILE, "second_moment": 1.0} for _ in range(30)]
    return parse(xray_page(bad))


def test_findings_come_first_then_the_network_then_each_analysis(page):
    assert list(page.sections) == ["findings", "network", "analysis-signal", "not-done", "repeat"]
    assert page.mismatched == [] and page.open == []
    links = {a["href"] for a in page.all("a") if (a.get("href") or "").startswith("#")}
    assert {f"#{name}" for name in page.sections} <= links


def test_identifiers_are_unique(page):
    names = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(names) == len(set(names))


def test_a_finding_says_what_where_how_that_is_known_and_what_to_change(page):
    text = page.text("findings")
    for part in (
        "1 severe finding.", "severe", "high confidence", "The second moment doubles with each block.",
        "layer0.1", "b/c/net.py:3", "second moment growth", "2.01 measured, 95 % 1.93 to 2.09 over 5 seeds",
        "1 by the law", "2^K, He initialisation", "Multiply by 1/sqrt 2 after each addition.",
        'residua.prescribe(model, "inv_sqrt2")', "2.01 becomes 1.00", "272,474", "8×3×32×32",
    ):  # fmt: skip
        assert part in text, part


def test_every_column_has_its_definition_one_click_away(page):
    targets = {b["popovertarget"] for b in page.all("button") if b.get("popovertarget")}
    popovers = {attrs["id"] for _, attrs in page.elements if "popover" in attrs}
    assert targets <= popovers
    assert "E[x²] over everything. Unit: 1." in page.html and "Its path." in page.html


def test_a_table_shows_twenty_rows_and_keeps_the_rest_as_data(page):
    text = page.text("analysis-signal")
    assert f"u{ROWS - 1}" in text and f"u{ROWS}" not in text and "All 30 rows" in text
    data = next(t for a, t in page.scripts if a.get("id") == "rows-signal-forward")
    assert [row[0] for row in json.loads(data)] == [f"u{i}" for i in range(ROWS, 30)]


def test_what_was_not_done_and_how_to_repeat_are_said(page):
    assert "paths: internal error at x.py:3" in page.text("not-done")
    assert "residua xray resnet20" in page.text("repeat") and "2.13" in page.text("repeat")


def test_nothing_is_loaded_and_only_our_scripts_run(page, hostile_page):
    for one in (page, hostile_page):
        policy = next(m["content"] for m in one.all("meta") if m.get("http-equiv"))
        assert policy.startswith("default-src 'none'")
        run = [text for attrs, text in one.scripts if attrs.get("type") is None]
        assert len(run) == 2
        for text in run:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"'sha256-{digest}'" in policy
        for tag, attrs in one.elements:
            assert not [key for key in attrs if key.startswith("on")], (tag, attrs)
            assert not (attrs.get("src") or "") and tag != "img"
            assert (attrs.get("href") or "#").startswith(("#", "data:,", "https://"))


def test_hostile_names_can_be_read_and_change_nothing(page, hostile_page):
    assert {tag for tag, _ in hostile_page.elements} <= {tag for tag, _ in page.elements} | {
        "svg", "g", "text", "details", "p",
    }  # fmt: skip
    assert hostile_page.mismatched == [] and hostile_page.open == []
    for section in ("findings", "not-done", "repeat"):
        assert " ".join(HOSTILE.split()) in hostile_page.text(section)
    for attrs, text in hostile_page.scripts:
        if "id" in attrs:
            json.loads(text)
            assert not set(text) & set("<>&\u2028\u2029")


def test_names_in_figures_are_texts_for_plotly():
    figure = {"data": [{"name": "<a href='http://x'>", "text": ["a<br>b"], "y": [1]}], "layout": {}}
    (trace,) = inert(figure)["data"]
    assert trace["name"] == "&lt;a href='http://x'&gt;" and trace["text"] == ["a<br>b"]


def test_a_page_without_anything_is_a_page(parse):
    page = parse(xray_page({}))
    assert "No residual units are drawn." in page.text("network")
    assert "No check found fault" in page.text("findings")
    assert len([1 for attrs, _ in page.scripts if attrs.get("type") is None]) == 1  # no plotly


def test_the_file_is_written_whole(tmp_path):
    path = tmp_path / "deep" / "xray.html"
    write_xray_page(path, facts())
    assert path.read_text(encoding="utf-8") == xray_page(facts())


def test_a_thousand_units_make_a_small_page(parse):
    rng = random.Random(0)
    units = [unit(i, i // 334) for i in range(1000)]

    def big(name):
        one = analysis(name)
        columns = [{"name": f"c{i}", "meaning": f"column {i}", "unit": ""} for i in range(12)]
        rows = [{f"c{i}": rng.gauss(0, 1) for i in range(12)} for _ in range(1000)]
        one["tables"] = {"all": {"title": "units", "columns": columns, "rows": rows}}
        curve = {"type": "scatter", "x": list(range(1000))}
        traces = [curve | {"y": [rng.gauss(0, 1) for _ in range(1000)]} for _ in range(4)]
        one["figures"] = {f"f{i}": {"data": traces, "layout": {}} for i in range(3)}
        return one

    many = [finding(where=tuple(u["name"] for u in units))]
    page = parse(
        xray_page(facts(units=units, analyses=[big(f"a{i}") for i in range(11)], findings=many))
    )
    size = len(page.html.encode())
    plotly = max(len(text.encode()) for _, text in page.scripts)
    assert size - plotly < 1_000_000 and size < 6_000_000
    assert len(page.all("rect")) < 30  # equal neighbours share a box
    assert "The page keeps the first" in page.text("analysis-a3")
    assert "2^1000" in page.text("network")


def test_curves_are_thinned_and_that_is_said():
    figure = {"data": [{"x": list(range(100)), "y": [0.0] * 100, "mode": "lines"}], "layout": {}}
    assert thinned(figure, 50)["data"][0]["x"] == list(range(0, 100, 2))
    assert thinned(figure, 50)["thinned"] == 2
    assert "thinned" not in thinned(figure, 100)
    small = slim_figures({"a": {**figure, "data": figure["data"] * 200}}, budget=50_000)
    assert small["a"]["thinned"] >= 2


def test_numbers_that_are_not_finite_are_said(parse):
    rows = ({"quantity": "eigenvalue", "measured": math.inf, "law": "finite"},)
    text = parse(xray_page(facts(findings=[finding(evidence=rows, change=None)]))).text("findings")
    assert "∞ measured" in text


@given(st.integers(0, 60))
def test_units_in_a_row_make_binomially_many_paths(k):
    assert paths_by_length([unit(i) for i in range(k)]) == [comb(k, n) for n in range(k + 1)]


def test_a_unit_inside_a_branch_adds_to_the_branch_alone():
    # y = x + f(x'), x' = u + g(u) inside the branch: paths {none}, {f}, {f, g}
    assert paths_by_length([unit(0), unit(1, parent=0)]) == [1, 1, 1]
    # two of them in a row: (1 + t + t^2)^2
    rows = [unit(0), unit(1, parent=0), unit(2), unit(3, parent=2)]
    assert paths_by_length(rows) == [1, 2, 3, 2, 1]


def test_the_number_of_paths_is_said_for_any_depth():
    assert path_words(paths_by_length([unit(i) for i in range(54)])) == (
        "2^54, about 10^16 paths from input to output, through 27 branches on average"
    )
    assert path_words(paths_by_length([unit(i) for i in range(1000)])).startswith(
        "2^1000, about 10^301"
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_the_unraveled_view_has_each_unit_as_often_as_veit_says(k):
    view = unraveled([unit(i) for i in range(k)])
    boxes = [box["number"] for box in view["boxes"]]
    assert [boxes.count(n) for n in range(1, k + 1)] == [2 ** (k - n) for n in range(1, k + 1)]
    assert len(view["sums"]) == len(boxes) == 2**k - 1
    lengths = [length for _, length, _ in view["lengths"]]
    assert [lengths.count(n) for n in range(k + 1)] == [comb(k, n) for n in range(k + 1)]


def test_more_units_than_five_are_not_unraveled():
    assert unraveled([unit(i) for i in range(6)]) is None
    assert unraveled([]) is None
    assert unraveled([unit(0), unit(1, parent=0)]) is None


def test_the_trunk_has_a_box_a_unit_until_there_are_too_many():
    (stage,) = trunk_drawing([unit(i) for i in range(30)], {})
    assert len(stage["boxes"]) == 30 and len(stage["trunk"]) == 2
    flagged = {"layer0.7": "severe"}
    (stage,) = trunk_drawing([unit(i) for i in range(200)], flagged)
    assert [(box["count"], box["flag"]) for box in stage["boxes"]] == [
        (7, ""), (1, "severe"), (192, ""),
    ]  # fmt: skip


def test_a_finding_marks_the_unit_that_holds_its_module():
    units = [unit(i) for i in range(3)]
    worst_first = [
        finding(where=("layer0.2.conv1",)),
        finding(severity="note", where=("layer0.2", "x")),
    ]
    assert flags(units, worst_first) == {"layer0.2": "severe"}


@settings(deadline=None)
@given(*[st.none() | st.floats(allow_nan=True) for _ in range(4)])
def test_a_dot_lies_inside_its_picture_and_in_order(measured, expected, low, high):
    evidence = {"measured": measured, "expected": expected, "interval": (low, high)}
    drawn = dot_and_interval(evidence)
    if drawn is None:
        return
    numbers = {"measured": measured, "expected": expected, "low": low, "high": high}
    pairs = [(numbers[k], drawn[k]) for k in numbers if drawn[k] is not None]
    assert all(0 <= place <= 1 for _, place in pairs)
    assert [p for _, p in sorted(pairs)] == sorted(p for _, p in pairs)
