"""Monte Carlo batch norm against brute force; the model comes back untouched."""

import copy
import math

import pytest
import torch
from torch import nn

from residua.nn.norms import collect_statistics, make_norm, monte_carlo


def network(name="batch"):
    torch.manual_seed(0)
    norm = make_norm(name)
    return nn.Sequential(
        *(
            norm.conv(3, 6, 3),
            norm.layer(6),
            nn.ReLU(),
            norm.conv(6, 6, 3),
            norm.layer(6),
            nn.ReLU(),
        ),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ).double()


def batches(count, n=5):
    torch.manual_seed(1)
    return [torch.randn(n, 3, 6, 6).double() + 0.2 * k for k in range(count)]


def pictures():
    return torch.randn(7, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def brute_force(model, x, some):
    """Set each norm's averages to one batch's own by momentum 1; undo torch's n / (n - 1)."""
    outputs = []
    for batch in some:
        chosen = copy.deepcopy(model).train()
        norms = [m for m in chosen if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        maps = batch
        for layer in chosen:
            maps = layer(maps)
            if layer in norms:
                n = maps.numel() // maps.size(1)
                layer.running_var.mul_((n - 1) / n)
        outputs.append(torch.softmax(chosen.eval()(x), 1).detach())
    return torch.stack(outputs)


@pytest.mark.parametrize("name", ["batch", "ghost", "renorm", "sync"])
def test_mean_and_spread_are_those_of_one_network_a_batch(name):
    model, some, x = network(name), batches(6), pictures()
    each = brute_force(network("batch"), x, some)
    found = monte_carlo(model, x, some, samples=6)
    torch.testing.assert_close(found.mean, each.mean(0))
    torch.testing.assert_close(found.std, (each - each.mean(0)).pow(2).mean(0).sqrt())
    assert found.std.max() > 1e-3
    for p, entropy in zip(each.mean(0).tolist(), found.entropy.tolist(), strict=True):
        assert entropy == pytest.approx(-sum(q * math.log(q) for q in p))


def test_samples_says_how_many_batches_are_taken():
    model, some, x = network(), batches(6), pictures()
    three = monte_carlo(model, x, some[:3], samples=3)
    torch.testing.assert_close(monte_carlo(model, x, iter(some), samples=3), three)


def test_one_sample_has_no_spread_and_probabilities_add_up():
    found = monte_carlo(network(), pictures(), batches(1), 1)
    assert torch.equal(found.std, torch.zeros(7, 4).double())
    torch.testing.assert_close(found.mean.sum(1), torch.ones(7).double())


def test_a_picture_does_not_see_the_others_with_it():
    model, x = network(), pictures()
    statistics = collect_statistics(model, batches(4))
    one = torch.cat([statistics.predict(model, x[k : k + 1]).mean for k in range(7)])
    torch.testing.assert_close(statistics.predict(model, x).mean, one)


def test_statistics_taken_once_serve_a_copy_of_the_model():
    model = network()
    statistics = collect_statistics(model, batches(3))
    again = statistics.predict(copy.deepcopy(model), pictures())
    torch.testing.assert_close(again, statistics.predict(model, pictures()))


@pytest.mark.parametrize("fault", [None, "batch", "picture"])
@pytest.mark.parametrize("name", ["batch", "ghost", "renorm", "sync"])
def test_the_model_comes_back_untouched_whatever_happens(name, fault):
    model = network(name).train()
    model(batches(1)[0])
    model[4].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    some, x = batches(3), pictures()
    if fault == "batch":
        some[1] = some[1][:, :1]
    if fault == "picture":
        x = x[:, :1]
    try:
        monte_carlo(model, x, some, 3)
    except RuntimeError:
        assert fault
    else:
        assert not fault
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert [m.training for m in model.modules()] == modes
    assert {m.momentum for m in model if hasattr(m, "momentum")} == {0.1}
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_without_batch_norm_and_no_batch_at_all_are_refused():
    with pytest.raises(ValueError, match="needs a batch norm"):
        monte_carlo(network("group"), pictures(), batches(2), 2)
    with pytest.raises(ValueError, match="one batch or more"):
        monte_carlo(network(), pictures(), [], 2)
