"""One call looks at a network: what it returns, what it leaves alone, and what it says when it cannot."""

import inspect
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import residua
from residua.errors import BadInput
from residua.xray import Evidence, Finding, Result, Subject, analyses, examine
from residua.xray.ranking import deviation, ranked

CHEAP = ["anatomy", "singularities"]


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


def network(blocks: int = 3) -> nn.Module:
    torch.manual_seed(0)
    body = [Block() for _ in range(blocks)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *body, *head)


def batch() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def use(monkeypatch: pytest.MonkeyPatch, **functions) -> None:
    """Put analyses of these names in the place of those that there are."""
    known = {}
    for name, function in functions.items():
        module = type(sys)(f"residua.xray.{name}")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, f"residua.xray.{name}", module)
        known[name] = analyses.Analysis(name, f"what {name} says", quick=True)
    monkeypatch.setattr(analyses, "ANALYSES", known)


def finding(check: str = "a check", severity: str = "note", **more) -> Finding:
    return Finding(
        check, severity, more.pop("confidence", "high"), more.pop("what", "It is so."), **more
    )


def test_the_package_is_its_own_function():
    from residua.xray.laws import moments

    assert residua.xray.laws.moments is moments
    assert residua.xray.Subject is Subject
    report = residua.xray(network(), batch(), analyses=["anatomy"])
    assert len(report.table("anatomy")) == 3
    assert list(inspect.signature(residua.xray).parameters)[:4] == [
        "model",
        "batch",
        "targets",
        "loss",
    ]


def test_importing_residua_does_not_import_the_x_ray():
    code = "import residua, sys; print([m for m in sys.modules if m.startswith('residua.xray')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_units_are_those_of_the_network():
    units = residua.anatomy(network(), batch()).units
    report = residua.xray(network(), batch(), analyses=CHEAP)
    assert [unit.name for unit in units] == report.table("anatomy")["unit"] == ["1", "2", "3"]
    assert report.results["anatomy"].summary["paths"] == 2**3
    assert [row["name"] for row in report.units] == ["1", "2", "3"]
    assert report.facts["inputs"] == [[4, 3, 8, 8]] and report.facts["outputs"] == [[4, 5]]


def test_a_network_without_units_is_looked_at_all_the_same():
    report = residua.xray(nn.Linear(3, 2), torch.randn(4, 3), analyses=CHEAP)
    assert report.not_done == [f"anatomy: {report.no_units}"]
    assert "no addition or concatenation" in report.no_units
    assert list(report.results) == ["singularities"]


def test_the_model_and_the_random_state_come_back_bit_for_bit():
    model, inputs = network().train(), batch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(3)
    drawn = torch.get_rng_state()
    residua.xray(model, inputs, torch.tensor([0, 1, 2, 3]), effort="quick")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_two_looks_give_the_same_numbers():
    first, second = (residua.xray(network(), batch(), analyses=CHEAP).as_json() for _ in range(2))
    assert first["analyses"] == second["analyses"]


def test_an_analysis_that_cannot_be_done_is_a_line_and_the_others_are_done(monkeypatch):
    def refuses(subject):
        raise BadInput("there are no norms")

    def fails(subject):
        raise ZeroDivisionError("by zero")

    use(monkeypatch, refuses=refuses, fails=fails, works=lambda subject: Result("works"))
    report = residua.xray(network(), batch())
    assert report.not_done[0] == "refuses: there are no norms"
    assert report.not_done[1].startswith("fails: internal error at test_examine.py:")
    assert report.not_done[1].endswith("ZeroDivisionError: by zero")
    assert list(report.results) == ["works"]
    assert "not done: refuses: there are no norms" in str(report)


def test_a_check_that_fails_keeps_the_measurement(monkeypatch):
    use(monkeypatch, works=lambda subject: Result("works", {"a": 1}))
    monkeypatch.setattr(analyses.Analysis, "check", lambda *_: 1 / 0)
    report = residua.xray(network(), batch())
    assert report.results["works"].summary == {"a": 1}
    assert "ZeroDivisionError" in report.not_done[0]


def test_an_interruption_passes_and_leaves_the_model_as_it_was(monkeypatch):
    def interrupted(subject):
        with subject.running("batch") as model:
            subject.forward()
            next(iter(model.parameters())).data.zero_()
            raise KeyboardInterrupt

    use(monkeypatch, interrupted=interrupted)
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        residua.xray(model, batch())
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_an_analysis_gets_what_it_takes_and_tells_how_far_it_is(monkeypatch):
    got = {}

    def half(subject, *, progress, learning_rate=None):
        got["rate"] = learning_rate
        progress(0.5, "half way")
        return Result("half")

    use(monkeypatch, first=lambda subject: Result("first"), half=half)
    told = []
    residua.xray(
        network(), batch(), effort="quick", learning_rate=0.1, progress=lambda *x: told.append(x)
    )
    assert got == {"rate": 0.1}
    assert told == [(0.0, "first"), (0.5, "half"), (0.75, "half way"), (1.0, "done")]


def test_quick_runs_the_quick_ones_only(monkeypatch):
    use(monkeypatch, fast=lambda subject: Result("fast"), slow=lambda subject: Result("slow"))
    analyses.ANALYSES["slow"] = analyses.Analysis("slow", "", quick=False)
    assert list(residua.xray(network(), batch(), effort="quick").results) == ["fast"]
    assert list(residua.xray(network(), batch()).results) == ["fast", "slow"]


def test_every_registered_analysis_is_there_and_says_what_it_is():
    for name, analysis in analyses.ANALYSES.items():
        assert analysis.name == name and analysis.help
        module = pytest.importorskip(f"residua.xray.{analysis.function or name}")
        assert callable(getattr(module, analysis.function or name))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: residua.xray(network(), batch(), analyses=["anatomi"]), "Did you mean anatomy?"),
        (lambda: residua.xray(network(), batch(), effort="hard"), "expected quick or normal"),
        (lambda: residua.xray("resnet50", batch()), "expected a torch.nn.Module to x-ray, not str"),
        (
            lambda: residua.xray(network(), torch.ones(2, 7, 8, 8)),
            "does not run on this batch: Runtime",
        ),
        (lambda: residua.xray(network(), batch(), torch.ones(9)), "the loss cannot be computed: "),
        (lambda: residua.xray(network(), ()), "the batch holds no tensor"),
        (
            lambda: residua.xray(network(), batch(), analyses=CHEAP).table("x"),
            "There are anatomy.units",
        ),
    ],
)
def test_bad_input_gets_one_line(call, said):
    with pytest.raises(BadInput) as failure:
        call()
    assert said in str(failure.value) and "\n" not in str(failure.value)


def test_findings_come_in_the_order_of_severity_confidence_and_distance():
    def at(measured: float) -> tuple[Evidence, ...]:
        return (Evidence("growth", measured, "constant", expected=1.0),)

    near, far = finding("near", evidence=at(1.1)), finding("far", evidence=at(0.1))
    endless = finding("endless", evidence=at(math.inf))
    unsure = finding("unsure", confidence="low", evidence=at(9.0))
    severe = finding("severe", "severe", confidence="low")
    order = ranked([unsure, near, far, severe, endless])
    assert [f.check for f in order] == ["severe", "endless", "far", "near", "unsure"]
    assert deviation(far) == pytest.approx(math.log(10))


def test_distance_is_in_half_widths_of_the_interval_where_signs_differ():
    off = Evidence("mean", -0.3, "0", expected=0.0, interval=(-0.4, -0.2))
    assert deviation(finding(evidence=(off,))) == pytest.approx(3.0)


def test_one_check_in_many_places_is_one_finding_that_lists_them():
    rows = [
        finding("dead", where=(f"layer{i}",), lines=(f"net.py:{i % 2}",), what=f"layer{i} is dead.",
                evidence=(Evidence("dead", i / 10, "law", expected=0.05),))
        for i in range(4)
    ]  # fmt: skip
    (only,) = ranked([*rows, rows[1]])
    assert only.where == ("layer0", "layer1", "layer2", "layer3")
    assert only.lines == ("net.py:0", "net.py:1")
    assert only.what == "layer3 is dead. The same in 3 more places."
    assert only.evidence == rows[3].evidence


def test_a_check_of_two_severities_stays_two_findings():
    both = ranked([finding("dead", "note", where=("a",)), finding("dead", "severe", where=("b",))])
    assert [(f.severity, f.where) for f in both] == [("severe", ("b",)), ("note", ("a",))]


def test_the_report_reads_as_text_and_in_a_notebook(monkeypatch):
    use(monkeypatch, one=lambda subject: Result("one"))
    evidence = Evidence("growth", 2.01, "second moment 2^K", 1.0, (1.9, 2.1), 5, "seeds")
    found = finding(
        "explosion", "severe", what="It <explodes>.", where=("a",), lines=("net.py:3",),
        evidence=(evidence,), remedy="Scale by 1/sqrt 2.",
    )  # fmt: skip
    monkeypatch.setattr(analyses.Analysis, "check", lambda *_: [found])
    report = residua.xray(network(), batch(), name="mine")
    text = str(report)
    assert text.startswith("mine: 1\xa0severe finding\n\nsevere: It <explodes>. [high confidence]")
    assert (
        "evidence: growth 2.01 (95 % interval 1.90 to 2.10), expected 1; second moment 2^K" in text
    )
    assert "  where: a\n  lines: net.py:3" in text and "  remedy: Scale by 1/sqrt 2." in text
    assert "It &lt;explodes&gt;." in report._repr_html_()
    assert report.as_json()["findings"][0]["check"] == "explosion"


def test_the_signature_of_the_verb_in_python_is_documented():
    for name in inspect.signature(examine.xray).parameters:
        assert name in (examine.xray.__doc__ or "") or name == "name"
