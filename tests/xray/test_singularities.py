"""Singularities made by hand are found, the Hessian has the flat directions they promise, chance has none."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

import residua
from residua.xray.checks.singularities import check
from residua.xray.findings import Finding
from residua.xray.hessian import Hessian
from residua.xray.objective import Objective
from residua.xray.result import Result
from residua.xray.singularities import singularities
from residua.xray.subject import Subject
from residua.xray.weights import layers_of, scales_of


def looked_at(model: nn.Module) -> tuple[Result, list[Finding]]:
    subject = Subject(model, torch.zeros(1))
    result = singularities(subject)
    return result, check(subject, result)


def names(model: nn.Module) -> set[str]:
    return {finding.check for finding in looked_at(model)[1]}


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


def test_the_measures_are_those_of_the_matrix():
    torch.manual_seed(0)
    layer = nn.Linear(7, 4, bias=False)
    w = layer.weight.detach().double()
    row = looked_at(layer)[0].tables["layers"].rows[0]
    lengths, columns = w.norm(dim=1), w.norm(dim=0)
    unit = w / lengths[:, None]
    assert row["incoming"] == pytest.approx(float(lengths.min() / lengths.quantile(0.5)))
    assert row["outgoing"] == pytest.approx(float(columns.min() / columns.quantile(0.5)))
    assert abs(row["cosine"]) == pytest.approx(float((unit @ unit.T).abs().triu(1).max()), rel=1e-5)
    assert row["singular"] == pytest.approx(float(torch.linalg.svdvals(unit)[-1]), rel=1e-5)


@pytest.mark.parametrize("n", [3, 12])
def test_orthogonal_units_are_as_far_from_dependence_as_can_be(n):
    layer = nn.Linear(12, n)
    nn.init.orthogonal_(layer.weight)
    row = looked_at(layer)[0].tables["layers"].rows[0]
    assert row["singular"] == pytest.approx(1.0, abs=1e-5)
    assert names(layer) == set()


def test_a_transposed_and_a_grouped_convolution_are_laid_out_by_what_a_unit_reads():
    torch.manual_seed(0)
    up = nn.ConvTranspose2d(6, 4, 3, groups=2)
    (layer,) = layers_of(up)
    assert layer.weight.shape == (2, 2, 3, 9)
    x = torch.zeros(1, 6, 1, 1)
    x[0, 4] = 1.0  # the second input of the second group
    y = F.conv_transpose2d(x, up.weight, groups=2)[0]  # (4, 3, 3): the kernels that read it
    assert torch.allclose(y[2:].reshape(2, 9), layer.weight[1, :, 1])
    (down,) = layers_of(nn.Conv2d(6, 4, 3, groups=2))
    assert down.weight.shape == (2, 2, 3, 9)


def test_shared_layers_count_once_and_parametrised_ones_as_in_use():
    tied = nn.Linear(4, 4)
    assert len(layers_of(nn.ModuleList([tied, nn.Sequential(tied)]))) == 1
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    (layer,) = layers_of(normed)
    assert torch.allclose(layer.weight[0, :, :, 0], normed.weight)
    attention = layers_of(nn.MultiheadAttention(8, 2))
    assert [layer.name for layer in attention] == ["in_proj_weight", "out_proj"]
    assert (
        layers_of(nn.Embedding(5, 3)) == [] and len(scales_of(nn.LayerNorm((2, 3)))[0].weight) == 6
    )


def test_a_unit_without_incoming_weights_is_found():
    model = mlp()
    with torch.no_grad():
        model[0].weight[2] = 0.0
    findings = looked_at(model)[1]
    assert [f.check for f in findings] == ["elimination"]
    assert findings[0].where == ("0",) and findings[0].evidence[0].measured == 0.0
    assert names(mlp()) == set()


def test_a_unit_that_nobody_reads_is_found():
    model = mlp()
    with torch.no_grad():
        model[2].weight[:, 3] = 1e-9
    result, findings = looked_at(model)
    assert result.summary["unread"] == 1 and [f.where for f in findings] == [("2",)]


def test_a_unit_that_is_there_twice_is_found_also_when_scaled_but_not_with_another_bias():
    model = mlp()
    with torch.no_grad():
        model[0].weight[1] = 2.5 * model[0].weight[0]
        model[0].bias[1] = 2.5 * model[0].bias[0]
    result, findings = looked_at(model)
    assert result.summary["duplicates"] == 1 and findings[0].check == "overlap"
    assert result.tables["layers"]["cosine"][0] == pytest.approx(1.0)
    with torch.no_grad():
        model[0].bias[1] += 1.0  # reads the same direction, bends elsewhere: another function
    assert "overlap" not in names(model)


def test_equal_weights_everywhere_are_found():
    model = mlp()
    nn.init.constant_(model[0].weight, 0.1)
    nn.init.zeros_(model[0].bias)
    assert looked_at(model)[0].summary["duplicates"] == 10
    assert "overlap" in names(model)


def test_mirrored_units_are_counted_and_no_fault():
    torch.manual_seed(0)
    layer = nn.Linear(32, 16)
    with torch.no_grad():
        layer.weight[8:] = -layer.weight[:8]  # the looks-linear initialisation
    result, findings = looked_at(layer)
    assert result.summary["mirrored"] == 8 and findings == []


def test_units_that_are_sums_of_others_are_found():
    torch.manual_seed(0)
    layer = nn.Linear(64, 16)
    assert names(layer) == set()
    with torch.no_grad():
        layer.weight[15] = layer.weight[:15].sum(0)
    assert names(layer) == {"dependence"}


def trained_by_cross_entropy() -> nn.Linear:
    torch.manual_seed(0)
    x, labels = torch.randn(64, 32), torch.arange(64) % 10
    layer = nn.Linear(32, 10)
    descent = torch.optim.SGD(layer.parameters(), lr=0.5, weight_decay=0.02)
    for _ in range(1000):
        descent.zero_grad()
        F.cross_entropy(layer(x), labels).backward()
        descent.step()
    return layer


def test_a_trained_classifier_sums_to_zero_and_is_not_dependent_for_that():
    layer = trained_by_cross_entropy()
    weight = layer.weight.detach()
    assert float(weight.sum(0).norm()) < 1e-4 * float(weight.norm())
    row = looked_at(layer)[0].tables["layers"].rows[0]
    assert row["balanced"] and names(layer) == set()
    unit = F.normalize(weight.double(), dim=1)
    assert row["singular"] == pytest.approx(float(torch.linalg.svdvals(unit)[-2]), rel=1e-5)
    weight[9] = weight[:5].sum(0) - weight[5:9].sum(0)  # a second dependence is one
    weight -= weight.mean(0)
    assert names(layer) == {"dependence"}


def test_units_nearer_than_chance_but_not_singular_are_a_note():
    torch.manual_seed(0)
    layer = nn.Linear(256, 32, bias=False)
    with torch.no_grad():
        layer.weight[1] = layer.weight[0] + 0.3 * layer.weight[1]
        layer.weight[2] *= 0.05
    findings = looked_at(layer)[1]
    assert {f.check for f in findings} >= {"near_singular"}
    assert all(f.severity == "note" for f in findings)


def test_a_vanishing_factor_in_a_norm_is_found_and_all_zero_ones_are_a_design():
    ill, designed = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    nn.init.zeros_(designed.weight)
    with torch.no_grad():
        ill.weight[3] = 0.0
    assert names(ill) == {"elimination_by_norm"} and names(designed) == set()
    assert names(nn.BatchNorm2d(8)) == set()


def test_layers_that_are_zero_altogether_are_a_design():
    layer = nn.Linear(8, 4)
    nn.init.zeros_(layer.weight)
    result, findings = looked_at(layer)
    assert result.tables["layers"]["zero"] == [True] and findings == []


def test_weights_that_are_not_finite_are_left_out_with_a_note():
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    result, _ = looked_at(model)
    assert len(result.tables["layers"]) == 1 and "not finite" in result.notes[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_judged_by_their_own_spacing(dtype):
    torch.manual_seed(0)
    layer = nn.Linear(256, 32, bias=False)
    assert names(layer.to(dtype)) == set()
    with torch.no_grad():
        layer.weight[1] = layer.weight[0]
    assert "overlap" in names(layer)


def test_wide_layers_are_compared_on_a_part_and_duplicates_still_found(monkeypatch):
    monkeypatch.setattr("residua.xray.singularities.MOST_PRODUCTS", 10**6)
    torch.manual_seed(0)
    layer = nn.Linear(2000, 100, bias=False)
    assert names(layer) == set()
    with torch.no_grad():
        layer.weight[7] = layer.weight[3]
    assert looked_at(layer)[0].summary["duplicates"] == 1


@pytest.mark.parametrize(
    "name",
    [
        *("resnet20_cifar", "preact_resnet20_cifar", "densenet40_12_cifar", "highway19_cifar"),
        *("fixup_resnet20_cifar", "skipinit_resnet20_cifar", "plain20_cifar", "wrn40_1_cifar"),
        *("stable_resnet20_cifar", "nf_resnet20_cifar", "shake_shake26_2x32d_cifar"),
    ],
)
def test_networks_as_they_are_initialised_raise_no_alarm(name):
    torch.manual_seed(0)
    assert names(residua.create_model(name)) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16_bn_cifar", "resnext50_32x4d", "seresnet50", "resnet50d"])
@pytest.mark.parametrize("seed", [0, 1])
def test_large_networks_as_they_are_initialised_raise_no_alarm(name, seed):
    torch.manual_seed(seed)
    assert names(residua.create_model(name)) == set()


def flat_directions(model: nn.Sequential) -> int:
    """Count the zero eigenvalues of the full Hessian at a loss of zero: the targets are the outputs.

    There the Hessian is 2 J^T J / n, and a direction is flat where no output moves.
    """
    torch.manual_seed(9)
    model.double()
    x = torch.randn(40, 6, dtype=torch.float64)
    subject = Subject(model, x, model(x).detach(), F.mse_loss)
    with subject.running():
        objective = Objective(subject)
        hessian = Hessian(objective)
        full = torch.stack([hessian(e) for e in torch.eye(objective.size, dtype=torch.float64)])
    values = torch.linalg.eigvalsh(full)
    return int((values < 1e-12 * values[-1]).sum())


def test_the_hessian_is_singular_where_units_are_and_only_there():
    assert flat_directions(mlp()) == 0
    unread = mlp()
    with torch.no_grad():
        unread[2].weight[:, 1] = 0.0
    assert flat_directions(unread) == 7  # six weights and a bias of a unit that no output reads
    twice = mlp()
    with torch.no_grad():
        twice[0].weight[1], twice[0].bias[1] = twice[0].weight[0], twice[0].bias[0]
    assert flat_directions(twice) == 2  # to each output, one gives what the other gives less
    with torch.no_grad():
        twice[2].weight[:, 1] = 3 * twice[2].weight[:, 0]
    assert flat_directions(twice) == 2 + 7  # and now inside as well
    silent = mlp()
    with torch.no_grad():
        silent[0].weight[1], silent[0].bias[1] = 0.0, 0.0
    assert flat_directions(silent) == 3  # both outgoing weights; its bias does what the outputs' do


@pytest.mark.parametrize("scheme", [None, nn.init.kaiming_normal_, nn.init.orthogonal_])
def test_alarms_come_no_more_often_than_the_stated_chance(monkeypatch, scheme):
    monkeypatch.setattr("residua.xray.singularities.FALSE_ALARM", 0.1)
    alarms, rounds = 0, 60
    torch.manual_seed(0)
    for _ in range(rounds):
        layers = (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=4), nn.Linear(8, 10))
        for layer in layers:
            if scheme is not None:
                scheme(layer.weight)
        alarms += bool(names(nn.Sequential(*layers)))
    assert alarms <= stats.binom.ppf(0.9999, rounds, 0.1)
