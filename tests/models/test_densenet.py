"""DenseNet: published counts, what each layer reads, and recomputation that changes nothing but memory."""

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from residua.errors import BadInput
from residua.models import create_model, list_models, record
from residua.models.densenet import densenet
from residua.nn import Skip
from residua.nn.merges.concatenate import Concatenate

# torchvision, and DenseNet-264 by closed form. Millions: the table in the authors' repository.
PUBLISHED = {
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet264": 33_337_704,
    "densenet_bc100_12_cifar": 769_162,
}
MILLIONS = {
    "densenet40_12_cifar": 1.0,
    "densenet100_12_cifar": 7.0,
    "densenet100_24_cifar": 27.2,
    "densenet_bc100_12_cifar": 0.8,
    "densenet_bc250_24_cifar": 15.3,
    "densenet_bc190_40_cifar": 25.6,
    "densenet_bc40_36_cifar": 1.5,
    "densenet_bc40_48_cifar": 2.7,
    "densenet_bc40_60_cifar": 4.3,
}


def little(bottleneck=True, small=True, **options):
    """A network of three blocks of 3, 2, 2 layers that grow by 4."""
    torch.manual_seed(0)
    shape = {"depths": (3, 2, 2), "growth": 4, "num_classes": 5, "in_channels": 3}
    return densenet(bottleneck=bottleneck, small=small, **shape, **options).double()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", MILLIONS)
def test_counts_are_those_of_the_authors_table(name):
    assert round(record(name).parameters / 1e6, 1) == MILLIONS[name]


@pytest.mark.parametrize("name", list_models("densenet*", task="classification"))
def test_the_name_says_how_many_layers_have_weights(name):
    with torch.device("meta"):
        model = create_model(name)
    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    depth = int(re.findall(r"\d+", name)[0])
    # the paper's own table 1 makes 264 layers 265; a deep stem has three convolutions for one
    assert layers == depth + (depth == 264) + 2 * name.endswith("d")


@pytest.mark.parametrize("bottleneck", [True, False])
def test_every_layer_reads_all_maps_before_it_and_adds_its_own(bottleneck):
    model = little(bottleneck).eval()
    layers = [m for m in model.modules() if isinstance(m, Skip)]
    seen = []
    for layer in layers:
        layer.register_forward_hook(lambda layer, x, y: seen.append((layer, x[0], y)))
    with torch.no_grad():
        model(pictures(1, 3, 6, 6))
        assert [layer for layer, *_ in seen] == layers
        for layer, x, y in list(seen):
            assert isinstance(layer.shortcut, nn.Identity)
            assert isinstance(layer.merge, Concatenate)
            assert torch.equal(y, torch.cat((x, layer.branch(x)), 1))
            assert y.shape[1] == x.shape[1] + 4


def test_a_plain_loop_over_lists_of_maps_gives_the_same_network():
    model = little().eval()
    x = pictures(2, 3, 9, 10)
    with torch.no_grad():
        y = model.stem(x)
        for i, stage in enumerate(model.stages):
            parts = dict(stage.named_children())
            if i:
                t = parts.pop("transition")
                y = nn.functional.avg_pool2d(t.conv(t.pre.norm(y).relu()), 2)
            maps = [y]
            for layer in parts.values():
                b = layer.branch
                inner = b.conv1(b.pre1.norm(torch.cat(maps, 1)).relu())
                maps.append(b.conv2(b.pre2.norm(inner).relu()))
            y = torch.cat(maps, 1)
        scores = model.head.fc(model.tail.norm(y).relu().mean((2, 3)))
    torch.testing.assert_close(model(x), scores)


def test_a_stage_is_its_dense_block_after_the_transition_that_leads_to_it():
    with torch.device("meta"):
        model = create_model("densenet121", features_only=True).eval()
        maps = model(torch.empty(1, 3, 224, 224))
    assert model.stage_channels == (256, 512, 1024, 1024)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
        (1024, 7, 7),
    ]
    assert list(model.state_dict())[:2] == ["stem.conv.weight", "stem.norm.weight"]


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    small=st.booleans(),
    bottleneck=st.booleans(),
    channels=st.integers(1, 4),
    batch=st.integers(1, 2),
)
def test_transitions_floor_odd_sizes_and_stop_at_one_pixel(
    size, small, bottleneck, channels, batch
):
    with torch.device("meta"):
        shape = {"depths": (1, 1, 1, 1), "growth": 2, "num_classes": 2, "in_channels": channels}
        model = densenet(small=small, bottleneck=bottleneck, features_only=True, **shape).eval()
        maps = model(torch.empty(batch, channels, *size))
    sides = size if small else tuple((s - 1) // 4 + 1 for s in size)
    for i, m in enumerate(maps):
        assert m.shape == (batch, model.stage_channels[i], *(max(1, s >> i) for s in sides))


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_another_norm_takes_every_place(norm):
    model = little(norm=norm).eval()
    kinds = {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__}
    assert kinds == {"batch": {"BatchNorm2d"}, "group": {"GroupNorm"}, "none": set()}[norm]
    x = pictures(1, 3, 7, 8)
    with torch.no_grad():
        scores = model(x)
        assert scores.shape == (1, 5)
        # Without a norm a ReLU reads the trunk itself: it must leave it as it is.
        torch.testing.assert_close(model(x), scores, rtol=0, atol=0)


def test_gradient_reaches_every_parameter_from_one_picture_of_odd_size():
    model = little().train()
    model(pictures(1, 3, 9, 11)).square().sum().backward()
    assert [k for k, p in model.named_parameters() if not p.grad.abs().sum() > 0] == []


def test_dropout_follows_every_convolution_but_the_first_and_acts_in_training_only():
    usual, model = little(), little(dropout=0.2)
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(drops) == len(convolutions) - 1
    x = pictures(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), usual.eval()(x))
        assert not torch.equal(model.train()(x), model(x))
    with pytest.raises(BadInput, match=r"dropout 1.0 is not in \[0, 1\)"):
        create_model("densenet40_12_cifar", dropout=1.0)


# Memory-efficient: Pleiss et al. 2017.


def step(model, x, momentum=0.9):
    """One step of training; returns output, gradients and the state afterwards."""
    torch.manual_seed(3)
    model.train()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)
    y = model(x)
    y.square().sum().backward()
    gradients = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    optimiser.step()
    return y.detach(), gradients, {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize("wants", [False, True], ids=["pictures", "pictures with gradient"])
@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"norm": "group"}, {"norm": "none"}])
@pytest.mark.parametrize("bottleneck", [True, False], ids=["bc", "basic"])
def test_recomputation_changes_no_output_gradient_or_running_statistic(bottleneck, options, wants):
    usual = little(bottleneck, **options)
    model = little(bottleneck, memory_efficient=True, **options)
    x, z = (pictures(3, 3, 9, 8).requires_grad_(wants) for _ in range(2))
    expected, found = step(usual, x), step(model, z)
    assert torch.equal(found[0], expected[0])
    assert found[1].keys() == expected[1].keys() == dict(model.named_parameters()).keys()
    for state in (1, 2):
        for name, value in expected[state].items():
            torch.testing.assert_close(found[state][name], value, rtol=1e-9, atol=1e-12, msg=name)
    if not options:
        moved = [v for k, v in found[2].items() if k.endswith("num_batches_tracked")]
        assert {int(v) for v in moved} == {1}
    if wants:
        torch.testing.assert_close(z.grad, x.grad, rtol=1e-9, atol=1e-12)


def test_a_recomputed_network_trains_its_first_layer_although_the_pictures_want_no_gradient():
    """The fault: reentrant checkpoints of layers whose input wants no gradient train nothing."""
    layer = little().stages[0][0].branch
    x = pictures(2, layer[0].norm.num_features, 4, 4)
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        faulty = checkpoint(layer, x, use_reentrant=True)
    assert not faulty.requires_grad

    model = little(memory_efficient=True)
    model.stem.requires_grad_(False)  # so that no input of the first layer wants one either
    _, gradients, _ = step(model, pictures(2, 3, 8, 8))
    assert gradients.keys() == {k for k, _ in model.named_parameters() if "stem" not in k}
    assert all(g.abs().sum() > 0 for g in gradients.values())
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    step(model, pictures(2, 3, 8, 8))
    same = {k for k, p in model.named_parameters() if torch.equal(p, before[k])}
    assert same == {"stem.conv.weight"}


def saved_bytes(model, x):
    """Bytes of the distinct storages that autograd keeps between the passes, parameters left out."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that none is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(x).sum()
    assert loss.requires_grad
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("bottleneck", [True, False], ids=["bc", "basic"])
def test_recomputation_keeps_memory_linear_in_the_number_of_layers(bottleneck):
    def of(layers, memory_efficient):
        model = densenet(
            depths=(layers,),
            growth=4,
            bottleneck=bottleneck,
            small=True,
            num_classes=2,
            in_channels=3,
            memory_efficient=memory_efficient,
        )
        return saved_bytes(model.train(), torch.randn(2, 3, 16, 16))

    layers = [4, 8, 12, 16]
    plain, thrifty = ([of(n, how) for n in layers] for how in (False, True))
    # Equally spaced depths: the second difference of a line is zero, of n^2 it is not.
    assert all(b < a for a, b in zip(plain, thrifty, strict=True))
    assert plain[3] - 2 * plain[2] + plain[1] > 0.1 * (plain[1] - plain[0])
    assert abs(thrifty[3] - 2 * thrifty[2] + thrifty[1]) < 0.01 * (thrifty[1] - thrifty[0])
    assert thrifty[3] < 0.6 * plain[3]


def test_recomputation_leaves_evaluation_and_a_frozen_network_alone():
    usual, model = little().eval(), little(memory_efficient=True).eval()
    x = pictures(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(model(x), usual(x))
    state = copy.deepcopy(model.state_dict())
    model(x).sum().backward()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert list(model.state_dict()) == list(usual.state_dict())


def test_a_densenet_learns():
    torch.manual_seed(0)
    model = densenet(
        depths=(2, 2, 2),
        growth=6,
        bottleneck=True,
        small=True,
        num_classes=4,
        in_channels=3,
        memory_efficient=True,
    )
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, labels = torch.randn(16, 3, 12, 12), torch.arange(16) % 4
    losses = []
    for _ in range(25):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
