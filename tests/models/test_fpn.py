"""Feature pyramids: the levels by hand, published counts, any encoder, any size of picture."""

import functools
import re

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua import anatomy, load_weights
from residua.errors import BadInput
from residua.models import create_model, list_models, record
from residua.models.fpn import EXTRA, fpn
from residua.nn import Skip

SMALL = "resnet20_cifar"  # three stages of 16, 32, 64 channels at strides 1, 2, 4


def little(encoder=SMALL, width=8, head_width=8, classes=3, in_channels=3, **options):
    torch.manual_seed(0)
    shape = {"width": width, "head_width": head_width, "num_classes": classes}
    return fpn(encoder=encoder, in_channels=in_channels, **shape, **options).double()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def halved():
    """ResNet-18's pyramid: maps at strides 4 to 32, odd sizes rounded up."""
    return little("resnet18").eval()


# -- the equations ---------------------------------------------------------------------------------------


def conv(weights, name, x, stride=1):
    w = weights[f"{name}.weight"]
    pad = w.shape[-1] // 2
    return F.conv2d(x, w, weights.get(f"{name}.bias"), stride=stride, padding=pad)


def twice(x, size):
    """Each pixel twice, the last one once more or once less where that is too few or too many."""
    rows, columns = (
        (torch.arange(n) // 2).clamp(max=m - 1) for n, m in zip(size, x.shape[2:], strict=True)
    )
    return x[:, :, rows][:, :, :, columns]


def bilinear(x, size, factor=2):
    """Pixel i lies at (i + 1/2) / factor - 1/2, not outside the first and last pixel's centre."""
    for axis, n in zip((2, 3), size, strict=True):
        last = x.shape[axis] - 1
        at = ((torch.arange(n, dtype=x.dtype) + 0.5) / factor - 0.5).clamp(0, last)
        low = at.floor().long()
        high = (low + 1).clamp(max=last)
        share = (at - low).view(-1, 1) if axis == 2 else at - low
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def levels_by_hand(model, maps):
    """P_2 ... P_5 of four maps, each level written out."""
    w = model.pyramid.state_dict()
    c2, c3, c4, c5 = maps
    p5 = conv(w, "coarsest", c5)
    p4 = conv(w, "levels.2.shortcut.conv", c4) + twice(p5, c4.shape[2:])
    p3 = conv(w, "levels.1.shortcut.conv", c3) + twice(p4, c3.shape[2:])
    p2 = conv(w, "levels.0.shortcut.conv", c2) + twice(p3, c2.shape[2:])
    return [conv(w, f"smooth.{i}", p) for i, p in enumerate((p2, p3, p4, p5))]


SIZES = pytest.mark.parametrize("size", [(64, 96), (37, 113), (1, 70)], ids=["even", "odd", "one"])


@torch.no_grad()
@SIZES
def test_every_level_is_what_the_paper_says(halved, size):
    x = pictures(2, 3, *size)
    maps = halved.encoder(x)
    assert [tuple(m.shape[2:]) for m in maps] == [
        tuple((side - 1) // stride + 1 for side in size) for stride in (4, 8, 16, 32)
    ]
    expected = levels_by_hand(halved, maps)
    for found, level in zip(halved.pyramid(maps), expected, strict=True):
        torch.testing.assert_close(found, level, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@SIZES
def test_the_scores_are_the_sum_of_the_levels_brought_to_the_size_of_the_finest(halved, size):
    x = pictures(2, 3, *size)
    levels, w = halved.pyramid(halved.encoder(x)), halved.head.state_dict()
    sizes = [level.shape[2:] for level in levels]

    def stage(i, j, y):
        y = conv(w, f"levels.{i}.{j}.0", y)
        groups = y.unflatten(1, (4, 2))  # of eight channels: two a group
        mean = groups.mean((2, 3, 4), keepdim=True)
        variance = groups.var((2, 3, 4), keepdim=True, correction=0)
        y = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        shape = (1, -1, 1, 1)
        gamma, beta = (w[f"levels.{i}.{j}.1.{part}"].view(shape) for part in ("weight", "bias"))
        return (y * gamma + beta).clamp_min(0)

    total = stage(0, 0, levels[0])
    total = total + bilinear(stage(1, 0, levels[1]), sizes[0])
    y = bilinear(stage(2, 0, levels[2]), sizes[1])
    total = total + bilinear(stage(2, 1, y), sizes[0])
    y = bilinear(stage(3, 0, levels[3]), sizes[2])
    y = bilinear(stage(3, 1, y), sizes[1])
    total = total + bilinear(stage(3, 2, y), sizes[0])
    expected = bilinear(conv(w, "scores", total), size, factor=4)
    torch.testing.assert_close(halved(x), expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("extra", EXTRA)
def test_the_levels_beyond_are_lins(extra):
    model = little(features_only=True, extra=extra).eval()
    x = pictures(1, 3, 35, 46)
    found, w = model(x), model.pyramid.state_dict()
    maps = model.encoder(x)
    assert len(found) == len(model.strides) == {"none": 3, "p6": 4}.get(extra, 5)
    assert model.strides == tuple(2**i for i in range(len(found)))
    assert model.stage_channels == (8,) * len(found)
    if extra == "p6":
        rows, columns = torch.arange(0, 9, 2), torch.arange(0, 12, 2)
        assert torch.equal(found[3], found[2][:, :, rows][:, :, :, columns])
    elif extra != "none":
        p6 = conv(w, "beyond.p6", maps[-1] if extra == "p6p7" else found[2], stride=2)
        torch.testing.assert_close(found[3], p6)
        torch.testing.assert_close(found[4], conv(w, "beyond.p7", p6.clamp_min(0), stride=2))
        assert [tuple(m.shape[2:]) for m in found[2:]] == [(9, 12), (5, 6), (3, 3)]


@torch.no_grad()
def test_a_pyramid_from_a_later_stage_on_has_fewer_levels(halved):
    x = pictures(1, 3, 64, 64)
    model = little("resnet18", features_only=True, first=1).eval()
    assert model.strides == (8, 16, 32)
    assert [tuple(m.shape) for m in model(x)] == [(1, 8, 8, 8), (1, 8, 4, 4), (1, 8, 2, 2)]
    assert little(first=2).eval()(x).shape == (1, 3, 64, 64)


# -- published counts ------------------------------------------------------------------------------------


def convolution(c, d, k=1):
    return k * k * c * d + d


# torchvision's detectors on ResNet-50, as its weights' records give them: parameters, what is not of the
# pyramid in them, and the pyramid's options. Frozen batch norms (53,120 numbers) do not count in the first
# two.
RPN = convolution(256, 256, 3) + convolution(256, 3) + convolution(256, 12)
BOXES = (256 * 49 * 1024 + 1024) + (1024 * 1024 + 1024) + (1024 + 1) * (91 + 4 * 91)
CLASSES, SIDES = convolution(256, 9 * 91, 3), convolution(256, 9 * 4, 3)
RETINA = 8 * convolution(256, 256, 3) + CLASSES + SIDES
RETINA_2 = 8 * (9 * 256 * 256 + 2 * 256) + CLASSES + SIDES
NORMS = 53_120
TORCHVISION = {
    "fasterrcnn_resnet50_fpn": (41_755_286 - RPN - BOXES + NORMS, {"extra": "p6"}),
    "retinanet_resnet50_fpn": (34_014_999 - RETINA + NORMS, {"extra": "p6p7_of_p5", "first": 1}),
    "retinanet_resnet50_fpn_v2": (38_198_935 - RETINA_2, {"extra": "p6p7", "first": 1}),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_the_pyramid_on_resnet50_has_as_many_parameters_as_torchvisions(name):
    published, options = TORCHVISION[name]
    with torch.device("meta"):
        model = create_model("resnet50_fpn", features_only=True, **options)
    assert sum(p.numel() for p in model.parameters()) == published
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert sum(p.numel() for m in norms for p in m.parameters()) == NORMS


# -- encoders --------------------------------------------------------------------------------------------


def depth(name):
    """The first number in a name, which is how many layers it has; the 2 of resnetv2 is none."""
    found = re.search(r"(?<!v)\d+", name)
    return int(found[0]) if found else 1


def a_member_of_each_family():
    """The shallowest, then the smallest; with the slow tests if it is neither."""
    found = {}
    for name in list_models(task="classification"):
        known = record(name)
        key = (depth(name), known.parameters, name)
        found[known.family] = min(found.get(known.family, key), key)
    return [
        pytest.param(name, marks=pytest.mark.slow if layers > 50 or size > 30e6 else ())
        for layers, size, name in sorted(found.values())
    ]


@torch.no_grad()
@pytest.mark.parametrize("encoder", a_member_of_each_family())
def test_any_family_is_an_encoder(encoder):
    side = max(record(encoder).smallest, 45)
    with torch.device("meta"):
        model = create_model("fpn", encoder=encoder, num_classes=3, width=8).eval()
        assert model(torch.empty(2, 3, side, side + 8)).shape == (2, 3, side, side + 8)
    assert model.stage_channels == (8,) * len(model.encoder.stage_channels)
    assert model.strides == tuple(model.strides[0] << i for i in range(len(model.strides)))


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_the_encoders_weights_are_the_classifiers_by_name_and_by_seed(name):
    torch.manual_seed(5)
    body = create_model(name, features_only=True).state_dict()
    torch.manual_seed(5)
    model = create_model(f"{name}_fpn")
    found = model.encoder.state_dict()
    assert list(found) == list(body)
    assert all(torch.equal(found[k], v) for k, v in body.items())
    assert [k for k in model.state_dict() if k.startswith("encoder.")] == [
        f"encoder.{k}" for k in body
    ]


@torch.no_grad()
def test_a_classifiers_checkpoint_loads_into_the_encoder(tmp_path):
    torch.manual_seed(7)
    classifier = create_model(SMALL, num_classes=4).eval()
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    model = little(features_only=True).float().eval()
    report = load_weights(model.encoder, tmp_path / "classifier.pth")
    assert len(report.loaded) == len(model.encoder.state_dict())
    x = pictures(1, 3, 20, 24).float()
    expected = classifier.forward_stages(x)["stages.2"]
    assert torch.equal(model.encoder(x)[-1], expected)


def test_options_reach_the_encoder():
    model = little(norm="group", encoder_options={"order": "preactivation"})
    assert any(isinstance(m, nn.GroupNorm) for m in model.encoder.modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert isinstance(model.encoder.tail, nn.Sequential)  # v2's last norm and ReLU


# -- sizes and other things that hold for all networks ---------------------------------------------------


@functools.cache
def plain(channels):
    return little(in_channels=channels).float().eval()


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)), channels=st.sampled_from((1, 3, 4))
)
def test_any_size_from_one_pixel_gives_a_score_for_each_pixel(size, channels):
    scores = plain(channels)(torch.rand(1, channels, *size))
    assert scores.shape == (1, 3, *size)
    assert scores.isfinite().all()


@functools.cache
def built(encoder):
    """A network without contents: shapes alone."""
    with torch.device("meta"):
        return create_model("fpn", encoder=encoder, num_classes=2).eval()


@torch.no_grad()
@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    encoder=st.sampled_from(["resnet18", "densenet40_12_cifar", "vgg11"]),
)
def test_so_do_encoders_for_large_pictures_which_round_up_or_down(size, encoder):
    assert built(encoder)(torch.empty(1, 3, *size, device="meta")).shape == (1, 2, *size)


@torch.no_grad()
@settings(max_examples=20, deadline=None)
@given(size=st.tuples(st.integers(1, 130), st.integers(1, 130)))
def test_an_encoder_with_a_smallest_size_says_so_in_one_line(size):
    model, x = built("alexnet"), torch.empty(1, 3, *size, device="meta")
    if min(size) >= 63:
        assert model(x).shape == (1, 2, *size)
    else:
        line = r"pictures of 63 pixels a side or more are needed, not \(\d+, \d+\)"
        with pytest.raises(ValueError, match=line):
            model(x)


@torch.no_grad()
@pytest.mark.parametrize("rows", range(150, 154))
def test_far_from_a_border_it_does_not_matter_how_large_the_picture_is(rows):
    """Nothing is stretched: what a pixel reads lies within 90 rows of it. Group norm would read all."""
    model, x = little(head_norm="batch").eval(), pictures(1, 3, 203, 7)
    whole, part = model(x), model(x[:, :, :rows])
    agree = rows - 90
    torch.testing.assert_close(part[:, :, :agree], whole[:, :, :agree], rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_a_batch_of_one_the_memory_format_and_an_exported_program_change_nothing():
    model, x = little().eval(), pictures(3, 3, 21, 34)
    scores = model(x)
    torch.testing.assert_close(model(x[1:2]), scores[1:2], rtol=1e-9, atol=1e-9)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), scores, rtol=1e-9, atol=1e-9)
    last = model.to(memory_format=torch.channels_last)
    y = last(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, scores, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_weights_decide_the_precision_and_a_state_dict_carries_them():
    model, x = little().eval(), pictures(1, 3, 9, 12)
    assert model(x).dtype == torch.float64
    torch.manual_seed(1)
    fresh = fpn(encoder=SMALL, width=8, head_width=8, num_classes=3, in_channels=3).eval()
    assert fresh(x.float()).dtype == torch.float32
    assert not torch.equal(fresh.double()(x), model(x))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))


def dead(model, outputs):
    generator = torch.Generator().manual_seed(2)
    loss = sum(
        (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum() for y in outputs
    )
    loss.backward()
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    return [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.abs().max() > 1e-12 * largest
    ]


def test_gradient_reaches_every_parameter():
    model = little().train()
    assert dead(model, [model(pictures(3, 3, 21, 34))]) == []


@pytest.mark.parametrize("extra", EXTRA)
def test_so_it_does_from_the_levels_alone(extra):
    model = little(features_only=True, extra=extra).train()
    assert dead(model, model(pictures(3, 3, 37, 34))) == []


def test_one_picture_trains():
    model = little().train()
    assert dead(model, [model(pictures(1, 3, 33, 30))]) == []


def test_the_xray_finds_an_addition_a_level():
    model = little("resnet18").eval()
    skips = [name for name, m in model.named_modules() if isinstance(m, Skip)]
    levels = [name for name in skips if name.startswith("pyramid.")]
    assert levels == [f"pyramid.levels.{i}" for i in range(3)]
    units = [
        u for u in anatomy(model, pictures(1, 3, 64, 64)).units if not u.name.startswith("encoder")
    ]
    assert [(u.merge, u.shortcut, u.shape[2]) for u in units[:3]] == [
        ("add", "projection", 4),
        ("add", "projection", 8),
        ("add", "projection", 16),
    ]
    assert [u.branch.count("upsample") for u in units[:3]] == [1, 2, 3]
    assert all(u.branch[-1] == "upsample" for u in units[:3])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"encoder": "resnet5"}, "unknown model 'resnet5'.* Did you mean"),
        (
            {"encoder": "hourglass1"},
            "encoder 'hourglass1' is for pose: expected a 2-D classification",
        ),
        ({"extra": "p8"}, "extra 'p8' is unknown: expected one of none, p6,"),
        ({"extra": "p6"}, "extra 'p6' needs features_only"),
        ({"first": 4}, "first 4 is not a stage of resnet50: it has 0 to 3"),
        ({"width": 0}, "width 0 is not at least 1"),
        ({"head_width": 0}, "head_width 0 is not at least 1"),
        ({"norm": "bacth"}, "norm 'bacth' is unknown"),
        ({"encoder_options": {"nrom": "group"}}, "unknown option 'nrom' for resnet50"),
    ],
    ids=lambda value: (
        " ".join(map(str, next(iter(value.items())))) if isinstance(value, dict) else ""
    ),
)
def test_bad_options_get_one_clear_line(options, line):
    with torch.device("meta"), pytest.raises(BadInput, match=line) as error:
        create_model("fpn", **options)
    assert "\n" not in str(error.value)


def test_a_small_one_learns_a_picture():
    x = pictures(2, 3, 16, 20).float()
    target = (F.avg_pool2d(x.sum(1, keepdim=True), 5, 1, 2)[:, 0] > 0).long()
    model = little(classes=2).float().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        losses.append(F.cross_entropy(model(x), target))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert abs(losses[0].item() - 0.693) < 0.05  # log 2: at first the scores are all but equal
    assert losses[-1] < 0.6 * losses[0]
