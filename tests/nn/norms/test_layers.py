"""Every layer, against its equation in float64, in training and in evaluation."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn.norms import CONVOLUTIONS, LAYERS, make_norm

RUNNING = ("batch", "ghost", "renorm", "sync")
SAMPLE = tuple(name for name in LAYERS if name not in RUNNING)
EVERY = (*LAYERS, *CONVOLUTIONS)

# What each averages over, of (N, C, ...) seen as (N, groups, C / groups, positions); groups of 64 channels.
AXES = {
    "batch": (64, (0, 2, 3)),
    "ghost": (64, (0, 2, 3)),
    "renorm": (64, (0, 2, 3)),
    "sync": (64, (0, 2, 3)),
    "group": (32, (2, 3)),
    "layer": (1, (2, 3)),
    "instance": (64, (2, 3)),
    "position": (1, (2,)),
}


def new(name, channels):
    if name in LAYERS:
        return make_norm(name).layer(channels)
    return CONVOLUTIONS[name](channels, channels, 3, padding=1)


def make(name, channels=8):
    """Return a layer, or a convolution of as many channels out as in, with drawn gamma and beta."""
    torch.manual_seed(0)
    module = new(name, channels)
    for parameter in module.parameters():
        if parameter.dim() == 1 and len(parameter) == channels:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return module.double()


def maps(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(*shape, dtype=torch.float64, generator=generator)


def by_hand(x, layer, groups, axes):
    split = x.reshape(len(x), groups, x.size(1) // groups, -1)
    mean = split.mean(axes, keepdim=True)
    var = (split - mean).pow(2).mean(axes, keepdim=True)
    y = ((split - mean) / (var + layer.eps).sqrt()).reshape(x.shape)
    shape = [1, -1] + [1] * (x.dim() - 2)
    return y * layer.weight.view(shape) + layer.bias.view(shape)


# -- equations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spatial"),
    [(name, (5, 6)) for name in AXES] + [(name, (2, 3, 4)) for name in AXES if name != "batch"],
)
def test_a_layer_is_its_equation_on_pictures_and_ours_on_volumes(name, spatial):
    layer, x = make(name, 64), maps(4, 64, *spatial)
    torch.testing.assert_close(layer(x), by_hand(x, layer, *AXES[name]))


@pytest.mark.parametrize("spatial", [(5, 6), (2, 3, 4), (1, 1)])
def test_filter_response_is_its_equation(spatial):
    layer, x = make("filter_response"), maps(4, 8, *spatial)
    with torch.no_grad():
        layer.eps.fill_(-0.3)
        layer.threshold.copy_(torch.linspace(-1, 2, 8))
    y = layer(x)
    for i in range(4):
        for c in range(8):
            of_map = x[i, c]
            nu2 = (of_map**2).sum() / of_map.numel()
            scaled = layer.weight[c] * of_map / math.sqrt(nu2 + 1e-6 + 0.3) + layer.bias[c]
            expected = scaled.clamp(min=layer.threshold[c].item())
            torch.testing.assert_close(y[i, c], expected)


@pytest.mark.parametrize("spatial", [(5, 6), (2, 3, 4), (1, 1)])
def test_thresholded_filter_response_is_its_equation(spatial):
    layer, x = make("filter_response_tlu"), maps(4, 8, *spatial)
    y = layer(x)
    for i in range(4):
        for c in range(8):
            scaled = x[i, c] / math.sqrt(x[i, c].square().mean() + 1e-5)
            expected = torch.maximum(layer.weight[c] * scaled + layer.bias[c], layer.tau[c])
            torch.testing.assert_close(y[i, c], expected)


@pytest.mark.parametrize("spatial", [(5,), (5, 6), (2, 3, 4)])
@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 16), (6, 2), (5, 1)])
def test_evonorm_is_its_equation(channels, groups, spatial):
    layer, x = make("evonorm", channels), maps(2, channels, *spatial)
    assert layer.groups == groups
    y = layer(x)
    size = channels // groups
    for i in range(2):
        for g in range(groups):
            of_group = x[i, g * size : (g + 1) * size]
            deviation = of_group.var(correction=0).add(1e-5).sqrt()
            for c in range(size):
                z, at = of_group[c], g * size + c
                gated = z / (1 + torch.exp(-layer.v[at] * z)) / deviation
                torch.testing.assert_close(y[i, at], layer.weight[at] * gated + layer.bias[at])


@pytest.mark.parametrize("name", ["layer", "position"])
def test_layer_norms_are_torchs(name):
    layer, x = make(name), maps(3, 8, 4, 5)
    if name == "layer":
        z = nn.functional.layer_norm(x, (8, 4, 5), eps=layer.eps)
        expected = z * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
    else:
        rows = x.permute(0, 2, 3, 1).reshape(-1, 8)
        z = nn.functional.layer_norm(rows, (8,), layer.weight, layer.bias, layer.eps)
        expected = z.reshape(3, 4, 5, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer(x), expected)


def test_instance_norm_is_torchs():
    layer, x = make("instance"), maps(3, 8, 4, 5)
    expected = nn.functional.instance_norm(x, None, None, layer.weight, layer.bias, eps=layer.eps)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 16, 24, 64, 100, 512])
def test_group_norm_has_groups_of_two_channels_or_more_and_at_most_32(channels):
    groups = make("group", channels).num_groups
    assert channels % groups == 0
    assert groups <= 32
    assert channels // groups >= min(2, channels)


# -- training and evaluation ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*SAMPLE, *CONVOLUTIONS])
def test_evaluation_is_training_without_running_averages(name):
    module, x = make(name), maps(4, 8, 5, 6)
    assert torch.equal(module.train()(x), module.eval()(x))
    assert not list(module.buffers())


@pytest.mark.parametrize("name", [*SAMPLE, *CONVOLUTIONS])
def test_without_running_averages_a_sample_does_not_see_the_others(name):
    module, x = make(name), maps(4, 8, 5, 6)
    alone = torch.cat([module(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(module(x), alone)


@pytest.mark.parametrize("name", RUNNING)
def test_evaluation_normalises_by_the_running_averages_and_moves_nothing(name):
    layer, x = make(name).eval(), maps(4, 8, 5, 6)
    layer.running_mean.copy_(torch.linspace(-1, 1, 8))
    layer.running_var.copy_(torch.linspace(0.5, 2, 8))
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    mean, var = (t.view(-1, 1, 1) for t in (layer.running_mean, layer.running_var))
    weight, bias = (t.view(-1, 1, 1) for t in (layer.weight, layer.bias))
    y = layer(x)
    torch.testing.assert_close(y, (x - mean) / (var + 1e-5).sqrt() * weight + bias)
    assert torch.equal(y[:1], layer(x[:1]))
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("momentum", [0.1, 0.4, None])
@pytest.mark.parametrize("name", RUNNING)
def test_running_averages_move_as_the_equation_says(name, momentum):
    layer, mean, var = make(name), torch.zeros(8).double(), torch.ones(8).double()
    layer.momentum = momentum
    for step in range(1, 4):
        x = maps(4, 8, 5, 6, seed=step)
        layer(x)
        share = 1 / step if momentum is None else momentum
        mean = (1 - share) * mean + share * x.mean((0, 2, 3))
        var = (1 - share) * var + share * x.var((0, 2, 3))
    torch.testing.assert_close(layer.running_mean, mean)
    torch.testing.assert_close(layer.running_var, var)
    assert layer.num_batches_tracked == 3


# -- one picture ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_a_batch_of_one_picture(name, mode):
    module, x = make(name).train(mode), maps(1, 8, 3, 3).requires_grad_()
    y = module(x)
    y.square().sum().backward()
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", [name for name in EVERY if name != "batch"])
def test_one_picture_of_one_pixel_kills_no_norm(name, mode):
    module, x = make(name).train(mode), maps(1, 8, 1, 1).requires_grad_()
    y = module(x)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()


def test_batch_norm_refuses_one_picture_of_one_pixel_in_training_only():
    layer, x = make("batch"), maps(1, 8, 1, 1)
    assert layer.eval()(x).isfinite().all()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer.train()(x)


@pytest.mark.parametrize("name", ["layer", "group", "instance"])
def test_norms_of_a_sample_take_one_pixel_of_one_channel(name):
    layer = make_norm(name).layer(1)
    nn.init.constant_(layer.bias, 2.0)
    assert layer(torch.randn(1, 1, 1, 1)).item() == pytest.approx(
        2.0, abs=1e-3
    )  # beta alone is left


# -- gradients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_finite_differences(name, mode):
    module, x = make(name, 4).train(mode), maps(3, 4, 3, 2).requires_grad_()
    names = [name for name, _ in module.named_parameters()]

    def run(x, *parameters):
        fresh = copy.deepcopy(module)  # running averages move
        return torch.func.functional_call(fresh, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_gets_a_gradient_through_the_activation_that_follows(name):
    module, act = new(name, 8).double(), make_norm(name).act() if name in LAYERS else nn.ReLU()
    (act(module(maps(4, 8, 5, 6))) * maps(4, 8, 5, 6, seed=2)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


# -- a layer among others -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_state_dict_round_trip_and_a_deep_copy_give_the_same_outputs(name):
    module, x = make(name), maps(4, 8, 5, 6)
    module(x)
    other = new(name, 8).double()
    other.load_state_dict(module.state_dict())
    for again in (other, copy.deepcopy(module)):
        assert torch.equal(again.eval()(x), module.eval()(x))


@pytest.mark.parametrize("name", EVERY)
def test_evaluation_exports(name):
    module, x = make(name).eval(), maps(2, 8, 5, 6)
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("name", EVERY)
def test_channels_last_and_half_precision_change_no_shape_and_little_else(name, mode):
    module, x = make(name).float().train(mode), maps(4, 8, 5, 6).float()
    plain = copy.deepcopy(module)(x)
    last = copy.deepcopy(module)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, plain, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = copy.deepcopy(module)(x.bfloat16())
    assert half.dtype == torch.bfloat16
    largest = plain.abs().max().item()
    torch.testing.assert_close(half.float(), plain, rtol=0, atol=0.03 * largest)


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(EVERY),
    channels=st.integers(2, 9),
    n=st.integers(1, 5),
    side=st.integers(2, 4),
    mode=st.booleans(),
)
def test_any_shape_comes_back_finite(name, channels, n, side, mode):
    y = make(name, channels).train(mode)(maps(n, channels, side, side + 1))
    assert y.shape == (n, channels, side, side + 1)
    assert y.isfinite().all()
