"""U-Nets: the published sizes and counts, the recursion, and what their parts promise at every size."""

import copy
import functools
import itertools
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, record
from residua.models.encoder_unet import enlarge
from residua.models.levels import levels, lost, smallest_valid, valid_size
from residua.nn import MERGES, ORDERS, Concatenate, Skip
from residua.nn.merges.decode import Decode
from residua.xray.anatomy import anatomy


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@functools.cache
def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options).eval()


def narrow(name="unet", **options):
    torch.manual_seed(0)
    return create_model(name, **{"width": 4, "depth": 3} | options)


def draw(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# -- as published ----------------------------------------------------------------------------------------


def test_the_network_of_2015_has_31030658_parameters_and_maps_572_pixels_to_388():
    model = on_meta("unet_2015", in_channels=1, num_classes=2)
    assert parameters(model) == 31_030_658
    assert model(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    assert [type(m) for m in model.modules() if "Norm" in type(m).__name__] == []
    assert all(c.bias is not None for c in model.modules() if isinstance(c, nn.Conv2d))


def test_its_dropout_ends_the_contracting_path():
    dropped = [i for i, level in enumerate(levels(on_meta("unet_2015").level)) if _drops(level)]
    assert dropped == [3, 4]


def _drops(level):
    return any(isinstance(m, nn.Dropout) and m.p == 0.5 for m in level.encode)


def test_the_volumetric_network_of_2016_has_19069955_parameters_and_its_published_sizes():
    model = on_meta("unet3d_2016")
    norms = sum(parameters(m) for m in model.modules() if isinstance(m, nn.BatchNorm3d))
    assert parameters(model) - norms == 19_069_955
    x = torch.empty(1, 3, 132, 132, 116, device="meta")
    assert model(x).shape == (1, 3, 44, 44, 28)
    ups = [m for m in model.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [up.bias for up in ups] == [None] * 3


@pytest.mark.parametrize(("depth", "margin"), [(2, 8), (3, 20), (4, 44), (5, 92)])
def test_an_output_pixel_of_valid_convolutions_sees_what_surrounds_it_and_no_border(depth, margin):
    """A picture with a part cut off at any side gives the same scores, with that part cut off."""
    torch.manual_seed(0)
    options = {"width": 1, "depth": depth, "padding": "valid", "norm": "none"}
    model = create_model("unet", **options).double().eval()
    assert model.margin == margin == lost(depth)
    step = 2 ** (depth - 1)
    side = smallest_valid(depth) + 2 * step + 1
    x = draw(1, 3, side, smallest_valid(depth))
    whole = model(x)
    below = model(x[:, :, step:])
    torch.testing.assert_close(below, whole[:, :, step:], rtol=1e-10, atol=1e-12)
    above = model(x[:, :, : side - step])
    torch.testing.assert_close(above, whole[:, :, : above.shape[2]], rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(depth=st.integers(1, 4), more=st.integers(0, 40))
def test_sizes_of_valid_networks_are_as_the_arithmetic_says(depth, more):
    model = on_meta("unet", width=1, depth=depth, padding="valid")
    side = smallest_valid(depth) + more
    x = torch.empty(1, 3, side, smallest_valid(depth), device="meta")
    assert model(x).shape[2:] == (valid_size(side, depth), valid_size(smallest_valid(depth), depth))
    with pytest.raises(ValueError, match=f"{smallest_valid(depth)} pixels a side"):
        model(x[..., 1:])


# -- the recursion ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet", "unet1d", "unet3d", "unet_2015", "resunet"])
def test_each_level_is_a_skip_with_an_identity_and_a_concatenation(name):
    found = list(levels(on_meta(name).level))
    assert len(found) == 5
    for level, inner in itertools.pairwise(found):
        assert isinstance(level.skip, Skip)
        assert isinstance(level.skip.shortcut, nn.Identity)
        assert isinstance(level.skip.merge, Concatenate)
        assert level.skip.branch.inner is inner


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("unet", 33, {}),
        ("unet1d", 33, {}),
        ("unet3d", 9, {}),
        ("unet", smallest_valid(3), {"padding": "valid"}),
        ("resunet", 33, {}),
        ("resunet", 33, {"decoder_block": "basic", "order": "preactivation"}),
    ],
)
def test_the_residual_units_found_are_the_skips_inner_ones_first(name, side, options):
    model = on_meta(name, width=4, depth=3, **options)
    x = torch.randn(2, 3, *[side] * record(name).dims)
    skips = {path for path, module in model.named_modules() if isinstance(module, Skip)}
    found = anatomy(model, x.to("meta"))
    assert {unit.name for unit in found.units} == skips
    joined = [unit for unit in found.units if unit.merge == "concatenate"]
    assert [unit.name.count("branch") for unit in joined if unit.name.endswith("inner.skip")] == [1]
    assert {unit.shortcut for unit in joined} == {"identity"}


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("merge", MERGES)
def test_any_residual_block_stands_in_encoder_and_decoder(block, dims, merge):
    name = {1: "unet1d", 3: "unet3d"}[dims]
    model = narrow(name, depth=2, block=block, merge=merge, attention="se", stochastic_depth=0.3)
    y = model(torch.randn(2, 3, *[5, 4, 3][:dims]))
    assert y.shape == (2, 2, *[5, 4, 3][:dims])
    assert y.isfinite().all()


@pytest.mark.parametrize("order", [o for o in ORDERS if ORDERS[o].norms])
@pytest.mark.parametrize("shortcut", ["A", "B", "C", "D"])
def test_any_order_and_shortcut_stands_in_volumes(order, shortcut):
    # Zeros can be added to a block that widens, not to the decoder's, which narrows.
    model = narrow(
        "unet3d", depth=2, block="basic", decoder_block="plain", order=order, shortcut=shortcut
    )
    assert model(torch.randn(2, 3, 3, 4, 5)).shape == (2, 2, 3, 4, 5)


@pytest.mark.parametrize("up", ["transpose", "interpolate"])
@pytest.mark.parametrize("down", ["max", "mean", "stride"])
@pytest.mark.parametrize("norm", ["batch", "group", "instance", "layer", "filter_response", "none"])
def test_parts_go_together(up, down, norm):
    y = narrow(up=up, down=down, norm=norm)(torch.randn(2, 3, 9, 13))
    assert y.shape == (2, 2, 9, 13)


def test_flat_levels_leave_slices_apart():
    """With all levels flat, each slice of a volume is segmented by itself, as a picture."""
    model = narrow("unet3d", flat=3).double().eval()
    x = draw(1, 3, 4, 9, 11)
    slices = [model(x[:, :, k : k + 1]) for k in range(4)]
    torch.testing.assert_close(model(x), torch.cat(slices, 2), rtol=1e-9, atol=1e-9)
    one = narrow("unet3d", flat=2).double().eval()
    changed = x.clone()
    changed[:, :, 3] += 1
    seen = (one(changed) != one(x)).flatten(3).any(3)[0, 0]
    assert seen.tolist() == [False, True, True, True]  # two convolutions of the bottom level
    kernels = [tuple(c.kernel_size) for c in one.modules() if isinstance(c, nn.Conv3d)]
    assert kernels.count((1, 3, 3)) == 8
    assert kernels.count((3, 3, 3)) == 2


# -- training --------------------------------------------------------------------------------------------


def test_deep_supervision_scores_each_level_of_the_decoder_coarsest_first():
    model = narrow(depth=4, deep_supervision=True)
    x = torch.randn(2, 3, 21, 16)
    sizes = [tuple(y.shape[2:]) for y in model(x)]
    assert sizes == [(6, 4), (11, 8), (21, 16)]
    assert model.eval()(x).shape == (2, 2, 21, 16)
    assert copy.deepcopy(model).train()(x)[-1].shape == (2, 2, 21, 16)


def step(model, x):
    torch.manual_seed(3)
    y = model(x)
    y = y if isinstance(y, list) else [y]
    sum((s * draw(*s.shape)).sum() for s in y).backward()
    return {k: p.grad for k, p in model.named_parameters()} | dict(model.named_buffers())


@pytest.mark.parametrize("block", ["plain", "basic"])
def test_recomputation_changes_no_bit(block):
    options = {"block": block, "dropout": 0.3, "deep_supervision": True}
    plain = narrow(**options).double()
    again = narrow(**options, recompute=True).double()
    x = draw(2, 3, 13, 9)
    expected, found = step(plain, x), step(again, x)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[k], found[k]) for k in expected)


@pytest.mark.parametrize("plain", [True, False])
def test_the_concatenation_is_not_kept_and_no_gradient_changes(monkeypatch, plain):
    """Before a plain convolution nothing is joined at all; before other blocks it is, and not kept."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 3, 3, padding=1)
    layers = nn.Sequential(conv if plain else nn.Sequential(conv), nn.ReLU()).double()
    x = [draw(1, 3, 8, 8, seed=k).requires_grad_() for k in (0, 1)]
    joined, cat = [], torch.cat

    def watched(*arguments):
        y = cat(*arguments)
        joined.append(weakref.ref(y))
        return y

    monkeypatch.setattr(torch, "cat", watched)

    def seen(forward):
        joined.clear()
        y = forward(*[p.exp() for p in x])
        kept = [one() is not None for one in joined]
        return y, torch.autograd.grad(y.square().sum(), [*x, *layers.parameters()]), kept

    y, expected, kept = seen(lambda s, f: layers(torch.cat((s, f), 1)))
    assert kept == [True]
    again, found, kept = seen(Decode(layers))
    assert kept == ([] if plain else [False])
    compare = torch.testing.assert_close if plain else _assert_equal
    for one, other in zip((y, *expected), (again, *found), strict=True):
        compare(one, other)
    assert torch.equal(Decode(layers).eval()(*[p.exp() for p in x]), y)


def _assert_equal(one, other):
    assert torch.equal(one, other)


def test_a_convolution_that_somebody_listens_to_is_called():
    layers = nn.Sequential(nn.Conv2d(6, 3, 3, padding=1), nn.ReLU())
    heard = []
    handle = layers[0].register_forward_hook(lambda module, x, y: heard.append(y))
    Decode(layers)(draw(1, 3, 8, 8).float(), draw(1, 3, 8, 8).float())
    handle.remove()
    Decode(layers)(draw(1, 3, 8, 8).float(), draw(1, 3, 8, 8).float())
    assert [y.shape for y in heard] == [(1, 3, 8, 8)]


# -- over our classification networks --------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["resnet20_cifar", "densenet40_12_cifar", "highway19_cifar"])
def test_any_family_is_an_encoder_under_its_own_names(encoder):
    model = create_model("encoder_unet", encoder=encoder)
    alone = create_model(encoder, features_only=True)
    model.encoder.load_state_dict(alone.state_dict())
    assert [k for k in model.state_dict() if k.startswith("encoder.")] == [
        f"encoder.{k}" for k in alone.state_dict()
    ]
    assert model.eval()(torch.randn(1, 3, 13, 22)).shape == (1, 2, 13, 22)


@pytest.mark.parametrize(
    "encoder",
    [
        "resnet18",
        "vgg11",
        "alexnet",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnetv2_18", "densenet121")),
    ],
)
@settings(deadline=None, max_examples=6)
@given(height=st.integers(64, 130), width=st.integers(64, 130))
def test_maps_of_any_size_are_brought_to_the_skips(encoder, height, width):
    model = on_meta("encoder_unet", encoder=encoder)
    x = torch.empty(1, 3, height, width, device="meta")
    assert model(x).shape == (1, 2, height, width)


@settings(deadline=None, max_examples=50)
@given(have=st.integers(1, 9), up=st.booleans(), odd=st.integers(-1, 1))
def test_enlarged_maps_hold_each_pixel_twice(have, up, odd):
    want = max(2 * have + odd, 1) if up else have
    x = torch.arange(float(have)).view(1, 1, 1, have)
    found = enlarge(x, (1, want))[0, 0, 0].tolist()
    assert found == [float(min(k // 2 if want != have else k, have - 1)) for k in range(want)]


def test_an_encoder_that_is_none_is_refused_in_one_line():
    for encoder, message in (("unet", "no classification model"), ("resnet1", "unknown model")):
        with pytest.raises(BadInput, match=message) as raised:
            create_model("encoder_unet", encoder=encoder)
        assert "\n" not in str(raised.value)


# -- bad options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "dense"}, "block 'dense' is unknown: expected one of plain, basic, bottleneck"),
        ({"padding": "full"}, "padding 'full' is unknown"),
        ({"down": "none"}, "down 'none' is unknown: expected one of max, mean, stride"),
        ({"up": "shuffle"}, "up 'shuffle' is unknown: expected one of transpose, interpolate"),
        ({"depth": 0}, "depth 0 must be at least 1"),
        ({"dropout": 1.0}, r"dropout 1.0 is not in \[0, 1\)"),
        ({"merge": "skip_init"}, "of residual blocks: block 'plain' has none"),
        ({"block": "bottleneck", "width": 6}, "4 times as wide outside: not 6"),
        (
            {"padding": "valid", "block": "basic"},
            "valid padding goes with plain blocks and pooling only",
        ),
        ({"flat": 1}, "only volumes have slices"),
    ],
)
def test_bad_options_are_refused_in_one_line(options, message):
    with pytest.raises(BadInput, match=message) as raised:
        create_model("unet", **options)
    assert "\n" not in str(raised.value)


def test_a_picture_of_other_dimensions_is_refused_in_one_line():
    with pytest.raises(ValueError, match="expected a batch of 2-D pictures"):
        on_meta("unet")(torch.empty(1, 3, 8, 8, 8, device="meta"))


def test_convolutions_that_normalise_themselves_are_of_two_dimensions():
    with pytest.raises(BadInput, match="weight convolutions are 2-D only"):
        create_model("unet3d", norm="weight")
