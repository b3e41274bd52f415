"""A remedy is tried on a copy of the very model, and what it changes is measured by the same analysis."""

import math
import sys

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.xray import Change, Evidence, Finding, Result, Subject, analyses
from residua.xray.remedies import measure_remedies


class Doubling(nn.Module):
    """y = factor (x + W x), W orthogonal: the second moment doubles with each block at factor 1."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        self.factor = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * (x + self.linear(x))


def growth(subject: Subject) -> Result:
    """The growth of the second moment a block."""
    with subject.running(), torch.no_grad():
        ratio = subject.forward().square().mean() / subject.inputs.square().mean()
    return Result("growth", {"growth": float(ratio) ** (1 / len(subject.model)), "law": "2^K"})


def prescribe(model: nn.Module, remedy: str, example: object = None) -> nn.Module:
    if remedy != "inv_sqrt2":
        raise BadInput(f"no remedy is called {remedy!r}")
    for block in model:
        block.factor = 1 / math.sqrt(2)
    return model


@pytest.fixture(autouse=True)
def _growth(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("residua.xray.growth_for_test")
    module.growth_for_test = growth
    monkeypatch.setitem(sys.modules, "residua.xray.growth_for_test", module)
    known = analyses.Analysis("growth", "", quick=True, function="growth_for_test")
    monkeypatch.setitem(analyses.ANALYSES, "growth", known)


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    return Subject(nn.Sequential(*(Doubling() for _ in range(6))), torch.randn(256, 16))


def finding(prescription: str | None = "inv_sqrt2", quantity: str = "growth") -> Finding:
    evidence = (Evidence(quantity, 2.0, "constant", expected=1.0),)
    return Finding(
        "explosion", "severe", "high", "It explodes.", evidence=evidence,
        prescription=prescription, analysis="growth",
    )  # fmt: skip


def test_half_the_power_after_each_addition_keeps_the_second_moment(subject):
    found, results = finding(), {"growth": growth(subject)}
    assert measure_remedies(subject, [found], results, prescribe=prescribe) == []
    change = found.change
    assert isinstance(change, Change) and change.quantity == "growth"
    assert change.before == results["growth"].summary["growth"]
    assert change.before == pytest.approx(2.0, rel=0.1)
    assert change.after == pytest.approx(change.before / 2)


def test_the_model_itself_keeps_its_fault(subject):
    weights = [p.clone() for p in subject.model.parameters()]
    measure_remedies(subject, [finding()], {"growth": growth(subject)}, prescribe=prescribe)
    assert all(block.factor == 1.0 for block in subject.model)
    assert all(torch.equal(a, b) for a, b in zip(weights, subject.model.parameters(), strict=True))


def test_a_remedy_is_tried_once_for_many_findings(subject):
    calls = []

    def counted(model, remedy, example=None):
        calls.append(remedy)
        return prescribe(model, remedy)

    found = [finding() for _ in range(4)]
    measure_remedies(subject, found, {"growth": growth(subject)}, prescribe=counted)
    assert calls == ["inv_sqrt2"]
    assert len({(f.change.before, f.change.after) for f in found}) == 1


def test_a_freshly_built_twin_gets_the_remedy_too(subject):
    seen = []

    def rebuilt(subject: Subject) -> Result:
        assert subject.rebuild is not None
        seen.append(subject.rebuild(0)[0].factor)
        return growth(subject)

    sys.modules["residua.xray.growth_for_test"].growth_for_test = rebuilt
    subject.rebuild = lambda seed: nn.Sequential(Doubling())
    measure_remedies(subject, [finding()], {"growth": growth(subject)}, prescribe=prescribe)
    assert seen == [1 / math.sqrt(2)]


@pytest.mark.parametrize(
    "found", [finding(prescription=None), finding(quantity="unheard of"), finding(quantity="law")]
)
def test_without_a_name_or_a_number_to_compare_nothing_is_tried(subject, found):
    def never(model, remedy, example=None):
        raise AssertionError

    assert measure_remedies(subject, [found], {"growth": growth(subject)}, prescribe=never) == []
    assert found.change is None


def test_a_remedy_that_cannot_be_tried_is_said_once(subject):
    found = [finding("homeopathy"), finding("homeopathy"), finding()]
    said = measure_remedies(subject, found, {"growth": growth(subject)}, prescribe=prescribe)
    assert said == [
        "The remedy homeopathy could not be tried on a copy: no remedy is called 'homeopathy'"
    ]
    assert [f.change is None for f in found] == [True, True, False]


def test_a_model_that_cannot_be_copied_is_said(subject):
    subject.model.kept = (i for i in range(3))
    (said,) = measure_remedies(
        subject, [finding()], {"growth": growth(subject)}, prescribe=prescribe
    )
    assert "TypeError: cannot pickle 'generator' object" in said
