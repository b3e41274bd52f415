"""Facts that are absent, odd or very many: the page says so and stays whole."""

import json
import math

import numpy as np
import pytest

from residua.report.training import TrainingReport

NAN = math.nan


def test_an_empty_report_says_what_is_missing_in_every_section(read):
    page = read(TrainingReport())
    assert page.mismatched == [] and page.open == []
    assert "Nothing is recorded of this training yet." in page.text("result")
    for section in ("learning", "confusion", "mistakes", "classes", "calibration", "recorder"):
        assert page.html.count('class="absent"') >= 6
        assert len(page.text(section)) > 20
    assert "None" not in " ".join(page.text(s) for s in page.sections if s != "warnings")
    assert "plotly.js v" not in page.html


def test_a_training_without_evaluation_reads_well(read):
    page = read(TrainingReport(model={"name": "resnet18"}, duration_s=61, device="1 GPU"))
    assert "resnet18, trained in 1 min 1 s on 1 GPU: not evaluated yet." in page.text("result")


def test_one_epoch_is_drawn_and_told(read):
    row = {"step": 10, "epoch": 1.0, "minutes": 0.5, "train_loss": 2.0, "val_loss": 2.1,
           "val_accuracy": 0.4, "lr": 0.1}  # fmt: skip
    page = read(TrainingReport(history=[row]))
    assert "One evaluation (epoch 1, 30 s): validation accuracy 40.0 %." in page.text("learning")
    drawn = {attrs["id"] for attrs, _ in page.scripts if "id" in attrs}
    assert {"figure-loss", "figure-accuracy", "figure-rate"} <= drawn


def test_a_validation_score_is_not_called_a_test_score(read):
    summary = {"accuracy": 0.5, "split": "val", "n": 200}
    page = read(TrainingReport(classes=["a", "b"], summary=summary))
    text = page.text("result")
    assert "recognises 2 classes at 50.0 % (43.1 to 56.9 %, 200 validation pictures)." in text


def test_values_that_are_not_numbers_are_gaps_not_errors(read):
    rows = [{"step": s, "loss": v, "lr": NAN} for s, v in enumerate([1.0, NAN, math.inf, 0.5])]
    trace = {"steps": [0, 1], "values": {"stem": [NAN, 0.0], "none": [NAN, NAN]}}
    facts = TrainingReport(
        duration_s=NAN,
        classes=["a", "b"],
        model={"name": "m", "parameters": NAN},
        summary={"accuracy": NAN, "top5": NAN, "loss": math.inf, "n": NAN, "interval": (NAN, 1)},
        history=[{"step": 1, "epoch": NAN, "val_accuracy": NAN, "val_loss": NAN}],
        steps=rows,
        confusion=[[NAN, 1], [2, 3]],
        per_class=[{"name": "a", "recall": NAN, "precision": NAN, "f1": NAN, "support": NAN}],
        calibration={"ece": NAN, "bins": [{"confidence": NAN, "accuracy": NAN, "count": 0}]},
        recorder={"stages": ["stem", "none"], "traces": {"gradient_norm": trace}},
        warnings=[{"step": NAN, "text": "odd"}],
    )
    page = read(facts)
    assert "not a finite number at step 1 and 1 more" in page.text("learning")
    shown = " ".join(page.text(section) for section in page.sections)
    assert "nan" not in shown.lower().split() and "inf" not in shown.lower().split()
    for attrs, text in page.scripts:
        if "id" in attrs:
            json.loads(text, parse_constant=pytest.fail)


def test_a_thousand_classes_stay_small_and_readable(read, example):
    facts = example.thousand()
    page = read(facts)
    data = {attrs["id"]: json.loads(text) for attrs, text in page.scripts if "id" in attrs}
    close, whole = data["figure-confused"], data["figure-confusion"]
    assert len(close["names"]) == 20
    assert len(whole["names"]) == 1000 and whole["dots"]
    assert whole["drawn"] == 2000 and whole["left_out"] > 0
    first = max(
        (n, facts.classes[t], facts.classes[a])
        for t, row in enumerate(facts.confusion)
        for a, n in enumerate(row)
        if t != a
    )[1:]
    assert set(first) <= set(close["names"])
    assert page.text("classes").count("species") >= 1000
    assert len(page.html) < 8e6


def test_two_classes_without_a_mistake_are_praised(read):
    facts = TrainingReport(
        classes=["cat", "dog"], confusion=[[5, 0], [0, 5]], summary={"accuracy": 1.0, "n": 10}
    )
    page = read(facts)
    assert "No picture was taken for another class." in page.text("confusion")
    assert "every picture was recognised" in page.text("mistakes")
    assert "at 100 % (72.2 to 100 %" in page.text("result")


def test_numpy_values_and_label_numbers_are_taken(read):
    facts = TrainingReport(
        classes=["cat", "dog"],
        confusion=np.array([[3, 1], [0, 4]]),
        summary={"accuracy": np.float32(0.875), "n": np.int64(8), "split": "test"},
        recipe={"lr": np.float64(0.1), "size": (32, 32), "names": np.array([1, 2])},
        mistakes=[
            {
                "name": "a.png",
                "picture": np.zeros((300, 400, 3), np.uint8),
                "truth": np.int64(0),
                "predicted": 1,
                "confidence": np.float32(0.9),
                "truth_confidence": 0.05,
            }
        ],
    )
    page = read(facts)
    assert "said dog 90.0 % truth cat 5.0 %" in page.text("mistakes")
    assert "lr: 0.1 size: - 32 - 32 names: - 1 - 2" in page.text("repeat")
    assert "87.5 %" in page.text("result")


def test_counts_are_taken_by_name_or_in_order(read):
    by_name = {"train": {"cat": 3, "dog": 2}, "test": {"dog": 1}}
    in_order = {"train": [3, 2], "test": [0, 1]}
    pages = [
        read(TrainingReport(classes=["cat", "dog"], data={"name": "pets", "counts": counts}))
        for counts in (by_name, in_order)
    ]
    assert pages[0].text("data") == pages[1].text("data")
    assert "pets: 6 pictures of 2 classes" in pages[0].text("data")
    assert "from 2 (“dog”) to 3 (“cat”)" in pages[0].text("data")
