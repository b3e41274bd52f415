"""Ghost batch norm and batch renormalisation."""

import copy

import pytest
import torch
from torch import nn

from residua.nn.norms import make_norm
from residua.nn.norms.ghost import GhostBatchNorm
from residua.nn.norms.renorm import BatchRenorm


def maps(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)


# -- ghost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "samples"), [(8, 4), (7, 3), (3, 32), (9, 4)])
def test_a_ghost_batch_norm_is_batch_norm_of_one_part_after_the_other(n, samples):
    ghost, plain = GhostBatchNorm(6, samples).double(), nn.BatchNorm2d(6).double()
    x = maps(n, 6, 4, 5)
    y = torch.cat([plain(x[k : k + samples]) for k in range(0, n, samples)])
    torch.testing.assert_close(ghost(x), y)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(ghost.state_dict()[key], value)


def test_running_averages_follow_hoffers_algorithm():
    layer, x, eta = GhostBatchNorm(2, 4).double(), maps(12, 2, 3, 3), 0.1
    layer.running_mean.fill_(5.0)
    layer(x)
    parts = [x[k : k + 4].mean((0, 2, 3)) for k in (0, 4, 8)]
    expected = (1 - eta) ** 3 * torch.full((2,), 5.0, dtype=torch.float64)
    for k, part in enumerate(parts):
        expected += eta * (1 - eta) ** (2 - k) * part
    torch.testing.assert_close(layer.running_mean, expected)


@pytest.mark.parametrize(
    ("name", "n"), [("ghost(4)", 5), ("ghost(4)", 1), ("renorm", 1), ("sync", 1)]
)
def test_a_last_part_of_one_value_is_normalised_by_the_running_statistics(name, n):
    layer = make_norm(name).layer(3).double()
    layer(maps(4, 3, 2, 2))
    x = maps(n, 3, 1, 1)
    expected = copy.deepcopy(layer)
    if n > 1:
        expected(x[:4])
    y = layer(x)
    torch.testing.assert_close(y[-1:], expected.eval()(x[-1:]))
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value)


def test_a_later_step_does_not_spoil_the_gradient_of_a_lone_picture():
    layer, x = GhostBatchNorm(3).double(), maps(1, 3, 1, 1).requires_grad_()
    y = layer(x)
    layer(maps(4, 3, 2, 2))
    y.sum().backward()
    torch.testing.assert_close(x.grad.flatten(), torch.full((3,), (1 + 1e-5) ** -0.5).double())


# -- renormalisation ------------------------------------------------------------------------------------


def test_the_limits_are_those_of_the_paper():
    layer = BatchRenorm(2)
    expected = {
        0: (1, 0),
        5_000: (1, 0),
        15_000: (1 + 2 * 10 / 35, 2.5),
        25_000: (1 + 2 * 20 / 35, 5),
    }
    for step, limits in (expected | {40_000: (3, 5), 90_000: (3, 5)}).items():
        layer.num_batches_tracked.fill_(step)
        assert [t.item() for t in layer.limits()] == pytest.approx(limits)


def test_at_the_start_it_is_batch_norm_and_so_are_its_averages():
    ours, plain = BatchRenorm(4).double(), nn.BatchNorm2d(4).double()
    for step in range(3):
        x = maps(6, 4, 3, 3, seed=step)
        torch.testing.assert_close(ours(x), plain(x))
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


def trained(**limits):
    layer = BatchRenorm(4, start=0, r_end=0, d_end=0, **limits).double()
    layer.num_batches_tracked.fill_(1)
    layer.running_mean.copy_(torch.tensor([3.0, 2.0, 4.0, -40.0]))
    layer.running_var.copy_(torch.tensor([4.0, 2.0, 9.0, 0.01]))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 0.5, 1.0]))
        layer.bias.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    return layer


def test_within_the_limits_training_gives_what_evaluation_gives():
    layer, x = trained(r_max=1e6, d_max=1e6), maps(6, 4, 3, 3)
    expected = copy.deepcopy(layer).eval()(x)
    torch.testing.assert_close(layer.train()(x), expected)


def test_outputs_and_gradients_are_algorithm_1_with_r_and_d_held_fixed():
    layer, x = trained(r_max=1.2, d_max=0.5), maps(6, 4, 3, 3).requires_grad_()
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    sigma_b = (var + 1e-5).sqrt()
    running, sigma = (
        t.view(1, -1, 1, 1).clone() for t in (layer.running_mean, (layer.running_var + 1e-5).sqrt())
    )
    r = (sigma_b / sigma).detach().clip(1 / 1.2, 1.2)
    d = ((mean - running) / sigma).detach().clip(-0.5, 0.5)
    assert r.max() == pytest.approx(1.2)  # some limit bites
    assert r.min() < 1.19
    weight, bias = (p.view(1, -1, 1, 1) for p in (layer.weight, layer.bias))
    expected = weight * ((x - mean) / sigma_b * r + d) + bias
    of = (x, layer.weight, layer.bias)
    wanted = torch.autograd.grad(expected.pow(3).sum(), of)
    y = layer(x)
    torch.testing.assert_close(y, expected)
    for ours, theirs in zip(torch.autograd.grad(y.pow(3).sum(), of), wanted, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_step_counter_is_saved_with_the_averages():
    layer = BatchRenorm(4)
    layer(torch.randn(4, 4, 3, 3))
    other = BatchRenorm(4)
    other.load_state_dict(layer.state_dict())
    assert other.num_batches_tracked == 1
