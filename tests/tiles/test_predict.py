import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.models import create_model
from residua.tiles import geometry_of, plan_for, predict
from tests.tiles.nets import INSTANCE, Down, noise, whole

CLOSE = 1e-5


@functools.cache
def network(dims, depth, pad=True):
    return Down(dims, depth, pad=pad)


@functools.cache
def geometry(dims, depth, pad=True):
    return geometry_of(network(dims, depth, pad), 1, dims)


def mirrored(picture, geometry):
    """The picture as a network without padding needs it, by NumPy."""
    widths = [(0, 0)]
    for n, m, s, r in zip(
        picture.shape[1:], geometry.margin, geometry.stride, geometry.remainder, strict=True
    ):
        widths.append((m, m + (r - n - 2 * m) % s))
    return np.pad(picture, widths, mode="reflect")


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_inference_mode_changes_nothing(dims):
    expected, picture = geometry(dims, 2), noise(*[50] * dims)
    with torch.inference_mode():
        assert geometry_of(network(dims, 2), 1, dims) == expected
        made = Down(dims, 2)  # of tensors that autograd refuses
        assert geometry_of(made, 1, dims) == expected
        assert plan_for(made, picture, classes=3).exact
    assert np.abs(predict(made, picture, classes=3) - whole(made, picture)).max() < CLOSE


@settings(deadline=None, max_examples=25)
@given(
    depth=st.integers(0, 3), n=st.integers(1, 150), core=st.integers(1, 6), batch=st.integers(1, 3)
)
def test_tiles_of_a_signal_agree_with_the_whole(depth, n, core, batch):
    net, known = network(1, depth), geometry(1, depth)
    tile = known.halo[0][0] + known.halo[0][1] + (core + 2) * known.stride[0]
    picture = noise(n)
    tiled = predict(net, picture, classes=3, tile=tile, batch=batch, exact=True, geometry=known)
    assert np.abs(tiled - whole(net, picture)).max() < CLOSE


@settings(deadline=None, max_examples=12)
@given(
    h=st.integers(1, 75),
    w=st.integers(1, 75),
    tile=st.integers(44, 60),
    flips=st.sets(st.integers(0, 1)),
)
def test_tiles_of_a_picture_of_any_size_agree_with_the_whole(h, w, tile, flips):
    net, picture = network(2, 2), noise(h, w)
    tiled = predict(
        net, picture, classes=3, tile=tile, exact=True, flips=flips, geometry=geometry(2, 2)
    )
    subsets = [c for n in range(len(flips) + 1) for c in itertools.combinations(flips, n)]
    expected = np.mean(
        [
            np.flip(whole(net, np.flip(picture, [1 + f for f in flip])), [1 + f for f in flip])
            for flip in subsets
        ],
        axis=0,
    )
    assert np.abs(tiled - expected).max() < CLOSE


def test_tiles_of_a_volume_agree_with_the_whole():
    net, picture = network(3, 1), noise(21, 26, 17)
    tiled = predict(net, picture, classes=3, tile=18, exact=True, geometry=geometry(3, 1))
    plan = plan_for(net, picture, classes=3, tile=18, geometry=geometry(3, 1))
    assert plan.tiles > 8
    assert np.abs(tiled - whole(net, picture)).max() < CLOSE


@settings(deadline=None, max_examples=15)
@given(n=st.integers(1, 120), core=st.integers(0, 5), flip=st.booleans())
def test_without_padding_the_picture_is_mirrored_and_tiles_agree_with_the_whole(n, core, flip):
    net, known = network(1, 2, False), geometry(1, 2, False)
    tile = 2 * known.margin[0] + (core + 3) * known.stride[0]
    picture = noise(n)
    flips = (0,) if flip else ()
    tiled = predict(net, picture, classes=3, tile=tile, exact=True, flips=flips, geometry=known)
    expected = whole(net, mirrored(picture, known))[:, :n]
    if flip:
        turned = whole(net, mirrored(picture[:, ::-1], known))[:, :n]
        expected = (expected + turned[:, ::-1]) / 2
    assert np.abs(tiled - expected).max() < CLOSE


def test_the_unet_of_2015_loses_92_pixels_a_side_in_steps_of_16():
    net = create_model("unet_2015", num_classes=2, in_channels=1, width=2)
    found = geometry_of(net, 1, 2)
    assert (found.margin, found.stride, found.remainder) == ((92, 92), (16, 16), (12, 12))
    assert 572 % 16 == 12  # the published input
    assert found.halo == ((0, 0), (0, 0))


def test_our_unet_in_tiles_is_the_whole_one():
    net = create_model("unet1d", num_classes=2, in_channels=1, width=4).double().eval()
    picture = noise(701)
    tiled = predict(net, picture, classes=2, tile=272, exact=True)
    assert np.abs(tiled - whole(net, picture)).max() < CLOSE


def test_where_the_picture_fits_it_is_predicted_in_one_piece():
    net, picture = network(2, 2), noise(50, 61)
    plan = plan_for(net, picture, classes=3)
    assert plan.tiles == 1 and plan.tile == (50, 61) and plan.exact
    assert np.abs(predict(net, picture, classes=3) - whole(net, picture)).max() < 1e-6


@pytest.mark.parametrize("blend", ["gaussian", "linear", "constant"])
def test_blended_tiles_of_a_constant_network_are_constant(blend):
    class Same(nn.Module):
        def forward(self, x):
            return x[:, :1] * 0 + torch.tensor([0.25, 0.75]).view(1, 2, 1, 1)

    found = predict(
        Same(),
        noise(37, 23),
        classes=2,
        tile=(8, 10),
        overlap=0.6,
        exact=False,
        blend=blend,
        activation="none",
    )
    assert np.abs(found - np.array([0.25, 0.75])[:, None, None]).max() < 1e-6


def blended_by_hand(net, picture, tile, step, sigma):
    """Isensee et al. 2021 with a loop, a sum and a map of counts."""
    n = picture.shape[1:]
    starts = [sorted({*range(0, m - tile, step), m - tile}) for m in n]
    x = np.arange(tile) - (tile - 1) / 2
    line = np.exp(-0.5 * (x / sigma) ** 2)
    weight = np.multiply.outer(line, line)
    total, count = np.zeros((3, *n)), np.zeros(n)
    for a, b in itertools.product(*starts):
        here = (slice(a, a + tile), slice(b, b + tile))
        total[:, *here] += weight * whole(net, picture[:, *here])
        count[here] += weight
    return total / count


def test_blending_is_the_weighted_mean_of_the_tiles():
    net, picture = Down(2, 1, norm=INSTANCE), noise(50, 37)
    found = predict(net, picture, classes=3, tile=16, overlap=0.5, exact=False)
    assert np.abs(found - blended_by_hand(net, picture, 16, 8, 2.0)).max() < CLOSE


@settings(deadline=None, max_examples=10)
@given(memory=st.sampled_from([0.3, 0.4, 1.0, 50.0]), batch=st.integers(1, 5))
def test_strips_and_batches_change_nothing(memory, batch):
    net, picture = network(2, 1), noise(41, 120)
    options = {"classes": 3, "tile": 12, "overlap": 0.4, "exact": False, "geometry": geometry(2, 1)}
    one = predict(net, picture, **options)
    try:
        other = predict(net, picture, **options, memory_mb=memory, batch=batch)
    except ValueError as error:
        assert "memory_mb" in str(error)
        return
    assert np.abs(one - other).max() < 1e-6


def test_a_network_that_looks_at_the_whole_picture_is_blended_and_says_why():
    net = Down(2, 1, norm=INSTANCE)
    plan = plan_for(net, noise(40, 40), classes=3, tile=16)
    assert not plan.exact
    assert plan.reason.endswith("(InstanceNorm2d) norms by statistics of the whole picture")
    with pytest.raises(ValueError, match=r"^exact tiles are not possible: .*InstanceNorm2d"):
        predict(net, noise(40, 40), classes=3, exact=True)


def test_flips_of_blended_tiles_are_averaged_and_turned_back():
    net, picture = network(2, 1), noise(30, 21)
    options = {"classes": 3, "tile": 30, "exact": False, "geometry": geometry(2, 1)}
    found = predict(net, picture[:, :, :21], **options | {"tile": (30, 21)}, flips=(1,))
    plain = whole(net, picture)
    turned = whole(net, picture[:, :, ::-1])[:, :, ::-1]
    assert np.abs(found - (plain + turned) / 2).max() < 1e-6


def test_class_numbers_are_the_largest_probability():
    net, picture = network(2, 2), noise(64, 50)
    numbers = predict(net, picture, classes=3, tile=48, dtype="classes")
    assert numbers.dtype == np.uint8
    assert (numbers == whole(net, picture).argmax(0)).mean() > 0.999


def test_the_network_comes_back_as_it_was():
    net, picture = Down(2, 1), noise(20, 20)
    net.train()
    net.enter[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    predict(net, picture, classes=3)
    assert modes == [module.training for module in net.modules()]
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_pixels_are_read_tile_by_tile_and_prepared():
    class Store:
        """Like a chunked array on a disk: gives what slices ask for."""

        shape = (1, 200, 180)
        largest = 0

        def __getitem__(self, slices):
            sides = [s.stop - s.start for s in slices[1:]]
            self.largest = max(self.largest, math.prod(sides))
            return (pixels[slices] * 100 + 500).astype(np.uint16)

    pixels = np.abs(noise(200, 180))
    store = Store()
    net = network(2, 1)
    found = predict(
        net, store, classes=3, tile=40, geometry=geometry(2, 1), prepare=lambda t: t / 100.0
    )
    assert store.largest <= 40 * 40
    expected = whole(net, (pixels * 100 + 500).astype(np.uint16) / 100.0)
    assert np.abs(found - expected).max() < CLOSE


def test_progress_is_told_of_every_tile():
    told = []
    predict(
        network(2, 1),
        noise(40, 40),
        classes=3,
        tile=24,
        flips=(0,),
        progress=lambda done, total: told.append((done, total)),
        geometry=geometry(2, 1),
    )
    assert told[-1][0] == told[-1][1] and len(told) > 1
    assert [done for done, _ in told] == sorted(done for done, _ in told)


class Nan(nn.Module):
    def forward(self, x):
        return torch.cat([x, x], 1) / 0 * 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tile": 4}, "tile=4 is too small for what the network sees"),
        ({"tile": (8, 8, 8)}, r"tile=\(8, 8, 8\): expected a side, or 2 sides"),
        ({"tile": 0}, "tile=0: expected a side"),
        ({"memory_mb": 0.01}, "memory_mb"),
        ({"overlap": 1.0}, "overlap=1.0: expected"),
        ({"overlap": 0.5, "exact": True}, "overlap= is of blended tiles"),
        ({"blend": "gausian"}, "Did you mean gaussian"),
        ({"dtype": "float64"}, "dtype='float64': expected float32, float16, classes"),
        ({"activation": "relu"}, "activation='relu'"),
        ({"classes": 0}, "classes=0"),
        ({"classes": 4}, r"the network gave \(1, 3, 40, 30\).* expected \(1, 4, 40, 30\)"),
        ({"flips": (2,)}, r"flips=\(2,\): expected dimensions 0 to 1"),
        ({"out": "result.tif"}, r"result\.tif: expected the name of a \.npy file"),
        ({"batch": 0}, "batch=0"),
        ({"prepare": lambda t: t[:, :, :0]}, "a prepared tile is"),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_bad_options_get_one_line(options, words):
    exact = {"exact": True} if "tile" in options else {}
    with pytest.raises(ValueError, match=words) as caught:
        predict(
            network(2, 1),
            noise(40, 30),
            **{"classes": 3, "geometry": geometry(2, 1)} | exact | options,
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(3,), (1, 0, 4), (1, 2, 3, 4, 5)], ids=str)
def test_a_picture_of_another_shape_gets_one_line(shape):
    with pytest.raises(ValueError, match=r"expected \(channels, length\)"):
        predict(network(2, 1), np.zeros(shape), classes=3)


def test_wrong_channels_get_one_line():
    with pytest.raises(ValueError, match="channels") as caught:
        predict(network(2, 1), np.zeros((4, 20, 20)), classes=3)
    assert "\n" not in str(caught.value)


def test_nan_from_the_network_is_an_error_not_a_result():
    with pytest.raises(Exception, match=r"^the network gave NaN"):
        predict(Nan(), noise(8, 8), classes=2)
