"""A realistic training to look at: real digits, a real (small) classifier, drawn traces.

`python tests/report/example.py OUT.html [KIND]` writes the page; KIND is one of `KINDS`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from residua.report.training import TrainingReport, write_training_report

STAGES = ["stem", "stage1", "stage2", "stage3", "head"]
HOSTILE = [
    "<script>alert(1)</script>",
    "\"quoted\" & 'single'",
    "</script><img src=x onerror=alert(2)>",
    "line\u2028separator",
    "%{y} <b>bold</b> $x^2$",
    "{{ 7 * 7 }}",
    "javascript:alert(3)",
    "a very long class name that never seems to want to come to any end at all, really",
    "日本語のクラス",
    "-->",
]


def scores(truth: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Score predictions as the report wants them. truth: (N,), probabilities: (N, K)."""
    n, k = probabilities.shape
    answer, confidence = probabilities.argmax(1), probabilities.max(1)
    right = answer == truth
    confusion = np.zeros((k, k), int)
    np.add.at(confusion, (truth, answer), 1)
    per_class = []
    for label, name in enumerate(classes):
        hit, called = confusion[label, label], confusion[:, label].sum()
        support = confusion[label].sum()
        precision, recall = hit / called if called else 0.0, hit / support if support else 0.0
        f1 = 2 * precision * recall / (precision + recall) if hit else 0.0
        row = {"name": name, "precision": precision, "recall": recall, "f1": f1}
        per_class.append(row | {"support": int(support)})
    bins, ece = [], 0.0
    for low in np.arange(0, 1, 1 / 15):
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        number = int(inside.sum())
        said = float(confidence[inside].mean()) if number else float("nan")
        held = float(right[inside].mean()) if number else float("nan")
        bins.append({"confidence": said, "accuracy": held, "count": number})
        ece += number / n * abs(said - held) if number else 0.0
    of_truth = probabilities[np.arange(n), truth]
    ranks = (probabilities > of_truth[:, None]).sum(1)
    return {
        "confusion": confusion.tolist(),
        "per_class": per_class,
        "calibration": {"ece": ece, "bins": bins},
        "summary": {
            "accuracy": float(right.mean()),
            "top5": float((ranks < 5).mean()),
            "loss": float(-np.log(of_truth + 1e-12).mean()),
            "split": "test",
            "n": n,
        },
    }


def history_and_steps(epochs: int, steps_per_epoch: int) -> dict[str, Any]:
    """Draw plausible learning curves with noise."""
    rng = np.random.default_rng(0)
    total = epochs * steps_per_epoch
    at = np.arange(1, total + 1)
    done = at / total
    rate = 0.4 * np.where(done < 0.2, done / 0.2, 0.5 * (1 + np.cos(np.pi * (done - 0.2) / 0.8)))
    base = 2.3 * np.exp(-4 * at / total) + 0.08
    noisy = base * np.exp(0.2 * rng.standard_normal(total))
    speed = 2400 + 120 * rng.standard_normal(total)
    steps = [
        {"step": int(s), "loss": float(noisy[s - 1]), "lr": float(rate[s - 1]),
         "pictures_per_second": float(speed[s - 1])}
        for s in at
    ]  # fmt: skip
    history = []
    for epoch in range(1, epochs + 1):
        s, part = epoch * steps_per_epoch, epoch / epochs
        history.append(
            {
                "step": s,
                "epoch": float(epoch),
                "minutes": 9.95 * part,
                "train_loss": float(base[s - 1]),
                "val_loss": float(base[s - 1] * 1.1 + 0.05 * rng.random()),
                "val_accuracy": float(0.97 - 0.85 * np.exp(-5 * part) + 0.01 * rng.random()),
                "lr": float(rate[s - 1]),
            }
        )
    return {"history": history, "steps": steps}


def recorder(total: int) -> dict[str, Any]:
    """Draw plausible traces of the flight recorder."""
    rng = np.random.default_rng(1)
    steps = np.linspace(1, total, 120).astype(int)
    done = steps / total
    traces: dict[str, Any] = {}
    shapes = {
        "gradient_norm": lambda i: 0.8 * np.exp(-2 * done) * (1 + 0.4 * i),
        "shortcut_second_moment": lambda i: 0.5 + 0.6 * i + 0.3 * np.sqrt(done),
        "branch_second_moment": lambda i: (0.02 + done**0.5) * (0.4 + 0.1 * i),
        "dead_share": lambda i: 0.01 * i + 0.04 * done,
        "update_ratio": lambda i: 3e-3 * (1 - 0.95 * done) / (1 + 0.3 * i),
    }
    for key, shape in shapes.items():
        values = {
            stage: (shape(i) * np.exp(0.08 * rng.standard_normal(len(steps)))).tolist()
            for i, stage in enumerate(STAGES)
        }
        traces[key] = {"steps": steps.tolist(), "values": values}
    return {"stages": STAGES, "traces": traces}


def digits() -> TrainingReport:
    """A complete report: real digits, and the real answers of a deliberately weak classifier."""
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    train, test = order[:180], order[180:]
    model = LogisticRegression(C=0.02, max_iter=300)
    model.fit(bunch.data[train] / 16, bunch.target[train])
    probabilities = model.predict_proba(bunch.data[test] / 16)
    probabilities = probabilities**9 / (probabilities**9).sum(1, keepdims=True)
    truth = bunch.target[test]
    classes = [str(d) for d in range(10)]
    answer, confidence = probabilities.argmax(1), probabilities.max(1)
    wrong = [i for i in np.argsort(-confidence) if answer[i] != truth[i]][:30]
    pictures = (bunch.images[test] / 16 * 255).round().astype(np.uint8)[..., None]
    mistakes = [
        {
            "name": f"digits/{test[i]:05d}",
            "picture": pictures[i],
            "truth": classes[truth[i]],
            "predicted": classes[answer[i]],
            "confidence": float(confidence[i]),
            "truth_confidence": float(probabilities[i, truth[i]]),
        }
        for i in wrong
    ]
    counts = {
        split: {name: int((bunch.target[part] == int(name)).sum()) for name in classes}
        for split, part in (("train", train[:160]), ("val", train[160:]), ("test", test))
    }
    return TrainingReport(
        title="digits, first try",
        command="residua train digits --model resnet20_cifar --recipe quick --budget 10m --seed 0",
        versions={"residua": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.9", "numpy": "2.4.0"},
        created="2026-01-05 14:03",
        device="2 CPU cores",
        duration_s=598.2,
        data={
            "name": "digits",
            "location": "scikit-learn, optical recognition of handwritten digits",
            "classes": classes,
            "counts": counts,
            "sizes": {"min": [8, 8], "median": [8, 8], "max": [8, 8]},
            "notes": ["No split was given: 10 % training, 80 % test, seed 0, stratified."],
            "check": "1,797 pictures readable\nno picture is in two splits",
        },
        model={
            "name": "resnet20_cifar",
            "parameters": 272_474,
            "multiply_adds": 40_813_184,
            "paper": "https://arxiv.org/abs/1512.03385",
            "options": {"in_channels": 1, "shortcut": "A", "norm": "batch"},
        },
        recipe={
            "name": "quick",
            "batch_size": 128,
            "optimiser": {"name": "sgd", "lr": 0.4, "momentum": 0.9, "nesterov": True},
            "schedule": {"name": "one-cycle", "warmup": 0.2},
            "augmentation": {"crop_padding": 1, "flip": False, "mixup": 0.0},
            "ema": 0.999,
            "label_smoothing": 0.1,
        },
        classes=classes,
        mistakes=mistakes,
        recorder=recorder(30 * 391),
        warnings=[
            {
                "step": 1412,
                "text": "The updates of stage3 were 3 % of its weights: the learning rate is too "
                "high for it. It recovered by step 1,520.",
            },
            {"step": 9020, "text": "12 % of the units of stage2 gave zero for a whole batch."},
        ],
        **scores(truth, probabilities, classes),
        **history_and_steps(30, 391),
    )


def hostile() -> TrainingReport:
    """The same training with names that try to break the page."""
    facts = digits()
    facts.title = facts.command = HOSTILE[2]
    facts.classes = HOSTILE
    facts.model = dict(facts.model) | {"name": HOSTILE[0], "paper": "javascript:alert(4)"}
    facts.device = HOSTILE[2]
    facts.data = dict(facts.data) | {"name": HOSTILE[0], "classes": HOSTILE, "notes": HOSTILE}
    facts.data["counts"] = {  # type: ignore[index]
        split: dict(zip(HOSTILE, counts.values(), strict=True))
        for split, counts in facts.data["counts"].items()
    }
    facts.data["check"] = "\n".join(HOSTILE)  # type: ignore[index]
    facts.recipe = {HOSTILE[0]: HOSTILE[2]}
    facts.versions = {HOSTILE[0]: HOSTILE[1]}
    for row, name in zip(facts.per_class, HOSTILE, strict=True):
        row["name"] = name  # type: ignore[index]
    for row in facts.mistakes:
        row["truth"], row["predicted"] = HOSTILE[int(row["truth"])], HOSTILE[2]  # type: ignore[index]
        row["name"] = "it's \"a\" file' onerror='alert(5)'.png"  # type: ignore[index]
    traces = recorder(2000)["traces"]
    for trace in traces.values():
        trace["values"] = dict(zip(HOSTILE, trace["values"].values(), strict=False))
    facts.recorder = {"stages": HOSTILE[:5], "traces": traces}
    facts.warnings = [{"step": 3, "text": text} for text in HOSTILE]
    return facts


def thousand() -> TrainingReport:
    """1,000 classes, 50,000 test pictures, 100,000 steps; classes are confused in families."""
    rng = np.random.default_rng(2)
    classes = [f"species {i:03d} of family {i // 10}" for i in range(1000)]
    truth = np.repeat(np.arange(1000), 50)
    logits = rng.standard_normal((len(truth), 1000)).astype(np.float32)
    logits[np.arange(len(truth)), truth] += 3.4
    for sibling in range(3):
        logits[np.arange(len(truth)), truth // 10 * 10 + sibling] += 2
    probabilities = np.exp(1.4 * logits)
    probabilities /= probabilities.sum(1, keepdims=True)
    facts = digits()
    facts.title = "A thousand species"
    facts.classes, facts.mistakes = classes, []
    facts.data = {
        "name": "species",
        "location": "pictures/species",
        "counts": {"train": [450] * 1000, "val": [50] * 1000, "test": [50] * 1000},
        "sizes": {"min": [96, 120], "median": [375, 500], "max": [2400, 3200]},
    }
    for key, value in {
        **scores(truth, probabilities, classes),
        **history_and_steps(100, 1000),
    }.items():
        setattr(facts, key, value)
    return facts


def empty() -> TrainingReport:
    """Nothing at all."""
    return TrainingReport()


KINDS = {"digits": digits, "hostile": hostile, "thousand": thousand, "empty": empty}

if __name__ == "__main__":
    kind = sys.argv[2] if len(sys.argv) > 2 else "digits"
    write_training_report(Path(sys.argv[1]), KINDS[kind]())
