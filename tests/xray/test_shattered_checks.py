"""A network that is shattered by construction is found; its healthy twin and registered models are not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import residua
from residua.xray import Finding, Subject
from residua.xray.checks.shattered import check
from residua.xray.shattered import shattered
from tests.xray.test_shattered import linear, mlp


def findings(model: nn.Module, x: torch.Tensor, seed: int = 0) -> list[Finding]:
    subject = Subject(model, x, effort="quick", seed=seed)
    return check(subject, shattered(subject))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sixty_plain_BN_layers_are_shattered_and_their_residual_twin_is_not(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(48, 256)
    (found,) = findings(mlp(60, "plain", norm=True, width=256), x, seed)
    assert found.severity == "warning"
    assert found.confidence == "high"
    assert "60 layers" in found.what
    (evidence,) = found.evidence
    assert evidence.expected is not None and evidence.interval is not None
    assert evidence.interval[1] < 0.5 * evidence.expected
    assert findings(mlp(60, "residual", norm=True, width=256), x, seed) == []


def test_statistics_of_the_batch_are_not_judged_by_laws_for_fixed_ones() -> None:
    torch.manual_seed(0)
    subject = Subject(mlp(60, "plain", norm=True, width=64), torch.randn(16, 64), effort="quick")
    result = shattered(subject, statistics="batch")
    assert len(result.tables["near"]) == 0
    assert check(subject, result) == []


def test_without_norms_sixty_plain_layers_are_not_shattered() -> None:
    """Bias-free and not centred, inputs become alike: the arc-cosine law, and the reason of figure 11.3."""
    torch.manual_seed(0)
    assert findings(mlp(60, "plain", width=128), torch.randn(16, 128)) == []


class _Drowned(nn.Module):
    """y = x / 20 + branch(x): the shortcuts are there, and are drowned."""

    def __init__(self, shortcut: float) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.branches = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(64), nn.ReLU(), linear(64)) for _ in range(12)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for branch in self.branches:
            x = self.shortcut * x + branch(x)
        return x


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_branches_that_drown_the_trunk_are_found_and_equal_ones_are_not(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(32, 64)
    (found,) = findings(_Drowned(0.05), x, seed)
    assert found.severity == "warning"
    assert found.prescription == "skip_init"
    assert len(found.where) >= 2 and len(found.lines) == len(found.where)
    assert all("test_shattered_checks.py" in line for line in found.lines)
    assert found.evidence[0].interval is not None and found.evidence[0].interval[1] < 0.5
    assert findings(_Drowned(1.0), x, seed) == []


QUICK = (
    "resnet20_cifar",
    "preact_resnet20_cifar",
    "plain20_cifar",
    "resnet9_cifar",
    "fixup_resnet20_cifar",
    "skipinit_resnet20_cifar",
    "nf_resnet20_cifar",
    "wrn16_4_cifar",
    "resnet18",
)
LONG = (
    "resnet56_cifar",
    "resnet110_cifar",
    "preact_resnet110_cifar",
    "plain32_cifar",
    "stable_resnet56_cifar",
    "highway19_cifar",
    "highway32_cifar",
    "densenet40_12_cifar",
    "shake_shake26_2x32d_cifar",
    "pyramidnet110_a48_cifar",
    "alexnet",
    "vgg16",
    "vgg16_bn_cifar",
    "resnet50",
    "resnetv2_50",
    "seresnet18",
    "densenet121",
)


def _registered(name: str) -> list[Finding]:
    torch.manual_seed(0)
    side = 32 if name.endswith("_cifar") else 64
    x = torch.randn(8, 3, side, side)
    return findings(residua.create_model(name, num_classes=10), x)


@pytest.mark.parametrize("name", QUICK)
def test_no_false_alarm_on_a_registered_model(name: str) -> None:
    assert _registered(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_no_false_alarm_on_a_larger_registered_model(name: str) -> None:
    assert _registered(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain56_cifar", "plain110_cifar"])
def test_plain_networks_of_56_layers_and_more_are_warned_of_as_the_law_has_it(name: str) -> None:
    (found,) = _registered(name)
    assert found.severity == "warning"
