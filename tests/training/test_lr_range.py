"""The learning-rate range test finds a rate that trains, and leaves the model as it was."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from residua import create_model
from residua.data.batches import Batches, to_input
from residua.training.classification.objective import Classification
from residua.training.lr_range import HIGHEST, LOWEST, range_test
from residua.training.plan import Trial
from residua.training.recipe import Recipe

MEAN, STD = torch.full((3,), 0.5), torch.full((3,), 0.25)


def problem(model, n=128):
    """Four classes told apart by which quarter of the picture is bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 4
    pixels = rng.integers(0, 140, (n, 8, 8, 3))
    for i, label in enumerate(labels):
        top, left = 4 * (label // 2), 4 * (label % 2)
        pixels[i, top : top + 4, left : left + 4] += 60
    batches = Batches(pixels.astype(np.uint8), labels, batch_size=32, seed=0, size=8, train=True)
    objective = Classification(Recipe(steps=1), MEAN, STD, 4)
    return Trial(model, batches, objective, torch.device("cpu"))


def network(**options):
    torch.manual_seed(0)
    return create_model("resnet9_cifar", 4, 3, **({"width": 4} | options))


def train(trial, lr, steps=40):
    """Mean loss of the last ten steps of plain training at a rate."""
    torch.manual_seed(0)
    model = network().train()
    optimiser = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    losses = []
    for batch in trial.batches.iterate(0, steps):
        x = to_input(batch.pictures, MEAN, STD)
        loss = nn.functional.cross_entropy(model(x), batch.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return float(np.mean(losses[-10:]))


def test_the_suggested_rate_trains_and_far_smaller_or_larger_ones_do_not():
    trial = problem(network())
    found = range_test(Recipe(epochs=1), trial)
    assert LOWEST < found.suggestion < HIGHEST
    suggested = train(trial, found.suggestion)
    assert suggested < 0.5 * math.log(4)
    assert suggested < train(trial, found.suggestion / 1000)
    assert not train(trial, found.suggestion * 1000) < suggested


def test_the_rates_rise_evenly_in_the_logarithm_and_the_losses_are_numbers():
    found = range_test(Recipe(epochs=1), problem(network()), steps=50)
    assert len(found.lrs) == len(found.losses) <= 50
    assert found.lrs[0] == pytest.approx(LOWEST)
    factors = np.diff(np.log(found.lrs))
    assert factors == pytest.approx(np.full(len(factors), math.log(HIGHEST / LOWEST) / 49))
    assert np.isfinite(found.losses).all()
    assert found.suggestion * 3 in [pytest.approx(lr) for lr in found.lrs]


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_other_optimisers_have_a_rate_of_their_own(name):
    trial = problem(network())
    found = range_test(Recipe(epochs=1, optimiser={"name": name}), trial)
    assert LOWEST < found.suggestion < 1


def test_the_test_ends_where_the_loss_is_lost():
    model = network()
    with torch.no_grad():
        model.head.fc.weight.mul_(1e4)  # everything diverges soon
    found = range_test(Recipe(epochs=1), problem(model))
    assert len(found.lrs) < 100
    least = np.minimum.accumulate(found.losses)
    assert (found.losses[1:] <= 4 * least[:-1]).all()


def test_a_loss_that_is_no_number_from_the_start_suggests_the_lowest_rate():
    model = network()
    with torch.no_grad():
        model.head.fc.weight.fill_(math.nan)
    found = range_test(Recipe(epochs=1), problem(model))
    assert found.lrs == []
    assert 0 < found.suggestion <= LOWEST


@pytest.mark.parametrize("mode", [True, False])
def test_the_model_and_the_batches_come_back_as_they_were(mode):
    model = network(stochastic_depth=0.3).train(mode)
    trial = problem(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    range_test(Recipe(epochs=1), trial, steps=8)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(m.training is mode for m in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert trial.batches.size == 8


def test_the_seed_decides_the_curve():
    def curve(seed):
        trial = problem(network(stochastic_depth=0.5))
        return range_test(Recipe(epochs=1), trial, steps=20, seed=seed)

    assert curve(0) == curve(0)
    assert curve(0) != curve(1)
