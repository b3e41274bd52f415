"""torchvision's and timm's networks: every name and shape, and what they compute.

The peers' networks are written out in `peers/`: names and shapes as closed forms, forward passes as plain
functions of a state dict under their names.
"""

import importlib.util
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import residua
from residua.models import list_models, record
from residua.models.layouts import layout_for, layout_of
from residua.models.weights import load_weights, timm_state_dict, torchvision_state_dict

FOLDER = Path(__file__).parent / "peers"


def _load_peers():
    spec = importlib.util.spec_from_file_location(
        "networks_of_peers", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


peers = _load_peers()
byob, resnet, resnetv2, densenet, numbered = (
    peers.byob,
    peers.resnet,
    peers.resnetv2,
    peers.densenet,
    peers.numbered,
)
DEEP, SE = {"deep": (32, 32, 64)}, {"se": 16}
POOLED, TIERED = DEEP | {"pooled": True}, {"deep": (24, 32, 64), "pooled": True}
WIDE = {"deep": (64, 64, 128)}
BOTH, TIMM, TORCHVISION = ("torchvision", "timm"), ("timm",), ("torchvision",)
WRITE = {"torchvision": torchvision_state_dict, "timm": timm_state_dict}

# name: (libraries that have it, names and shapes of its tensors there)
NETWORKS = {
    **{f"resnet{d}": (BOTH, resnet.shapes(d)) for d in (18, 26, 34, 50, 101, 152, 200)},
    "resnet50_gn": (TIMM, resnet.shapes(50, running=False)),
    **{f"resnet{d}c": (TIMM, resnet.shapes(d, **DEEP)) for d in (50, 101, 152)},
    **{f"resnet{d}d": (TIMM, resnet.shapes(d, **POOLED)) for d in (18, 26, 34, 50, 101, 152, 200)},
    **{f"resnet{d}s": (TIMM, resnet.shapes(d, **WIDE)) for d in (50, 101, 152)},
    **{f"resnet{d}t": (TIMM, resnet.shapes(d, **TIERED)) for d in (10, 14, 26, 50)},
    **{f"resnetaa{d}d": (TIMM, resnet.shapes(d, **POOLED)) for d in (34, 50, 101)},
    **{f"resnetblur{d}d": (TIMM, resnet.shapes(d, **POOLED)) for d in (50, 101)},
    **{f"resnet{name}": (TIMM, resnet.shapes(d)) for name, d in (("aa50", 50), ("blur18", 18))},
    "resnetblur50": (TIMM, resnet.shapes(50)),
    **{
        f"resnetrs{d}": (TIMM, resnet.shapes(d, se=4, strided=True, **POOLED))
        for d in (50, 101, 152, 200, 270, 350, 420)
    },
    **{f"seresnet{d}d": (TIMM, resnet.shapes(d, **SE, **POOLED)) for d in (152, 200, 269)},
    "seresnet50t": (TIMM, resnet.shapes(50, **SE, **TIERED)),
    "seresnetaa50d": (TIMM, resnet.shapes(50, **SE, **POOLED)),
    **{f"seresnet{d}": (TIMM, resnet.shapes(d, **SE)) for d in (18, 34, 50, 101, 152)},
    **{f"wide_resnet{d}_2": (BOTH, resnet.shapes(d, base=128)) for d in (50, 101)},
    **{
        f"resnext{d}_{g}x{w}d": (BOTH, resnet.shapes(d, g, w))
        for d, forms in {
            50: ((2, 40), (4, 24), (8, 14), (32, 4)),
            101: (
                (2, 40),
                (4, 24),
                (8, 14),
                (32, 4),
                (32, 8),
                (2, 64),
                (64, 4),
                (32, 16),
                (32, 32),
            ),
        }.items()
        for g, w in forms
    },
    **{
        f"seresnext{d}_{g}x{w}d": (TIMM, resnet.shapes(d, g, w, **SE))
        for d, g, w in ((50, 32, 4), (101, 32, 4), (101, 32, 8), (101, 64, 4))
    },
    "resnext50d_32x4d": (TIMM, resnet.shapes(50, 32, 4, **POOLED)),
    "seresnext26d_32x4d": (TIMM, resnet.shapes(26, 32, 4, **SE, **POOLED)),
    "seresnext26t_32x4d": (TIMM, resnet.shapes(26, 32, 4, **SE, **TIERED)),
    "seresnext101d_32x8d": (TIMM, resnet.shapes(101, 32, 8, **SE, **POOLED)),
    "seresnextaa101d_32x8d": (TIMM, resnet.shapes(101, 32, 8, **SE, **POOLED)),
    "seresnextaa201d_32x8d": (TIMM, resnet.shapes(201, 32, 8, **SE, **WIDE, pooled=True)),
    **{f"resnetv2_{d}": (TIMM, resnetv2.shapes(d)) for d in resnetv2.DEPTHS},
    **{
        f"resnetv2_{d}x{k}_bit": (TIMM, resnetv2.shapes(d, k, running=False))
        for d, k in ((50, 1), (50, 3), (101, 1), (101, 3), (152, 2), (152, 4))
    },
    **{f"resnetv2_{d}d": (TIMM, resnetv2.shapes(d, **DEEP)) for d in (18, 34, 50, 101, 152)},
    "resnetv2_50t": (TIMM, resnetv2.shapes(50, deep=(24, 32, 64))),
    "resnetv2_50d_gn": (TIMM, resnetv2.shapes(50, running=False, **DEEP)),
    "resnetv2_50d_evos": (TIMM, resnetv2.shapes(50, running=False, third="v", **DEEP)),
    "resnetv2_50d_frn": (TIMM, resnetv2.shapes(50, running=False, third="tau", **DEEP)),
    **{f"resnet{n}_clip": (TIMM, byob.clip_shapes(n, "attention")) for n in byob.CLIP},
    **{f"resnet{n}_clip_gap": (TIMM, byob.clip_shapes(n, "mean")) for n in byob.CLIP},
    "resnet50_mlp": (TIMM, byob.clip_shapes("50", "hidden")),
    **{name: (TIMM, byob.silu_shapes(name)) for name in byob.SILU},
    "densenet264d": (TIMM, densenet.shapes(264, 48, deep=True)),
    "densenetblur121d": (TIMM, densenet.shapes(121, deep=True)),
    **{f"densenet{d}": (BOTH, densenet.shapes(d)) for d in densenet.BLOCKS},
    "alexnet": (TORCHVISION, numbered.alexnet_shapes()),
    **{f"vgg{d}": (TORCHVISION, numbered.vgg_shapes(d)) for d in numbered.COLUMNS},
    **{f"vgg{d}_bn": (TORCHVISION, numbered.vgg_shapes(d, bn=True)) for d in numbered.COLUMNS},
}


ALL_EVEN = {name for name in NETWORKS if any(part in name for part in ("aa", "clip", "mlp"))}
DEEP_ONES = ("101", "15", "20", "16", "264", "269", "270", "350", "420")
# They have the tensors of a network that torchvision has too, and so its layout.
ALIKE = ("resnetaa50", "resnetblur18", "resnetblur50", "resnet50_gn")


def named(library, name):
    """timm has other networks of the same tensors and layers, so it is told which."""
    return [name] if library == "timm" else []


def deep_ones_slow(names):
    """Mark what is of more than a hundred layers."""
    slow = pytest.mark.slow
    deep = {name: any(d in name for d in DEEP_ONES) for name in names}
    return [pytest.param(name, marks=slow if deep[name] else ()) for name in names]


def test_these_are_all_the_models_that_a_peer_has_and_no_others():
    for name in list_models(task="classification"):
        libraries = NETWORKS.get(name, ((),))[0]
        assert [peer for peer in BOTH if layout_for(name, peer)] == list(libraries)
    assert set(NETWORKS) <= set(list_models(task="classification"))


@pytest.mark.parametrize("name", deep_ones_slow(NETWORKS))
def test_names_and_shapes_are_the_peer_s(name):
    libraries, expected = NETWORKS[name]
    with torch.device("meta"):
        model = residua.create_model(name)
    for library in libraries:
        written = WRITE[library](model, *named(library, name))
        assert {key: tuple(tensor.shape) for key, tensor in written.items()} == expected
    read = layout_of(expected).to_ours(expected)
    assert sorted(read.values()) == sorted(model.state_dict())


def test_a_checkpoint_of_each_layout_is_told_from_the_others():
    ours = ("resnet18", "plain34", "vgg11", "densenet_bc100_12_cifar", "highway19_cifar")
    for name in ours:
        with torch.device("meta"):
            names = residua.create_model(name).state_dict()
        assert layout_of(names).name == "residua"
    for name, (libraries, shapes) in NETWORKS.items():
        body = [key for key in shapes if not key.startswith(("fc", "head", "classifier"))]
        for names in (shapes, reversed(shapes), sorted(shapes), body):
            layout = layout_of(names)
            assert layout.holds(name)
            assert layout.name == ("torchvision" if name in ALIKE else libraries[0])


def computes(name, state, expected, x, tmp_path, **options):
    """Load a peer's state dict: the model's output is the expected one, and what it writes the state."""
    torch.save(state, tmp_path / "theirs.pth")
    model = residua.create_model(name, **options).double().eval()
    report = load_weights(model, tmp_path / "theirs.pth")
    assert report.notes == ()
    output = model(x)
    output = output[-1] if isinstance(output, list) else output
    assert expected.std() > 0.05  # the comparison is of numbers that are not all zero
    torch.testing.assert_close(output, expected, rtol=1e-11, atol=1e-9)
    return model


def pictures(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


ODD = (2, 3, 45, 70)
halved = partial(torch.nn.functional.avg_pool2d, kernel_size=2)
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name, forward",
    [
        ("resnet18d", resnet.forward),
        ("seresnet18", resnet.forward),
        ("resnext50_32x4d", resnet.forward),
        ("resnet10t", resnet.forward),
        ("resnetblur18", partial(resnet.forward, smooth=resnet.blurred)),
        ("resnetv2_18d", resnetv2.forward),
        ("densenet121", densenet.forward),
        ("resnetv2_18", resnetv2.forward),
        ("resnetv2_50x1_bit", resnetv2.forward),
        pytest.param("resnet50c", resnet.forward, marks=SLOW),
        pytest.param("resnet50d", resnet.forward, marks=SLOW),
        *(
            pytest.param(name, resnet.forward, marks=SLOW)
            for name in (
                "resnet14t",
                "resnet26",
                "resnet26d",
                "resnet50s",
                "resnet50t",
                "resnet50_gn",
                "resnetrs50",
                "resnext50d_32x4d",
                "seresnet50t",
                "seresnext26d_32x4d",
                "seresnext26t_32x4d",
            )
        ),
        *(
            pytest.param(name, partial(resnet.forward, smooth=resnet.blurred), marks=SLOW)
            for name in ("resnetblur50", "resnetblur50d")
        ),
        *(
            pytest.param(name, partial(resnet.forward, smooth=halved), marks=SLOW)
            for name in ("resnetaa34d", "resnetaa50", "resnetaa50d", "seresnetaa50d")
        ),
        pytest.param("resnetv2_50d", resnetv2.forward, marks=SLOW),
        pytest.param("resnetv2_50t", resnetv2.forward, marks=SLOW),
        pytest.param("resnetv2_50d_gn", resnetv2.forward, marks=SLOW),
        ("resnetv2_50d_evos", resnetv2.forward),
        ("resnetv2_50d_frn", resnetv2.forward),
        ("resnet50_clip", byob.forward),
        ("resnet61q", byob.forward),
        ("seresnet33ts", byob.forward),
        *(
            pytest.param(name, byob.forward, marks=SLOW)
            for name in (
                "resnet50x4_clip",
                "resnet50_clip_gap",
                "resnet50_mlp",
                "resnext26ts",
                "seresnext26ts",
                "resnet32ts",
                "resnet33ts",
                "resnet51q",
            )
        ),
        pytest.param("densenetblur121d", partial(densenet.forward, blur=True), marks=SLOW),
        pytest.param("seresnet50", resnet.forward, marks=SLOW),
        pytest.param("seresnext50_32x4d", resnet.forward, marks=SLOW),
        pytest.param("wide_resnet50_2", resnet.forward, marks=SLOW),
        pytest.param("densenet161", densenet.forward, marks=SLOW),
        pytest.param("vgg11_bn", lambda net, x: numbered.vgg(net, x, 11), marks=SLOW),
        pytest.param("alexnet", numbered.alexnet, marks=SLOW),
    ],
)
@torch.no_grad()
def test_a_peer_s_weights_compute_what_the_peer_s_network_does(name, forward, tmp_path):
    libraries, shapes = NETWORKS[name]
    state = peers.layers.draw(shapes)
    x = pictures(1, 3, 64, 90) if record(name).smallest > 45 else pictures(*ODD)
    if name in ALL_EVEN:  # timm's takes no odd maps, or leaves their edges out
        x = pictures(2, 3, 64, 96)
    if name.endswith("_clip"):  # the places of its attention
        x = pictures(1, 3, record(name).input_size, record(name).input_size)
    expected = forward(peers.layers.Layers(state), x)
    model = computes(name, state, expected, x, tmp_path)
    for library in libraries:
        written = WRITE[library](model, *named(library, name))
        assert set(written) == set(state)
        assert all(torch.equal(written[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "vgg11_bn", "vgg16_bn"])
@torch.no_grad()
def test_the_convolutions_of_the_networks_of_numbered_layers_are_theirs(name, tmp_path):
    shapes = NETWORKS[name][1]
    state = peers.layers.draw({k: s for k, s in shapes.items() if k.startswith("features")})
    net, x = peers.layers.Layers(state), pictures(1, 3, 67, 70)
    if name == "alexnet":
        expected = numbered.alexnet_features(net, x)
    else:
        expected = numbered.vgg_features(net, x, int(name[3:5]))
    computes(name, state, expected, x, tmp_path, features_only=True)


@torch.no_grad()
def test_torchvision_s_older_names_of_dense_layers_are_read(tmp_path):
    state = peers.layers.draw(NETWORKS["densenet121"][1])
    older = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):  # not there before torch 0.4.1
            continue
        for part in ("norm1", "norm2", "conv1", "conv2") if "denselayer" in name else ():
            name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        older[name] = tensor
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    torch.save(older, tmp_path / "older.pth")
    model = residua.create_model("densenet121").double()
    load_weights(model, tmp_path / "older.pth")
    written = torchvision_state_dict(model)
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())


@torch.no_grad()
def test_timm_s_smaller_constant_under_bit_s_root_changes_next_to_nothing():
    state = peers.layers.draw(NETWORKS["resnetv2_50x1_bit"][1])
    x = pictures(*ODD)
    scores = [resnetv2.forward(peers.layers.Layers(state), x, eps) for eps in (1e-10, 1e-8)]
    change = (scores[0] - scores[1]).abs().max() / scores[0].std()
    assert 0 < change < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NETWORKS if record(n).parameters < 30_000_000])
def test_written_and_read_back_it_is_the_same_model(name, tmp_path):
    for library in NETWORKS[name][0]:
        donor, model = (residua.create_model(name, num_classes=7) for _ in range(2))
        torch.save(WRITE[library](donor, *named(library, name)), tmp_path / "weights.pth")
        report = load_weights(model, tmp_path / "weights.pth")
        assert (report.fresh, report.notes) == ((), ())
        for key, tensor in donor.state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor)
