"""Dead, always-on and saturated channels against hooks by hand, sampled laws, and units made ill."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from residua.models.registry import create_model, record
from residua.xray.activations import activations
from residua.xray.checks.activations import check
from residua.xray.laws.dead import (
    dead_share,
    far_margin,
    far_share,
    firing_bound,
    shared_correlation,
)
from residua.xray.nonlinear import EDGES, NEAR
from residua.xray.result import Table
from residua.xray.subject import Subject


class Written(nn.Module):
    """Calls its body with a convolution of four channels before it."""

    def __init__(self, body) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.conv(x))


class Reused(nn.Module):
    """One ReLU used three times, and a functional one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.norm(self.first(x)))
        y = F.relu(self.second(y), inplace=True)
        y = self.relu(x + self.third(y))
        return self.relu(y - 1).mean((2, 3))


def table(model: nn.Module, x: torch.Tensor, **options) -> Table:
    return activations(Subject(model, x), **options).tables["activations"]


def findings(model: nn.Module, x: torch.Tensor) -> list:
    subject = Subject(model, x)
    return check(subject, activations(subject))


def pictures(n: int = 8, size: int = 6, channels: int = 3) -> torch.Tensor:
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_the_counts_are_those_of_hooks_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:3], model[0].bias[3:5] = -50.0, 50.0
        model[2].bias[:2] = -1e4
    seen = []
    for layer in (model[1], model[3]):
        layer.register_forward_hook(lambda module, args, output: seen.append(output))
    x = pictures()
    found = table(model, x)
    seen.clear()
    model(x)
    assert found["dead"] == [int((y.amax((0, 2, 3)) == 0).sum()) for y in seen]
    assert found["always_on"] == [int((y.amin((0, 2, 3)) > 0).sum()) for y in seen]
    assert found["off_share"] == pytest.approx([float((y == 0).float().mean()) for y in seen])
    assert found["dead_channels"] == [np.flatnonzero(y.amax((0, 2, 3)) == 0).tolist() for y in seen]
    assert found["surely_dead"] == found["dead"]


def test_a_relu_used_three_times_and_a_functional_one_in_place_are_four_rows():
    found = table(Reused(), pictures())
    assert found["operation"] == ["relu"] * 4
    assert found["activation"] == ["relu #1", "the model", "relu #2", "relu #3"]


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        (F.relu, "relu"),
        (torch.relu_, "relu"),
        (lambda x: x.clamp(min=0), "relu"),
        (lambda x: x.clamp_min_(0), "relu"),
        (lambda x: torch.maximum(x, torch.zeros_like(x)), "relu"),
        (lambda x: torch.max(x, torch.zeros(())), "relu"),
        (lambda x: x * (x > 0), "relu"),
        (lambda x: torch.where(x > 0, x, torch.zeros_like(x)), "relu"),
        (lambda x: F.threshold(x, 0.0, 0.0), "threshold"),
        (F.relu6, "relu6"),
        (lambda x: x.clamp(0, 6), "relu6"),
        (nn.ReLU6(), "relu6"),
    ],
)
def test_every_spelling_of_relu_finds_the_channels_that_a_bias_killed(body, operation):
    model = Written(body)
    with torch.no_grad():
        model.conv.bias.copy_(torch.tensor([-90.0, 0.0, 3.0, -80.0]))
        model.conv.weight.clamp_(-0.1, 0.1)
    row = table(model, pictures()).rows[0]
    assert row["operation"].replace("hardtanh", "relu6") == operation
    assert (row["dead"], row["dead_channels"], row["surely_dead"]) == (2, [0, 3], 2)
    assert row["always_on"] == 1


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        (F.silu, "silu"),
        (lambda x: x * torch.sigmoid(x), "silu"),
        (lambda x: torch.sigmoid(1.702 * x) * x, "silu"),
        (F.gelu, "gelu"),
        (F.mish, "mish"),
        (F.hardswish, "hardswish"),
        (F.softplus, "softplus"),
    ],
)
def test_smooth_functions_are_off_far_below_zero_and_linear_far_above(body, operation):
    model = Written(body)
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.copy_(torch.tensor([-9.0, 0.0, 9.0, 0.0]))
    found = table(model, pictures())
    row = found.rows[0]
    assert found["operation"] == [operation]
    assert (row["dead_channels"], row["always_on"]) == ([0], 1)


@pytest.mark.parametrize("body", [F.leaky_relu, lambda x: torch.where(x > 0, x, 0.1 * x)])
def test_a_leaky_relu_is_never_dead_and_linear_on_either_side(body):
    model = Written(body)
    with torch.no_grad():
        model.conv.bias.copy_(torch.tensor([-90.0, 0.0, 90.0, 0.0]))
    row = table(model, pictures()).rows[0]
    assert (row["dead"], row["always_on"], row["operation"]) == (None, 2, "leaky_relu")


@pytest.mark.parametrize(
    ("body", "edge"),
    [
        (torch.tanh, math.atanh(0.99)),
        (torch.sigmoid, math.log(99)),
        (F.hardtanh, 1.0),
        (F.hardsigmoid, 3.0),
        (F.softsign, 99.0),
        (lambda x: F.relu6(x) + 0, 6.0),
    ],
)
def test_saturated_is_at_or_beyond_the_edge(body, edge):
    model = Written(body)
    with torch.no_grad():
        model.conv.weight.zero_()
        model.conv.bias.copy_(torch.tensor([0.99, 1.01, 0.0, 2.0]) * edge)
    row = table(model, pictures()).rows[0]
    assert (row["saturated"], row["saturated_share"]) == (2, 0.5)


@pytest.mark.parametrize("name", sorted(EDGES))
def test_at_its_edges_a_function_is_near_its_asymptotes(name):
    function = getattr(F, name, None) or getattr(torch, name)
    edges = EDGES[name]
    if edges.both:
        return
    x = torch.linspace(-150, 150, 300_001, dtype=torch.float64)
    y = function(x, torch.tensor(0.2, dtype=x.dtype)) if name == "prelu" else function(x)
    slack = NEAR * 1.001
    if edges.off is not None:
        assert float(y[x <= edges.off].abs().max()) <= slack
    if edges.linear is not None and name != "selu":  # selu's slope is not 1
        low, high = edges.linear
        inside = (x > low) & (x < high)
        assert float((y - x)[inside].abs().max()) <= slack
    for edge, end in ((edges.low, y[0]), (edges.high, y[-1])):
        if edge is not None and name not in ("elu", "celu", "selu"):
            assert float((function(torch.tensor(edge).double()) - end).abs()) <= slack * 2


def test_channels_are_the_last_dimension_after_a_linear_layer_and_the_first_after_a_convolution():
    words = nn.Sequential(nn.Linear(5, 7), nn.ReLU())
    assert table(words, torch.randn(4, 9, 5))["channels"] == [7]
    signal = nn.Sequential(nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6), nn.ReLU())
    assert table(signal, torch.randn(4, 5, 9))["channels"] == [6]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_counts_alike(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    with torch.no_grad():
        model[0].bias[:5] = -30
    x = torch.randn(16, 16)
    whole = table(model, x)["dead"]
    assert table(model.to(dtype), x.to(dtype))["dead"] == whole == [5]


def test_values_that_are_not_finite_are_counted_and_judge_nothing():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    subject = Subject(model, torch.randn(5, 3))
    result = activations(subject)
    assert result.tables["activations"]["not_finite"] == [5]
    assert check(subject, result) == []


def test_a_network_without_activations_has_an_empty_table():
    subject = Subject(nn.Linear(3, 4), torch.randn(5, 3))
    result = activations(subject)
    assert len(result.tables["activations"]) == 0 and not result.figures
    assert check(subject, result) == []


def test_a_network_that_does_more_in_training_is_recorded_again():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                x = x * 2 + 1
            return F.relu(self.norm(x))

    assert table(Net(), torch.randn(8, 3))["operation"] == ["relu"]


# --- the laws


@pytest.mark.parametrize(("c", "n"), [(0.0, 3), (0.3, 4), (0.9, 8), (0.999, 5)])
def test_the_share_of_dead_channels_is_that_of_sampled_ones(c, n):
    draw = np.random.default_rng(0)
    z = math.sqrt(c) * draw.standard_normal((200_000, 1)) + math.sqrt(1 - c) * draw.standard_normal(
        (200_000, n)
    )
    share = (z <= 0).all(1).mean()
    error = math.sqrt(share * (1 - share) / 200_000)
    assert dead_share(c, n) == pytest.approx(share, abs=4 * error)


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_at_correlation_one_half_the_share_is_one_over_n_plus_one(n):
    assert dead_share(0.5, n) == pytest.approx(1 / (n + 1), rel=1e-6)


def test_the_correlation_is_found_again_also_when_a_third_of_the_channels_is_shifted():
    draw = np.random.default_rng(0)
    c, n = 0.6, 400
    z = math.sqrt(c) * draw.standard_normal((3000, 1)) + math.sqrt(1 - c) * draw.standard_normal(
        (3000, n)
    )
    assert shared_correlation(z.mean(1), (z**2).mean(1)) == pytest.approx(c, abs=0.04)
    z[:300] -= 1000
    assert shared_correlation(z.mean(1), (z**2).mean(1)) == pytest.approx(c, abs=0.12)
    share = (z[300:].mean(1) <= -2 * z[300:].std(1)).mean()
    assert far_share(c, 2.0, n) == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(
    ("c", "n", "k"), [(0.0, 3, 1.5), (0.5, 4, 2.0), (0.9, 4, 5.0), (0.99, 8, 6.0)]
)
def test_of_a_few_samples_as_many_channels_are_far_below_zero_as_students_t_says(c, n, k):
    draw, channels = np.random.default_rng(0), 400_000
    z = math.sqrt(c) * draw.standard_normal((channels, 1))
    z = z + math.sqrt(1 - c) * draw.standard_normal((channels, n))
    share = (z.mean(1) <= -k * z.std(1)).mean()
    assert far_share(c, k, n) == pytest.approx(share, abs=4 * math.sqrt(share / channels))


def test_the_bound_is_the_rule_of_three_and_one_sample_says_nothing():
    assert firing_bound(1000) == pytest.approx(3 / 1000, rel=0.01)
    assert far_margin(1) == math.inf and far_margin(10_000) == pytest.approx(math.sqrt(19))


def test_a_wide_fresh_layer_without_norm_stays_below_the_law_and_not_far():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4000, bias=False), nn.ReLU())
    x = torch.randn(1, 64) + 0.7 * torch.randn(5, 64)
    row = table(model, x).rows[0]
    # the samples' own part of the mean counts as shared: c + (1 - c) / n, so that the law is an upper one
    assert 0.7 * row["law"] < row["dead_share"] < row["law"]


# --- verdicts


def ill_and_healthy(killed: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    pair = [
        nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 4, 3))
        for _ in range(2)
    ]
    with torch.no_grad():
        pair[0][1].bias[:killed] = -20.0
    return pair[0], pair[1]


@pytest.mark.parametrize(
    ("killed", "severity", "confidence"), [(1, "note", "medium"), (24, "warning", "high")]
)
def test_channels_that_a_bias_killed_are_found_and_the_healthy_twin_is_not(
    killed, severity, confidence
):
    ill, healthy = ill_and_healthy(killed)
    (finding,) = findings(ill, pictures())
    assert (finding.check, finding.where) == ("dead_channels", ("2",))
    assert (finding.severity, finding.confidence) == (severity, confidence)
    assert finding.evidence[0].measured == killed / 32
    assert findings(healthy, pictures()) == []


def test_a_layer_that_is_dead_as_a_whole_is_found_without_a_norm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU())
    assert findings(model, torch.randn(8, 6)) == []
    with torch.no_grad():
        model[2].bias -= 100
    (finding,) = findings(model, torch.randn(8, 6))
    assert finding.where == ("3",) and finding.evidence[0].measured == 1.0


def test_half_dead_as_parallel_inputs_make_it_is_no_finding():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(50, 400, bias=False), nn.ReLU())
    x = torch.randn(1, 50) + 1e-4 * torch.randn(8, 50)
    row = table(model, x).rows[0]
    assert row["surely_dead"] > 100
    assert findings(model, x) == []


def test_tanh_with_weights_that_are_too_large_is_saturated_and_with_glorots_is_not():
    def net(scale: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, 30), nn.Tanh())
        nn.init.normal_(model[0].weight, std=scale / math.sqrt(30))
        return model

    (finding,) = findings(net(10.0), torch.randn(16, 30))
    assert (finding.check, finding.severity) == ("saturated", "warning")
    assert findings(net(1.0), torch.randn(16, 30)) == []


def test_a_closed_gate_is_a_note():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.body = nn.Linear(8, 8), nn.Linear(8, 8)
            nn.init.constant_(self.gate.bias, -9.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.sigmoid(self.gate(x)) * self.body(x)

    (finding,) = findings(Gated(), torch.randn(16, 8))
    assert finding.severity == "note" and "gates" in finding.what


NAMES = ("resnet20_cifar", "fixup_resnet20_cifar", "highway19_cifar", "plain32_cifar")
MORE = (
    *("densenet40_12_cifar", "nf_resnet20_cifar", "skipinit_resnet20_cifar", "vgg16_bn_cifar"),
    *("preact_resnet20_cifar", "shake_shake26_2x32d_cifar", "wrn16_4_cifar", "resnet9_cifar"),
    *("stable_resnet20_cifar", "alexnet", "seresnet18", "resnet50d"),
)


@pytest.mark.parametrize(
    "name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
@pytest.mark.parametrize("flat", [False, True])
def test_no_registered_model_is_called_ill_at_its_own_initialisation(name, flat):
    torch.manual_seed(0)
    side = 32 if record(name).input_size <= 64 else max(64, record(name).smallest)
    x = torch.randn(4, 3, side, side)
    if flat:  # as pictures are: what neighbouring pixels share is most of them
        x = 0.1 * x + torch.rand(4, 3, 1, 1)
    assert findings(create_model(name), x) == []
