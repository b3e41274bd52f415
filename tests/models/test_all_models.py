"""What holds for every registered model, whatever its family: one body, every name."""

import pytest
import torch
from torch import nn

from residua.models import create_model, list_models, record
from residua.nn import is_norm

ODD = (33, 57)
ENOUGH = (33, 33)  # two by two positions at the coarsest stage, for batch statistics


# resnet200 and the 164-layer networks run with the others; these take seconds a check and add nothing.
HUGE = {n for n in list_models() if any(depth in n for depth in ("101", "152", "1001", "1202"))}


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in HUGE else ()) for n in list_models()],
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
    for layer in norms:
        layer.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32))
    for layer in norms:
        layer.momentum = 0.1
    return model.double().eval()


@pytest.fixture
def draw():
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
def test_any_picture_size_gives_a_score_for_each_class(model, draw):
    for size in [(1, 1), ODD]:
        scores = model(draw(2, 3, *size))
        assert scores.shape == (2, 7)
        assert scores.isfinite().all()


@torch.no_grad()
def test_a_batch_of_one_scores_as_it_does_among_others(model, draw):
    x = draw(3, 3, 17, 20)
    together, alone = model(x), model(x[1:2])
    torch.testing.assert_close(alone, together[1:2], rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_memory_format_does_not_change_the_result(model, draw):
    x = draw(1, 3, 17, 20)
    default = model(x)
    last = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    model.to(memory_format=torch.contiguous_format)
    torch.testing.assert_close(last, default, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_stages_are_to_be_had_by_name(name, model, draw):
    maps = model.forward_stages(draw(1, 3, *ODD))
    small = record(name).input_size == 32
    stages = [k for k in maps if k != "stem"]
    assert stages == [f"stages.{i}" for i in range(3 if small else 4)]
    assert [maps[k].shape[1] for k in stages] == list(model.stage_channels)
    # ResNet-9's stem keeps the size and every stage halves it.
    first = 2 if name.startswith("resnet9") else 1 if small else 4
    for i, stage in enumerate(stages):
        size = tuple((side - 1) // (first * 2**i) + 1 for side in ODD)
        assert maps[stage].shape[2:] == size


def test_other_channels_and_classes_change_the_first_and_last_layer_only(name, model):
    with torch.device("meta"):
        other = create_model(name, num_classes=1, in_channels=4).eval()
        assert other(torch.empty(1, 4, *ODD)).shape == (1, 1)
    shapes, changed = ({k: v.shape for k, v in m.state_dict().items()} for m in (model, other))
    different = {k for k in shapes if shapes[k] != changed[k]}
    assert shapes.keys() == changed.keys()
    assert different == {"stem.conv.weight"} | {k for k in shapes if k.startswith("head.")}


def test_features_only_leaves_out_the_head(name, model):
    with torch.device("meta"):
        body = create_model(name, features_only=True).eval()
        maps = body(torch.empty(1, 3, *ODD))
    names = [k for k in model.state_dict() if not k.startswith("head.")]
    assert list(body.state_dict()) == names
    assert [m.shape[1] for m in maps] == list(body.stage_channels)


def test_gradient_reaches_every_parameter(model, draw):
    model.train()
    model.zero_grad()
    x = draw(2, 3, *ENOUGH)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    (model(x) * draw(2, 7)).sum().backward()
    dead = [k for k, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    model.zero_grad(set_to_none=True)
    model.eval()
    model.load_state_dict(state)
    assert dead == []


@torch.no_grad()
def test_training_and_evaluation_differ_in_batch_norm_only(model, draw):
    x = draw(2, 3, *ENOUGH)
    evaluated = model(x)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    for layer in model.modules():
        if is_norm(layer):
            layer.eval()
    frozen = model(x)
    model.train()
    trained = model(x)
    model.eval()
    model.load_state_dict(state)
    assert torch.equal(frozen, evaluated)
    assert not torch.allclose(trained, evaluated)


@torch.no_grad()
def test_the_weights_decide_the_precision_throughout(model, draw):
    x = draw(1, 3, 9, 9)
    assert {m.dtype for m in model.forward_stages(x).values()} | {model(x).dtype} == {torch.float64}
    state = {k: v.clone() for k, v in model.state_dict().items()}
    maps = model.float().forward_stages(x.float()).values()
    assert {m.dtype for m in maps} | {model(x.float()).dtype} == {torch.float32}
    model.double().load_state_dict(state)


@torch.no_grad()
def test_the_seed_decides_the_weights_and_a_state_dict_carries_them(name, model, draw):
    torch.manual_seed(0)
    other = create_model(name, num_classes=7).double().eval()
    weights = dict(model.named_parameters())
    assert all(torch.equal(p, weights[k]) for k, p in other.named_parameters())
    other.load_state_dict(model.state_dict())
    x = draw(1, 3, 9, 9)
    assert torch.equal(other(x), model(x))
