"""Batched augmentations equal slow references written picture by picture, and draw what they claim."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.data import augmentation as module
from residua.data.augmentation import (
    Augmentation,
    augment,
    crop_flip,
    crop_resize,
    fill_boxes,
    mix,
)
from residua.data.counter import Draws
from residua.errors import BadInput


def random_pictures(n=6, height=9, width=7, channels=3, seed=0):
    shape = (n, height, width, channels)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def draws_for(index, seed=0, epoch=0):
    index = np.asarray(index, dtype=np.int64)
    return Draws(seed, epoch, index, np.zeros_like(index))


def cropped_slowly(picture, top, left, flip, padding, mode, fill):
    """One picture by numpy's own padding."""
    edges = ((padding, padding), (padding, padding), (0, 0))
    if mode == "reflect":
        padded = np.pad(picture, edges, mode="reflect")
    else:
        planes = [
            np.pad(plane, edges[:2], constant_values=value)
            for plane, value in zip(np.moveaxis(picture, 2, 0), fill, strict=True)
        ]
        padded = np.stack(planes, axis=2)
    height, width, _ = picture.shape
    window = padded[top : top + height, left : left + width]
    return window[:, ::-1] if flip else window


@given(
    st.integers(1, 5),
    st.integers(5, 9),
    st.integers(5, 9),
    st.sampled_from([1, 3]),
    st.integers(0, 4),
    st.sampled_from(["zero", "reflect"]),
    st.integers(0, 2**31),
)
def test_crop_and_flip_equal_the_slow_reference(n, height, width, channels, padding, mode, seed):
    pictures = random_pictures(n, height, width, channels, seed)
    generator = np.random.default_rng(seed)
    top, left = generator.integers(0, 2 * padding + 1, (2, n))
    flip = generator.random(n) < 0.5
    fill = tuple(range(50, 50 + channels))
    expected = np.stack(
        [
            cropped_slowly(picture, top[k], left[k], flip[k], padding, mode, fill)
            for k, picture in enumerate(pictures.numpy())
        ]
    )
    before = pictures.clone()
    assert np.array_equal(crop_flip(pictures, top, left, flip, padding, mode, fill), expected)
    assert torch.equal(pictures, before)
    value = torch.tensor(fill, dtype=torch.uint8)
    other = module._crop_flip(pictures, top, left, flip, padding, mode, value)  # of other devices
    assert np.array_equal(other, expected)


def test_every_offset_and_both_sides_are_equally_likely():
    n, pad = 16_200, 4
    places = torch.arange(1, 8 * 8 + 1, dtype=torch.uint8).view(1, 8, 8, 1).expand(n, 8, 8, 1)
    out = augment(places, Augmentation(crop_padding=pad, flip=True), draws_for(range(n)))
    middle = out[:, 3:5, 3:5, 0].long()  # these two by two pixels say which crop and which side
    _, counts = torch.unique(middle.reshape(n, 4), dim=0, return_counts=True)
    assert len(counts) == 81 * 2
    assert ((counts - 100.0) ** 2 / 100).sum() < 240  # 161 degrees: exceeded with p = 5e-5


@pytest.mark.parametrize(
    "how",
    [
        Augmentation(crop_padding=2, flip=True),
        Augmentation(crop_padding=2, padding_mode="reflect", cutout=3, fill=(9, 8, 7)),
        Augmentation(flip=True, random_erasing=0.5, fill=7),
        Augmentation(randaugment=(2, 9), flip=True),
    ],
    ids=["crop", "cutout", "erasing", "randaugment"],
)
def test_a_picture_does_not_depend_on_the_batch_around_it(how):
    pictures = random_pictures(8, 16, 16)
    order = torch.tensor([5, 2, 7, 0])
    whole = augment(pictures, how, draws_for(range(8), seed=3, epoch=1))
    part = augment(pictures[order], how, draws_for(order.numpy(), seed=3, epoch=1))
    assert torch.equal(part, whole[order])
    assert not torch.equal(whole, augment(pictures, how, draws_for(range(8), seed=3, epoch=2)))
    assert not torch.equal(whole, augment(pictures, how, draws_for(range(8), seed=4, epoch=1)))


def test_repeats_of_one_picture_look_different():
    picture = random_pictures(1, 32, 32).expand(3, -1, -1, -1)
    draws = Draws(0, 0, np.array([4, 4, 4]), np.array([0, 1, 2]))
    out = augment(picture, Augmentation(crop_padding=8, flip=True), draws)
    assert len({p.numpy().tobytes() for p in out}) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_randaugment_draws_for_each_picture_and_gives_the_generator_back(channels):
    pictures = random_pictures(1, 24, 24, channels).expand(24, -1, -1, -1)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    out = augment(pictures, Augmentation(randaugment=(2, 15)), draws_for(range(24)))
    assert torch.equal(torch.get_rng_state(), before)
    assert out.shape == pictures.shape
    assert out.dtype == torch.uint8
    assert (
        len({p.numpy().tobytes() for p in out}) > 18
    )  # some draw the same, or what changes nothing
    assert "torchvision" not in sys.modules


def test_randaugment_without_kornia_is_one_clear_line(monkeypatch):
    module._kornia_randaugment.cache_clear()
    monkeypatch.setitem(sys.modules, "kornia.augmentation.auto", None)
    with pytest.raises(
        BadInput, match=r"^augmentation\.randaugment: needs kornia.*install kornia$"
    ):
        augment(random_pictures(1), Augmentation(randaugment=(2, 9)), draws_for([0]))


# -- boxes ---------------------------------------------------------------------------------------------


@given(st.integers(4, 40), st.integers(4, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_cutout_clears_one_square_and_nothing_else(height, width, side, seed):
    pictures = random_pictures(4, height, width).clamp(min=1)
    out = augment(pictures, Augmentation(cutout=side), draws_for(range(4), seed=seed))
    for before, after in zip(pictures, out, strict=True):
        cleared = (after == 0).all(-1)
        rows, columns = cleared.any(1).nonzero().ravel(), cleared.any(0).nonzero().ravel()
        assert 0 < len(rows) <= side
        assert 0 < len(columns) <= side
        assert cleared[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert torch.equal(after[~cleared], before[~cleared])
        inside = rows[0] > 0 and rows[-1] < height - 1
        assert not inside or len(rows) == side


def test_an_empty_box_changes_nothing():
    pictures = random_pictures(3)
    assert torch.equal(fill_boxes(pictures, np.zeros((3, 4), dtype=np.int64), 5), pictures)


@pytest.mark.parametrize("channels", [1, 3])
def test_cutting_the_whole_square_at_its_own_size_changes_nothing(channels):
    picture = random_pictures(1, 12, 12, channels)[0].numpy()
    assert np.array_equal(crop_resize(picture, (0, 12, 0, 12), 12), picture)
    inner = crop_resize(picture, (2, 8, 3, 9), 6)
    assert np.array_equal(inner, picture[2:8, 3:9])


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"crop_padding": -1}, "crop_padding"),
        ({"random_erasing": 1.5}, "random_erasing"),
        ({"random_resized_crop": (0.0, 1.0)}, "random_resized_crop"),
        ({"aspect": (2.0, 1.0)}, "aspect"),
        ({"randaugment": (2, 30)}, "randaugment"),
        ({"mixup": -0.1}, "mixup"),
        ({"padding_mode": "edge"}, "padding_mode"),
        ({"fill": (0, 300, 0)}, "fill"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(options, key):
    with pytest.raises(BadInput, match=rf"^augmentation\.{key}=.*: expected .*$"):
        Augmentation(**options)


def test_padding_that_cannot_be_reflected_or_filled_is_named():
    draws = draws_for(range(6))
    with pytest.raises(BadInput, match="reflected padding must be smaller"):
        augment(random_pictures(), Augmentation(crop_padding=7, padding_mode="reflect"), draws)
    with pytest.raises(BadInput, match="expected one value, or 3"):
        augment(random_pictures(), Augmentation(crop_padding=1, fill=(1, 2)), draws)


# -- mixing --------------------------------------------------------------------------------------------


def inputs_of(batch, height=6, width=5, channels=3):
    generator = torch.Generator().manual_seed(batch)
    inputs = torch.randn(batch, channels, height, width, generator=generator)
    return inputs.contiguous(memory_format=torch.channels_last)


def test_without_mixing_targets_are_smoothed_one_hot_rows():
    labels = torch.tensor([2, 0])
    inputs, targets = mix(inputs_of(2), labels, 4, smoothing=0.1)
    assert torch.equal(inputs, inputs_of(2))
    expected = torch.tensor([[0.025, 0.025, 0.925, 0.025], [0.925, 0.025, 0.025, 0.025]])
    torch.testing.assert_close(targets, expected)
    oracle = torch.nn.CrossEntropyLoss(label_smoothing=0.1)(
        inputs[:, :, 0, 0].repeat(1, 2)[:, :4], labels
    )
    ours = torch.nn.CrossEntropyLoss()(inputs[:, :, 0, 0].repeat(1, 2)[:, :4], targets)
    torch.testing.assert_close(ours, oracle)


@settings(max_examples=60)
@given(st.integers(1, 7), st.sampled_from(["mixup", "cutmix", "both"]), st.integers(0, 10_000))
def test_pictures_and_targets_are_mixed_alike_in_batches_of_any_size(batch, kind, step):
    """Recover the share of the partner from the pictures alone, and compare it with the targets'."""
    alphas = {"mixup": float(kind != "cutmix"), "cutmix": float(kind != "mixup")}
    inputs, labels = inputs_of(batch), torch.arange(batch)
    mixed, targets = mix(inputs, labels, batch, **alphas, seed=3, step=step)
    assert mixed.stride() == inputs.stride()
    torch.testing.assert_close(targets.sum(1), torch.ones(batch))
    if batch == 1:
        torch.testing.assert_close(mixed, inputs)
        return
    partners = (targets - torch.eye(batch) * targets.diagonal()).argmax(1)
    own = float(targets[0, 0])
    if own == 1:
        torch.testing.assert_close(mixed, inputs)
        return
    assert len(set(partners.tolist())) == batch  # a permutation, and nobody with itself
    assert (partners != labels).all()
    from_self, from_other = mixed == inputs, mixed == inputs[partners]
    if (from_self | from_other).all():  # CutMix: every pixel is of one of the two
        assert from_self[:, 0].float().mean((1, 2)).tolist() == pytest.approx([own] * batch)
    else:
        torch.testing.assert_close(mixed, own * inputs + (1 - own) * inputs[partners])


def test_both_kinds_of_mixing_come_equally_often_and_lambda_follows_its_beta():
    inputs, labels = inputs_of(2, 1, 1), torch.arange(2)
    kept = [float(mix(inputs, labels, 2, mixup=0.2, seed=1, step=s)[1][0, 0]) for s in range(2000)]
    assert np.mean(kept) == pytest.approx(0.5, abs=0.03)
    assert np.var(kept) == pytest.approx(1 / (4 * (2 * 0.2 + 1)), rel=0.05)  # Beta's variance
    inputs = inputs_of(2, 8, 8)
    cut = 0
    for step in range(600):
        mixed, _ = mix(inputs, labels, 2, mixup=1.0, cutmix=1.0, seed=1, step=step)
        cut += bool(((mixed == inputs) | (mixed == inputs.roll(1, 0))).all())
    assert cut / 600 == pytest.approx(0.5, abs=0.08)


def test_mixing_is_a_function_of_seed_and_step():
    inputs, labels = inputs_of(5), torch.arange(5)
    first = mix(inputs, labels, 5, mixup=1.0, cutmix=1.0, seed=1, step=9)
    torch.rand(7)
    again = mix(inputs, labels, 5, mixup=1.0, cutmix=1.0, seed=1, step=9)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = mix(inputs, labels, 5, mixup=1.0, cutmix=1.0, seed=1, step=10)
    assert not torch.equal(first[1], other[1])
