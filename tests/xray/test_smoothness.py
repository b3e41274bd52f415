"""Smoothness along the gradient against the closed forms of a quadratic, verdicts against descent itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import residua
from residua.errors import BadInput
from residua.xray.checks.smoothness import check
from residua.xray.smoothness import RELATIVE_STEP, smoothness
from residua.xray.subject import Subject


class Quadratic(nn.Module):
    """L = 1/2 w.H w + x.w, so that g = H w + mean of x."""

    def __init__(self, hessian: torch.Tensor, start: torch.Tensor) -> None:
        super().__init__()
        self.hessian = hessian
        self.w = nn.Parameter(start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * self.w @ self.hessian @ self.w + x.mean(0) @ self.w


def quadratic(**options: object) -> tuple[Subject, torch.Tensor]:
    torch.manual_seed(0)
    root = torch.randn(5, 5, dtype=torch.float64)
    hessian = root @ root.T
    model = Quadratic(hessian, torch.randn(5, dtype=torch.float64))
    x = torch.randn(4, 5, dtype=torch.float64)
    return Subject(model, x, None, lambda out, _: out, **options), hessian


def test_on_a_quadratic_the_three_measures_are_closed_forms():
    subject, hessian = quadratic()
    w, x = subject.model.w.detach(), subject.inputs
    g = hessian @ w + x.mean(0)
    found = smoothness(subject, learning_rate=0.01, multiples=(0.5, 1, 2, 4))
    for row in found.tables["steps"].rows:
        eta = 0.01 * row["multiple"]
        assert row["loss_change"] == pytest.approx(
            float(-eta * g @ g + eta**2 / 2 * g @ hessian @ g)
        )
        assert row["predictiveness"] == pytest.approx(float(eta * (hessian @ g).norm()))
        assert row["beta"] == pytest.approx(float((hessian @ g).norm() / g.norm()))
        turned = g - eta * hessian @ g
        assert row["cosine"] == pytest.approx(float(torch.cosine_similarity(g, turned, dim=0)))
    facts = found.summary
    changes = [0.0, *found.tables["steps"]["loss_change"]]
    assert facts["loss_variation"] == pytest.approx(max(changes) - min(changes))
    assert facts["effective_beta"] == pytest.approx(float((hessian @ g).norm() / g.norm()))


def test_without_a_step_nothing_changes():
    row = smoothness(quadratic()[0], learning_rate=0.1, multiples=[0.0]).tables["steps"].rows[0]
    assert [row[k] for k in ("distance", "loss_change", "predictiveness", "beta")] == [0.0] * 4
    assert row["cosine"] == pytest.approx(1.0)


def test_without_a_learning_rate_the_unit_step_is_a_share_of_the_weights_length():
    subject, _ = quadratic()
    found = smoothness(subject, multiples=(1.0,))
    length = float(subject.model.w.detach().norm())
    assert found.tables["steps"]["distance"] == [pytest.approx(RELATIVE_STEP * length)]
    assert "of their length" in found.notes[0]


def test_a_point_without_gradient_has_no_path():
    subject, _ = quadratic()
    subject.inputs = torch.zeros(4, 5, dtype=torch.float64)
    nn.init.zeros_(subject.model.w)
    row = smoothness(subject, multiples=(1.0,)).tables["steps"].rows[0]
    assert (row["beta"], row["loss_change"], row["cosine"]) == (0.0, 0.0, None)


def test_spread_is_over_batches_and_seeds():
    def build(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))

    torch.manual_seed(0)
    batches = [(torch.randn(6, 3), torch.randint(0, 2, (6,))) for _ in range(2)]
    subject = Subject(build(0), *batches[0], rebuild=build)
    found = smoothness(subject, batches=batches, seeds=(1, 2), multiples=(1.0, 2.0))
    assert found.summary["n"] == 6 and len(found.tables["steps"]) == 12
    spread = found.tables["spread"].rows[0]
    assert spread["n"] == 6 and spread["beta_low"] < spread["beta"] < spread["beta_high"]
    alone = smoothness(Subject(build(1), *batches[1], seed=1), multiples=(1.0,)).tables["steps"]
    same = [r for r in found.tables["steps"].rows if (r["seed"], r["batch"]) == (1, 1)]
    assert same[0]["beta"] == pytest.approx(alone["beta"][0])


@pytest.mark.parametrize("statistics", ["batch", "detached", "running"])
def test_the_model_comes_back_untouched(statistics):
    model = residua.create_model("resnet20_cifar", num_classes=4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    subject = Subject(model, torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))
    state = torch.get_rng_state()
    found = smoothness(subject, statistics=statistics, dtype=torch.float64)
    assert found.summary["statistics"] == statistics
    assert all(
        torch.equal(v, before[k]) and v.dtype == before[k].dtype
        for k, v in model.state_dict().items()
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_effort_decides_the_number_of_steps():
    assert len(smoothness(quadratic(effort="quick")[0]).tables["steps"]) == 1
    assert len(smoothness(quadratic()[0]).tables["steps"]) == 2


def test_bad_options_get_one_line():
    subject, _ = quadratic()
    for options in ({"multiples": []}, {"multiples": [-1]}, {"learning_rate": 0.0}):
        with pytest.raises(BadInput, match="not negative"):
            smoothness(subject, **options)
    with pytest.raises(BadInput, match="rebuild"):
        smoothness(subject, seeds=(1,))


def test_the_figure_has_a_panel_for_each_measure():
    figure = smoothness(quadratic()[0], learning_rate=0.01).figures["smoothness"]
    assert len(figure["data"]) == 3
    assert all("text" in figure["layout"][f"yaxis{i}"]["title"] for i in ("", 2, 3))


def test_a_step_that_raises_the_loss_is_a_finding_and_a_shorter_one_is_none():
    subject, hessian = quadratic()
    w = subject.model.w.detach()
    g = hessian @ w + subject.inputs.mean(0)
    turning = 2 * float(g @ g / (g @ hessian @ g))  # beyond, the loss is above where it began
    for rate, ill in ((1.05 * turning, True), (0.95 * turning, False)):
        findings = check(subject, smoothness(subject, learning_rate=rate))
        with torch.no_grad():
            there = Quadratic(hessian, w - rate * g)(subject.inputs)
            rises = bool(there > subject.model(subject.inputs))
        assert bool(findings) == ill == rises
    assert check(subject, smoothness(subject)) == []


def test_a_step_to_overflow_is_severe():
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor([-3.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(self.w.square()).sum() + 0 * x.sum()

    subject = Subject(Steep(), torch.zeros(1), None, lambda out, _: out)
    found = smoothness(subject, learning_rate=1.0)
    assert found.summary["overflows"] == 2 and found.tables["spread"]["loss_change"] == [None, None]
    assert check(subject, found)[0].severity == "severe"
    assert check(subject, smoothness(subject, learning_rate=1e-6)) == []
