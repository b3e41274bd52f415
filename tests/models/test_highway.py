"""Highway networks: counts as far as published, gates that start by carrying, the layers one by one."""

import math

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, list_models, record
from residua.nn import Skip


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=list_models("highway*"))
def name(request):
    return request.param


@pytest.fixture
def model(name):
    torch.manual_seed(0)
    return create_model(name, num_classes=4).double()


def highways(model):
    return [m for m in model.modules() if isinstance(m, Skip)]


def test_counts_agree_with_the_published_ones_to_the_digits_given():
    assert round(record("highway19_cifar").parameters / 1e6, 1) == 2.3
    assert round(record("highway32_cifar").parameters / 1e6, 2) in (1.25, 1.26)


def test_the_name_says_how_many_layers_there_are(name, model):
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    gates = highways(model)  # a highway layer counts once, its gate is not a layer
    assert len(convolutions) + 1 - len(gates) == int(name.removeprefix("highway").split("_")[0])


@torch.no_grad()
def test_a_layer_mixes_its_input_and_its_branch_by_a_gate_on_the_input(model):
    layer = highways(model.eval())[0]
    x = pictures(2, layer.branch.conv.in_channels, 5, 6)
    gate = layer.merge.gate
    t = torch.sigmoid(nn.functional.conv2d(x, gate.weight, gate.bias, padding=1))
    assert gate.kernel_size == (3, 3)
    h = nn.functional.conv2d(x, layer.branch.conv.weight, layer.branch.conv.bias, padding=1).relu()
    torch.testing.assert_close(layer(x), t * h + (1 - t) * x)


@pytest.mark.parametrize("bias", [-2.0, -4.0])
def test_gates_start_at_their_bias_and_so_carry_the_input(name, bias):
    torch.manual_seed(0)
    model = create_model(name, gate_bias=bias).eval()
    layers = highways(model)
    assert all((m.merge.gate.bias == bias).all() for m in layers)
    assert create_model(name).stages[0][0].merge.gate.bias.unique().item() == -2.0
    with torch.no_grad():
        for layer in layers:
            layer.merge.gate.weight.zero_()
        x = torch.randn(1, layers[0].branch.conv.in_channels, 4, 4)
        carried = 1 - 1 / (1 + math.exp(-bias))
        moved = layers[0](x) - carried * x - (1 - carried) * layers[0].branch(x)
        assert moved.abs().max() < 1e-5


@torch.no_grad()
def test_any_picture_size_gives_a_score_for_each_class(model):
    model.eval()
    for size in [(1, 1), (3, 41), (17, 20)]:
        scores = model(pictures(1, 3, *size))
        assert scores.shape == (1, 4)
        assert scores.isfinite().all()


def test_stages_are_one_a_resolution_the_last_of_100_channels(name):
    with torch.device("meta"):
        body = create_model(name, features_only=True).eval()
        maps = body(torch.empty(1, 3, 33, 30))
    assert [m.shape[2:] for m in maps] == [(33, 30), (16, 15), (8, 7)]
    assert [m.shape[1] for m in maps] == list(body.stage_channels)
    assert body.stage_channels[-1] == 100


def test_gradient_reaches_every_parameter(model):
    model.train()
    (model(pictures(2, 3, 17, 15)) * pictures(2, 4)).sum().backward()
    assert [k for k, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_a_norm_takes_the_place_of_the_biases_but_the_gates_keep_theirs(name):
    with torch.device("meta"):
        model = create_model(name, norm="batch")
    gates = {id(m.merge.gate) for m in highways(model)}
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert norms == len(convolutions) - len(gates)
    assert all((m.bias is not None) == (id(m) in gates) for m in convolutions)


def test_dropout_sits_on_the_picture_after_each_pooling_and_before_the_last_layer():
    torch.manual_seed(0)
    usual = create_model("highway32_cifar").eval()
    torch.manual_seed(0)
    model = create_model("highway32_cifar", dropout=0.2)
    names = [k for k, m in model.named_modules() if isinstance(m, nn.Dropout)]
    assert names == ["stem.drop", "stages.1.drop", "stages.2.drop", "head.drop"]
    assert list(model.state_dict()) == list(usual.state_dict())
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), usual(x))
        assert not torch.equal(model.train()(x), model(x))
    with pytest.raises(BadInput, match=r"dropout 2.0 is not in \[0, 1\)"):
        create_model("highway19_cifar", dropout=2.0)


def test_a_highway_network_of_32_layers_learns_without_a_norm():
    torch.manual_seed(0)
    model = create_model("highway32_cifar", num_classes=4)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
