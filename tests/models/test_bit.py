"""BiT: published counts, and the whole network against its equations, written with torch's functions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.models import create_model, record

PUBLISHED = {  # as timm counts them
    "resnetv2_50x1_bit": 25_549_352,
    "resnetv2_50x3_bit": 217_319_080,
    "resnetv2_101x1_bit": 44_541_480,
    "resnetv2_101x3_bit": 387_934_888,
    "resnetv2_152x2_bit": 236_335_208,
    "resnetv2_152x4_bit": 936_533_224,
}


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("resnetv2_50x1_bit").double().eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.weight.normal_(1, 0.2)
                layer.bias.normal_(0, 0.2)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


def equations(state, x):
    """y = x + W3 a3(W2 a2(W1 a1(x))), a = relu(GN), all W standardised, stem pooled over zeros."""

    def conv(name, x, stride=1):
        v = state[f"{name}.weight"].flatten(1)
        v = (v - v.mean(1, keepdim=True)) / v.std(1, correction=0, keepdim=True)
        weight = v.view_as(state[f"{name}.weight"])
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def act(name, x):
        return F.relu(F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-5))

    x = F.max_pool2d(F.pad(conv("stem.conv", x, 2), (1, 1, 1, 1)), 3, 2)
    for s, blocks in enumerate((3, 4, 6, 3)):
        for b in range(blocks):
            at, stride = f"stages.{s}.{b}", 2 if b == 0 and s > 0 else 1
            a = act(f"{at}.fork.norm" if b == 0 else f"{at}.skip.branch.pre1.norm", x)
            x = conv(f"{at}.skip.shortcut.conv", a, stride) if b == 0 else x
            f = conv(f"{at}.skip.branch.conv1", a)
            f = conv(f"{at}.skip.branch.conv2", act(f"{at}.skip.branch.pre2.norm", f), stride)
            x = x + conv(f"{at}.skip.branch.conv3", act(f"{at}.skip.branch.pre3.norm", f))
    x = act("tail.norm", x).mean((2, 3))
    return F.linear(x, state["head.fc.weight"], state["head.fc.bias"])


@pytest.mark.parametrize("size", [(64, 64), (45, 70)])
@torch.no_grad()
def test_the_network_computes_its_equations(network, size):
    x = pictures(2, 3, *size)
    expected = equations(network.state_dict(), x)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(x), expected, rtol=0, atol=1e-6)  # eps 1e-10 of variances


@torch.no_grad()
def test_the_stem_pools_over_zeros_at_the_border():
    stem = create_model("resnetv2_50x1_bit").stem
    negative = torch.full((1, 1, 4, 4), -1.0)
    pooled = stem.pool(stem.pad(negative))
    assert pooled[0, 0].tolist() == [[0.0, 0.0], [0.0, -1.0]]
    own = create_model("resnetv2_50").stem.pool(negative)
    assert own[0, 0].tolist() == [[-1.0, -1.0], [-1.0, -1.0]]


@torch.no_grad()
def test_nothing_depends_on_the_batch_in_training_or_evaluation(network):
    x = pictures(2, 3, 40, 40)
    scores = network(x)
    torch.testing.assert_close(network(x[1:]), scores[1:])
    assert torch.equal(network.train()(x), scores)
    network.eval()


def test_the_factor_widens_the_stem_and_every_stage():
    with torch.device("meta"):
        model = create_model("resnetv2_50x3_bit")
    assert model.stem.conv.out_channels == 192
    assert model.stage_channels == (768, 1536, 3072, 6144)
