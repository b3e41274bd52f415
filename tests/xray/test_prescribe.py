"""A remedy gives a copy of a network with one thing changed, be it ours or anybody's."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import residua
from residua.errors import BadInput
from residua.xray.anatomy import anatomy
from residua.xray.prescribe import REMEDIES, prescribe
from tests.xray.foreign import FunctionalNet, Inception, ListDense, Transformer

PICTURES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    """A v1 block as it is usually written."""

    def __init__(self, c: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.down = None
        if c != out:
            self.down = nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += x if self.down is None else self.down(x)
        return self.relu(out)


class Net(nn.Module):
    """Somebody's ResNet of three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 1, 1)
        self.blocks = nn.Sequential(Block(6, 6), Block(6, 6), Block(6, 8, 2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(F.relu(self.stem(x))).mean((2, 3)))


def randomised(model: nn.Module) -> nn.Module:
    """Return the model with every parameter and running average at random."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for name, b in model.named_buffers():
            if b.is_floating_point():
                b.add_(torch.rand_like(b) if "var" in name else torch.randn_like(b))
    return model


def blockwise(model: Net, x: torch.Tensor, merge) -> torch.Tensor:
    """Run `Net` with another merge, written by hand: merge(k, shortcut, branch)."""
    x = F.relu(model.stem(x))
    for k, b in enumerate(model.blocks):
        branch = b.bn2(b.conv2(F.relu(b.bn1(b.conv1(x)))))
        x = F.relu(merge(k, x if b.down is None else b.down(x), branch))
    return model.fc(x.mean((2, 3)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("remedy", "merge"),
    [
        ("sqrt_half", lambda k, s, f: (s + f) / math.sqrt(2)),
        ("stable", lambda k, s, f: s + f / math.sqrt(3)),
        ("skip_init", lambda k, s, f: s),
        ("skipinit(0.25)", lambda k, s, f: s + 0.25 * f),
    ],
)
def test_merges_of_a_foreign_network(remedy: str, merge, training: bool) -> None:
    model = randomised(Net()).train(training)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    changed = prescribe(model, remedy, PICTURES)
    torch.testing.assert_close(changed(PICTURES), blockwise(copy.deepcopy(model), PICTURES, merge))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet20_cifar", "preact_resnet20_cifar"])
@pytest.mark.parametrize("remedy", ["sqrt_half", "stable", "skip_init"])
def test_our_own_merges_are_exchanged(name: str, remedy: str) -> None:
    torch.manual_seed(0)
    plain = residua.create_model(name).eval()
    wanted = residua.create_model(name, merge=remedy).eval()
    wanted.load_state_dict(plain.state_dict(), strict=False)
    changed = prescribe(plain, remedy)
    assert torch.equal(changed(PICTURES), wanted(PICTURES))
    assert not torch.equal(changed(PICTURES), plain(PICTURES))
    torch.export.export(changed, (PICTURES,))


def test_skip_init_trains() -> None:
    changed = prescribe(randomised(Net()), "skip_init", PICTURES).train()
    optimiser = torch.optim.SGD(changed.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        F.cross_entropy(changed(PICTURES), torch.arange(4)).backward()
        optimiser.step()
    factors = [value for key, value in changed.state_dict().items() if key.endswith("factor")]
    assert len(factors) == 3 and all(value != 0 for value in factors)
    again = prescribe(Net(), "skip_init", PICTURES)
    again.load_state_dict(changed.state_dict())


@pytest.mark.parametrize(
    "make", [Net, FunctionalNet, Transformer, lambda: residua.create_model("resnet20_cifar")]
)
def test_zero_last_leaves_the_shortcuts(make) -> None:
    model = make().eval()
    x = PICTURES[:, :, :8, :8]
    changed = prescribe(model, "zero_last", x)
    found = anatomy(changed, x)
    with found.interpose(branch=check_zero):
        changed(x)


def check_zero(unit: object, value: torch.Tensor) -> torch.Tensor:
    assert not value.any()
    return value


def test_group_norm_takes_the_place_of_batch_norm_with_its_gains() -> None:
    model = randomised(Net())
    changed = prescribe(model, "group_norm(3)")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in changed.modules())
    norm = changed.blocks[0].bn1
    assert norm.num_groups == 3 and torch.equal(norm.weight, model.blocks[0].bn1.weight)
    assert changed.blocks[2].bn1.num_groups == 1  # the most up to 3 that divide 8
    assert torch.equal(changed(PICTURES)[:2], changed(PICTURES[:2])) or torch.allclose(
        changed(PICTURES)[:2], changed(PICTURES[:2]), atol=1e-6
    )


def test_ghost_norm_of_two_parts_is_two_batches() -> None:
    model = randomised(Net()).train()
    changed = prescribe(model, "ghost_norm(2)")
    wanted = torch.cat([copy.deepcopy(model)(part) for part in PICTURES.split(2)])
    torch.testing.assert_close(changed(PICTURES), wanted)


def test_norms_that_are_functions_are_exchanged_through_the_graph() -> None:
    model = FunctionalNet().train()
    changed = prescribe(model, "group_norm(1)", PICTURES)
    torch.testing.assert_close(changed(PICTURES)[:2], changed(PICTURES[:2]))
    with pytest.raises(BadInput, match="with an example, functions are seen"):
        prescribe(model, "group_norm")


def test_fixup_starts_as_the_shortcuts_with_a_head_of_zero() -> None:
    changed = prescribe(randomised(Net()), "fixup", PICTURES).train()
    assert torch.equal(changed(PICTURES), torch.zeros(4, 5))
    found = anatomy(changed, PICTURES)
    assert len(found.units) == 3
    with found.interpose(branch=check_zero):
        changed(PICTURES)
    assert "norm" not in " ".join(unit.text for unit in found.units)
    std = changed.model.blocks[0].conv1.weight.detach().std() / math.sqrt(2 / (6 * 9))
    assert std == pytest.approx(3**-0.5, rel=0.15)


def test_fixup_trains_every_parameter_that_acts() -> None:
    changed = prescribe(Net(), "fixup", PICTURES).train()
    optimiser = torch.optim.SGD(changed.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        F.cross_entropy(changed(PICTURES), torch.arange(4)).backward()
        optimiser.step()
    still = [n for n, p in changed.named_parameters() if p.grad is None or not p.grad.any()]
    assert all("bn" in name or "down.1" in name for name in still)  # the norms, which are out


@pytest.mark.parametrize("training", [True, False])
def test_preactivation_of_a_foreign_network(training: bool) -> None:
    model = randomised(Net()).train(training)
    changed = prescribe(model, "preactivation", PICTURES)
    got = changed(PICTURES)
    fresh = prescribe(model, "preactivation", PICTURES).model  # the same weights, by hand
    x = F.relu(fresh.stem(PICTURES))
    new = lambda c: nn.BatchNorm2d(c).train(training)  # noqa: E731
    for block in fresh.blocks:
        inside = F.relu(new(x.shape[1])(x))
        short = x if block.down is None else block.down[0](inside)
        x = short + block.conv2(F.relu(block.bn1(block.conv1(inside))))
    wanted = fresh.fc(F.relu(new(8)(x)).mean((2, 3)))
    torch.testing.assert_close(got, wanted)
    assert {unit.order for unit in anatomy(changed, PICTURES).units} == {"preactivation"}


def test_preactivation_of_ours_trains() -> None:
    changed = prescribe(residua.create_model("resnet20_cifar"), "preactivation", PICTURES)
    changed(PICTURES).sum().backward()
    assert len(anatomy(changed, PICTURES).units) == 9


def test_reinitialise_draws_all_weights_anew() -> None:
    model = Net()
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    changed = prescribe(model, "reinitialise")
    assert changed.blocks[1].conv1.weight.detach().std() == pytest.approx(
        math.sqrt(2 / 54), rel=0.15
    )
    assert torch.equal(changed.blocks[1].bn1.weight, torch.ones(6))
    with pytest.raises(BadInput, match="needs an example"):
        prescribe(FunctionalNet(), "reinitialise")


@pytest.mark.parametrize("remedy", sorted(set(REMEDIES) - {"reinitialise"}))
def test_a_network_that_has_no_place_for_a_remedy_is_told_in_one_line(remedy: str) -> None:
    x = PICTURES[:, :, :8, :8]
    with pytest.raises(BadInput) as error:
        prescribe(Inception(), remedy, x)
    assert "\n" not in str(error.value)


def test_bad_words() -> None:
    with pytest.raises(BadInput, match="expected one of sqrt_half, skip_init"):
        prescribe(Net(), "skip_connection", PICTURES)
    with pytest.raises(BadInput, match="does not take these numbers"):
        prescribe(Net(), "zero_last(3)", PICTURES)
    with pytest.raises(BadInput, match="needs an example"):
        prescribe(Net(), "skip_init")
    with pytest.raises(BadInput, match="original order"):
        prescribe(residua.create_model("preact_resnet20_cifar"), "preactivation", PICTURES)
    with pytest.raises(BadInput, match="concatenate"):
        prescribe(ListDense(), "skip_init", PICTURES)


def test_every_block_of_ours_keeps_its_mode_and_device() -> None:
    changed = prescribe(residua.create_model("resnet20_cifar").eval().double(), "skip_init")
    assert not any(m.training for m in changed.modules())
    assert all(p.dtype == torch.float64 for p in changed.parameters())
