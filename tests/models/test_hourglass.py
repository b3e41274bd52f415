"""Stacked hourglasses: the recursion against one unrolled by hand, no dead layers, any size of picture."""

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua import anatomy
from residua.errors import BadInput
from residua.models import create_model, list_models, record
from residua.models.hourglass import hourglass
from residua.nn import ORDERS, Skip


def little(stacks=2, width=8, joints=3, in_channels=3, **options):
    torch.manual_seed(0)
    shape = {"stacks": stacks, "width": width, "num_classes": joints, "in_channels": in_channels}
    return hourglass(**shape, **options).double()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@functools.cache
def seasoned():
    """A small network in float64 whose norms have seen one batch."""
    model = little()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures(4, 3, 64, 64))
    return model.eval()


# -- the equations ---------------------------------------------------------------------------------------


class ByHand:
    """The network from its weights alone: no module of ours, no recursion."""

    def __init__(self, model, levels=4):
        self.weights, self.levels = model.state_dict(), levels
        self.stacks = len(model.stacks)

    def conv(self, name, x, stride=1):
        w = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        return F.conv2d(x, w, bias, stride=stride, padding=w.shape[-1] // 2)

    def norm(self, name, x):
        mean, var, w, b = (
            self.weights[f"{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * w + b).clamp_min(0)

    def module(self, name, x):
        y = x
        for i in (1, 2, 3):
            y = self.conv(f"{name}.branch.conv{i}", self.norm(f"{name}.branch.pre{i}.norm", y))
        projected = f"{name}.shortcut.weight" in self.weights
        return y + (self.conv(f"{name}.shortcut", x) if projected else x)

    def hourglass(self, name, x):
        aside = []
        for _ in range(self.levels):
            aside.append(self.module(f"{name}.shortcut.0", x))
            x = self.module(f"{name}.branch.down.blocks.0", halved(x))
            name += ".branch.inner"
        x = self.module(f"{name}.0", x)
        for shortcut in reversed(aside):
            name = name.removesuffix(".branch.inner")
            x = self.module(f"{name}.branch.up.blocks.0", x)
            x = shortcut + doubled(x, *shortcut.shape[2:])
        return x

    def __call__(self, x):
        x = self.norm("stem.norm", self.conv("stem.conv", x, stride=2))
        x = halved(self.module("stem.block1", x))
        x = self.module("stem.block3", self.module("stem.block2", x))
        found = []
        for i in range(self.stacks):
            stack, link = f"stacks.{i}", f"links.{i}"
            y = self.hourglass(f"{stack}.hourglass", x)
            f = self.norm(f"{stack}.features.norm1", self.conv(f"{stack}.features.conv1", y))
            found.append(self.conv(f"{stack}.heatmaps", f))
            if i + 1 < self.stacks:
                x = x + self.conv(f"{link}.features", f) + self.conv(f"{link}.heatmaps", found[-1])
        return found


def halved(x):
    """The largest of each 2x2 pixels; a side of one pixel stays, the last of an odd one is left out."""
    h, w = (max(1, side // 2) for side in x.shape[2:])
    rows, columns = (range(min(2, side)) for side in x.shape[2:])
    corners = [x[:, :, i::2, j::2][:, :, :h, :w] for i in rows for j in columns]
    return functools.reduce(torch.maximum, corners)


def doubled(x, h, w):
    """Each pixel twice, the last one once more or once less where that is too few or too many."""
    rows = (torch.arange(h) // 2).clamp(max=x.shape[2] - 1)
    columns = (torch.arange(w) // 2).clamp(max=x.shape[3] - 1)
    return x[:, :, rows][:, :, :, columns]


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (37, 50), (1, 9)], ids=["64", "odd", "one"])
def test_the_network_is_its_equations_unrolled_by_hand(size):
    model, x = seasoned(), pictures(2, 3, *size)
    torch.testing.assert_close(model(x), ByHand(model)(x)[-1], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_training_returns_every_stacks_heatmaps_and_evaluation_the_last(stacks):
    model, x = little(stacks, norm="group"), pictures(2, 3, 33, 40)
    found = model.train()(x)
    assert [tuple(y.shape) for y in found] == [(2, 3, 8, 10)] * stacks
    assert torch.equal(model.eval()(x), found[-1])
    assert len({float(y.sum()) for y in found}) == stacks


def test_256_pixels_make_64_and_the_innermost_map_has_4_as_published():
    seen = []
    with torch.device("meta"):
        model = create_model("hourglass2").eval()
        inner = model.stacks[0].hourglass
        while isinstance(inner, Skip):
            inner = inner.branch.inner
        inner.register_forward_hook(lambda module, x, y: seen.append(tuple(y.shape)))
        assert model(torch.empty(1, 3, 256, 256)).shape == (1, 16, 64, 64)
    assert seen == [(1, 256, 4, 4)]


# -- counts ----------------------------------------------------------------------------------------------


def test_with_biases_the_counts_are_those_of_the_authors_code():
    """hg.lua: a bias on every convolution, two numbers a channel of a norm."""

    def conv(c, d, k=1):
        return k * k * c * d + d

    def module(c, d):
        inside = conv(c, d // 2) + conv(d // 2, d // 2, 3) + conv(d // 2, d) + 2 * (c + d)
        return inside + (conv(c, d) if c != d else 0)

    stem = conv(3, 64, 7) + 2 * 64 + module(64, 128) + module(128, 128) + module(128, 256)
    stack = 13 * module(256, 256) + conv(256, 256) + 2 * 256 + conv(256, 16)
    link = conv(256, 256) + conv(16, 256)
    for stacks in (1, 2, 4, 8):
        with torch.device("meta"):
            model = create_model(f"hourglass{stacks}", biases=True)
        closed = stem + stacks * stack + (stacks - 1) * link
        assert sum(p.numel() for p in model.parameters()) == closed
    assert closed == 23_717_888


@pytest.mark.parametrize("name", list_models("hourglass*"))
def test_the_records_say_what_the_networks_are_for(name):
    known = record(name)
    assert (known.task, known.dims, known.smallest) == ("pose", 2, 1)
    assert (known.input_size, known.num_classes) == (256, 16)


# -- no dead layers --------------------------------------------------------------------------------------


def gradients(model, x):
    """The largest gradient of each parameter, in parts of the largest of all, over all stacks' heatmaps."""
    model.train()
    weight = torch.Generator().manual_seed(2)
    loss = 0.0
    for y in model(x):
        loss = loss + (y * torch.randn(y.shape, generator=weight, dtype=y.dtype)).sum()
    loss.backward()
    largest = max(p.grad.abs().max() for p in model.parameters() if p.grad is not None)
    none = torch.zeros(())
    return {
        name: float((none if p.grad is None else p.grad.abs().max()) / largest)
        for name, p in model.named_parameters()
    }


DEAD = 1e-12  # what rounding leaves of a gradient that is zero, in parts of the largest


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stacks": 1},
        {"stacks": 4},
        {"modules": 2, "levels": 2},
        {"norm": "group"},
        {"norm": "none"},
    ],
    ids=lambda options: " ".join(map(str, options.values())) or "default",
)
def test_gradient_reaches_every_parameter(options):
    found = gradients(little(**{"width": 16, "levels": 2, **options}), pictures(3, 3, 64, 59))
    assert [name for name, size in found.items() if size < DEAD] == []


@pytest.mark.parametrize("order", [name for name, known in ORDERS.items() if known.norms])
def test_in_any_order_it_reaches_every_convolution(order):
    """Norms may be dead: in most orders one's shift goes into the next one."""
    found = gradients(little(order=order), pictures(3, 3, 64, 59))
    assert [n for n, size in found.items() if size < DEAD and ".norm" not in n] == []


def test_it_reaches_none_of_the_biases_that_are_left_out_but_the_heatmaps_have():
    model = little(biases=True)
    biases = {
        f"{name}.bias" for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)
    }
    found = gradients(model, pictures(3, 3, 40, 33))
    dead = {name for name, size in found.items() if size < DEAD}
    assert dead == biases - {"stacks.0.heatmaps.bias", "stacks.1.heatmaps.bias"}
    assert biases & dict(little().named_parameters()).keys() == biases - dead


# -- sizes and other things that hold for all networks ---------------------------------------------------


@functools.cache
def plain(stacks, channels, levels):
    return little(stacks, in_channels=channels, levels=levels).float().eval()


@torch.no_grad()
@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    channels=st.sampled_from((1, 3, 4)),
    stacks=st.integers(1, 2),
    levels=st.integers(1, 5),
)
def test_any_size_from_one_pixel_gives_heatmaps_of_a_quarter(size, channels, stacks, levels):
    model = plain(stacks, channels, levels)
    heatmaps = model(torch.rand(1, channels, *size))
    assert heatmaps.shape == (1, 3, *(max(1, (side + 1) // 2 // 2) for side in size))
    assert heatmaps.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("rows", range(103, 107))
def test_far_from_a_border_it_does_not_matter_how_large_the_picture_is(rows):
    """Row i of one hourglass that halves once reads rows of the picture up to 4 i + 43, no others."""
    model, x = little(1, levels=1).eval(), pictures(1, 3, 150, 9)
    whole, part = model(x), model(x[:, :, :rows])
    agree = (rows - 43 + 3) // 4
    torch.testing.assert_close(part[:, :, :agree], whole[:, :, :agree], rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_a_batch_of_one_the_memory_format_and_an_exported_program_change_nothing():
    model, x = seasoned(), pictures(3, 3, 37, 41)
    heatmaps = model(x)
    torch.testing.assert_close(model(x[1:2]), heatmaps[1:2], rtol=1e-9, atol=1e-9)
    last = little().to(memory_format=torch.channels_last).eval()
    last.load_state_dict(model.state_dict())
    y = last(x.contiguous(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, heatmaps, rtol=1e-9, atol=1e-9)
    small = little(levels=1).eval()
    program = torch.export.export(small, (x,))
    torch.testing.assert_close(program.module()(x), small(x), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_the_weights_decide_the_precision_and_a_state_dict_carries_them():
    model, x = seasoned(), pictures(1, 3, 20, 20)
    assert model(x).dtype == torch.float64
    fresh = little().float().eval()
    assert fresh(x.float()).dtype == torch.float32
    fresh = fresh.double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(x), model(x))


def test_one_picture_trains():
    found = gradients(little(), pictures(1, 3, 130, 130))
    assert min(found.values()) > DEAD


@pytest.mark.parametrize("options", [{}, {"norm": "group"}], ids=["batch", "group"])
def test_recomputation_changes_memory_and_neither_gradient_nor_running_statistic(options):
    usual, thrifty = (little(4, recompute=r, **options).train() for r in (False, True))
    kept = []
    for model in (usual, thrifty):
        own = {parameter.data_ptr() for parameter in model.parameters()}
        found = {}  # storages are held, so that none is counted twice nor used again

        def pack(tensor, own=own, found=found):
            if tensor.data_ptr() not in own:
                found[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum(y.square().sum() for y in model(pictures(2, 3, 64, 64)))
        loss.backward()
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in found.values()))
    assert kept[1] < 0.5 * kept[0]
    for a, b in zip(usual.parameters(), thrifty.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(usual.buffers(), thrifty.buffers(), strict=True):
        assert torch.equal(a, b)


def test_the_xray_finds_every_skip_and_both_additions_of_a_link():
    model = little(3)
    skips = {name for name, module in model.named_modules() if isinstance(module, Skip)}
    assert len(skips) == 3 + 3 * (4 + 13)  # stem; an hourglass has four levels and 13 modules
    units = anatomy(model.eval(), pictures(1, 3, 40, 33)).units
    names = [unit.name for unit in units]
    assert skips <= set(names)
    assert len(names) == len(skips) + 2 * 2
    assert {unit.merge for unit in units} == {"add"}
    levels = [unit for unit in units if unit.name.endswith(("hourglass", "inner"))]
    assert {unit.shortcut for unit in levels} == {"block"}
    assert all({"pool", "upsample"} <= set(unit.branch) for unit in levels)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"width": 12}, "width 12 is not a multiple of 8"),
        ({"levels": 0}, "levels 0 is not at least 1"),
        ({"modules": 0}, "modules 0 is not at least 1"),
        ({"order": "fixup"}, "order 'fixup' is unknown: expected one of original, "),
        ({"norm": "bacth"}, "norm 'bacth' is unknown"),
        ({"wdith": 8}, r"unknown option 'wdith' for hourglass1. Did you mean width\?"),
    ],
    ids=lambda value: str(next(iter(value))) if isinstance(value, dict) else "",
)
def test_bad_options_get_one_clear_line(options, line):
    with pytest.raises(BadInput, match=line) as error:
        create_model("hourglass1", **options)
    assert "\n" not in str(error.value)


def test_a_small_hourglass_learns_where_things_are():
    """Not the all-zero answer, whose loss is small: the maximum comes to the right pixel."""
    generator = torch.Generator().manual_seed(3)
    places = torch.randint(1, 7, (12, 2), generator=generator)
    x, target = 0.1 * torch.randn(12, 1, 32, 32, generator=generator), torch.zeros(12, 1, 8, 8)
    for i, (row, column) in enumerate(places.tolist()):
        x[i, 0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 1.0
        target[i, 0, row, column] = 1.0
    model = little(1, width=16, joints=1, in_channels=1, levels=1).float().train()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        heatmaps = model(x)[-1]
        losses.append(F.mse_loss(heatmaps, target))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[0] < 1.1 * target.square().mean()  # it starts near zero
    assert losses[-1] < 0.5 * target.square().mean()
    found = heatmaps.flatten(1).argmax(1)
    assert torch.equal(found, places[:, 0] * 8 + places[:, 1])
