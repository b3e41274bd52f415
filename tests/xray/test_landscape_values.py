"""The loss at a point: closed forms, the plain loss at the centre, norms by policy, error bars by hand."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from residua.errors import BadInput
from residua.models import create_model
from residua.nn.norms import precise_statistics
from residua.xray import Subject
from residua.xray.landscape import landscape, random_direction
from residua.xray.landscape.losses import Measure
from residua.xray.landscape.space import Space, movable


@pytest.fixture(scope="module")
def pictures():
    torch.manual_seed(1)
    return torch.randn(10, 3, 8, 8), torch.randint(0, 4, (10,))


@pytest.fixture(scope="module")
def model(pictures):
    torch.manual_seed(0)
    model = create_model("resnet20_cifar", 4)
    for _ in range(3):
        model(pictures[0] * 1.7 + 0.3)  # running statistics that are not those of the pictures
    return model.eval()


def squares(output, targets):
    return (output - targets).square().sum(1)


def linear():
    torch.manual_seed(3)
    model = nn.Linear(4, 3, bias=False).double()
    return model, torch.randn(7, 4).double(), torch.randn(7, 3).double()


def test_the_surface_of_a_linear_network_is_its_quadratic_row_by_row():
    model, x, y = linear()
    found = landscape(model, x, y, loss=squares, points=9, span=(-2, 1), tolerance=0, seed=4)
    d1, d2 = (random_direction(model, seed=4, pair=0, axis=k)["weight"].double() for k in (0, 1))
    w = model.weight.detach()
    assert np.allclose(found.x, np.linspace(-2, 1, 9)) and np.allclose(found.y, found.x)
    for row, b in enumerate(found.y):
        for column, a in enumerate(found.x):
            each = (x @ (w + a * d1 + b * d2).T - y).square().sum(1)
            assert found.loss[0, row, column] == pytest.approx(float(each.mean()), rel=1e-12)
            error = float(each.std(correction=1)) / len(x) ** 0.5
            assert found.error[0, row, column] == pytest.approx(error, rel=1e-9)


def test_around_the_best_fit_the_surface_is_symmetric():
    model, x, y = linear()
    with torch.no_grad():
        model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    found = landscape(model, x, y, loss=squares, points=7, tolerance=0).loss[0]
    np.testing.assert_allclose(found, found[::-1, ::-1], rtol=1e-9)
    assert found.argmin() == 24
    assert (
        np.abs(found - found[::-1]).max() > 0.01
    )  # through the centre only: a shifted row would show


def test_the_centre_is_the_plain_loss_under_each_policy(model, pictures):
    x, y = pictures
    plain = {"frozen": F.cross_entropy(model(x), y).item()}
    twin = copy.deepcopy(model).train()
    plain["batch"] = F.cross_entropy(twin(x), y).item()
    precise_statistics(twin.eval(), [x])
    plain["recalibrated"] = F.cross_entropy(twin(x), y).item()
    assert len({round(value, 3) for value in plain.values()}) == 3
    for norms, expected in plain.items():
        found = landscape(model, x, y, points=3, line=True, norms=norms)
        assert found.loss[0, 0, 1] == pytest.approx(expected, rel=1e-5), norms
        assert found.facts["norms"] == norms


def test_the_accuracy_is_the_share_of_right_answers(model, pictures):
    x, y = pictures
    found = landscape(model, x, y, points=3, line=True)
    right = (model(x).argmax(1) == y).float().mean().item()
    assert found.accuracy[0, 0, 1] == pytest.approx(right)


@pytest.mark.parametrize("norms", ["frozen", "recalibrated"])
def test_the_ends_of_the_line_between_two_networks_are_their_losses(model, pictures, norms):
    x, y = pictures
    torch.manual_seed(9)
    other = create_model("resnet20_cifar", 4)
    other(x * 0.4 - 1)
    other.eval()
    found = landscape(model, x, y, directions="to", other=other.state_dict(), points=5, norms=norms)
    assert found.x.tolist() == [-0.5, 0.0, 0.5, 1.0, 1.5] and found.loss.shape == (1, 1, 5)
    for place, network in ((1, model), (3, other)):
        twin = copy.deepcopy(network)
        if norms == "recalibrated":
            precise_statistics(twin, [x])
        expected = F.cross_entropy(twin(x), y).item()
        assert found.loss[0, 0, place] == pytest.approx(expected, rel=1e-5)


class Functional(nn.Module):
    """A residual unit with functional adds, a reused norm, and two convolutions of one module."""

    def __init__(self):
        super().__init__()
        self.first, self.again = (
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1, bias=False),
        )
        self.norm, self.own = nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)
        self.head = nn.Linear(3, 4)

    def forward(self, x):
        y = F.relu(self.norm(self.again(x)))
        y = y + self.norm(self.again(y)) + self.own(self.first(y))
        return self.head(y.mean((2, 3)))


class Branching(nn.Module):
    """Whose path depends on its weights: no graph can be had."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.conv(x)).mean((2, 3))
        return y if self.conv.weight.sum() > 0 else 2 * y


def _preactivation():
    return create_model("preact_resnet20_cifar", 4)


def _network():
    return create_model("resnet20_cifar", 4)


@pytest.mark.parametrize("build", [_network, _preactivation, Functional, Branching])
@pytest.mark.parametrize("norms", ["frozen", "recalibrated", "batch"])
def test_the_quick_way_gives_the_values_of_the_network_as_it_is_written(build, norms, pictures):
    torch.manual_seed(0)
    model = build()
    model(pictures[0] * 1.5)
    ways = [
        landscape(model, *pictures, points=3, span=(-0.5, 0.5), norms=norms, quick=quick)
        for quick in (True, False)
    ]
    np.testing.assert_allclose(ways[0].loss, ways[1].loss, rtol=1e-5)
    np.testing.assert_allclose(ways[0].error, ways[1].error, rtol=1e-4)


@settings(deadline=None, max_examples=10)
@given(a=st.floats(-1, 1), b=st.floats(-1, 1))
def test_a_point_is_the_loss_of_a_network_with_these_weights(a, b):
    torch.manual_seed(0)
    model = create_model("resnet20_cifar", 4).eval()
    x, y = torch.randn(4, 3, 8, 8), torch.randint(0, 4, (4,))
    directions = [random_direction(model, seed=1, pair=0, axis=k) for k in (0, 1)]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in twin.named_parameters():
            if name in directions[0]:
                weight += a * directions[0][name] + b * directions[1][name]
    measure = Measure([(x, y)])
    with Space(model, directions).attached() as space, measure.of(space) as meter:
        assert meter.folds
        assert meter.at((a, b))[0] == pytest.approx(F.cross_entropy(twin(x), y).item(), rel=1e-5)


def test_the_paired_error_is_that_of_the_difference_from_the_centre(model, pictures):
    x, y = pictures
    direction = random_direction(model, seed=0, pair=0, axis=0)
    found = landscape(model, x, y, points=3, span=(-0.1, 0.1), line=True)
    each = []
    for a in (0.0, 0.1):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for name, weight in twin.named_parameters():
                weight += a * direction[name] if name in direction else 0.0
        each.append(_losses(twin, x, y))
    difference = (each[1] - each[0]).std(correction=1) / len(x) ** 0.5
    assert found.paired[0, 0, 2] == pytest.approx(float(difference), rel=1e-3)
    assert found.paired[0, 0, 1] == 0.0
    assert found.paired[0, 0, 2] < found.error[0, 0, 2]


def _losses(network, x, y):
    return F.cross_entropy(network(x), y, reduction="none").detach().double()


def test_a_loss_of_one_number_a_batch_has_the_error_of_batches(model, pictures):
    x, y = pictures
    batches = [(x[:4], y[:4]), (x[4:8], y[4:8]), (x[8:], y[8:])]
    found = landscape(model, batches, loss=F.cross_entropy, points=3, line=True)
    values = np.array([F.cross_entropy(model(a), b).item() for a, b in batches])
    weights = np.array([0.4, 0.4, 0.2])
    mean = values @ weights
    assert found.loss[0, 0, 1] == pytest.approx(mean, rel=1e-5)
    error = np.sqrt(3 / 2 * np.square(weights * (values - mean)).sum())
    assert found.error[0, 0, 1] == pytest.approx(error, rel=1e-3)


def test_the_batch_policy_takes_the_batches_as_they_come(model, pictures):
    x, y = pictures
    twin = copy.deepcopy(model).train()
    halves = [F.cross_entropy(twin(x[k : k + 5]), y[k : k + 5]).item() for k in (0, 5)]
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    found = landscape(model, batches, points=3, line=True, norms="batch")
    assert found.loss[0, 0, 1] == pytest.approx(np.mean(halves), rel=1e-5)


def test_a_network_that_mixes_the_pictures_of_a_batch_is_not_split():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Flatten(),
        nn.Linear(144, 4),
    ).eval()
    x, y = torch.randn(10, 3, 8, 8), torch.randint(0, 4, (10,))
    found = landscape(model, x, y, points=3, line=True)
    assert found.loss[0, 0, 1] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
    assert any("depend on the other pictures" in note for note in found.notes)


def state(model):
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return (
        tensors,
        [m.training for m in model.modules()],
        [t.data_ptr() for t in movable(model).values()],
    )


@pytest.mark.parametrize("norms", ["frozen", "recalibrated", "batch"])
@pytest.mark.parametrize("failure", [None, RuntimeError, KeyboardInterrupt])
def test_the_model_comes_back_untouched(model, pictures, norms, failure):
    model.train()
    before, drawn = state(model), torch.get_rng_state()

    def progress(share, what):
        if failure and share > 0.3:
            raise failure

    if failure is None:
        landscape(model, *pictures, points=3, norms=norms, tolerance=0, progress=progress)
    else:
        with pytest.raises(failure):
            landscape(model, *pictures, points=3, norms=norms, tolerance=0, progress=progress)
    after = state(model)
    assert before[1:] == after[1:]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    model.eval()


def test_a_point_that_is_not_finite_is_said_and_the_rest_is_measured(pictures):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()

    def loss(output, targets):
        each = F.cross_entropy(output, targets, reduction="none")
        return torch.where(each.mean() > 2.0, torch.inf, each)

    whole = landscape(model, *pictures, loss=loss, points=21, tolerance=0)
    found = landscape(model, *pictures, loss=loss, points=21)
    assert np.isinf(whole.loss).any() and np.isfinite(whole.loss).any()
    assert np.array_equal(np.isfinite(whole.loss), np.isfinite(found.loss))
    assert found.rows()[0]["most"] < 2.0


def test_a_subject_brings_its_batch_and_its_loss(model, pictures):
    x, y = pictures
    found = landscape(Subject(nn.DataParallel(model), x, y), points=3, line=True)
    assert found.loss[0, 0, 1] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-5)
    result = found.result()
    assert result.analysis == "landscape" and result.tables["surfaces"]["centre"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"directions": "up"}, "random, pca, to"),
        ({"norms": "warm"}, "frozen, recalibrated, batch"),
        ({"points": 1}, "2 or more"),
        ({"span": (1.0, -1.0)}, "smaller and a larger"),
        ({"pairs": 0}, "1 or more"),
        ({"directions": "to"}, "other network"),
        ({"directions": "to", "pairs": 2}, "only random"),
    ],
)
def test_what_does_not_fit_is_one_line(model, pictures, options, said):
    with pytest.raises(BadInput, match=said):
        landscape(model, *pictures, **options)


def test_a_loss_needs_targets(model, pictures):
    with pytest.raises(BadInput, match="targets"):
        landscape(model, pictures[0])
