"""The Hessian's numbers against full Hessians by autograd, and verdicts on networks made ill."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import residua
from residua.errors import BadInput, ResiduaError
from residua.xray.checks.curvature import check
from residua.xray.curvature import curvature, stability_bound
from residua.xray.hessian import Hessian
from residua.xray.objective import Objective, cast
from residua.xray.subject import Subject


class Bowl(nn.Module):
    """The loss is 1/2 sum_i c_i w_i^2, whatever the input."""

    def __init__(self, curvatures: torch.Tensor) -> None:
        super().__init__()
        self.curvatures = curvatures
        self.w = nn.Parameter(torch.ones_like(curvatures))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * (self.curvatures * self.w.square()).sum() + 0 * x.sum()


def bowl(curvatures: torch.Tensor, **options: object) -> Subject:
    return Subject(Bowl(curvatures), torch.zeros(2), None, lambda out, _: out, **options)


def full_hessian(objective: Objective) -> torch.Tensor:
    """Return the mean of the batches' Hessians, column by column of autograd."""
    total = torch.zeros(objective.size, objective.size, dtype=objective.dtype)
    for index in range(len(objective)):
        gradient = torch.cat(
            [g.reshape(-1) for g in objective.derivatives(objective.value(index), True)]
        )
        for row in range(objective.size):
            columns = torch.autograd.grad(
                gradient[row], objective.parameters, retain_graph=True, materialize_grads=True
            )
            total[row] += objective.flat(columns) / len(objective)
    return total


class Shared(nn.Module):
    """A ReLU network that uses one layer twice, with a norm and an unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.out = nn.Linear(3, 2)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.inside(x)))
        return self.out(torch.tanh(self.inside(x)))


def shared() -> Subject:
    torch.manual_seed(1)
    return Subject(Shared(), torch.randn(8, 3), torch.randint(0, 2, (8,)))


@pytest.mark.parametrize("statistics", ["batch", "detached", "running"])
@pytest.mark.parametrize("keep_graph", [True, False])
def test_products_are_those_of_the_full_hessian(statistics, keep_graph):
    subject = shared()
    with subject.running(statistics):
        objective = Objective(subject, dtype=torch.float64)
        full = full_hessian(objective)
        hessian = Hessian(objective, keep_graph)
        vector = torch.randn(objective.size, dtype=torch.float64)
        for _ in range(2):
            assert torch.allclose(hessian(vector), full @ vector, atol=1e-10)
    assert hessian.method == "exact" and hessian.products == 2


def test_statistics_decide_which_hessian_it_is():
    found = {s: curvature(shared(), statistics=s, steps=20) for s in ("batch", "running")}
    assert found["batch"].summary["statistics"] == "batch"
    assert "batch statistics" in found["batch"].notes[0]
    assert found["batch"].summary["largest"] != pytest.approx(found["running"].summary["largest"])


def test_extremes_trace_and_residuals_against_the_full_hessian_over_two_batches():
    subject = shared()
    torch.manual_seed(2)
    batches = [(torch.randn(6, 3), torch.randint(0, 2, (6,))) for _ in range(2)]
    with subject.running("batch"):
        true = torch.linalg.eigvalsh(full_hessian(Objective(subject, batches, torch.float64)))
    found = curvature(subject, steps=12, probes=30, depth=3, batches=batches, dtype=torch.float64)
    facts = found.summary
    assert facts["largest"] <= true[-1] + 1e-9
    assert true[-1] - facts["largest"] <= facts["largest_residual"] + 1e-9
    assert facts["smallest"] - true[0] <= facts["smallest_residual"] + 1e-9
    assert abs(facts["trace"] - float(true.sum())) < 5 * facts["trace_error"] + 1e-9
    assert facts["batches"] == 2 and facts["precision"] == "float64"
    for value, residual in zip(
        found.tables["eigenvalues"]["value"], found.tables["eigenvalues"]["residual"], strict=True
    ):
        assert (true - value).abs().min() <= residual + 1e-9


def test_a_quadratic_gives_its_spectrum_back():
    values = torch.tensor([-2.0, 0.5, 1, 4, 9], dtype=torch.float64)
    facts = curvature(bowl(values), steps=5, probes=2, depth=5).summary
    assert facts["largest"] == pytest.approx(9.0)
    assert facts["smallest"] == pytest.approx(-2.0)
    assert facts["trace"] == pytest.approx(12.5)
    assert facts["along_gradient"] == pytest.approx(float((values**3).sum() / (values**2).sum()))
    assert facts["negative_share"] == pytest.approx(0.2)
    assert facts["products"] == 15


def test_a_linear_loss_has_no_curvature():
    torch.manual_seed(0)
    facts = curvature(Subject(nn.Linear(3, 2), torch.randn(4, 3)), probes=2).summary
    assert (facts["largest"], facts["smallest"], facts["trace"]) == (0.0, 0.0, 0.0)


def test_at_a_critical_point_lanczos_starts_at_random():
    subject = bowl(torch.tensor([1.0, 3.0]))
    nn.init.zeros_(subject.model.w)
    facts = curvature(subject, steps=2).summary
    assert facts["along_gradient"] is None and facts["largest"] == pytest.approx(3.0)


class _OnceOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Once(nn.Module):
    def __init__(self, power: int) -> None:
        super().__init__()
        self.power = power
        self.w = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = _OnceOnly.apply(self.w)
        if self.power == 2:
            squares = squares.square()
        return (squares * torch.tensor([1.0, 2.0, 5.0])).sum() + 0 * x.sum()


@pytest.mark.parametrize(("power", "largest"), [(1, 2 * 5.0), (2, 12 * 5.0 * 3**2)])
def test_what_cannot_be_differentiated_twice_is_differenced_and_says_so(power, largest):
    model = Once(power)
    before = model.w.detach().clone()
    facts = curvature(Subject(model, torch.zeros(1), None, lambda out, _: out), steps=3).summary
    assert facts["method"] == "finite differences"
    assert facts["largest"] == pytest.approx(largest, rel=1e-3)
    assert torch.equal(model.w, before)


def test_an_error_of_the_network_is_not_taken_for_a_missing_derivative():
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.calls = nn.Parameter(torch.ones(2)), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            if self.calls > 1:
                raise NotImplementedError("my layer is not implemented for this batch")
            return self.w.square().sum() + 0 * x.sum()

    subject = Subject(Failing(), torch.zeros(2), None, lambda out, _: out)
    hessian = Hessian(Objective(subject, dtype=torch.float32), keep_graph=False)
    with pytest.raises(NotImplementedError, match="my layer"):
        hessian(torch.ones(2))
    assert hessian.method == "exact"


def test_attention_can_be_differentiated_twice():
    class Attend(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read = nn.Linear(4, 12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.read(x).chunk(3, dim=-1)
            return F.scaled_dot_product_attention(q, k, v)

    torch.manual_seed(0)
    facts = curvature(Subject(Attend(), torch.randn(2, 1, 3, 4)), steps=2).summary
    assert facts["method"] == "exact" and facts["largest"] > 0


def test_networks_that_recompute_have_the_curvature_of_those_that_do_not():
    def largest(**options: object) -> float:
        torch.manual_seed(0)
        model = residua.create_model("densenet40_12_cifar", num_classes=3, **options)
        subject = Subject(model, torch.randn(3, 3, 8, 8), torch.tensor([0, 1, 2]))
        return float(curvature(subject, steps=1).summary["largest"])

    assert largest(memory_efficient=True) == pytest.approx(largest(), rel=1e-4)


def test_half_precision_is_measured_in_single_and_comes_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(torch.bfloat16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(5, 3, dtype=torch.bfloat16)
    facts = curvature(Subject(model, x, torch.randint(0, 2, (5,)))).summary
    assert facts["precision"] == "float32"
    assert all(
        torch.equal(v, before[k]) and v.dtype == torch.bfloat16
        for k, v in model.state_dict().items()
    )


def test_the_model_comes_back_untouched_and_the_seed_decides_everything():
    subject = shared()
    before = {k: v.clone() for k, v in subject.model.state_dict().items()}
    state = torch.get_rng_state()
    first = curvature(subject, probes=2, dtype=torch.float64)
    second = curvature(subject, probes=2, dtype=torch.float64)
    assert first.summary == second.summary
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in subject.model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in subject.model.parameters())


def test_functional_dropout_draws_the_same_numbers_at_every_evaluation():
    class Drop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(F.dropout(x, 0.5, self.training))

    subject = Subject(Drop(), torch.randn(4, 6), torch.randint(0, 2, (4,)))
    with subject.running("batch"):
        objective = Objective(subject)
        assert objective.gradient(0)[0] == objective.gradient(0)[0]


def test_effort_decides_the_number_of_products():
    quick = bowl(torch.ones(20).cumsum(0), effort="quick")
    assert curvature(quick).summary["products"] == 1
    assert curvature(bowl(torch.ones(20).cumsum(0))).summary["products"] == 2


def test_progress_ends_at_one():
    said: list[float] = []
    curvature(
        bowl(torch.arange(9.0)),
        steps=4,
        probes=1,
        depth=2,
        progress=lambda done, _: said.append(done),
    )
    assert said == sorted(said) and said[-1] == 1.0


def test_bad_options_and_losses_get_one_line():
    with pytest.raises(BadInput, match="must be 1 or more"):
        curvature(bowl(torch.ones(2)), steps=0)
    with pytest.raises(BadInput, match="no batch"):
        curvature(bowl(torch.ones(2)), batches=[])
    frozen = bowl(torch.ones(2))
    frozen.model.requires_grad_(False)
    with pytest.raises(BadInput, match="no trainable parameter"):
        curvature(frozen)
    with pytest.raises(ResiduaError, match="not finite"):
        curvature(bowl(torch.tensor([1.0, float("inf")])))


def test_the_density_figure_is_small_and_marks_the_bound_of_stability():
    found = curvature(bowl(torch.arange(1.0, 30)), probes=3, depth=6, learning_rate=0.1)
    figure = found.figures["density"]
    assert figure["layout"]["shapes"][0]["x0"] == stability_bound(0.1) == 20.0
    assert all(len(trace["x"]) <= 2000 for trace in figure["data"])
    assert len(found.tables["density"]) == 201


def test_casting_reaches_nested_inputs():
    nest = {"a": (torch.ones(2), [torch.ones(1, dtype=torch.int64)]), "b": None}
    out = cast(nest, torch.float64)
    assert out["a"][0].dtype == torch.float64 and out["a"][1][0].dtype == torch.int64


def test_a_rate_beyond_the_stability_bound_is_a_finding_and_diverges_below_it_is_neither():
    curvatures = torch.tensor([1.0, 30.0])
    for rate, ill in ((0.1, True), (0.05, False)):
        subject = bowl(curvatures)
        findings = check(subject, curvature(subject, learning_rate=rate))
        weights = torch.ones(2)
        for _ in range(50):
            weights = weights - rate * curvatures * weights  # gradient descent itself
        assert bool(findings) == ill == bool(weights.abs().max() > 1)
        if ill:
            assert findings[0].evidence[0].measured == pytest.approx(30.0)
            assert findings[0].evidence[0].expected == pytest.approx(20.0)


def test_momentum_moves_the_bound_as_heavy_ball_does():
    curvatures = torch.tensor([1.0, 30.0])
    for momentum, ill in ((0.4, True), (0.6, False)):
        subject = bowl(curvatures)
        found = check(subject, curvature(subject, learning_rate=0.1, momentum=momentum))
        weights, speed = torch.ones(2), torch.zeros(2)
        for _ in range(300):
            speed = momentum * speed + curvatures * weights
            weights = weights - 0.1 * speed
        assert bool(found) == ill == bool(weights.abs().max() > 1)


def test_a_rate_too_large_is_a_warning_without_norms_and_a_note_with_them():
    def severity(model: nn.Module) -> str:
        subject = Subject(model, torch.randn(8, 3), torch.randint(0, 2, (8,)))
        return check(subject, curvature(subject, learning_rate=1e4))[0].severity

    torch.manual_seed(0)
    assert severity(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))) == "warning"
    assert severity(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))) == "note"


def test_without_a_learning_rate_there_is_no_verdict():
    subject = bowl(torch.tensor([1e6, 1.0]))
    assert check(subject, curvature(subject)) == []
