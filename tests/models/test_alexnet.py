"""AlexNet: published count, the least picture, its layers one by one."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from residua.errors import BadInput
from residua.models import create_model, record


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("alexnet", num_classes=3).eval()


def pictures(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_count_is_the_published_one():
    assert record("alexnet").parameters == 61_100_840


def test_pictures_of_63_pixels_are_the_smallest(model):
    assert record("alexnet").smallest == 63
    with torch.no_grad():
        assert model(pictures(1, 3, 63, 80)).shape == (1, 3)
    for size in [(62, 80), (80, 62), (1, 1)]:
        message = f"pictures must be at least 63 x 63 pixels, not {size[0]} x {size[1]}"
        with pytest.raises(ValueError, match=message):
            model(torch.zeros(1, 3, *size))
        with pytest.raises(ValueError, match=message):
            model.forward_stages(torch.zeros(1, 3, *size))


@torch.no_grad()
def test_its_layers_one_by_one_give_the_same_scores(model):
    x = y = pictures(2, 3, 101, 90)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for i, conv in enumerate(convolutions):
        stride, padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))[i]
        y = functional.conv2d(y, conv.weight, conv.bias, stride, padding).relu()
        if i in (0, 1, 4):
            y = functional.max_pool2d(y, 3, 2)
    y = functional.adaptive_avg_pool2d(y, 6).flatten(1)
    y = model.head.fc(model.head.fc2(model.head.fc1(y).relu()).relu())
    torch.testing.assert_close(model(x), y)


def test_features_are_the_maps_after_the_second_and_the_last_pooling():
    with torch.device("meta"):
        body = create_model("alexnet", in_channels=1, features_only=True).eval()
        maps = body(torch.empty(1, 1, 224, 130))
    assert [tuple(m.shape[1:]) for m in maps] == [(192, 13, 7), (256, 6, 3)]
    assert body.stage_channels == (192, 256)


def test_the_first_and_the_last_layer_alone_know_channels_and_classes(model):
    with torch.device("meta"):
        other = create_model("alexnet", num_classes=5, in_channels=1)
    mine, others = ({k: v.shape for k, v in m.state_dict().items()} for m in (model, other))
    assert {k for k in mine if mine[k] != others[k]} == {
        "stem.conv.weight",
        "head.fc.weight",
        "head.fc.bias",
    }


def test_gradient_reaches_every_parameter_and_dropout_acts_in_training_only(model):
    x = pictures(2, 3, 63, 64)
    with torch.no_grad():
        assert torch.equal(model(x), model(x))
    model.train()
    torch.manual_seed(0)
    y = model(x)
    y.square().sum().backward()
    dead = [k for k, p in model.named_parameters() if not p.grad.abs().sum() > 0]
    with torch.no_grad():
        assert not torch.equal(model(x), y)
    model.zero_grad()
    model.eval()
    assert dead == []


def test_a_norm_follows_each_convolution_which_keeps_its_bias():
    with torch.device("meta"):
        layers = list(create_model("alexnet", norm="batch").modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in layers) == 5
    assert all(m.bias is not None for m in layers if isinstance(m, nn.Conv2d))
    with pytest.raises(BadInput, match=r"alexnet: dropout -0.1 is not in \[0, 1\)"):
        create_model("alexnet", dropout=-0.1)
