"""timm's own networks, where timm can be imported: the same scores from the same weights, both ways."""

import importlib

import pytest
import torch

import residua
from residua.models import list_models, record
from residua.models.layouts import layout_for
from residua.models.weights import load_weights, timm_state_dict

FAMILIES = ("resnet*", "resnext*", "seresnet*", "seresnext*", "wide_resnet*", "densenet*")
# ours, of tables that timm has no names for
OURS = ("densenet264", "resnetv2_200", "resnext*_2x*", "resnext*_4x24d", "resnext*_8x14d")
LARGE = 15_000_000
MOST = 150_000_000  # in float64, twice

NAMES = [
    name
    for name in list_models(task="classification")
    if layout_for(name, "timm") and name not in [n for p in OURS for n in list_models(p)]
]


@pytest.fixture(scope="module")
def timm():
    """Import it though compiled operators of torchvision's may be missing: none of them is called here."""
    try:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                library.define(f"{operator}(Tensor dets, Tensor scores, float limit) -> Tensor")
        yield importlib.import_module("timm")
    except (ImportError, RuntimeError, AttributeError) as error:
        pytest.skip(f"timm cannot be imported: {error}")


def drawn(state):
    """The same names and shapes with random numbers; weights have He's variance, as norms shrink nothing."""
    generator = torch.Generator().manual_seed(0)
    new = {}
    for name, tensor in state.items():
        noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if not tensor.is_floating_point():
            new[name] = tensor
        elif tensor.dim() > 1:
            new[name] = noise * (2 / noise[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            new[name] = 1 + noise**2
        else:
            new[name] = name.endswith("weight") + 0.2 * noise
    return new


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if record(n).parameters > LARGE else ())
        for n in NAMES
        if record(n).parameters <= MOST
    ],
)
@torch.no_grad()
def test_a_network_of_timm_s_and_ours_compute_the_same_from_each_other_s_weights(
    timm, name, tmp_path
):
    classes, side = record(name).num_classes, record(name).input_size
    theirs = timm.create_model(name, num_classes=classes).double().eval()
    state = drawn(theirs.state_dict())
    theirs.load_state_dict(state)
    torch.save(state, tmp_path / "theirs.pth")
    ours = residua.create_model(name).double().eval()
    assert load_weights(ours, tmp_path / "theirs.pth").notes == ()
    # timm interpolates the places of an attention in float32: none here
    size = (side, side) if name.endswith("_clip") else (64, 96)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = theirs(x)
    # BiT: timm has 1e-8 where its authors have 1e-10; evos, frn: timm's statistics are float32
    tolerance = 1e-4 if name.endswith(("_bit", "_evos", "_frn")) else 1e-10
    torch.testing.assert_close(
        ours(x), expected, rtol=tolerance, atol=tolerance * expected.std().item()
    )
    written = timm_state_dict(ours, name)
    assert {key: tuple(t.shape) for key, t in written.items()} == {
        key: tuple(t.shape) for key, t in state.items()
    }
    assert all(torch.equal(written[key], tensor) for key, tensor in state.items())


@torch.no_grad()
def test_the_places_of_an_attention_are_interpolated_as_timm_does_it(timm):
    classifier = residua.create_model("resnet50_clip").double().head
    theirs = timm.create_model("resnet50_clip").double().head
    theirs.pos_embed.copy_(classifier.positions)
    for one in "qkv":
        getattr(theirs, one).load_state_dict(getattr(classifier, one).state_dict())
    theirs.proj.load_state_dict(classifier.fc.state_dict())
    for size in ((7, 7), (1, 1), (2, 3), (12, 9)):
        x = torch.randn(2, 2048, *size, dtype=torch.float64)
        torch.testing.assert_close(classifier(x), theirs(x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_file_of_timm_s_without_a_head_is_of_the_features(timm, tmp_path):
    theirs = timm.create_model("resnet50_clip_gap").eval()
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = residua.create_model("resnet50_clip_gap", features_only=True).eval()
    assert load_weights(ours, tmp_path / "theirs.pth").notes == ()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(x)[-1].mean((2, 3)), theirs(x), rtol=1e-4, atol=1e-5)


def test_every_name_of_timm_s_is_one_of_ours(timm):
    assert set(NAMES) == {name for family in FAMILIES for name in timm.list_models(family)}
