"""Activations by name: their equations, and their place in a network."""

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.nn import ACTIVATIONS, BlockOptions, EdgeBlock, SqueezeExcitation, make_activation
from residua.nn.norms import make_norm

EQUATIONS = {
    "relu": lambda z: torch.where(z > 0, z, 0.0),
    "silu": lambda z: z / (1 + torch.exp(-z)),
    "gelu": lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_its_equation(name):
    z = torch.linspace(-6, 6, 101, dtype=torch.float64)
    torch.testing.assert_close(make_activation(name, inplace=False)(z), EQUATIONS[name](z))


def of_kind(model, kind):
    """Those that are not inside of a squeeze and excitation, which keeps its ReLU."""
    gates = {
        m for gate in model.modules() if isinstance(gate, SqueezeExcitation) for m in gate.modules()
    }
    return [m for m in model.modules() if isinstance(m, kind) and m not in gates]


@pytest.mark.parametrize("order", ["original", "relu_only_preactivation", "preactivation"])
def test_another_activation_stands_where_every_relu_stood(order):
    given = {"order": order, "attention": "se"}
    relus = of_kind(create_model("resnet20_cifar", **given), nn.ReLU)
    model = create_model("resnet20_cifar", activation="silu", **given)
    assert of_kind(model, nn.ReLU) == []
    assert len(of_kind(model, nn.SiLU)) == len(relus) >= 18


@pytest.mark.parametrize("norm", ["evonorm", "filter_response_tlu"])
def test_after_a_norm_that_activates_nothing_does_and_after_an_addition_something_does(norm):
    def relus(**options):
        return [
            n
            for n, m in create_model("resnet20_cifar", **options).named_modules()
            if type(m) is nn.ReLU
        ]

    assert relus(norm=norm, order="preactivation") == []
    assert relus(norm=norm) == [n for n in relus() if n.endswith("merge.activation")]
    assert len(relus(norm=norm)) == 9


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"activation": "sulu"}, "activation 'sulu' is unknown: expected one of relu, silu, gelu"),
        ({"norm": "evonorm", "activation": "silu"}, "norm 'evonorm' is an activation itself"),
        ({"norm": "evonorm(0)"}, "evonorm of 0 groups: expected a whole number from 1"),
        ({"norm": "evonorm(2.5)"}, "evonorm of 2.5 groups: expected a whole number from 1"),
        ({"attention": "se", "attention_at": "front"}, "attention_at 'front' is unknown"),
        ({"group_size": 32}, "are of bottleneck blocks, not of basic ones"),
        ({"spatial": 0}, "spatial 0 is not at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(options, says):
    with pytest.raises(BadInput) as raised:
        create_model("resnet20_cifar", **options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_activation_writes_over_what_another_reads(activation):
    """In place or not, gradients are those of the network whose every module makes a new tensor."""
    torch.manual_seed(0)
    options = {"activation": activation, "order": "relu_only_preactivation", "attention": "se"}
    model = create_model("resnet20_cifar", **options).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for inplace in (True, False):
        for m in model.modules():
            if isinstance(m, nn.ReLU) and not inplace:
                m.inplace = False
        model.zero_grad()
        model(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_an_edge_block_is_its_equation():
    torch.manual_seed(0)
    options = BlockOptions(norm=make_norm("none", activation="silu"))
    block = EdgeBlock(8, 4, 2, options).double().skip
    x, f = torch.randn(2, 8, 5, 7, dtype=torch.float64), block.branch
    y = nn.functional.conv2d(x, f.conv1.weight, f.conv1.bias, stride=2, padding=1)
    y = nn.functional.conv2d(EQUATIONS["silu"](y), f.conv2.weight, f.conv2.bias)
    s = nn.functional.conv2d(x, block.shortcut.conv.weight, stride=2)
    torch.testing.assert_close(block(x), EQUATIONS["silu"](y + s))
