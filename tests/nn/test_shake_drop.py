"""ShakeDrop: the equation forward and backward, its levels, its ranges."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from residua.nn.regularisers import RandomDrop, ShakeDrop

OWN = {
    "batch": (1, 1, 1, 1),
    "sample": (6, 1, 1, 1),
    "channel": (6, 3, 1, 1),
    "pixel": (6, 3, 2, 2),
}


def step(layer, x, g):
    """Return y and dL/dx, both as multiples: what the layer multiplied by, forward and backward."""
    x = x.clone().requires_grad_()
    y = layer.train()(x)
    y.backward(g)
    return y.detach() / x.detach(), x.grad / g


@pytest.mark.parametrize("per", OWN)
def test_a_kept_branch_passes_and_a_dropped_one_is_shaken_at_its_level(per):
    torch.manual_seed(0)
    layer = ShakeDrop(0.5, per)
    x, g = torch.rand(2, 6, 3, 2, 2, dtype=torch.float64) + 1
    kept, alphas, betas = 0, [], []
    for _ in range(300):
        forward, backward = step(layer, x, g)
        if torch.equal(forward, torch.ones_like(x)):
            assert torch.equal(backward, torch.ones_like(x))  # b = 1: as if there were no layer
            kept += 1
            continue
        for found, values in ((forward, alphas), (backward, betas)):
            own = found[tuple(slice(n) for n in OWN[per])]  # one value of each that share a draw
            torch.testing.assert_close(found, own.expand_as(found), rtol=1e-12, atol=0)
            assert len(set(own.flatten().tolist())) == own.numel()
            values.append(own.flatten())
    assert kept / 300 == pytest.approx(0.5, abs=0.12)  # standard error 2.9 %
    alphas, betas = torch.cat(alphas), torch.cat(betas)
    # U(-1, 1) and U(0, 1): at least 130 draws, standard errors 5 % and 2.5 %
    assert alphas.mean().item() == pytest.approx(0.0, abs=0.2)
    assert betas.mean().item() == pytest.approx(0.5, abs=0.1)
    assert -1 <= alphas.min() < -0.9 < 0.9 < alphas.max() <= 1
    assert 0 <= betas.min() < 0.1 < 0.9 < betas.max() <= 1
    assert abs(torch.corrcoef(torch.stack([alphas, betas]))[0, 1]) < 0.35  # independent


@pytest.mark.parametrize("alpha", [(-1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (-0.5, 1.5)])
def test_evaluation_is_the_expectation_for_any_range_of_alpha(alpha):
    torch.manual_seed(0)
    layer = ShakeDrop(0.7, "pixel", alpha=alpha)
    x = torch.ones(1, dtype=torch.float64)
    n = 5000
    values = torch.cat([layer.train()(x) for _ in range(n)])
    expected = 0.7 + 0.3 * sum(alpha) / 2
    assert layer.eval()(x).item() == pytest.approx(expected)
    # within 4.5 standard errors of the mean of n draws
    assert abs(values.mean().item() - expected) < 4.5 * values.std().item() / n**0.5


def test_with_alpha_and_beta_zero_it_is_random_drop_of_a_batch():
    x, g = torch.randn(2, 4, 3, 2, 2)
    layers = ShakeDrop(0.5, alpha=(0.0, 0.0), beta=(0.0, 0.0)), RandomDrop(0.5, per="batch")
    for seed in range(8):
        found = []
        for layer in layers:
            torch.manual_seed(seed)
            found.append(step(layer, x, g))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
    assert torch.equal(layers[0].eval()(x), layers[1].eval()(x))


def test_recomputation_repeats_the_draws_to_the_bit():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), ShakeDrop(0.3, "pixel")).train()
    x = torch.randn(4, 3, 2, 2)
    for seed in range(4):
        found = []
        for call in (net, lambda x: checkpoint(net, x, use_reentrant=False)):
            net.zero_grad()
            torch.manual_seed(seed)
            (call(x) ** 2).sum().backward()
            found.append(net[0].weight.grad.clone())
        assert torch.equal(*found)


def test_no_draw_is_made_in_the_backward_pass():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), ShakeDrop(0.5)).train()
    y = net(torch.randn(4, 3, 2, 2))
    state = torch.get_rng_state()
    y.sum().backward()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_draws_the_same_in_every_precision_and_memory_format():
    x = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    layer, found = ShakeDrop(0.2, "pixel").train(), []
    for y in (x, x.float(), x.to(memory_format=torch.channels_last)):
        torch.manual_seed(2)
        found.append(layer(y).double())
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)
    assert torch.equal(found[2], found[0])


@pytest.mark.parametrize(
    "options, says",
    [
        ({"per": "image"}, "per 'image' is unknown: expected one of batch, sample, channel, pixel"),
        ({"alpha": (1.0, -1.0)}, "alpha must have low <= high"),
        ({"beta": (1.0, 0.5)}, "beta must have low <= high"),
    ],
)
def test_an_unknown_level_or_an_empty_range_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        ShakeDrop(0.5, **options)
