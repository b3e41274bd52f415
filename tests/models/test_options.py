"""What the options of `create_model` do, to whole networks."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.nn import Projection, Skip, StochasticDepth, ZeroPad, is_norm

FAMILIES = ["resnet20_cifar", "preact_resnet20_cifar", "resnet18", "resnetv2_18", "resnet9_cifar"]


def norms(model):
    return [layer for layer in model.modules() if is_norm(layer)]


@pytest.mark.parametrize("name", [*FAMILIES, "plain20_cifar", "resnet50", "resnetv2_50"])
def test_another_norm_takes_the_place_of_every_batch_norm(name):
    with torch.device("meta"):
        usual, group, none = (create_model(name, norm=n) for n in ("batch", "group", "none"))
    assert all(isinstance(layer, nn.BatchNorm2d) for layer in norms(usual))
    assert all(isinstance(layer, nn.GroupNorm) for layer in norms(group))
    assert len(norms(group)) == len(norms(usual)) > 0
    assert norms(none) == []


# One picture of one pixel: torch's own group norm refuses it where a group is one channel.
@example(name="resnet18", size=(1, 1), channels=3, classes=2, batch=1, norm="instance")
@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from([*FAMILIES, "plain20_cifar"]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.integers(1, 5),
    classes=st.integers(1, 12),
    batch=st.integers(1, 3),
    norm=st.sampled_from(["batch", "group", "layer", "instance", "none"]),
)
def test_any_size_channels_classes_and_norm_make_a_network(
    name, size, channels, classes, batch, norm
):
    model = create_model(name, classes, channels, norm=norm).eval()
    with torch.no_grad():
        scores = model(torch.randn(batch, channels, *size))
    assert scores.shape == (batch, classes)
    assert scores.isfinite().all()


def test_shortcuts_a_b_and_c_sit_where_the_paper_has_them():
    def count(name, kind, shortcut):
        with torch.device("meta"):
            model = create_model(name, shortcut=shortcut)
        return sum(isinstance(m, kind) for m in model.modules())

    # resnet34: three stages of 16 blocks in all start with a change of shape (2015, section 3.3)
    assert count("resnet34", ZeroPad, "A") == 3
    assert count("resnet34", Projection, "B") == 3
    assert count("resnet34", Projection, "C") == 16
    assert count("resnetv2_34", Projection, "C") == 16


@pytest.mark.parametrize("name", FAMILIES)
def test_zero_init_last_starts_every_block_as_its_shortcut(name):
    torch.manual_seed(0)
    model = create_model(name, zero_init_last=True).eval()
    silent = []

    def see(skip, inputs, output):
        silent.append(not skip.branch(inputs[0]).any())

    for skip in (m for m in model.modules() if isinstance(m, Skip)):
        skip.register_forward_hook(see)
    with torch.no_grad():
        model(torch.randn(1, 3, 16, 16))
    assert silent
    assert all(silent)


@pytest.mark.parametrize("name", FAMILIES)
def test_stochastic_depth_survives_less_with_depth_and_adds_no_parameter(name):
    usual, model = create_model(name), create_model(name, stochastic_depth=0.5)
    survivals = [m.survival for m in model.modules() if isinstance(m, StochasticDepth)]
    blocks = sum(isinstance(m, Skip) for m in model.modules())
    assert survivals == pytest.approx([1 - 0.5 * (i + 1) / blocks for i in range(blocks)])
    assert list(model.state_dict()) == list(usual.state_dict())
    model.load_state_dict(usual.state_dict())
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), usual.eval()(x))


def test_a_network_with_stochastic_depth_learns_in_every_block():
    torch.manual_seed(0)
    model = create_model("preact_resnet20_cifar", stochastic_depth=0.5)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, labels = torch.randn(16, 3, 16, 16), torch.arange(16) % 10
    start = {k: p.detach().clone() for k, p in model.named_parameters()}
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert not any(torch.equal(p, start[k]) for k, p in model.named_parameters())


def test_initialisation_is_an_option():
    torch.manual_seed(0)
    he = create_model("resnet18").stages[3][1].skip.branch.conv2.weight.var().item()
    torch.manual_seed(0)
    glorot = (
        create_model("resnet18", init="glorot").stages[3][1].skip.branch.conv2.weight.var().item()
    )
    assert he == pytest.approx(2 / (512 * 9), rel=0.02)
    assert glorot == pytest.approx(2 / (1024 * 9), rel=0.02)


@pytest.mark.parametrize(
    "name, options, says",
    [
        ("resnet5", {}, "unknown model 'resnet5'. Did you mean resnet50"),
        ("resnet50_cifr", {}, "resnet56_cifar"),
        ("resnet18", {"nrom": "group"}, "unknown option 'nrom' for resnet18. Did you mean norm?"),
        ("resnet9_cifar", {"shortcut": "A"}, "unknown option 'shortcut' for resnet9_cifar."),
        ("resnet18", {"norm": "grup"}, "resnet18: norm 'grup' is unknown: expected one of batch"),
        ("resnet18", {"shortcut": "E"}, "shortcut 'E' is unknown: expected one of A, B, C, D"),
        ("resnet50", {"stride_on": "7x7"}, "stride_on '7x7' is unknown: expected 3x3 or 1x1"),
        (
            "resnet18",
            {"init": "zero"},
            "initialisation 'zero' is unknown: expected one of he, he_uniform",
        ),
        ("resnet18", {"stochastic_depth": 1.0}, "stochastic_depth 1.0 is not in [0, 1)"),
        ("resnet9_cifar", {"stochastic_depth": -0.1}, "stochastic_depth -0.1 is not in [0, 1)"),
        ("resnet9_cifar", {"width": 0}, "width 0 is not at least 1"),
        ("plain18", {"stochastic_depth": 0.2}, "a plain network has no shortcut"),
        ("plain18", {"zero_init_last": True}, "a plain network has no shortcut"),
        ("resnet18", {"num_classes": 0}, "num_classes must be at least 1, not 0"),
        ("resnet18", {"in_channels": 0}, "in_channels must be at least 1, not 0"),
        ("resnet18", {"block": None}, "unknown option 'block'"),
    ],
)
def test_a_bad_option_is_refused_in_one_line(name, options, says):
    with pytest.raises(BadInput) as raised:
        create_model(name, **options)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
