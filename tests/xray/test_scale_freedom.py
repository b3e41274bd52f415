"""Scale freedom against gradients by hand, simulated training, and networks of either kind."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from residua.errors import BadInput
from residua.models.registry import create_model, record
from residua.xray.checks.scale_freedom import check
from residua.xray.laws.equilibrium import (
    equilibrium_angle,
    equilibrium_length,
    steps_until_half,
)
from residua.xray.result import Result
from residua.xray.scale_freedom import scale_freedom
from residua.xray.subject import Subject


def small(name: str, **options) -> Result:
    torch.manual_seed(0)
    subject = Subject(create_model(name, **options), torch.randn(4, 3, 16, 16), torch.arange(4))
    return scale_freedom(subject)


def free(result: Result) -> list[str]:
    table = result.tables["weights"]
    return [n for n, ok in zip(table["weight"], table["confirmed"], strict=True) if ok]


def of(body: nn.Module, x: torch.Tensor, **options) -> Result:
    return scale_freedom(Subject(body, x), **options)


def net(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear) and not isinstance(layer, nn.LazyLinear):
            layer.reset_parameters()
            if layer.bias is not None:
                nn.init.normal_(layer.bias)
    return nn.Sequential(*layers)


PICTURES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))


# --- which weights


def test_every_convolution_of_a_version_1_network_is_scale_free_and_exactly_so():
    result = small("resnet20_cifar")
    assert len(free(result)) == 19 and all("conv" in name for name in free(result))
    assert result.summary["output_change"] == 0.0
    assert max(result.tables["weights"]["gradient_error"]) == 0.0
    assert max(map(abs, result.tables["weights"]["cosine"])) < 1e-4


def test_in_a_pre_activation_network_what_is_added_is_not_scale_free():
    names = free(small("preact_resnet20_cifar"))
    assert names == [f"stages.{s}.{b}.skip.branch.conv1.weight" for s in range(3) for b in range(3)]


def test_in_a_densenet_every_reader_is_a_norm_and_every_convolution_scale_free():
    assert len(free(small("densenet40_12_cifar"))) == 39


@pytest.mark.parametrize(
    ("name", "options"),
    [("highway19_cifar", {}), ("fixup_resnet20_cifar", {}), ("resnet20_cifar", {"norm": "none"})],
)
def test_without_norms_nothing_is_scale_free(name, options):
    assert len(small(name, **options).tables["weights"]) == 0


@pytest.mark.parametrize(
    "norm", ["weight", "scaled_standardised", "group", "layer", "position", "ghost(2)"]
)
def test_other_norms_and_normalised_weights_are_found(norm):
    result = small("resnet20_cifar", norm=norm)
    assert (result.summary["refuted"], len(free(result))) == (0, 19)


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_torchs_own_normalised_weights_are_found(wrap):
    model = net(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    wrap(model[0])
    result = of(model, torch.randn(7, 6))
    (name,) = free(result)
    assert name.startswith("0.") and not name.endswith("original0")


@pytest.mark.parametrize(
    ("layers", "number"),
    [
        ((nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 1),  # its bias is subtracted
        ((nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), 0),  # means of two channels: the bias stays
        ((nn.Conv2d(3, 4, 3, bias=False), nn.GroupNorm(2, 4)), 1),
        ((nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 0),
        ((nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(4)), 1),
        ((nn.Conv2d(3, 4, 3, bias=False), nn.GELU(), nn.BatchNorm2d(4)), 0),
        ((nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5)), 2),
        ((nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)), 2),
        ((nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, padding=1), nn.BatchNorm2d(5)), 1),
        ((nn.Conv2d(3, 4, 3, bias=False), nn.ZeroPad2d(1), nn.BatchNorm2d(4)), 1),
        ((nn.Conv2d(3, 4, 3, bias=False), nn.ConstantPad2d(1, 1.0), nn.BatchNorm2d(4)), 0),
        ((nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)), 1),
        ((nn.Flatten(), nn.Linear(192, 5, bias=False), nn.LayerNorm(5)), 1),
        ((nn.Flatten(), nn.Linear(192, 5), nn.LayerNorm(5)), 0),
        ((nn.Conv2d(3, 4, 3),), 0),
    ],
)
def test_the_graph_finds_what_scaling_one_weight_by_hand_confirms(layers, number):
    model = net(*layers, nn.Flatten(), nn.LazyLinear(2))
    model(PICTURES)
    result = of(model, PICTURES)
    assert (len(free(result)), result.summary["refuted"]) == (number, 0)
    for name, weight in model.named_parameters():  # in training mode, three times as long
        if weight.dim() > 1:
            before = model(PICTURES)
            weight.data.mul_(3)
            change = float((model(PICTURES) - before).detach().norm() / before.detach().norm())
            weight.data.div_(3)
            assert (change < 1e-2) == (name in free(result))


def test_a_norm_with_fixed_statistics_makes_nothing_scale_free_and_no_bias_idle():
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3, bias=False)
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("var", torch.ones(4))
            self.weight, self.bias = nn.Parameter(torch.ones(4)), nn.Parameter(torch.zeros(4))
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.batch_norm(self.conv(x), self.mean, self.var, self.weight, self.bias, False)
            return (y.relu() + self.norm(self.head(x))).mean((2, 3))

    result = of(Frozen(), PICTURES)
    assert result.summary["refuted"] == 1 and free(result) == ["head.weight"]
    assert result.summary["idle_biases"] == {}


def test_a_weight_used_twice_is_scale_free_only_if_both_uses_are():
    class Twice(nn.Module):
        def __init__(self, both: bool) -> None:
            super().__init__()
            self.conv, self.norm, self.both = (
                nn.Conv2d(3, 3, 3, padding=1, bias=False),
                nn.BatchNorm2d(3),
                both,
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(self.norm(self.conv(x)).relu())
            return (self.norm(y) if self.both else y).mean((2, 3))

    assert free(of(Twice(True), PICTURES)) == ["conv.weight"]
    assert free(of(Twice(False), PICTURES)) == []


def test_where_the_norm_has_one_value_a_channel_it_says_that_nothing_was_checked():
    result = of(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.randn(1, 3))
    assert result.notes[0].startswith("Not checked:")
    assert result.tables["weights"]["confirmed"] == [None]


def test_the_model_comes_back_bit_for_bit():
    model = create_model("resnet20_cifar")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scale_freedom(Subject(model, torch.randn(4, 3, 16, 16)))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# --- groups and laws


def test_every_parameter_is_in_one_group():
    model = create_model("vgg16_bn_cifar")
    result = of(
        model, torch.randn(4, 3, 32, 32), learning_rate=0.1, weight_decay=5e-4, momentum=0.9
    )
    table = result.tables["groups"]
    names = [name for row in table.rows for name in row["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert table["group"] == ["scale-free", "norms", "idle biases", "head", "biases"]
    assert table["shrinks"] == [pytest.approx(0.1 * 5e-4 / 0.1)] * 5
    assert table["half_life"][1] == pytest.approx(math.log(2) / 5e-4)


def simulated(rate: float, decay: float, momentum: float, steps: int) -> tuple[float, float]:
    """Train one scale-free vector on random gradients, orthogonal and of length 1 / |w|."""
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(400, generator=draw, dtype=torch.float64)
    w = nn.Parameter(w / w.norm())
    optimiser = torch.optim.SGD([w], rate, momentum, weight_decay=decay)
    angles = []
    for step in range(steps):
        g = torch.randn(400, generator=draw, dtype=torch.float64)
        u = w.detach() / w.detach().norm()
        g = g - (g @ u) * u
        w.grad = g / g.norm() / w.detach().norm()
        optimiser.step()
        if step > steps // 2:
            now = w.detach() / w.detach().norm()
            angles.append(math.acos(min(1.0, float(now @ u))))
    return float(w.detach().norm()), sum(angles) / max(len(angles), 1)


@pytest.mark.parametrize(("rate", "decay", "momentum"), [(0.1, 0.05, 0.0), (0.05, 0.02, 0.8)])
def test_training_by_torchs_sgd_comes_to_the_equilibrium_of_the_law(rate, decay, momentum):
    steps = int(3 * (1 - momentum) / (4 * rate * decay)) * 3
    length, angle = simulated(rate, decay, momentum, steps)
    assert length == pytest.approx(equilibrium_length(rate, decay, 1.0, momentum), rel=0.03)
    assert angle == pytest.approx(equilibrium_angle(rate, decay, momentum), rel=0.05)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_without_decay_the_effective_rate_halves_when_the_law_says(momentum):
    steps = steps_until_half(0.1, 1.0, 1.0, momentum)
    length, _ = simulated(0.1, 0.0, momentum, round(steps))
    assert length**2 == pytest.approx(2, rel=0.05)


@settings(deadline=None, max_examples=8)
@given(scale=st.floats(0.25, 4.0))
def test_the_effective_rate_and_the_turn_are_those_of_the_definition(scale):
    model = net(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].weight.data.mul_(scale)
    x, y = torch.randn(9, 5), torch.randint(0, 2, (9,))
    row = scale_freedom(Subject(model, x, y), learning_rate=0.3).tables["weights"].rows[0]
    (g,) = torch.autograd.grad(F.cross_entropy(model(x), y), model[0].weight)
    w = model[0].weight.detach()
    assert row["effective_rate"] == pytest.approx(0.3 / float(w.square().sum()), rel=1e-4)
    assert row["turn"] == pytest.approx(0.3 * float(g.norm() / w.norm()), rel=2e-2)


def test_settings_that_cannot_be_are_refused():
    for options in ({"learning_rate": 0.0}, {"weight_decay": -1.0}, {"momentum": 1.0}):
        with pytest.raises(BadInput):
            of(nn.Linear(2, 2), torch.randn(2, 2), **options)


def test_half_precision_and_no_parameters_are_no_obstacle():
    model = net(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).bfloat16()
    assert free(of(model, torch.randn(8, 6).bfloat16())) == ["0.weight"]
    assert len(of(nn.ReLU(), torch.randn(2, 3)).tables["weights"]) == 0


# --- verdicts


def findings(model: nn.Module, x: torch.Tensor, **options) -> list:
    subject = Subject(model, x, torch.arange(len(x)) % 2)
    return check(subject, scale_freedom(subject, **options))


def ill_and_healthy() -> tuple[nn.Module, nn.Module]:
    return tuple(
        net(nn.Conv2d(3, 4, 3, bias=bias), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
        for bias in (True, False)
    )


def test_a_bias_before_a_batch_norm_is_noted_with_its_gradient_of_zero():
    ill, healthy = ill_and_healthy()
    (finding,) = findings(ill, PICTURES)
    assert (finding.check, finding.severity, finding.where) == ("bias_before_norm", "note", ("0",))
    assert finding.evidence[0].measured < 1e-4
    assert findings(healthy, PICTURES) == []


def test_a_bias_behind_which_there_is_a_relu_or_a_padding_has_an_effect():
    for between in (nn.ReLU(), nn.ZeroPad2d(1)):  # a border of zeros, where the bias is not
        model = net(nn.Conv2d(3, 4, 3), between, nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
        model(PICTURES)
        assert findings(model, PICTURES) == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"learning_rate": 0.01, "weight_decay": 1e-4}, ["decayed_norms"]),
        ({"learning_rate": 0.01, "weight_decay": 0.0, "steps": 5}, []),
        ({"learning_rate": 0.1, "weight_decay": 0.0, "steps": 10**6}, ["effective_rate_falls"]),
        ({"learning_rate": 1e3}, ["long_steps"]),
        ({}, []),
    ],
)
def test_what_is_said_of_learning_rate_and_decay_depends_on_what_was_told(options, names):
    _, healthy = ill_and_healthy()
    assert [finding.check for finding in findings(healthy, PICTURES, **options)] == names


HEALTHY = ("resnet20_cifar", "nf_resnet20_cifar")
MORE = (
    *("plain56_cifar", "fixup_resnet20_cifar", "skipinit_resnet20_cifar", "resnet9_cifar"),
    *("preact_resnet20_cifar", "shake_shake26_2x32d_cifar", "wrn16_4_cifar", "resnetv2_18"),
    *("stable_resnet20_cifar", "alexnet", "seresnet18", "resnet50d", "densenet40_12_cifar"),
    *("highway19_cifar", "resnet_ensemble_20_32_44_cifar"),
)


@pytest.mark.parametrize(
    "name", [*HEALTHY, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_no_registered_model_is_called_ill(name):
    torch.manual_seed(0)
    side = 32 if record(name).input_size <= 64 else max(64, record(name).smallest)
    assert findings(create_model(name), torch.randn(4, 3, side, side)) == []


def test_only_the_published_biases_of_vgg_are_noted():
    found = findings(create_model("vgg16_bn_cifar"), torch.randn(2, 3, 32, 32))
    assert {finding.check for finding in found} <= {"bias_before_norm"}


class Recomputing(nn.Module):
    """A convolution and its norm, run again for their gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.body, 1e-3 * x, use_reentrant=False).mean((2, 3)))


def test_the_eps_of_the_check_holds_in_what_a_backward_pass_runs_again() -> None:
    torch.manual_seed(0)  # inputs so small that the norms' own eps would not let the weight be free
    result = scale_freedom(Subject(Recomputing(), torch.randn(8, 3, 6, 6)))
    (row,) = result.tables["weights"].rows
    assert row["confirmed"] is True and row["gradient_error"] < 1e-4
