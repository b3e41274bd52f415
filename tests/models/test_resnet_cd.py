"""ResNet-C and -D: published counts, the deep stem and the pooled shortcut, computed by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.errors import BadInput
from residua.models import create_model, record
from residua.nn import Projection

# as timm counts them
PUBLISHED = {
    "resnet50c": 25_576_264,
    "resnet18d": 11_708_744,
    "resnet34d": 21_816_904,
    "resnet50d": 25_576_264,
    "resnet101d": 44_568_392,
    "resnet152d": 60_212_040,
    "resnet200d": 64_693_064,
}


def built(name, **options):
    torch.manual_seed(0)
    return create_model(name, num_classes=5, **options).double().eval()


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name):
    assert record(name).parameters == PUBLISHED[name]


@torch.no_grad()
def test_the_deep_stem_is_three_convolutions_and_a_pooling():
    stem = built("resnet18d").stem
    x = pictures(2, 3, 33, 30)
    y = x
    for conv, norm, stride in (("conv", "norm1", 2), ("conv2", "norm2", 1), ("conv3", "norm", 1)):
        weight = stem.get_submodule(conv).weight
        assert stem.get_submodule(conv).bias is None
        y = F.conv2d(y, weight, stride=stride, padding=1)
        layer = stem.get_submodule(norm)
        y = F.relu(F.batch_norm(y, layer.running_mean, layer.running_var, eps=1e-5))
    torch.testing.assert_close(stem(x), F.max_pool2d(y, 3, 2, 1))
    widths = [m.weight.shape[:2] for m in stem if isinstance(m, nn.Conv2d)]
    assert widths == [(32, 3), (32, 32), (64, 32)]


@torch.no_grad()
def test_a_shortcut_of_d_projects_the_mean_of_the_pixels_that_there_are():
    shortcut = built("resnet18d").stages[1][0].skip.shortcut
    x = pictures(1, 64, 5, 3)  # at the odd edges a window has two pixels, or one
    pooled = torch.stack(
        [
            torch.stack(
                [x[:, :, i : i + 2, j : j + 2].flatten(2).mean(2) for j in (0, 2)],
                -1,
            )
            for i in (0, 2, 4)
        ],
        -2,
    )
    assert pooled.shape == (1, 64, 3, 2)
    weight = shortcut.conv.weight[:, :, 0, 0]
    expected = torch.einsum("oc,nchw->nohw", weight, pooled) / (1 + 1e-5) ** 0.5  # fresh norm
    torch.testing.assert_close(shortcut(x), expected)


def test_d_pools_where_the_size_halves_only():
    def pools(name):
        with torch.device("meta"):
            model = create_model(name)
        return [hasattr(m, "pool") for m in model.modules() if isinstance(m, Projection)]

    assert pools("resnet18d") == [True, True, True]
    assert pools("resnet50d") == [False, True, True, True]  # the first one widens without a stride
    assert pools("resnet50c") == [False] * 4


def test_every_pixel_reaches_a_shortcut_of_d_and_a_quarter_of_them_one_of_c():
    for name, share in (("resnet50d", 1.0), ("resnet50c", 0.25)):
        shortcut = built(name).stages[1][0].skip.shortcut
        x = pictures(1, 256, 8, 8).requires_grad_()
        shortcut(x).square().sum().backward()
        assert (x.grad.abs().sum((0, 1)) > 0).double().mean() == share


def test_what_makes_it_c_or_d_is_no_option():
    for option in ("shortcut", "stem"):
        with pytest.raises(BadInput, match=f"unknown option '{option}' for resnet50d"):
            create_model("resnet50d", **{option: "B"})
