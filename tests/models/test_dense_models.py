"""What holds for every registered model that scores pixels, volumes or joints: one body, every name.

What needs weights runs on narrow copies of the same networks; what needs shapes alone runs on all of them
as they are registered, on torch's meta device. Heavy ones are marked slow.
"""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.models import create_model, list_models, record
from residua.models.levels import valid_size
from residua.nn import is_norm

NAMES = [*list_models(task="segmentation"), *list_models(task="pose")]
NARROW = {"width": 8, "depth": 3}
LEAST = {"vnet": {"width": 2}}  # its widths double five times
MOST_PARAMETERS = 1e6  # of what runs always


def options(name):
    """The options that make a model narrow, where it has such."""
    return {k: v for k, v in NARROW.items() if k in record(name).options()} | LEAST.get(name, {})


@functools.cache
def on_meta(name, **how):
    with torch.device("meta"):
        return create_model(name, **how).eval()


def parameters(name):
    return sum(p.numel() for p in on_meta(name, **options(name)).parameters())


def lightest():
    found = {}
    for name in sorted(NAMES, key=parameters):
        found.setdefault((record(name).family, record(name).dims), name)
    return {*found.values()}


LIGHTEST = lightest()
FAST = LIGHTEST | {name for name in NAMES if parameters(name) <= MOST_PARAMETERS}


def marked(names, fast):
    return [pytest.param(n, marks=() if n in fast else pytest.mark.slow) for n in names]


def least(name):
    """The least side that the narrow copy takes."""
    return getattr(on_meta(name, **options(name)), "smallest", record(name).smallest)


def odd(name, more=0):
    """An odd size of all its dimensions, no two sides alike."""
    start = max(least(name), 33 if record(name).dims < 3 else 17) | 1
    return tuple(start + more + 2 * i for i in range(record(name).dims))


def final(scores):
    return scores[-1] if isinstance(scores, list) else scores


@pytest.fixture(scope="module", params=marked(NAMES, FAST))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    """One narrow copy for all tests of a model; 3 classes, in evaluation, after it has seen a batch."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options(name))
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(2, 3, *odd(name)))
    for norm in norms:
        norm.momentum = 0.1
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
def test_a_batch_of_one_scores_as_it_does_among_others(name, model, draw):
    x = draw(3, 3, *odd(name))
    together, alone = model(x), model(x[1:2])
    assert together.isfinite().all()
    torch.testing.assert_close(alone, together[1:2], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_memory_format_does_not_change_the_result(name, model, draw):
    known = {2: torch.channels_last, 3: torch.channels_last_3d}
    if record(name).dims not in known:
        pytest.skip("lines have no such format")
    x, last = draw(1, 3, *odd(name)), known[record(name).dims]
    default = model(x)
    found = model.to(memory_format=last)(x.to(memory_format=last))
    model.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(found, default, rtol=1e-6, atol=1e-6)


def test_gradient_reaches_every_parameter(name, loose, draw):
    loose.train()
    torch.manual_seed(0)
    scores = loose(draw(2, 3, *odd(name)))
    every = scores if isinstance(scores, list) else [scores]
    sum((y * draw(*y.shape)).sum() for y in every).backward()
    dead = [k for k, p in loose.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def differs(module):
    """Whether a module is documented to compute something else in training."""
    if isinstance(module, nn.Dropout):
        return module.p > 0
    return is_norm(module) and [*module.buffers()] != []


@torch.no_grad()
def test_training_and_evaluation_differ_in_the_documented_modules_only(name, loose, draw):
    x = draw(2, 3, *odd(name))
    evaluated = loose(x)
    assert isinstance(evaluated, torch.Tensor)
    loose.train()
    two_faced = [module for module in loose.modules() if differs(module)]
    for module in two_faced:
        module.eval()
    assert torch.equal(final(loose(x)), evaluated)
    loose.train()
    assert torch.equal(final(loose(x)), evaluated) == (two_faced == [])


@torch.no_grad()
def test_the_weights_decide_the_precision_throughout(name, loose, draw):
    x = draw(1, 3, *odd(name))
    assert loose(x).dtype == torch.float64
    seen = []
    handles = [
        layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
        for layer in loose.modules()
        if not list(layer.children())
    ]
    assert loose.float()(x.float()).dtype == torch.float32
    for handle in handles:
        handle.remove()
    assert set(seen) == {torch.float32}


@torch.no_grad()
def test_the_seed_decides_the_weights_and_a_state_dict_carries_them(name, model, draw):
    weights, found = dict(model.named_parameters()), []
    for seed in (0, 1):
        torch.manual_seed(seed)
        fresh = create_model(name, num_classes=3, **options(name)).double().eval()
        found.append([torch.equal(p, weights[k]) for k, p in fresh.named_parameters()])
    assert all(found[0])
    assert not all(found[1])
    fresh.load_state_dict(model.state_dict())
    x = draw(1, 3, *odd(name))
    assert torch.equal(fresh(x), model(x))


@torch.no_grad()
def test_an_exported_program_computes_the_same(name, model, draw):
    x = draw(1, 3, *odd(name))
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-9, atol=1e-9)


# -- shapes alone, of every model as it is registered ----------------------------------------------------


def expected(name, size):
    """The size of the scores, where every pixel has one; 0 where there are none."""
    valid = record(name).options().count("padding") == 0 and record(name).family == "unet"
    if not valid:
        return size
    depth = record(name).defaults.get("depth", 5)
    return tuple(valid_size(side, depth) for side in size)


@pytest.mark.parametrize("name", marked(NAMES, FAST))
def test_channels_and_classes_change_the_ends_only(name):
    usual = {k: v.shape for k, v in on_meta(name, num_classes=7).state_dict().items()}
    size = tuple(max(record(name).smallest, 37) + 2 * i for i in range(record(name).dims))
    for channels, classes in ((1, 1), (3, 7), (4, 12)):
        other = on_meta(name, num_classes=classes, in_channels=channels)
        scores = other(torch.empty(1, channels, *size, device="meta"))
        assert scores.shape[:2] == (1, classes)
        if record(name).task == "segmentation":
            assert scores.shape[2:] == expected(name, size)
        changed = {k: v.shape for k, v in other.state_dict().items()}
        assert usual.keys() == changed.keys()
        for k in usual:
            assert len([1 for a, b in zip(usual[k], changed[k], strict=True) if a != b]) <= 1
        if classes == 7:
            assert usual == changed


@pytest.mark.parametrize("name", marked(NAMES, FAST))
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_every_size_from_1_to_130_runs_or_gives_one_clear_line(name, data):
    known, model = record(name), on_meta(name)
    size = tuple(data.draw(st.integers(1, 130)) for _ in range(known.dims))
    x = torch.empty(1, 3, *size, device="meta")
    if min(size) >= known.smallest:
        scores = model(x)
        assert scores.dim() == known.dims + 2
        if known.task == "segmentation":
            assert scores.shape[2:] == expected(name, size)
        return
    with pytest.raises(ValueError, match=f"{known.smallest}") as raised:
        model(x)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", marked(NAMES, FAST))
def test_the_smallest_picture_is_the_smallest(name):
    smallest, dims = record(name).smallest, record(name).dims
    assert on_meta(name)(torch.empty(1, 3, *[smallest] * dims, device="meta")).numel() > 0
    if smallest > 1:
        with pytest.raises(ValueError, match=f"{smallest}"):
            on_meta(name)(torch.empty(1, 3, *[smallest] * (dims - 1), smallest - 1, device="meta"))


# -- torch.compile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LIGHTEST))
@torch.no_grad()
def test_a_network_compiles_into_one_graph(name):
    """Traced as for any backend, without making machine code."""
    torch.manual_seed(0)
    model = create_model(name, **options(name)).eval()
    x = torch.randn(2, 3, *odd(name))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
