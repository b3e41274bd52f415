"""The residual units of networks with an answer a pixel are those of their papers' equations and figures."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from numpy.polynomial import Polynomial
from torch import nn
from torch.nn import functional

import residua
from residua.models.registry import Record, records
from residua.xray.anatomy import Anatomy, anatomy
from residua.xray.paths.counting import nesting
from residua.xray.units import Unit

Expected = tuple[str, str, str, str]  # name, merge, shortcut, order
NAMES = [*residua.list_models(task="segmentation"), *residua.list_models(task="pose")]
STEP = ".skip.branch.inner"  # from one level of a U-Net to the next
SIDES = {"unet_2015": 188, "unet3d_2016": 92}  # valid convolutions take no less
# He et al. 2015, table 1; Huang et al. 2017, table 1
ENCODERS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnext50_32x4d": ("bottleneck", (3, 4, 6, 3)),
    "densenet121": ("dense", (6, 12, 24, 16)),
}
HOURGLASS_LEVELS = 4  # Newell et al. 2016, section 3.1: 64 pixels to 4


def encoder_units(encoder: str) -> Iterator[Expected]:
    """A stage begins with a projection where shapes change: with the first bottleneck, for it widens."""
    kind, blocks = ENCODERS[encoder]
    for stage, count in enumerate(blocks):
        for block in range(count):
            if kind == "dense":
                name = f"encoder.stages.{stage}.{block}"
                yield name, "concatenate", "identity", "preactivation"
                continue
            changes = block == 0 and (stage > 0 or kind == "bottleneck")
            name = f"encoder.stages.{stage}.{block}.skip"
            yield name, "add", "projection" if changes else "identity", "original"


def encoder_unet(encoder: str) -> Iterator[Expected]:
    """The four finer maps are joined one by one (Ronneberger et al. 2015, figure 1)."""
    yield from encoder_units(encoder)
    for step in range(4):
        yield f"decoder.{step}", "concatenate", "identity", ""


def fpn(encoder: str) -> Iterator[Expected]:
    """Of four levels the three finer ones add a lateral 1x1 convolution (Lin et al. 2017, figure 3).

    The branch begins with the encoder's next stage: a DenseNet's with norm and relu of a transition.
    """
    yield from encoder_units(encoder)
    order = "preactivation" if ENCODERS[encoder][0] == "dense" else ""
    for level in (2, 1, 0):
        yield f"pyramid.levels.{level}", "add", "projection", order


def unet(levels: int, residual: bool = False) -> Iterator[Expected]:
    """All levels but the bottom one copy (Ronneberger et al. 2015, figure 1); width doubles with each."""
    for level, block in product(range(levels), range(2 if residual else 0)):
        shortcut = "projection" if level and not block else "identity"
        yield f"level{STEP * level}.encode.{block}.skip", "add", shortcut, "original"
    for level in reversed(range(levels - 1)):
        yield f"level{STEP * level}.skip", "concatenate", "identity", ""


def vnet() -> Iterator[Expected]:
    """Five stages add their input on the way down, four on the way up (Milletari et al. 2016, figure 2)."""
    for level in range(5):
        yield f"level{STEP * level}.encode", "add", "identity" if level else "copied", ""
    for level in reversed(range(4)):
        yield f"level{STEP * level}.skip", "concatenate", "identity", ""
        yield f"level{STEP * level}.skip.merge.blocks.0", "add", "identity", ""


def unetpp() -> Iterator[Expected]:
    """x_ij joins its row and what comes from below (Zhou et al. 2018, equation 1); rows grow by x_i(j-1)."""
    for step in range(1, 5):
        for i in reversed(range(step)):
            j = step - i
            if j > 1:  # [x_i0, ..., x_i(j-1)]
                yield f"decode.{i}{j - 1}.blocks.act2", "concatenate", "identity", ""
            yield f"decode.{i}{j}", "concatenate", "identity" if j == 1 else "block", ""


def hourglass(stacks: int) -> Iterator[Expected]:
    """Residual modules everywhere, added up beside their pooled ones (Newell et al. 2016, figure 3)."""

    def module(name: str, shortcut: str = "identity") -> Expected:
        return name, "add", shortcut, "preactivation"

    def recursion(name: str, levels: int) -> Iterator[Expected]:
        yield module(f"{name}.shortcut.0")
        yield module(f"{name}.branch.down.blocks.0")
        if levels > 1:
            yield from recursion(f"{name}.branch.inner", levels - 1)
        else:
            yield module(f"{name}.branch.inner.0")
        yield module(f"{name}.branch.up.blocks.0")
        yield module(name, "block")

    yield module("stem.block1", "projection")  # 64 channels to 128
    yield module("stem.block2")
    yield module("stem.block3", "projection")  # to 256
    for stack in range(stacks):
        yield from recursion(f"stacks.{stack}.hourglass", HOURGLASS_LEVELS)
        if stack < stacks - 1:  # x + conv1x1(features) + conv1x1(heatmaps): figure 4
            yield module(f"links.{stack}.features")
            yield module(f"links.{stack}.heatmaps", "block")


def expected(record: Record) -> list[Expected]:
    """What the paper says of a registered model."""
    encoder = record.preset.get("encoder") or record.defaults.get("encoder", "")
    found = {
        "encoder_unet": lambda: encoder_unet(encoder),
        "fpn": lambda: fpn(encoder),
        "unet": lambda: unet(4 if record.name == "unet3d_2016" else 5, "res" in record.name),
        "unetpp": unetpp,
        "vnet": vnet,
        "hourglass": lambda: hourglass(record.preset["stacks"]),
    }[record.family]
    return list(found())


def slow(name: str) -> bool:
    """Say whether the same is seen in a smaller sister."""
    return name in {
        *("resnet50_unet", "densenet121_unet", "resnet50_fpn", "resnext50_32x4d_fpn", "fpn"),
        *("hourglass4", "hourglass8", "unet3d_2016", "densenet121_fpn"),
    }


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if slow(n) else n for n in NAMES]
)
def test_the_units_are_those_of_the_paper(name: str) -> None:
    record = records()[name]
    side = SIDES.get(name, 32 if record.dims == 3 else 64)
    with torch.device("meta"):  # only what happens counts, not with which numbers
        model, x = residua.create_model(name), torch.randn(2, 3, *(side,) * record.dims)
    found = anatomy(model, x)
    units = [(unit.name, unit.merge, unit.shortcut, unit.order) for unit in found.units]
    if record.family == "hourglass":
        assert units == expected(record)
    else:  # which of several nested ones merges first is the network's affair
        assert sorted(units) == sorted(expected(record))
    assert found.reason == ""
    called = {path for path, _ in model.named_modules()}
    assert len({unit.name for unit in found.units}) == len(units)
    assert all(unit.name in called for unit in found.units)
    assert all("residua" in unit.source for unit in found.units)


def test_levels_lie_in_the_branches_of_those_above() -> None:
    with torch.device("meta"):
        units = anatomy(residua.create_model("unet"), torch.randn(1, 3, 64, 64)).units
    assert [unit.parent for unit in units] == [1, 2, 3, None]
    assert [unit.shape[1] for unit in units] == [1024, 512, 256, 128]


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_an_hourglass_has_as_many_paths_as_its_recursion(stacks: int) -> None:
    """P_n = 2 + 2 P_(n-1) 2, P_0 = 2; a link x + f + y adds two ways that share all but their last layers."""
    inner = 2
    for _ in range(HOURGLASS_LEVELS):
        inner = 2 + 2 * inner * 2
    with torch.device("meta"):
        model = residua.create_model(f"hourglass{stacks}")
        found = anatomy(model, torch.randn(1, 3, 64, 64))
    nest = nesting(found)
    assert nest.number(nest.trunk) == 2**3 * inner * (1 + 2 * inner) ** (stacks - 1)


class SemanticHead(nn.Module):
    """Three parallel branches of different depth that are added up, as in Kirillov et al. 2019."""

    def __init__(self) -> None:
        super().__init__()
        depths = (2, 3, 4)
        self.levels = nn.ModuleList(
            nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(n))) for n in depths
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.levels[0](x) + self.levels[1](x) + self.levels[2](x)


def test_branches_of_several_layers_that_are_added_are_no_skip_connections() -> None:
    assert anatomy(SemanticHead(), torch.randn(1, 3, 8, 8)).units == []


# -- handles, on small networks with numbers ----------------------------------------------------------------

SMALL: dict[str, tuple[dict[str, object], tuple[int, ...]]] = {
    "encoder_unet": ({}, (3, 32, 32)),
    "resnet18_fpn": ({"width": 8, "head_width": 8}, (3, 32, 32)),
    "unet": ({"width": 4, "depth": 3}, (3, 16, 16)),
    "unet_2015": ({"width": 4, "depth": 3}, (3, 52, 52)),
    "unet1d": ({"width": 4, "depth": 3}, (3, 32)),
    "resunet3d": ({"width": 4, "depth": 2}, (3, 8, 8, 8)),
    "unetpp": ({"width": 4, "depth": 4}, (3, 16, 16)),
    "vnet": ({"width": 4, "convolutions": (1, 2, 2)}, (3, 8, 8, 8)),
    "hourglass2": ({"width": 16, "levels": 2}, (3, 32, 32)),
}


def small(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    options, shape = SMALL[name]
    model = residua.create_model(name, 2, **options).eval().double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and float(module.weight.detach().std()) < 0.02:
            nn.init.normal_(module.weight, std=0.1)  # heads that begin near zero show nothing
    return model, torch.randn(2, *shape, dtype=torch.float64)


def gradients(
    found: Anatomy, x: torch.Tensor, units: list[Unit] | None = None, **handlers: object
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output and the input's gradient of its sum of squares."""
    x = x.clone().requires_grad_()
    with found.interpose(**handlers, units=units):  # type: ignore[arg-type]
        y = found.model(x)
    return y.detach(), torch.autograd.grad(y.square().sum(), x)[0]


@pytest.mark.parametrize("name", SMALL)
def test_reading_changes_nothing_and_every_unit_is_reached(name: str) -> None:
    model, x = small(name)
    found = anatomy(model, x)
    seen: dict[tuple[str, str], torch.Tensor] = {}

    def keep(part: str):
        def handler(unit: Unit, value: torch.Tensor) -> torch.Tensor:
            seen[unit.name, part] = value.detach().clone()  # what follows may write to it
            return value

        return handler

    parts = ("branch", "shortcut", "merged")
    read = gradients(found, x, **{part: keep(part) for part in parts})
    again = x.clone().requires_grad_()
    plain = model(again)
    assert torch.equal(read[0], plain)
    torch.testing.assert_close(read[1], torch.autograd.grad(plain.square().sum(), again)[0])
    assert set(seen) == {(unit.name, part) for unit in found.units for part in parts}
    for unit in found.units:
        branch, shortcut, merged = (seen[unit.name, part] for part in parts)
        joined = torch.cat((shortcut, branch), 1) if unit.merge == "concatenate" else None
        torch.testing.assert_close(merged, shortcut + branch if joined is None else joined)


@pytest.mark.parametrize("name", SMALL)
def test_each_unit_is_cut_forward_and_scaled_backward(name: str) -> None:
    model, x = small(name)
    found = anatomy(model, x)
    plain, gradient = gradients(found, x)
    for unit in found.units:
        with torch.no_grad(), found.cut([unit]):
            cut = model(x)
        assert not torch.equal(cut, plain), f"{unit.name}: cutting it changes nothing"
        scaled, _ = gradients(found, x, [unit], branch=lambda _, v: 0.0 * v)
        torch.testing.assert_close(cut, scaled)
        # backward alone: linear in the factor, and the forward pass stays
        sides = []
        for factor in (0.0, 0.5, 1.0):
            y, g = gradients(found, x, [unit], branch=lambda _, v, f=factor: Scaled.apply(v, f))
            assert torch.equal(y, plain)
            sides.append(g)
        torch.testing.assert_close(sides[2], gradient)
        torch.testing.assert_close(sides[1], (sides[0] + sides[2]) / 2)


class Scaled(torch.autograd.Function):
    """The value itself, its gradient times a factor."""

    @staticmethod
    def forward(ctx: object, value: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor  # type: ignore[attr-defined]
        return value.clone()

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None  # type: ignore[attr-defined]


def unit_named(found: Anatomy, name: str) -> Unit:
    return next(unit for unit in found.units if unit.name == name)


def test_a_u_net_without_what_is_below_is_one_level() -> None:
    model, x = small("unet")
    found = anatomy(model, x)
    with torch.no_grad(), found.cut([unit_named(found, "level.skip")]):
        y = model(x)
        e = model.level.encode(model.stem(x))
        alone = model.level.skip.merge.blocks(torch.cat((e, torch.zeros_like(e)), 1))
        torch.testing.assert_close(y, model.head(alone))


def test_a_level_of_a_pyramid_that_is_cut_is_its_lateral() -> None:
    model, x = small("resnet18_fpn")
    found = anatomy(model, x)
    with torch.no_grad():
        maps = model.encoder(x)
        with found.cut([unit_named(found, "pyramid.levels.0")]):
            y = model(x)
        lateral = model.pyramid.levels[0].shortcut.conv(maps[0])
        levels = model.pyramid(maps)
        levels[0] = model.pyramid.smooth[0](lateral)
        whole = functional.interpolate(model.head(levels), scale_factor=4, mode="bilinear")
    torch.testing.assert_close(y, whole)


def test_a_join_over_an_encoder_that_is_cut_reads_its_map_alone() -> None:
    model, x = small("encoder_unet")
    found = anatomy(model, x)
    with torch.no_grad(), found.cut([unit_named(found, "decoder.3")]):
        y = model(x)
        first = model.encoder.stem[:3](x)  # conv, norm, relu: before the pooling
        joined = torch.cat((first, torch.zeros(2, 64, *first.shape[2:])), 1)
        decoded = model.decoder[3].blocks(joined)
        risen = functional.interpolate(decoded, scale_factor=2.0, mode="nearest")
        torch.testing.assert_close(y, model.head(model.last(risen)))


def test_a_node_of_a_u_net_plus_plus_that_is_cut_reads_its_row_alone() -> None:
    model, x = small("unetpp")
    found = anatomy(model, x)
    with torch.no_grad(), found.cut([unit_named(found, "decode.03")]):
        y = model(x)
        row = [model.encode[0](x)]
        below = [model.encode[1](model.down[0](row[0]))]
        below.append(
            model.decode["11"](below[0], model.up["11"](model.encode[2](model.down[1](below[0]))))
        )
        for j in (1, 2):
            row.append(model.decode[f"0{j}"](torch.cat(row, 1), model.up[f"0{j}"](below[j - 1])))
        kept = torch.cat(row, 1)
        last = model.decode["03"](kept, torch.zeros(2, 4, *kept.shape[2:]))
        torch.testing.assert_close(y, model.heads["3"](last))


def test_the_links_of_an_hourglass_are_cut_one_by_one() -> None:
    model, x = small("hourglass2")
    found = anatomy(model, x)
    with torch.no_grad():
        start = model.stem(x)
        features, heatmaps = model.stacks[0](start)
        for name, rest in (
            ("links.0.features", model.links[0].heatmaps(heatmaps)),
            ("links.0.heatmaps", model.links[0].features(features)),
        ):
            with found.cut([unit_named(found, name)]):
                y = model(x)
            torch.testing.assert_close(y, model.stacks[1](start + rest)[1])


def test_the_report_counts_the_paths_on_shortcuts_too() -> None:
    """By length: R = 1 + t; H_0 = R, H_n = R + t R H_(n-1) R; R^3 (1 + 2 t H) H in all."""
    model, x = small("hourglass2")
    report = residua.xray(model, x, analyses=["anatomy"])
    t, module = Polynomial([0, 1]), Polynomial([1, 1])
    hourglass = module
    for _ in range(2):
        hourglass = module + t * module**2 * hourglass
    every = module**3 * (1 + 2 * t * hourglass) * hourglass
    assert report.path_counts == every.coef.astype(int).tolist()
    assert sum(report.path_counts) == report.results["anatomy"].summary["paths"]
