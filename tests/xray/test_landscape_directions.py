"""Directions: scaled filter by filter, decided by the seed, exact where they are named after networks."""

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.xray.landscape import landscape, principal, random_direction, towards
from residua.xray.landscape.directions import cosine
from residua.xray.landscape.space import Space


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("resnet20_cifar", 4)


def test_each_filter_of_a_random_direction_is_as_long_as_that_of_the_weights(model):
    direction = random_direction(model, seed=3, pair=0, axis=0)
    weights = dict(model.named_parameters())
    for name, step in direction.items():
        for drawn, weight in zip(step, weights[name], strict=True):
            assert float(drawn.norm()) == pytest.approx(float(weight.detach().norm()), rel=1e-5)


def test_biases_and_norm_parameters_are_left_alone(model):
    direction = random_direction(model, seed=3, pair=0, axis=0)
    kinds = (nn.Conv2d, nn.Linear)
    expected = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, kinds)}
    assert set(direction) == expected


def test_a_norm_with_parameters_of_two_dimensions_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm([4, 4, 4]))
    assert set(random_direction(model, seed=0, pair=0, axis=0)) == {"0.weight"}


def test_a_filter_of_zeros_does_not_move(model):
    model = copy.deepcopy(model)
    name, weight = next((n, p) for n, p in model.named_parameters() if p.dim() == 4)
    with torch.no_grad():
        weight[1] = 0
    direction = random_direction(model, seed=0, pair=0, axis=0)
    assert not direction[name][1].any() and direction[name][0].all()


def test_the_seed_the_pair_and_the_axis_decide_the_direction_and_nothing_else_does(model):
    def drawn(seed, pair, axis):
        torch.rand(7)
        return random_direction(model, seed=seed, pair=pair, axis=axis)

    keys = list(itertools.product((0, 1), (0, 1), (0, 1)))
    found = [drawn(*key) for key in keys]
    for key, direction in zip(keys, found, strict=True):
        again = drawn(*key)
        assert all(torch.equal(direction[name], again[name]) for name in direction)
    for left, right in itertools.combinations(found, 2):
        assert (
            abs(cosine(left, right)) < 0.1
        )  # 1 / sqrt(17,000 weights) = 0.008, but few filters weigh much


def test_another_seed_gives_another_surface_and_several_pairs_a_spread(model):
    torch.manual_seed(1)
    x, y = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    first, again, second = (landscape(model, x, y, points=3, seed=seed) for seed in (5, 5, 6))
    assert np.array_equal(first.loss, again.loss)
    corners = np.ix_([0], [0, 2], [0, 2])
    assert (first.loss[corners] != second.loss[corners]).all()
    assert first.facts["seed"] == 5 and second.facts["seed"] == 6
    pairs = landscape(model, x, y, points=3, seed=5, pairs=3)
    assert np.array_equal(pairs.loss[0], first.loss[0])
    assert pairs.spread[1, 1] == 0.0 and (pairs.spread[[0, 0, 2, 2], [0, 2, 0, 2]] > 0).all()
    by_hand = np.std([surface[0, 2] for surface in pairs.loss], ddof=1)
    assert pairs.spread[0, 2] == pytest.approx(by_hand)
    assert np.isnan(first.spread).all()


def test_the_plane_of_components_holds_every_network_of_a_trajectory_of_rank_two():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    centre = {name: value.clone() for name, value in model.state_dict().items()}
    ways = [{name: torch.randn_like(value) for name, value in centre.items()} for _ in range(2)]
    places = [(2.0, 0.5), (1.0, 1.5), (0.3, 0.4), (-0.2, 0.1)]
    states = [
        {name: centre[name] + a * ways[0][name] + b * ways[1][name] for name in centre}
        for a, b in places
    ]
    plane = principal(model, states)
    assert sum(plane.shares) == pytest.approx(1.0)
    assert np.abs(plane.outside).max() < 1e-6
    assert cosine(*plane.directions) == pytest.approx(0.0, abs=1e-9)
    with Space(model, plane.directions).attached() as space:
        for state, where in zip(states, plane.path, strict=True):
            space.move(where)
            for name, value in model.state_dict().items():
                torch.testing.assert_close(value, state[name], rtol=0, atol=1e-9)


def test_components_are_those_of_a_singular_value_decomposition():
    torch.manual_seed(2)
    model = nn.Linear(6, 5).double()
    states = [
        {name: value + torch.randn_like(value) for name, value in model.state_dict().items()}
        for _ in range(5)
    ]

    def flat(state):
        return torch.cat([state[name].flatten() for name in model.state_dict()])

    matrix = torch.stack([flat(state) - flat(model.state_dict()) for state in states])
    _, values, rows = torch.linalg.svd(matrix, full_matrices=False)
    plane = principal(model, states)
    for k, direction in enumerate(plane.directions):
        assert abs(float(flat(direction) @ rows[k])) == pytest.approx(1.0)
        assert plane.shares[k] == pytest.approx(float(values[k] ** 2 / (values**2).sum()))


def test_a_trajectory_that_spans_no_plane_is_refused(model):
    state = {name: value + 1.0 for name, value in model.state_dict().items()}
    for states in ([], [state], [state, state]):
        with pytest.raises(BadInput, match="do not span a plane"):
            principal(model, states)


def test_weights_of_another_network_are_refused(model):
    other = create_model("resnet20_cifar", 5).state_dict()
    with pytest.raises(BadInput, match="other weights"):
        towards(model, other)


def test_a_network_without_weights_is_refused():
    with pytest.raises(BadInput, match="no convolution or linear layer"):
        random_direction(nn.BatchNorm2d(3), seed=0, pair=0, axis=0)
