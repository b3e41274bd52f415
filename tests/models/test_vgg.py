"""VGG: published counts, pooling, the two heads, biases under batch norm, dropout."""

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, list_models, record
from residua.models.straight import HIDDEN, Perceptron

PUBLISHED = {  # torchvision's records
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("vgg16_bn_cifar", num_classes=4).double()


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", list_models("vgg*"))
def test_the_name_says_how_many_layers_have_weights(name):
    with torch.device("meta"):
        model = create_model(name)
    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    depth = int(name.removeprefix("vgg").split("_")[0])
    assert layers == (depth - 2 if name.endswith("_cifar") else depth)  # one linear layer for three


@pytest.mark.parametrize("name", list_models("vgg*"))
def test_there_is_a_stage_a_resolution_and_the_last_layer_alone_knows_the_classes(name):
    with torch.device("meta"):
        body = create_model(name, features_only=True).eval()
        maps = body(torch.empty(1, 3, 97, 64))
        shapes = [
            {k: v.shape for k, v in create_model(name, n, c).state_dict().items()}
            for n, c in ((3, 3), (7, 4))
        ]
    assert [m.shape[1] for m in maps] == list(body.stage_channels) == [64, 128, 256, 512, 512]
    assert [m.shape[2:] for m in maps] == [(97 >> i, 64 >> i) for i in range(1, 6)]
    changed = {k for k in shapes[0] if shapes[0][k] != shapes[1][k]}
    assert changed == {"stem.conv.weight", "head.fc.weight", "head.fc.bias"}


@pytest.mark.parametrize("name", list_models("vgg*"))
def test_every_convolution_has_a_bias_with_batch_norm_too(name):
    with torch.device("meta"):
        layers = list(create_model(name).modules())
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    norms = [m for m in layers if isinstance(m, nn.BatchNorm2d)]
    assert all(m.bias is not None for m in convolutions)
    assert len(norms) == (len(convolutions) if "_bn" in name else 0)


@torch.no_grad()
def test_any_picture_size_gives_a_score_for_each_class(model):
    model.eval()
    for size in [(1, 1), (3, 70), (33, 57), (32, 32)]:
        scores = model(pictures(1, 3, *size))
        assert scores.shape == (1, 4)
        assert scores.dtype == torch.float64
        assert scores.isfinite().all()


def test_a_loop_over_its_layers_gives_the_same_scores(model):
    x = pictures(2, 3, 32, 32)
    model.eval()
    layers = iter([m for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)])
    y = x
    for item in [2, 2, 3, 3, 3]:
        for _ in range(item):
            y = next(layers)(y)
            y = next(layers)(y).relu()
        y = nn.functional.max_pool2d(y, 2)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model.head.fc(y.flatten(1)))


def test_gradient_reaches_every_parameter_but_vanishes_at_biases_that_a_norm_takes_out(model):
    model.train()
    (model(pictures(4, 3, 33, 35)) * pictures(4, 4)).sum().backward()
    sizes = {k: p.grad.abs().max().item() for k, p in model.named_parameters()}
    taken_out = {k for k in sizes if k.endswith("conv.bias")}
    assert all(sizes[k] < 1e-9 for k in taken_out)
    assert all(sizes[k] > 1e-6 for k in sizes.keys() - taken_out)


def test_without_batch_norm_the_biases_learn_as_all_else():
    torch.manual_seed(0)
    model = create_model("vgg16_bn_cifar", num_classes=4, norm="none", dropout=0.0).double()
    (model(pictures(2, 3, 32, 32)) * pictures(2, 4)).sum().backward()
    assert [k for k, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_dropout_is_in_the_head_and_in_training_only(model):
    x = pictures(2, 3, 8, 8)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.0
    with torch.no_grad():
        assert torch.equal(model.eval()(x), model(x))
        model.head.train()
        assert not torch.equal(model(x), model(x))
    with pytest.raises(BadInput, match=r"vgg16: dropout 1.0 is not in \[0, 1\)"):
        create_model("vgg16", dropout=1.0)


def test_the_large_head_pools_to_a_grid_and_keeps_the_second_moment_of_its_input():
    torch.manual_seed(0)
    head = Perceptron(8, 7, 3, dropout=0.0, dropout_first=False)
    assert [tuple(m.weight.shape) for m in (head.fc1, head.fc2, head.fc)] == [
        (HIDDEN, 8 * 49),
        (HIDDEN, HIDDEN),
        (3, HIDDEN),
    ]
    x = torch.randn(4, 8, 7, 7)
    y = head.fc1(x.flatten(1)).relu()
    with torch.no_grad():
        # He, Zhang, Ren, Sun 2015: half of 2 / n times n inputs, halved by the ReLU
        assert y.square().mean() / x.square().mean() == pytest.approx(1.0, rel=0.1)
        z = head.fc2(y).relu()
        assert z.square().mean() / y.square().mean() == pytest.approx(1.0, rel=0.1)
        torch.testing.assert_close(head(x), head.fc(z))
        assert head(torch.randn(1, 8, 3, 20)).shape == (1, 3)


@pytest.mark.parametrize("first", [True, False])
def test_dropout_comes_before_or_after_each_hidden_layer(first):
    head = Perceptron(2, 1, 3, dropout=0.5, dropout_first=first)
    calls = []
    for name, layer in head.named_children():
        layer.register_forward_hook(lambda layer, x, y, name=name: calls.append(name))
    head(torch.randn(1, 2, 4, 4))
    pairs = ["drop", "fc1", "drop", "fc2"] if first else ["fc1", "drop", "fc2", "drop"]
    assert calls == [*pairs, "fc"]
