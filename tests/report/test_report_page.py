"""The page of a complete training: its parts, its numbers, nothing from the network."""

import json

import pytest

from residua.report.figures import MOST_POINTS
from residua.report.training import MISTAKES_SHOWN

SECTIONS = [
    "result", "data", "learning", "confusion", "mistakes", "classes", "calibration", "recorder",
    "warnings", "repeat",
]  # fmt: skip


def figure(page, name):
    return next(json.loads(text) for attrs, text in page.scripts if attrs.get("id") == name)


def test_every_element_is_closed_in_order(page):
    assert page.mismatched == []
    assert page.open == []


def test_all_sections_are_there_in_order_and_linked(page):
    assert list(page.sections) == SECTIONS
    links = [a["href"] for a in page.all("a") if (a.get("href") or "").startswith("#")]
    assert {f"#{name}" for name in SECTIONS} <= set(links)


def test_identifiers_are_unique(page):
    names = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(names) == len(set(names))


def test_the_headline_agrees_with_the_facts(page, facts):
    share = facts.summary["accuracy"]
    text = page.text("result")
    assert f"resnet20_cifar recognises 10 classes at {share:.1%}".replace("%", " %") in text
    assert "(81.6 to 85.2 %, 1,617 test pictures), trained in 9 min 58 s on 2 CPU cores." in text


def test_scores_agree_with_the_facts(page, facts):
    wrong = sum(n for t, row in enumerate(facts.confusion) for a, n in enumerate(row) if t != a)
    assert f"{wrong} of 1,617 test pictures were taken for another class" in page.text("confusion")
    worst = max((n, t, a) for t, r in enumerate(facts.confusion) for a, n in enumerate(r) if t != a)
    assert f"{worst[1]} taken for {worst[2]} {worst[0]} of" in page.text("confusion")
    for row in facts.per_class:
        line = " ".join(f"{100 * row[key]:.1f} %" for key in ("recall", "precision", "f1"))
        line = line.replace("100.0 %", "100 %")
        assert f"{row['name']} {line} {row['support']}" in page.text("classes")
    assert f"{100 * facts.calibration['ece']:.1f} percentage points" in page.text("calibration")


def test_the_matrix_of_the_figure_is_the_matrix_of_the_facts(page, facts):
    drawn = figure(page, "figure-confusion")
    counts = [[0] * 10 for _ in range(10)]
    for row, column, number in drawn["cells"]:
        counts[row][column] = number
    assert counts == facts.confusion
    assert drawn["totals"] == [sum(row) for row in facts.confusion]


def test_mistakes_come_with_pictures_truth_and_answer(page, facts):
    pictures = page.all("img")
    assert len(pictures) == len(facts.mistakes) > MISTAKES_SHOWN
    assert all(img["src"].startswith("data:image/png;base64,") for img in pictures)
    assert all(img["class"] == "pixels" for img in pictures)
    assert facts.mistakes[0]["name"] in page.text("mistakes")


def test_the_recorder_has_each_quantity_with_its_law(page, facts):
    text = page.text("recorder")
    for name in ("Gradient norm", "Shortcut", "Branch", "Dead units", "Update to weight"):
        assert name in text
    assert text.count("Healthy.") == text.count("The law.") == len(facts.recorder["traces"])
    assert figure(page, "figure-recorder-gradient_norm")["layout"]["yaxis"]["type"] == "log"


def test_it_can_be_repeated_from_the_page(page, facts):
    text = page.text("repeat")
    assert facts.command in text
    assert "optimiser: name: sgd lr: 0.4" in text
    assert all(f"{name} {version}" in text for name, version in facts.versions.items())
    assert facts.warnings[0]["text"] in page.text("warnings")


def test_every_term_has_its_definition(page):
    targets = {b["popovertarget"] for b in page.all("button") if "popovertarget" in b}
    notes = {d["id"] for d in page.all("div") if "popover" in d}
    assert targets and targets <= notes


def test_nothing_is_fetched_from_a_network(page):
    for tag, attrs in page.elements:
        for key in ("src", "srcset", "poster", "data", "action"):
            assert (attrs.get(key) or "data:").startswith("data:"), (tag, attrs)
        if tag == "link":
            assert attrs["href"] == "data:,"
    style = page.html.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data: blob:;")


def test_plotly_is_inlined_once(page):
    executable = [text for attrs, text in page.scripts if attrs.get("type") is None]
    assert len(executable) == 2
    assert sum("plotly.js v" in text[:200] for text in executable) == 1


def test_long_curves_are_thinned(page, facts):
    assert len(facts.steps) > MOST_POINTS
    trace = figure(page, "figure-loss")["data"][0]
    assert trace["name"] == "each step"
    assert MOST_POINTS / 2 < len(trace["y"]) <= MOST_POINTS
    assert {len(xs) for xs in trace["x_by"].values()} == {len(trace["y"])}
    assert len(page.html) < 7e6


def test_time_is_shown_in_minutes_epochs_and_steps(page, facts):
    trace = figure(page, "figure-accuracy")["data"][0]
    for unit in ("minutes", "epoch", "step"):
        assert trace["x_by"][unit] == pytest.approx([row[unit] for row in facts.history], rel=1e-5)


def test_tables_stay_readable_without_javascript(page):
    assert "figures of this page need JavaScript" in page.html
    for section in ("learning", "confusion", "classes", "calibration", "recorder"):
        start = page.html.index(f'<section id="{section}"')
        assert "<table" in page.html[start : page.html.index("</section>", start)]
