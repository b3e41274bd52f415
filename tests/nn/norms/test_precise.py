"""Precise statistics are those of all the batches put together."""

import pytest
import torch
from torch import nn

from residua.nn.norms import make_norm, precise_statistics, running_norms

RUNNING = ("batch", "ghost(2)", "renorm(3, 5, 0, 0, 0)", "sync")


def batches(*sizes, shift=3.0):
    """Return batches that differ in size and in mean."""
    torch.manual_seed(0)
    return [torch.randn(n, 3, 4, 5).double() + shift * k for k, n in enumerate(sizes)]


def network(name="batch", depth=2):
    torch.manual_seed(1)
    norm = make_norm(name)
    layers = []
    for _ in range(depth):
        layers += [norm.conv(3, 3, 3), norm.layer(3), nn.ReLU()]
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("name", RUNNING)
@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 1, 8, 2), (1,)])
def test_the_first_norms_statistics_are_those_of_the_whole_set(name, sizes):
    model, some = network(name), batches(*sizes)
    assert precise_statistics(model, iter(some)) == 2
    maps = model[0](torch.cat(some))
    torch.testing.assert_close(model[1].running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, maps.var((0, 2, 3)))


@pytest.mark.parametrize("name", RUNNING)
def test_a_later_norm_sees_maps_that_were_normalised_by_their_batch(name):
    model, some = network(name), batches(4, 6, 3)
    precise_statistics(model, some)
    plain = network("batch")
    maps = torch.cat([plain[:4](x) for x in some])  # training mode
    torch.testing.assert_close(model[4].running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(model[4].running_var, maps.var((0, 2, 3)))


def test_the_mean_of_the_batches_variances_leaves_out_how_their_means_differ():
    model, some = network(), batches(4, 4, 4)
    precise_statistics(model, some)
    maps = [model[0](x) for x in some]
    within = torch.stack([m.var((0, 2, 3), correction=0) for m in maps]).mean(0)
    between = torch.stack([m.mean((0, 2, 3)) for m in maps]).var(0, correction=0)
    n = sum(m.numel() // 3 for m in maps)
    torch.testing.assert_close(model[1].running_var, (within + between) * n / (n - 1))
    assert (between > within).any()


def test_one_value_a_channel_has_variance_zero():
    model = nn.Sequential(nn.BatchNorm2d(2))
    precise_statistics(model, [torch.tensor([2.0, 3.0]).view(1, 2, 1, 1)])
    assert model[0].running_mean.tolist() == [2.0, 3.0]
    assert model[0].running_var.tolist() == [0.0, 0.0]


def test_large_means_lose_no_variance_in_single_precision():
    model = nn.Sequential(nn.BatchNorm2d(3))
    some = [x.float() + 1e4 for x in batches(8, 8, 8)]
    precise_statistics(model, some)
    exact = torch.cat(some).double().var((0, 2, 3)).float()
    torch.testing.assert_close(model[0].running_var, exact, rtol=1e-3, atol=0)


def test_a_norm_that_is_used_twice_gets_the_statistics_of_both_uses():
    norm = nn.BatchNorm2d(3).double()

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(x) + self.norm(2 * x)

    some = batches(4, 5)
    precise_statistics(Twice(), some)
    whole = torch.cat([*some, *(2 * x for x in some)])
    torch.testing.assert_close(norm.running_mean, whole.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, whole.var((0, 2, 3)))


def test_only_the_norms_that_are_named_move_and_modes_momenta_and_counters_stay():
    model = network(depth=3).train()
    model[1].eval()
    norms = {name: norm for name, norm in running_norms(model).items() if name != "4"}
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert precise_statistics(model, batches(4, 4), norms) == 2
    for key, value in model.state_dict().items():
        moved = key in ("1.running_mean", "1.running_var", "7.running_mean", "7.running_var")
        assert torch.equal(value, before[key]) != moved, key
    assert [m.training for m in model] == [True, False] + [True] * 7
    assert {model[k].momentum for k in (1, 4, 7)} == {0.1}


def failing():
    yield batches(4)[0]
    raise OSError("the disk is gone")


@pytest.mark.parametrize("inputs", [failing, lambda: [torch.ones(2, 7, 4, 4).double()], lambda: []])
def test_a_failure_or_no_batch_leaves_everything_as_it_was(inputs):
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        precise_statistics(model, inputs())
    except (OSError, RuntimeError):
        pass
    else:
        assert inputs() == []
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_a_model_without_norms_is_not_run():
    assert precise_statistics(nn.Conv2d(1, 1, 1), failing()) == 0
