"""V-Net: its published stages, and that any volume goes through."""

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.models.levels import levels
from residua.models.vnet import Copies
from residua.nn import Skip
from residua.xray.anatomy import anatomy

# Milletari et al. 2016, table 1: what a voxel of each stage sees, in voxels of the input.
DOWN = [5, 22, 72, 172, 372]
UP = [476, 528, 546, 551]


def on_meta(**options):
    with torch.device("meta"):
        return create_model("vnet", **options).eval()


def fives(module):
    """The number of 5x5x5 convolutions of a stage."""
    return sum(isinstance(m, nn.Conv3d) and m.kernel_size[0] == 5 for m in module.modules())


def test_receptive_fields_are_those_of_table_1():
    found = list(levels(on_meta().level))
    seen, jump, sizes = 1, 1, []
    for i, level in enumerate(found):
        seen += jump if i else 0  # the halving convolution sees two
        jump *= 2 if i else 1
        seen += 4 * jump * fives(level.encode)
        sizes.append(seen)
    assert sizes == DOWN
    sizes = []
    for level in found[-2::-1]:
        jump //= 2
        seen += jump + 4 * jump * fives(level.skip.merge.blocks)
        sizes.append(seen)
    # Doubling adds one voxel of the finer map; the table counts it for three of the four.
    assert [a - b for a, b in zip(sizes, UP, strict=True)] == [0, 0, 0, 0]


def test_widths_double_and_a_stage_on_the_way_up_keeps_what_it_joined():
    found = list(levels(on_meta().level))
    assert [level.encode.merge.activation.num_parameters for level in found] == [
        16,
        32,
        64,
        128,
        256,
    ]
    joined = [level.skip.merge.blocks[0].merge.activation.num_parameters for level in found[:-1]]
    assert joined == [32, 64, 128, 256]
    assert not any("Norm" in type(m).__name__ for m in on_meta().modules())


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 17), (16, 16, 16)])
@torch.no_grad()
def test_any_volume_is_scored_voxel_by_voxel(size):
    model = create_model("vnet", width=2).eval()
    assert model(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_a_zero_stage_is_prelu_of_copies_of_the_input():
    model = create_model("vnet", width=4, in_channels=3)
    stage = model.level.encode
    nn.init.zeros_(stage.branch[0].conv.weight)
    x = torch.randn(1, 3, 4, 4, 4)
    copies = torch.stack([x[:, 0], x[:, 1], x[:, 2], x[:, 0]], 1)
    torch.testing.assert_close(stage(x), torch.where(copies > 0, copies, 0.25 * copies))
    assert torch.equal(Copies(2)(x), x[:, :2])


def test_its_residual_units_are_its_skips():
    with torch.device("meta"):
        model = create_model("vnet", width=2)
    found = anatomy(model, torch.empty(1, 3, 16, 16, 16, device="meta"))
    skips = {path for path, module in model.named_modules() if isinstance(module, Skip)}
    names = {unit.name for unit in found.units if unit.shortcut == "identity"}
    assert names <= skips
    assert [unit.merge for unit in found.units].count("concatenate") == 4


def test_deep_supervision_norm_and_recomputation():
    torch.manual_seed(0)
    model = create_model("vnet", width=2, norm="batch", deep_supervision=True, recompute=True)
    sizes = [tuple(y.shape[2:]) for y in model(torch.randn(2, 3, 16, 16, 9))]
    assert sizes == [(2, 2, 2), (4, 4, 3), (8, 8, 5), (16, 16, 9)]


def test_bad_options_are_refused_in_one_line():
    with pytest.raises(BadInput, match="must be at least 1"):
        create_model("vnet", convolutions=())
