"""Precise statistics against brute force over the same batches; everything else is as it was."""

import numpy as np
import pytest
import torch
from torch import nn

from residua import create_model
from residua.data.batches import Batches, to_input
from residua.training.classification.objective import Classification
from residua.training.precise_bn import precise_bn
from residua.training.recipe import Recipe

MEAN, STD = torch.full((3,), 0.5), torch.full((3,), 0.25)
OBJECTIVE = Classification(Recipe(steps=1), MEAN, STD, 5)


def batches(n=60, batch_size=16):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return Batches(pixels, np.arange(n) % 4, batch_size=batch_size, seed=0, size=8, train=True)


def network():
    torch.manual_seed(0)
    return create_model("resnet9_cifar", 4, 3, width=4)


def inputs(some, n):
    return [to_input(batch.pictures, MEAN, STD) for batch in some.iterate(0, n)]


def test_the_first_norms_statistics_are_those_of_the_batches_put_together():
    model, some = network(), batches()
    precise_bn(model, some, 5, OBJECTIVE)
    with torch.no_grad():
        maps = torch.cat([model.stem.conv(x).double() for x in inputs(some, 5)])
    mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3))  # unbiased, as torch keeps it
    torch.testing.assert_close(model.stem.norm.running_mean.double(), mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(model.stem.norm.running_var.double(), var, rtol=1e-4, atol=1e-6)


def test_every_norm_sees_activations_that_are_normalised_by_their_batch():
    model, some = network(), batches()
    seen = {}

    def listen(norm):
        def hook(_, arguments):
            seen.setdefault(norm, []).append(arguments[0].double())

        return hook

    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [norm.register_forward_pre_hook(listen(norm)) for norm in norms]
    with torch.no_grad():  # batch statistics, as in training
        for x in inputs(some, 4):
            model.train()(x)
    for handle in handles:
        handle.remove()
    assert precise_bn(model, some, 4, OBJECTIVE) == len(norms) == 8
    for norm in norms:
        maps = torch.cat(seen[norm])
        mean, var = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), var, rtol=1e-3, atol=1e-5)


def test_what_the_statistics_were_before_does_not_matter():
    some, results = batches(), []
    for start in (0.0, 100.0):
        model = network()
        model.stem.norm.running_mean.fill_(start)
        precise_bn(model, some, 3, OBJECTIVE)
        results.append(model.state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key


@pytest.mark.parametrize("norm", ["ghost(4)", "renorm", "sync"])
def test_our_norms_with_running_statistics_are_measured_as_torchs_are(norm):
    some, found = batches(), []
    for name in ("batch", norm):
        torch.manual_seed(0)
        model = create_model("resnet9_cifar", 4, 3, width=4, norm=name)
        assert precise_bn(model, some, 3, OBJECTIVE) == 8
        found.append([v for key, v in model.state_dict().items() if "running" in key])
    assert all(torch.equal(ours, torchs) for torchs, ours in zip(*found, strict=True))


@pytest.mark.parametrize("mode", [True, False])
def test_modes_momenta_weights_and_gradients_come_back(mode):
    model = network().train(mode)
    model.stages[0].eval()  # a part may be in another mode
    before = {name: m.training for name, m in model.named_modules()}
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    precise_bn(model, batches(), 2, OBJECTIVE)
    assert {name: m.training for name, m in model.named_modules()} == before
    assert {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    for name, p in model.named_parameters():
        assert torch.equal(p, weights[name])
        assert p.grad is None
        assert p.requires_grad


def test_modes_come_back_when_a_batch_fails():
    model = network()
    with pytest.raises(RuntimeError):
        precise_bn(nn.Sequential(model, nn.Linear(5, 1)), batches(), 2, OBJECTIVE)
    assert model.training
    assert model.stem.norm.momentum == 0.1


def test_frozen_norms_keep_their_statistics():
    model = network()
    frozen = [model.stem.norm, *(m for m in model.stages[1].modules() if hasattr(m, "momentum"))]
    before = [norm.running_mean.clone().fill_(3.0) for norm in frozen]
    for norm, value in zip(frozen, before, strict=True):
        norm.running_mean.copy_(value)
    assert precise_bn(model, batches(), 2, OBJECTIVE, frozen=("stem", "stages.1")) == 6
    for norm, value in zip(frozen, before, strict=True):
        assert torch.equal(norm.running_mean, value)
        assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("norm", ["group", "none"])
def test_a_network_without_batch_norm_is_left_alone(norm):
    model = create_model("resnet9_cifar", 4, 3, width=4, norm=norm)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert precise_bn(model, batches(), 2, OBJECTIVE) == 0
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_no_batches_change_nothing():
    model = network()
    assert precise_bn(model, batches(), 0, OBJECTIVE) == 0
    assert torch.equal(model.stem.norm.running_mean, torch.zeros(4))
