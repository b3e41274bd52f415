"""What holds for every registered classification model, whatever its family: one body, every name.

What needs weights runs for the FAST models; the others are marked slow. What needs shapes alone runs for
all of them, on torch's meta device.
"""

import functools
import itertools
import re

import pytest
import torch
from torch import nn

from residua.models import create_model, list_models, record
from residua.models.residual import residual_network
from residua.nn import NoShortcut, is_norm
from residua.nn.regularisers import (
    RandomDrop,
    SeparatedDrop,
    ShakeDrop,
    ShakeShake,
    StochasticDepth,
)

# A check costs the building of the weights, the work of a small picture, and torch's own time for each
# layer, export's above all. The largest ones run with -m slow; of networks too large for a small machine
# in float64 the shapes alone are tested: they are narrower models of the same family, made wider.
MOST_DEPTH, MOST_PARAMETERS, MOST_WORK = 60, 23e6, 0.5e9
USUAL = {"resnet50"}  # what most people take is looked at every time
MOST_IN_MEMORY = 150e6

# The modules that are documented to differ between training and evaluation, besides norms with statistics.
RANDOM = (
    nn.Dropout,
    StochasticDepth,
    RandomDrop,
    SeparatedDrop,
    ShakeDrop,
    ShakeShake,
)


def side(name):
    """An odd size that the model takes: two by two positions or more at the coarsest stage."""
    return max(33, record(name).smallest | 1)


def odd(name):
    return side(name), side(name) + 24


def depth(name):
    """The number of layers in a name, which is its first number but for the 2 in resnetv2."""
    found = re.search(r"(?<!v)\d+", name)
    return int(found[0]) if found else 1


def work(name):
    """Multiply-adds for the small picture."""
    return record(name).multiply_adds * (side(name) / record(name).input_size) ** 2


def families():
    """The names of each family, least work first."""
    found = {}
    for name in sorted(
        list_models(task="classification"), key=lambda name: work(name) * record(name).parameters
    ):
        found.setdefault(record(name).family, []).append(name)
    return found


LIGHTEST = {names[0] for names in families().values()}
FAST = (
    LIGHTEST
    | USUAL
    | {
        name
        for name in list_models(task="classification")
        if depth(name) <= MOST_DEPTH
        and record(name).parameters <= MOST_PARAMETERS
        and work(name) <= MOST_WORK
    }
)


# Shapes of a thousand layers take seconds, too.
SHAPES = {name for name in list_models(task="classification") if depth(name) < 1000}


def marked(names, fast):
    return [pytest.param(n, marks=() if n in fast else pytest.mark.slow) for n in names]


@pytest.fixture(
    scope="module",
    params=marked(
        [n for n in list_models(task="classification") if record(n).parameters <= MOST_IN_MEMORY],
        FAST,
    ),
)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """One build for all tests of a model, which leave it as it was; 7 classes, in evaluation.

    In float64, because a plain network of 56 layers magnifies rounding by a million.
    Its norms have seen one batch: before that, the trunk of a deep v1 network doubles with each
    block in evaluation, and 333 blocks overflow.
    """
    torch.manual_seed(0)
    model = create_model(name, num_classes=7)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    if norms:
        for layer in norms:
            layer.momentum = 1.0
        with torch.no_grad():
            model(torch.randn(4, 3, side(name), side(name)))
        for layer in norms:
            layer.momentum = 0.1
    return model.double().eval()


@pytest.fixture
def loose(model):
    """The same model, to be trained and changed: afterwards it is as it was."""
    state = {k: v.clone() for k, v in model.state_dict().items()}
    yield model
    model.zero_grad(set_to_none=True)
    model.double().eval().load_state_dict(state)


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def test_any_picture_size_gives_a_score_for_each_class(name, model, draw):
    smallest = record(name).smallest
    for size in [(smallest, smallest), odd(name)]:
        scores = model(draw(2, 3, *size))
        assert scores.shape == (2, 7)
        assert scores.isfinite().all()


@torch.no_grad()
def test_a_batch_of_one_scores_as_it_does_among_others(name, model, draw):
    x = draw(3, 3, side(name), side(name) + 4)
    together, alone = model(x), model(x[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_memory_format_does_not_change_the_result(name, model, draw):
    """By no more than rounding, or than a network makes of its input's last bits: up to 1e10 times."""
    x = draw(1, 3, side(name), side(name) + 4)
    default = model(x)
    bits = torch.finfo(x.dtype).eps * x.abs().max() * draw(*x.shape)
    rounding = (model(x + bits) - default).abs().max()
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    model.to(memory_format=torch.contiguous_format)
    least = torch.finfo(x.dtype).eps * default.abs().max()
    assert (last - default).abs().max() <= 20 * torch.maximum(rounding, least)


def test_gradient_reaches_every_parameter(name, loose, draw):
    """Parameters that are all zero move a little first.

    SkipInit's scalar, Fixup's last convolutions and zero heads start at zero by design, and let nothing
    through in the first step; what is tested is the structure, not the start.
    """
    with torch.no_grad():
        for parameter in loose.parameters():
            if not parameter.any():
                parameter.copy_(1e-3 * draw(*parameter.shape))
    loose.train()
    (loose(draw(4, 3, side(name), side(name))) * draw(4, 7)).sum().backward()
    dead = [k for k, p in loose.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def differs(module):
    """Whether a module is documented to compute something else in training."""
    if isinstance(module, nn.Dropout):
        return module.p > 0
    return isinstance(module, RANDOM) or (is_norm(module) and [*module.buffers()] != [])


@torch.no_grad()
def test_training_and_evaluation_differ_in_the_documented_modules_only(name, loose, draw):
    x = draw(2, 3, side(name), side(name))
    evaluated = loose(x)
    loose.train()
    two_faced = [module for module in loose.modules() if differs(module)]
    for module in two_faced:
        module.eval()
    assert torch.equal(loose(x), evaluated)
    loose.train()
    assert torch.equal(loose(x), evaluated) == (two_faced == [])


@torch.no_grad()
def test_the_weights_decide_the_precision_throughout(name, loose, draw):
    x = draw(1, 3, side(name), side(name))
    assert loose(x).dtype == torch.float64
    seen = []
    handles = [
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
        for layer in loose.modules()
        if not isinstance(layer, NoShortcut) and not list(layer.children())
    ]
    assert loose.float()(x.float()).dtype == torch.float32
    for handle in handles:
        handle.remove()
    assert set(seen) == {torch.float32}


@torch.no_grad()
def test_the_seed_decides_the_weights_and_a_state_dict_carries_them(name, model, draw):
    weights = dict(model.named_parameters())
    same, other = {}, {}
    for seed, found in ((0, same), (1, other)):
        torch.manual_seed(seed)
        fresh = create_model(name, num_classes=7).double().eval()
        found |= {k: torch.equal(p, weights[k]) for k, p in fresh.named_parameters()}
    assert all(same.values())
    assert not all(other.values())
    fresh.load_state_dict(model.state_dict())
    x = draw(1, 3, side(name), side(name))
    assert torch.equal(fresh(x), model(x))


@torch.no_grad()
def test_an_exported_program_computes_the_same(name, model, draw):
    x = draw(1, 3, *odd(name))
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-9, atol=1e-9)


# -- shapes alone, of every model ------------------------------------------------------------------------


def built(name, **options):
    with torch.device("meta"):
        return create_model(name, **options).eval()


@functools.cache
def usual_shapes(name):
    return {k: v.shape for k, v in built(name, num_classes=7).state_dict().items()}


def scores(model, channels, *size):
    with torch.device("meta"):
        return model(torch.empty(1, channels, *size))


@pytest.mark.parametrize("name", marked(list_models(task="classification"), SHAPES))
def test_other_channels_and_classes_change_the_first_and_last_layers_only(name):
    usual = usual_shapes(name)
    for channels, classes in ((1, 1), (4, 12)):
        other = built(name, num_classes=classes, in_channels=channels)
        assert scores(other, channels, *odd(name)).shape == (1, classes)
        changed = {k: v.shape for k, v in other.state_dict().items()}
        assert usual.keys() == changed.keys()
        # An ensemble has several of them.
        ends = [k for k in usual if re.search(r"(^|\.)(stem\.conv\.weight|head\.fc\.\w+)$", k)]
        assert [k for k in usual if usual[k] != changed[k]] == ends != []


@pytest.mark.parametrize("name", marked(list_models(task="classification"), SHAPES))
def test_features_only_leaves_out_the_head_and_names_the_stages(name):
    body = built(name, features_only=True)
    assert list(body.state_dict()) == [
        k for k in usual_shapes(name) if not re.match(r"(.*\.)?head\.", k)
    ]
    size = odd(name)
    maps = scores(body, 3, *size)
    assert [m.shape[1] for m in maps] == list(body.stage_channels)
    assert all(a.shape[2] >= b.shape[2] for a, b in itertools.pairwise(maps))
    with torch.device("meta"):
        named = body.forward_stages(torch.empty(1, 3, *size))
    assert list(named) == ["stem", *(f"stages.{i}" for i in range(len(maps)))]
    assert [m.shape for m in named.values()][1:] == [m.shape for m in maps]
    known = record(name)
    if known.builder is residual_network:  # every stride rounds up
        first = 1 if known.input_size == 32 else 4
        for i, m in enumerate(maps):
            assert m.shape[2:] == tuple((s - 1) // (first * 2**i) + 1 for s in size)


@pytest.mark.parametrize(
    "name", [n for n in list_models(task="classification") if record(n).smallest > 1]
)
def test_the_smallest_picture_is_the_smallest(name):
    smallest = record(name).smallest
    model = built(name)
    assert scores(model, 3, smallest, smallest).shape[0] == 1
    with pytest.raises(ValueError, match=f"{smallest}") as raised:
        scores(model, 3, smallest, smallest - 1)
    assert "\n" not in str(raised.value)


# -- torch.compile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", marked([n for n in list_models(task="classification") if n in FAST], LIGHTEST)
)
@torch.no_grad()
def test_a_network_compiles_into_one_graph(name):
    """Traced as for any backend, without making machine code."""
    torch.manual_seed(0)
    model = create_model(name).eval()
    x = torch.randn(2, 3, side(name), side(name))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LIGHTEST))
def test_compiled_machine_code_computes_the_same(name):
    torch.manual_seed(0)
    model = create_model(name).eval()
    x = torch.randn(2, 3, side(name), side(name))
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model)(x), model(x), rtol=1e-3, atol=1e-3)
