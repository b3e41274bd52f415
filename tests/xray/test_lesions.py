"""Lesions against networks that are built by hand without, or with other, units."""

import copy
import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import residua
from residua.errors import BadInput
from residua.xray.checks.lesions import check
from residua.xray.deletion import deleted, parts_of
from residua.xray.exchange import Arrangement, swapped
from residua.xray.lesions import lesions
from residua.xray.result import Result
from residua.xray.scores import Scores, error_difference, rate_interval
from residua.xray.subject import Subject

WIDTH = 12


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.inner(F.relu(self.norm(x)))


class Net(nn.Module):
    def __init__(self, blocks: int = 5, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def moved(model: nn.Module, seed: int = 3) -> nn.Module:
    """Give the norms averages and factors that training could have left."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            module.num_batches_tracked.fill_(7)
    return model


def subject_of(model: nn.Module | None = None, samples: int = 40) -> Subject:
    torch.manual_seed(0)
    model = moved(Net()) if model is None else model
    return Subject(model, torch.randn(samples, WIDTH), torch.randint(0, 3, (samples,)))


def by_hand(model: nn.Module, subject: Subject) -> tuple[float, float, torch.Tensor]:
    """Loss, error and output in evaluation."""
    with torch.no_grad():
        y = copy.deepcopy(model).eval()(subject.inputs)
    wrong = (y.argmax(1) != subject.targets).double().mean()
    return float(F.cross_entropy(y, subject.targets)), float(wrong), y


def test_deleting_a_unit_is_the_network_without_it() -> None:
    subject = subject_of()
    rows = lesions(subject).tables["deletions"].rows
    _, base_error, base = by_hand(subject.model, subject)
    assert [row["part"] for row in rows] == [f"blocks.{i}" for i in range(5)]
    for i, row in enumerate(rows):
        without = copy.deepcopy(subject.model)
        del without.blocks[i]
        loss, error, y = by_hand(without, subject)
        change = ((y - base).norm(dim=1) / base.norm(dim=1)).mean()
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        assert (row["error"], row["error_rise"]) == pytest.approx((error, error - base_error))
        assert row["change"] == pytest.approx(float(change), rel=1e-5)
        assert row["loss_rise_low"] < row["loss_rise"] < row["loss_rise_high"]


def test_deleting_several_is_the_network_without_them() -> None:
    subject = subject_of()
    curve = lesions(subject, counts=(5,), draws=1).tables["curve"]
    without = copy.deepcopy(subject.model)
    without.blocks = nn.ModuleList()
    loss, error, _ = by_hand(without, subject)
    assert curve["deleted"] == [0, 1, 5]
    assert curve["loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert curve["error"][-1] == pytest.approx(error)
    assert curve["error"][0] == pytest.approx(by_hand(subject.model, subject)[1])
    assert (curve["draws"], curve["change"][0]) == ([1, 5, 1], 0.0)


@pytest.mark.parametrize("pair", [(0, 1), (1, 4)])
def test_exchanging_two_units_is_the_network_with_the_two_exchanged(pair: tuple[int, int]) -> None:
    subject = subject_of()
    a, b = pair
    order = list(range(5))
    order[a], order[b] = b, a
    with subject.running(), torch.no_grad():
        arrangement = Arrangement(subject.anatomy)
        arrangement.arrange(order)
        found = subject.forward()
    other = copy.deepcopy(subject.model)
    blocks = list(other.blocks)
    blocks[a], blocks[b] = blocks[b], blocks[a]
    other.blocks = nn.ModuleList(blocks)
    assert torch.equal(found, by_hand(other, subject)[2])
    assert arrangement.groups == [[0, 1, 2, 3, 4]]


class Functional(nn.Module):
    """The same trunk with all weights in one module, and no module for a unit."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        super().__init__()
        self.w = nn.ParameterList(weights)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for w in self.w:
            x = x + F.relu(x) @ w
        return x


def test_units_that_are_no_modules_are_exchanged_too() -> None:
    torch.manual_seed(0)
    weights = [torch.randn(WIDTH, WIDTH) for _ in range(3)]
    subject = Subject(Functional(weights), torch.randn(4, WIDTH))
    with subject.running(), torch.no_grad():
        Arrangement(subject.anatomy).arrange([2, 1, 0])
        found = subject.forward()
    assert torch.equal(found, Functional(weights[::-1])(subject.inputs))


def test_units_that_share_their_numbers_are_not_exchanged() -> None:
    shared = torch.randn(WIDTH, WIDTH)
    model = Functional([])
    model.w = nn.ParameterList([nn.Parameter(shared)] * 3)
    found = lesions(Subject(model, torch.randn(4, WIDTH)))
    assert "reorderings" not in found.tables
    assert any("share their numbers" in note for note in found.notes)


def test_every_exchange_is_of_two_alike_units() -> None:
    draw = random.Random(0)
    seen = {tuple(swapped(range(5), [[0, 1, 2], [3, 4]], draw)) for _ in range(200)}
    assert seen == {(1, 0, 2, 3, 4), (2, 1, 0, 3, 4), (0, 2, 1, 3, 4), (0, 1, 2, 4, 3)}


def test_tau_of_one_exchange_of_neighbours_of_two() -> None:
    subject = subject_of(moved(Net(2)))
    rows = lesions(subject, counts=(), swaps=(0, 1), draws=1).tables["reorderings"].rows
    assert [row["tau"] for row in rows] == [1.0, -1.0]
    assert rows[0]["change"] == 0.0
    assert rows[1]["change"] > 0


def test_deleting_a_unit_of_a_dense_network_takes_its_maps_to_zero() -> None:
    torch.manual_seed(0)
    model = residua.create_model("densenet40_12_cifar", num_classes=3)
    subject = Subject(model, torch.randn(2, 3, 8, 8))
    part = parts_of(subject.anatomy)[3]
    with subject.running("batch"), torch.no_grad():
        with deleted(subject.anatomy, [part]):
            found = subject.forward()
        branch = model.get_submodule(part.name).branch
        branch.register_forward_hook(lambda module, args, output: torch.zeros_like(output))
        assert torch.equal(found, subject.forward())


def test_deleting_a_highway_unit_leaves_its_input() -> None:
    torch.manual_seed(0)
    model = residua.create_model("highway19_cifar", num_classes=3)
    subject = Subject(model, torch.randn(2, 3, 8, 8))
    part = parts_of(subject.anatomy)[2]
    with subject.running("batch"), torch.no_grad():
        with deleted(subject.anatomy, [part]):
            found = subject.forward()
        model.get_submodule(part.name).register_forward_hook(lambda module, args, output: args[0])
        assert torch.allclose(found, subject.forward(), atol=1e-5)


def plain(inplace: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=inplace)]
    return nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(4, 3))


@pytest.mark.parametrize("inplace", [False, True])
def test_deleting_a_layer_of_a_plain_network_is_the_network_without_it(inplace: bool) -> None:
    model = moved(plain(inplace))
    subject = Subject(model, torch.randn(20, 3, 4, 4), torch.randint(0, 3, (20,)))
    found = lesions(subject)
    assert found.summary["parts"] == "layers"
    assert [row["part"] for row in found.tables["deletions"].rows] == ["2", "5", "8"]
    for i, row in zip((2, 5, 8), found.tables["deletions"].rows, strict=True):
        without = nn.Sequential(*(m for j, m in enumerate(model) if j not in range(i, i + 3)))
        assert row["loss"] == pytest.approx(by_hand(without, subject)[0], rel=1e-5)


def test_a_fresh_network_is_measured_on_the_batchs_statistics_and_it_says_so() -> None:
    torch.manual_seed(0)
    found = lesions(Subject(Net(), torch.randn(8, WIDTH)))
    assert found.summary["statistics"] == "batch"
    assert any("fresh network" in note for note in found.notes)
    assert lesions(subject_of()).summary["statistics"] == "running"


def test_without_targets_the_change_of_the_output_is_measured() -> None:
    subject = subject_of()
    subject.targets = None
    found = lesions(subject)
    assert (found.summary["by"], found.summary["loss"]) == ("change", None)
    assert all(row["change"] > 0 for row in found.tables["deletions"].rows)


def test_a_loss_of_the_users_own_is_measured() -> None:
    subject = subject_of()
    subject.targets, subject.loss = torch.zeros(40, 3), F.mse_loss
    found = lesions(subject)
    assert found.summary["by"] == "loss"
    assert found.tables["deletions"]["loss_rise_low"] == [None] * 5


def test_quick_deletes_three_and_draws_nothing() -> None:
    subject = subject_of()
    subject.effort = "quick"
    found = lesions(subject)
    assert found.tables["deletions"]["number"] == [1, 3, 5]
    assert set(found.tables) == {"deletions", "curve"}


def test_the_same_seed_gives_the_same_numbers() -> None:
    assert lesions(subject_of()).as_json() == lesions(subject_of()).as_json()


def test_the_model_comes_back_bit_for_bit() -> None:
    subject = subject_of()
    model = subject.model.train()
    before = {name: (t.data_ptr(), t.clone()) for name, t in model.state_dict().items()}
    drawn = torch.get_rng_state()
    lesions(subject)
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, t in model.state_dict().items():
        assert t.data_ptr() == before[name][0]
        assert torch.equal(t, before[name][1])
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("options", [{"single": 0}, {"counts": (6,)}, {"draws": -1}])
def test_numbers_that_make_no_sense_are_one_clear_line(options: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="counted from 1 to the 5 units"):
        lesions(subject_of(), **options)


def test_a_network_with_nothing_to_delete_is_one_clear_line() -> None:
    with pytest.raises(BadInput, match="nothing to delete"):
        lesions(Subject(nn.Linear(3, 2), torch.randn(4, 3)))


def test_the_interval_of_an_error_rate_covers_it() -> None:
    draw = random.Random(0)
    inside = 0
    for _ in range(400):
        wrong = sum(draw.random() < 0.1 for _ in range(100))
        low, high = rate_interval(wrong, 100)
        inside += low <= 0.1 <= high
    assert inside / 400 > 0.92


def trained(idle: int | None) -> tuple[Subject, Result]:
    """Three steps of a rotation, each the work of one block; `idle`: a block that does nothing."""
    torch.manual_seed(0)
    model = moved(Net(4))
    x = torch.randn(400, WIDTH)
    if idle is not None:
        nn.init.zeros_(model.blocks[idle].inner.weight)
        nn.init.zeros_(model.blocks[idle].inner.bias)
    with torch.no_grad():
        logits = copy.deepcopy(model).eval()(x)
    targets = torch.where(torch.rand(400) < 0.02, torch.randint(0, 3, (400,)), logits.argmax(1))
    subject = Subject(model, x, targets)
    return subject, lesions(subject)


def test_a_unit_that_does_nothing_could_go_and_working_units_could_not() -> None:
    (finding,) = check(*trained(idle=2))
    assert finding.where == ("blocks.2",)
    assert (finding.check, finding.severity) == ("could_go", "note")
    (evidence,) = finding.evidence
    assert evidence.measured == 0
    assert evidence.interval == pytest.approx((-3 / 400, 3 / 400))
    assert check(*trained(idle=None)) == []


def test_nothing_is_claimed_of_a_network_that_knows_nothing() -> None:
    subject, _ = trained(idle=2)
    subject.targets = torch.arange(400) % 3
    result = lesions(subject)
    assert not result.summary["better_than_chance"]
    assert check(subject, result) == []


@pytest.mark.parametrize(
    "name",
    [
        "resnet20_cifar", "plain20_cifar", "preact_resnet20_cifar", "fixup_resnet20_cifar",
        "skipinit_resnet20_cifar", "highway19_cifar", "stable_resnet20_cifar", "nf_resnet20_cifar",
    ],
)  # fmt: skip
def test_no_false_alarm_on_a_fresh_network(name: str) -> None:
    torch.manual_seed(0)
    model = residua.create_model(name, num_classes=10)
    subject = Subject(model, torch.randn(4, 3, 8, 8), torch.arange(4), effort="quick")
    result = lesions(subject)
    assert check(subject, result) == []
    assert math.isfinite(result.summary["loss"])


@pytest.mark.parametrize(("before", "after"), [(0, 0), (20, 20), (20, 21), (10, 150), (150, 10)])
def test_the_interval_of_a_rise_is_around_it_and_never_narrower_than_three_in_n(before, after):
    n = 200
    errors = [(torch.arange(n) < k).float() for k in (before, after)]
    found = error_difference(*(Scores(e[:, None], errors=e) for e in errors))
    rise, unseen = (after - before) / n, 3 / n
    spread = torch.std(errors[1] - errors[0]).item() / math.sqrt(n)
    assert found.value == pytest.approx(rise)
    assert found.low <= rise - unseen + 1e-9 and found.high >= rise + unseen - 1e-9
    half = max(1.96 * spread, unseen)  # of so many samples the t distribution is nearly normal
    assert rise - found.low == pytest.approx(half, rel=0.03)
    assert found.high - rise == pytest.approx(half, rel=0.03)
