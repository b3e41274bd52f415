"""The pages of segmentation and pose: whole, offline, inert, and true to their facts."""

import base64
import hashlib
import importlib.util
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from residua.report import overlays
from residua.report.pose import PoseReport, pose_page, write_pose_report
from residua.report.segmentation import (
    MOST_CASES,
    SegmentationReport,
    scores_of_classes,
    segmentation_page,
    write_segmentation_report,
)

SEGMENTATION = [
    "result", "cases", "classes", "confusion", "shapes", "learning", "data", "warnings", "repeat",
]  # fmt: skip
POSE = ["result", "cases", "joints", "thresholds", "learning", "data", "warnings", "repeat"]


@pytest.fixture(scope="module")
def made():
    path = Path(__file__).with_name("example_tasks.py")
    spec = importlib.util.spec_from_file_location("report_example_tasks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cell_facts(made):
    return made.cell_pictures(8)


@pytest.fixture(scope="module")
def tube_facts(made):
    return made.tube_volumes(1)


@pytest.fixture(scope="module")
def pose_facts(made):
    return made.people(14)


@pytest.fixture(scope="module")
def pages(parse, made, cell_facts, tube_facts, pose_facts):
    return {
        "cells": parse(segmentation_page(cell_facts)),
        "tubes": parse(segmentation_page(tube_facts)),
        "figures": parse(pose_page(pose_facts)),
        "hostile-cells": parse(segmentation_page(made.hostile_segmentation())),
        "hostile-figures": parse(pose_page(made.hostile_pose())),
        "empty-cells": parse(segmentation_page(SegmentationReport())),
        "empty-figures": parse(pose_page(PoseReport())),
    }


KINDS = [
    "cells",
    "tubes",
    "figures",
    "hostile-cells",
    "hostile-figures",
    "empty-cells",
    "empty-figures",
]


def picture_of(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def places_of(uri):
    return np.asarray(picture_of(uri))


def figure(page, name):
    return next(json.loads(text) for attrs, text in page.scripts if attrs.get("id") == name)


def layers_of(page):
    """The layers of each case in order: lists of (kind, uri)."""
    found = []
    for img in page.all("img"):
        kind = img["class"].split()[1]
        if kind == "picture":
            found.append({})
        found[-1][kind] = img["src"]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_element_is_closed_and_every_section_is_there_and_linked(pages, kind):
    page = pages[kind]
    assert page.mismatched == [] and page.open == []
    sections = POSE if "figures" in kind else SEGMENTATION
    assert list(page.sections) == sections
    links = {a["href"] for a in page.all("a")}
    assert {f"#{name}" for name in sections} <= links
    names = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_and_only_our_scripts_run(pages, kind):
    page = pages[kind]
    for tag, attrs in page.elements:
        for key in ("src", "srcset", "poster", "data", "action", "xlink:href"):
            assert (attrs.get(key) or "data:").startswith("data:"), (tag, attrs)
        assert not [key for key in attrs if key.startswith("on")], (tag, attrs)
        assert not (attrs.get("href") or "").startswith("javascript:")
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data: blob:;")
    run = [text for attrs, text in page.scripts if attrs.get("type") is None]
    assert len(run) == (2 if "empty" in kind else 3)
    for text in run:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    style = "".join(re.findall(r"<style>(.*?)</style>", page.html, re.S))
    assert "url(" not in style and "@import" not in style


@pytest.mark.parametrize("kind", KINDS)
def test_every_term_has_its_definition(pages, kind):
    page = pages[kind]
    targets = {b["popovertarget"] for b in page.all("button") if "popovertarget" in b}
    assert targets <= {d["id"] for d in page.all("div") if "popover" in d}


@pytest.mark.parametrize("kind", ["hostile-cells", "hostile-figures"])
def test_hostile_names_can_be_read_and_do_nothing(pages, made, kind):
    page = pages[kind]
    plain = {tag for tag, _ in pages[kind.removeprefix("hostile-")].elements}
    assert {tag for tag, _ in page.elements} <= plain
    table = page.text("joints" if "figures" in kind else "classes")
    for name in made.HOSTILE:
        assert name in table
    assert made.HOSTILE[1] in page.text("cases") and made.HOSTILE[0] in page.text("cases")
    for attrs, text in page.scripts:
        if "id" in attrs:
            assert not set(text) & set("<>&\u2028\u2029")


@pytest.mark.parametrize("kind", ["empty-cells", "empty-figures"])
def test_an_empty_report_says_what_is_missing(pages, kind):
    page = pages[kind]
    assert "Nothing is recorded of this training yet." in page.text("result")
    assert page.html.count('class="absent"') >= 7
    assert "None" not in " ".join(page.text(name) for name in page.sections if name != "warnings")
    assert "plotly.js v" not in page.html


@pytest.mark.parametrize(
    ("kind", "name"), [("cells", "cells (drawn)"), ("figures", "figures (drawn)")]
)
def test_drawn_samples_are_called_drawn(pages, kind, name):
    page = pages[kind]
    assert "drawn by a program" in page.text("result")
    assert name in page.text("data") and "not photographed" in page.text("data")


def test_real_pictures_are_not_called_drawn(parse, cell_facts):
    page = parse(segmentation_page(replace(cell_facts, cases=[], data={"name": "drawn-by-hand"})))
    assert "by a program" not in page.text("result") + page.text("data")


def test_scores_of_classes_are_those_of_another_library():
    rng = np.random.default_rng(0)
    truth, answer = rng.integers(0, 3, 500), rng.integers(0, 3, 500)
    rows = scores_of_classes(metrics.confusion_matrix(truth, answer).tolist(), ["a", "b", "c"])
    for key, score in (("iou", metrics.jaccard_score), ("dice", metrics.f1_score),
                       ("precision", metrics.precision_score), ("recall", metrics.recall_score)):  # fmt: skip
        assert [row[key] for row in rows] == pytest.approx(score(truth, answer, average=None))
    assert [row["support"] for row in rows] == np.bincount(truth).tolist()


def test_an_absent_class_counts_for_nothing(pages, cell_facts):
    page = pages["cells"]
    assert "Absent, so not counted in any mean: mitosis." in page.text("classes")
    assert "mitosis absent absent – – 0" in page.text("classes")
    rows = scores_of_classes(cell_facts.confusion, cell_facts.classes)
    assert rows[3]["iou"] is None
    mean = np.mean([row["iou"] for row in rows[:3]])
    assert f"mean IoU of {100 * mean:.1f} % (mean Dice" in page.text("result")
    assert "8 test pictures), trained in 10 min on 2 CPU cores." in page.text("result")


def test_a_class_that_is_invented_is_not_absent(parse):
    facts = SegmentationReport(classes=["ground", "cell"], confusion=[[90, 10], [0, 0]])
    text = parse(segmentation_page(facts)).text("classes")
    assert "cell 0 % 0 % 0 % – 0" in text and "Absent" not in text


def test_the_worst_case_comes_first_and_one_without_a_score_last(parse, cell_facts, pages):
    scores = sorted(case["score"] for case in cell_facts.cases)
    shown = re.findall(r'<div class="answer"><b>([\d.]+)', pages["cells"].html)
    assert shown == [f"{100 * score:.1f}" for score in scores]
    without = [{**cell_facts.cases[0], "score": None, "name": "unknown"}, *cell_facts.cases[1:3]]
    html = segmentation_page(replace(cell_facts, cases=without))
    assert re.findall(r'<span title="(.*?)"', html)[-1] == "unknown"


def test_the_layers_of_a_case_are_its_masks(cell_facts, pages):
    worst = min(cell_facts.cases, key=lambda case: case["score"])
    layers = layers_of(pages["cells"])[0]
    assert list(layers) == ["picture", "truth", "prediction", "errors", "uncertainty"]
    truth, answer = worst["truth"], worst["prediction"]
    side = picture_of(layers["truth"]).width
    at = np.array(
        Image.fromarray(truth.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    )
    assert np.array_equal(places_of(layers["truth"]), np.where(at == 255, 4, at))
    wrong = overlays.error_layer(truth, answer).pixels[0]
    assert np.array_equal(wrong > 0, (truth != answer) & (truth != 255))
    assert (truth[wrong == 1] > 0).all() and (answer[wrong == 1] == 0).all()
    assert (truth[wrong == 2] == 0).all() and (answer[wrong == 2] > 0).all()
    assert picture_of(layers["truth"]).convert("RGBA").getpixel((side - 1, 0))[3] in (0, 255)


def test_without_a_background_every_error_is_a_confusion():
    layer = overlays.error_layer(np.array([[0, 1, 2]]), np.array([[1, 1, 0]]), None)
    assert layer.pixels.tolist() == [[[3, 0, 3]]]


def test_every_layer_can_be_chosen_with_keys_and_the_strength_moved(pages):
    inputs = pages["cells"].all("input")
    radios = [i["value"] for i in inputs if i["type"] == "radio" and i["name"] == "layer"]
    assert radios == ["picture", "truth", "prediction", "errors", "uncertainty"]
    assert [i for i in inputs if i["type"] == "range" and i["class"] == "strength"]
    for value in radios[1:]:
        assert f'#cases:has(input[value="{value}"]:checked) img.{value}' in pages["cells"].html
    boxes = [i["value"] for i in pages["figures"].all("input") if i["type"] == "checkbox"]
    assert boxes == ["truth", "prediction", "errors"]


def test_only_layers_that_exist_are_offered(parse):
    case = {"name": "a", "picture": np.zeros((8, 9), np.uint8), "truth": np.ones((8, 9), int)}
    page = parse(segmentation_page(SegmentationReport(classes=["a", "b"], cases=[case])))
    radios = [i for i in page.all("input") if i["type"] == "radio"]
    assert [(i["value"], "checked" in i) for i in radios] == [("picture", False), ("truth", True)]


def test_a_volume_is_a_strip_of_slices(tube_facts, pages):
    worst = min(tube_facts.cases, key=lambda case: case["score"])
    layers = layers_of(pages["tubes"])[0]
    stack = next(d for d in pages["tubes"].all("div") if "data-slices" in d)
    numbers = [int(z) - 1 for z in stack["data-slices"].split()]
    assert numbers == overlays.slices_shown(32) and len(numbers) == overlays.MOST_SLICES
    strip = places_of(layers["truth"])
    side = strip.shape[1]
    assert strip.shape[0] == side * len(numbers)
    for place, z in enumerate(numbers):
        small = Image.fromarray(worst["truth"][z].astype(np.uint8)).resize(
            (side, side), Image.Resampling.NEAREST
        )
        assert np.array_equal(strip[place * side : (place + 1) * side], np.asarray(small))
    text = pages["tubes"].text("data")
    assert "three dimensions" in text and "1.5 × 0.5 × 0.5 µm" in text and "under the limit" in text


def test_the_pictures_of_a_page_keep_to_a_budget(parse):
    rng = np.random.default_rng(0)
    cases = [
        {"name": str(k), "picture": rng.integers(0, 255, (240, 240, 3), np.uint8),
         "truth": rng.integers(0, 2, (240, 240)), "score": k / 60}
        for k in range(60)
    ]  # fmt: skip
    html = segmentation_page(SegmentationReport(classes=["a", "b"], cases=cases))
    assert len(html) < overlays.BUDGET + 300_000
    page = parse(html)
    assert page.html.count('<figure class="case">') == MOST_CASES
    assert "12 better ones are not shown" in page.text("cases")


def test_what_is_too_large_at_the_smallest_side_is_left_out():
    rng = np.random.default_rng(0)
    noise = [
        {"picture": overlays.Layer(rng.integers(0, 255, (1, 64, 64, 1), np.uint8))}
        for _ in range(4)
    ]
    made = overlays.fitted(noise, budget=12_000)
    assert [len(uris) for uris in made] == [1, 1, 0, 0]


def test_pictures_of_other_types_are_stretched_to_greys():
    deep = np.linspace(1000, 3000, 100).reshape(10, 10).astype(np.uint16)
    layer = overlays.picture_layer(deep, volume=False)
    assert layer.pixels.shape == (1, 10, 10, 1) and layer.pixels.dtype == np.uint8
    assert layer.pixels.min() == 0 and layer.pixels.max() == 255
    assert overlays.picture_layer(np.full((4, 4, 5), np.nan), volume=False).pixels.max() == 0


def test_layers_of_other_shapes_are_refused():
    case = {"name": "a", "picture": np.zeros((8, 8), np.uint8), "truth": np.zeros((8, 9), int)}
    with pytest.raises(ValueError, match="'a': expected layers of one shape"):
        segmentation_page(SegmentationReport(classes=["a"], cases=[case]))
    pose = {"name": "b", "picture": np.zeros((8, 8), np.uint8), "truth": np.zeros((3, 3))}
    with pytest.raises(ValueError, match="'b': expected truth of shape"):
        pose_page(PoseReport(joints=["x", "y"], cases=[pose]))


def test_the_confusion_is_per_cent_of_the_true_class(pages, cell_facts):
    drawn = figure(pages["cells"], "figure-confusion")
    wanted = metrics.confusion_matrix(
        *(
            np.concatenate([c[key][c["truth"] != 255] for c in cell_facts.cases])
            for key in ("truth", "prediction")
        ),
        normalize="true",
    )
    for truth, answer, value in drawn["cells"]:
        assert value == pytest.approx(100 * wanted[truth, answer], abs=0.051)


def test_boundaries_and_objects_are_told_with_what_they_mean(pages):
    text = pages["cells"].html
    for words in (
        "71.0\xa0%",
        "within 2 pixels",
        "312 in the truth",
        "Too large, and left out here: 1",
    ):
        assert words in text, words
    targets = {b["popovertarget"] for b in pages["cells"].all("button") if "popovertarget" in b}
    assert {"def-boundary_f1", "def-hd95", "def-pq", "def-objects", "def-rand_merge"} <= targets
    assert "Neither boundaries nor objects were scored" in pages["tubes"].html


def test_the_score_of_a_single_evaluation_is_shown_between_none_and_all(parse, cell_facts):
    def axis(rows):
        page = parse(segmentation_page(replace(cell_facts, history=rows)))
        return figure(page, "figure-accuracy")["layout"]["yaxis"]

    assert axis(cell_facts.history[:1])["range"] == [0, 1]
    assert "range" not in axis(cell_facts.history)


def test_the_skeleton_is_drawn_at_the_joints(pose_facts, pages):
    worst = min(pose_facts.cases, key=lambda case: case["score"])
    html = pages["figures"].html
    card = html[html.index('<figure class="case">') : html.index("</figure>")]
    truth = re.search(r'<g class="truth">(.*?)</g>', card, re.S).group(1)
    drawn = np.array(re.findall(r'cx="([\d.-]+)" cy="([\d.-]+)"', truth), float)
    labelled = worst["truth"][worst["truth"][:, 2] > 0, :2]
    assert np.abs(drawn - (labelled + 0.5)).max() < 0.11
    hidden = (worst["truth"][:, 2] == 1).sum()
    assert truth.count("hidden") == hidden
    far = np.hypot(*(worst["truth"] - worst["prediction"])[:, :2].T) > 0.2 * worst["size"]
    missed = int((far & (worst["truth"][:, 2] > 0)).sum())
    errors = re.search(r'<g class="errors">(.*?)</g>', card, re.S).group(1)
    assert errors.count("<path") == missed > 0
    assert f"{missed} missed" in card


def test_joints_that_were_not_found_are_not_drawn(parse):
    answer = np.array([[np.nan, 1, 0.5], [3, 4, 0.9]])
    case = {
        "name": "a",
        "picture": np.zeros((8, 8, 3), np.uint8),
        "prediction": answer,
        "score": 0.5,
    }
    page = parse(pose_page(PoseReport(joints=["neck", "head"], skeleton=[(0, 1)], cases=[case])))
    assert len(page.all("circle")) == 1 + 1  # and the one of the brand
    assert not [p for p in page.all("path") if "bone" in (p.get("class") or "")]


def test_scores_of_joints_agree_with_the_facts(pages, pose_facts):
    page = pages["figures"]
    assert (
        f"hourglass2 finds 14 joints with a PCK@0.2 of {100 * pose_facts.summary['pck']:.1f} %"
        in page.text("result")
    )
    table = page.text("joints")
    for row in pose_facts.per_joint:
        name, share = row["name"].replace("_", " "), f"{100 * row['pck']:.1f} %"
        share = share.replace("100.0", "100")
        assert f"{name} {share} {100 * row['error']:.1f} % of the torso {row['support']}" in table
    curve = figure(page, "figure-pck")["data"]
    assert curve[0]["name"] == "all joints" and curve[0]["y"] == pytest.approx(
        pose_facts.curve["all"]
    )
    assert len(curve) == 9


def test_the_course_is_drawn_with_the_name_of_the_score(pages, pose_facts):
    text = pages["figures"].text("learning")
    best = max(row["val_score"] for row in pose_facts.history)
    assert f"Validation PCK@0.2 was best (epoch 19, 9 min 30 s) at {100 * best:.1f} %" in text
    trace = figure(pages["figures"], "figure-accuracy")["data"][0]
    assert trace["y"] == pytest.approx([row["val_score"] for row in pose_facts.history], rel=1e-5)


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), None])
def test_values_that_are_no_numbers_are_gaps_not_errors(parse, odd):
    history = [{"step": 1, "epoch": odd, "val_score": odd, "val_loss": odd}]
    row = {"name": "a", "iou": odd, "dice": odd, "precision": odd, "recall": odd, "support": odd}
    pages = [
        segmentation_page(
            SegmentationReport(
                classes=["a"], per_class=[row], history=history, duration_s=odd,
                confusion=[[odd or 0]], data={"shares": {"a": odd}, "spacing": (odd, 1, 1), "dims": 3},
                summary={"iou": odd, "n": odd, "interval": (odd, 0.5), "more": [{"name": "b", "value": odd}]},
            )
        ),
        pose_page(
            PoseReport(
                joints=["a"], per_joint=[row | {"pck": odd}], history=history, summary={"pck": odd},
                curve={"thresholds": [0.1, odd], "all": [odd, odd], "joints": {"a": [odd]}},
            )
        ),
    ]  # fmt: skip
    for html in pages:
        page = parse(html)
        assert page.mismatched == [] and "Nothing is recorded" in page.text("result")
        words = " ".join(page.text(section) for section in page.sections).lower().split()
        assert not {"nan", "inf"} & {word.strip(".,") for word in words}


def test_the_pages_are_written_whole(tmp_path):
    write_segmentation_report(tmp_path / "a" / "report.html", SegmentationReport(title="first"))
    write_pose_report(tmp_path / "a" / "pose.html", PoseReport(title="second"))
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["pose.html", "report.html"]
    assert "first" in (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
