"""A patch is a function of the seed and of how often its picture was shown: of nothing else."""

import dataclasses
import gc
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.data import decoded
from residua.data.border_weights import border_weights
from residua.data.decoded import Decoded, measure_pixels
from residua.data.masks import IGNORED
from residua.data.network_input import to_network
from residua.data.patch_augmentation import PatchAugmentation
from residua.data.patches import Patches
from residua.errors import BadInput

STRONG = PatchAugmentation.strong()


def pairs(shapes, channels=1, dtype=np.uint8, classes=3):
    """Smooth pictures, and masks of their own."""
    generator = np.random.default_rng(0)
    return [
        (
            generator.integers(0, 256, (*shape, channels)).astype(dtype),
            generator.integers(0, classes, shape).astype(np.uint8),
        )
        for shape in shapes
    ]


STORE = pairs([(20, 24), (17, 30), (40, 9), (16, 16), (25, 25)])


def make(store=STORE, **options):
    defaults = {
        "batch_size": 6,
        "seed": 3,
        "size": 12,
        "train": True,
        "classes": 3,
        "augmentation": STRONG,
    }
    return Patches(store, **(defaults | options))


def same(first, second):
    if (first.weights is None) != (second.weights is None):
        return False
    return (
        torch.equal(first.pictures, second.pictures)
        and torch.equal(first.labels, second.labels)
        and np.array_equal(first.indices, second.indices)
        and (first.weights is None or torch.equal(first.weights, second.weights))
    )


def all_same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


# -- which patches -----------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.integers(1, 13), st.integers(1, 5), st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_every_cycle_shows_each_picture_equally_often(n, batch_size, each, cycle):
    patches = make(pairs([(4, 4)] * n), batch_size=batch_size, patches_per_item=each, size=4)
    assert patches.steps_per_epoch == -(-n * each // batch_size)
    start, stop = cycle * n * each, (cycle + 1) * n * each
    steps = range(start // batch_size, stop // batch_size + 1)
    stream = np.concatenate([patches.indices(step) for step in steps])
    seen = stream[start - steps[0] * batch_size :][: n * each]
    assert np.bincount(seen, minlength=n).tolist() == [each] * n


def test_an_epoch_covers_the_middle_sized_picture_once():
    store = pairs([(32, 32), (64, 64), (128, 128)])
    assert make(store, size=16).patches_per_item == 64 * 64 // 16**2
    assert make(store, size=24, margin=4).patches_per_item == 64 * 64 // 16**2
    assert make(store, size=16, batch_size=6).steps_per_epoch == 3 * 16 // 6
    assert make(pairs([(4, 4)]), size=16).steps_per_epoch == 1  # filled up: six showings of one


def test_showings_of_a_picture_differ():
    batch = make(pairs([(30, 30)]), batch_size=16).batch(0)
    assert len({p.numpy().tobytes() for p in batch.pictures}) == 16
    assert batch.indices.tolist() == [0] * 16


def test_the_stream_does_not_depend_on_the_batch_size():
    whole = torch.cat([b.pictures for b in make(batch_size=12).iterate(0, 2)])
    for size in (1, 4, 8):
        parts = torch.cat([b.pictures for b in make(batch_size=size).iterate(0, 24 // size)])
        assert torch.equal(parts, whole)


@given(st.integers(4, 13), st.integers(1, 4), st.integers(0, 30))
@settings(deadline=None, max_examples=15)
def test_the_ranks_shares_put_together_are_the_single_process_batch(batch_size, world, step):
    whole = make(batch_size=batch_size).batch(step)
    parts = [make(batch_size=batch_size, rank=r, world=world).batch(step) for r in range(world)]
    assert torch.equal(torch.cat([part.pictures for part in parts]), whole.pictures)
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    assert np.concatenate([part.indices for part in parts]).tolist() == whole.indices.tolist()


@pytest.mark.parametrize("workers", [0, 1])
def test_starting_in_the_middle_gives_what_would_have_come(workers):
    expected = list(make().iterate(0, 9))
    with make(workers=workers) as resumed:
        assert all_same(resumed.iterate(5, 9), expected[5:])
        assert same(resumed.batch(2), expected[2])


@pytest.mark.parametrize(
    ("store", "options"),
    [
        (STORE, {}),
        (pairs([(9, 20, 20)] * 2, 2, np.float32), {"size": (4, 8, 8), "batch_size": 3}),
        (STORE, {"train": False, "margin": 2}),
    ],
    ids=["pictures", "volumes", "evaluation"],
)
def test_any_number_of_workers_delivers_the_same_bits(store, options):
    expected = list(make(store, **options).iterate(1, 5))
    for workers in (1, 2):
        with make(store, workers=workers, **options) as patches:
            assert all_same(patches.iterate(1, 5), expected)


@pytest.mark.slow
def test_workers_started_by_spawn_deliver_the_same_bits(monkeypatch):
    expected = list(make().iterate(0, 3))
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", None)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with make(workers=1) as patches:
            assert all_same(patches.iterate(0, 3), expected)
    finally:
        multiprocessing.set_start_method(None, force=True)


def test_workers_leave_the_global_generators_alone_and_go_when_closed():
    torch.manual_seed(1)
    np.random.seed(1)
    before, numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()
    known = set(multiprocessing.active_children())
    patches = make(workers=1)
    list(patches.iterate(0, 3))
    assert len(set(multiprocessing.active_children()) - known) == 1  # it waits for the next epoch
    patches.batch(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.random.get_state()[1].tolist() == numbers
    patches.close()
    gc.collect()
    assert set(multiprocessing.active_children()) <= known


def test_an_abandoned_iteration_and_two_at_once_disturb_nothing():
    expected = list(make().iterate(0, 6))
    with make(workers=1) as patches:
        running = patches.iterate(0, 6)
        assert same(next(running), expected[0])
        assert all_same(patches.iterate(4, 6), expected[4:6])
        assert same(next(running), expected[1])
        running.close()
        assert all_same(patches.iterate(0, 6), expected)


def test_a_pickled_copy_delivers_the_same_bits():
    patches = make()
    patches.batch(0)
    assert same(pickle.loads(pickle.dumps(patches)).batch(4), patches.batch(4))


def test_another_seed_is_another_stream():
    assert not same(make(seed=4).batch(0), make().batch(0))


# -- where they lie ----------------------------------------------------------------------------------------


def rare_corner(n=4, side=64):
    """One pixel in a thousand is of class 1, a few of class 2."""
    mask = np.zeros((side, side), np.uint8)
    mask[30:32, 40:42] = 1
    mask[50, 20:50] = 2
    return [(np.zeros((side, side, 1), np.uint8), mask)] * n


@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.5, 1.0])
def test_a_share_of_every_batch_is_centred_on_a_rarer_class(share):
    plain = PatchAugmentation()
    patches = make(rare_corner(), batch_size=12, size=9, augmentation=plain, foreground=share)
    centres = torch.cat([b.labels[:, 4, 4] for b in patches.iterate(0, 40)]).view(40, 12)
    around = (centres > 0).sum(1)
    least = round(12 * share)
    assert (around >= least).all()
    assert around.float().mean() < least + 0.5  # by chance: 34 of 4,096 pixels
    if share:
        of_one = (centres == 1).sum() / (centres > 0).sum()
        assert 0.4 < of_one < 0.6  # however rare each is


def test_volumes_are_centred_on_any_of_the_voxels_of_a_class():
    """More of them than are remembered, over many slices."""
    mask = np.zeros((9, 30, 30), np.uint8)
    mask[2:7, 5:25, 5:25] = 1
    mask[4, 10, 12] = 2
    store = [(np.zeros((*mask.shape, 1), np.uint8), mask)]
    plain = PatchAugmentation()
    patches = make(store, size=5, batch_size=200, augmentation=plain, foreground=1.0)
    centres = patches.batch(0).labels[:, 2, 2, 2]
    assert (centres > 0).all()
    assert 60 < (centres == 2).sum() < 140
    places = {tuple(np.unravel_index(p, mask.shape)) for p in patches.places.rarer(0, mask)[0]}
    assert all(mask[place] == 1 for place in places)
    assert {z for z, _, _ in places} == {2, 3, 4, 5, 6}


def test_at_the_border_the_pixel_is_in_the_patch_though_not_in_its_centre():
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 19] = 1
    store = [(np.zeros((20, 20, 1), np.uint8), mask)]
    patches = make(store, size=8, augmentation=PatchAugmentation(), foreground=1.0)
    labels = patches.batch(0).labels
    assert (labels[:, 0, 7] == 1).all()
    assert (labels.sum((1, 2)) == 1).all()


def test_ignored_pixels_and_pictures_of_one_class_centre_nothing():
    mask = np.full((20, 20), 1, np.uint8)
    mask[3] = IGNORED
    store = [(np.zeros((20, 20, 1), np.uint8), mask)]
    batch = make(store, size=8, foreground=1.0, batch_size=40).batch(0)
    assert len({tuple(map(tuple, label.tolist())) for label in batch.labels}) > 1


def test_everywhere_is_as_likely():
    picture = np.arange(10, dtype=np.float32)[:, None]
    store = [(picture, np.zeros(10, np.uint8))]
    patches = make(store, size=3, batch_size=800, augmentation=PatchAugmentation(), foreground=0)
    first = patches.batch(0).pictures[:, 0, 0].long()
    counts = torch.bincount(first, minlength=8)
    assert len(counts) == 8
    assert (counts - 100).abs().max() < 40


# -- shapes ------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 2).flatmap(lambda n: st.tuples(*[st.integers(1, 130)] * n)),
    st.integers(1, 130),
    st.sampled_from([np.uint8, np.float32]),
    st.integers(1, 3),
)
@settings(deadline=None, max_examples=40)
def test_any_size_of_picture_gives_any_size_of_patch(shape, size, dtype, channels):
    batch = make(pairs([shape], channels, dtype), size=size, batch_size=2).batch(0)
    assert batch.pictures.shape == (2, *(size,) * len(shape), channels)
    assert batch.labels.shape == (2, *(size,) * len(shape))
    assert batch.labels.max() < 3
    assert torch.isfinite(batch.pictures.float()).all()
    assert batch.pictures.numpy().dtype == dtype


@given(st.tuples(*[st.integers(1, 20)] * 3), st.tuples(*[st.integers(1, 20)] * 3))
@settings(deadline=None, max_examples=30)
def test_volumes_too(shape, size):
    batch = make(pairs([shape]), size=size, batch_size=1).batch(0)
    assert batch.pictures.shape == (1, *size, 1)
    assert batch.labels.shape == (1, *size)


def test_a_picture_smaller_than_the_patch_is_mirrored_up_to_it():
    picture = np.arange(4, dtype=np.float32)[:, None]
    store = [(picture, np.arange(4, dtype=np.uint8))]
    options = {"size": 10, "classes": 4, "augmentation": PatchAugmentation(), "foreground": 0}
    batch = make(store, **options).batch(0)
    wave = [3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0]
    windows = [wave[k : k + 10] for k in range(7)]
    for line, label in zip(batch.pictures[..., 0].tolist(), batch.labels.tolist(), strict=True):
        assert line in windows
        assert line == label


@pytest.mark.parametrize("margin", [3, (2, 4)])
def test_with_a_margin_the_target_is_the_centre_of_the_patch(margin):
    """The picture of coordinates says where the target came from."""
    places = np.stack(np.meshgrid(np.arange(30), np.arange(30), indexing="ij"), -1)
    store = [(places.astype(np.float32), (places.sum(-1) % 40).astype(np.uint8))]
    plain = PatchAugmentation(flip=True)
    patches = make(store, size=14, margin=margin, classes=40, augmentation=plain, batch_size=32)
    batch = patches.batch(0)
    m, n = (3, 3) if margin == 3 else margin
    assert batch.labels.shape == (32, 14 - 2 * m, 14 - 2 * n)
    centre = batch.pictures[:, m : 14 - m, n : 14 - n]
    assert torch.equal(centre.sum(-1).long() % 40, batch.labels)
    assert (centre[..., 1].diff(dim=2).abs() == 1).all()  # no mirror within the target
    assert batch.pictures[:, :, :, 1].max() == 29


def test_a_new_size_holds_from_the_next_iteration_on():
    patches = make()
    steps = patches.steps_per_epoch
    running = patches.iterate(0, 3)
    next(running)
    patches.set_size(5)
    assert next(running).pictures.shape == (6, 12, 12, 1)
    assert patches.batch(1).pictures.shape == (6, 5, 5, 1)
    assert (patches.size, patches.steps_per_epoch) == (5, steps)


def test_evaluation_delivers_whole_pictures_once_over_all_ranks():
    seen = []
    for rank in range(3):
        patches = make(train=False, rank=rank, world=3)
        for batch in patches.iterate():
            (i,) = batch.indices
            assert np.array_equal(batch.pictures[0], STORE[i][0])
            assert np.array_equal(batch.labels[0], STORE[i][1])
            seen.append(i)
    assert sorted(seen) == list(range(5))
    wide = make(train=False, margin=2).batch(1)
    edges = ((2, 2), (2, 2), (0, 0))
    assert np.array_equal(wide.pictures[0], np.pad(STORE[1][0], edges, mode="reflect"))
    assert np.array_equal(wide.labels[0], STORE[1][1])


# -- what they look like -------------------------------------------------------------------------------------


def test_without_augmentation_patches_are_parts_of_the_pictures():
    batch = make(augmentation=None, batch_size=20, size=8).batch(0)
    for patch, label, i in zip(batch.pictures, batch.labels, batch.indices, strict=True):
        picture, mask = STORE[i]
        parts = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (8, 8))
        rows, columns = np.nonzero((parts == patch.numpy()[..., 0]).all((2, 3)))
        assert len(rows) == 1
        part = mask[rows[0] : rows[0] + 8, columns[0] : columns[0] + 8]
        assert np.array_equal(label, part)


def test_weights_move_with_the_mask():
    store = rare_corner(3)
    maps = [border_weights(mask) for _, mask in store]
    how = PatchAugmentation(flip=True, rotate90=True)
    batch = make(store, weights=maps, size=64, foreground=0, augmentation=how).batch(0)
    for label, found in zip(batch.labels, batch.weights, strict=True):
        np.testing.assert_array_equal(found, border_weights(label.numpy()))
    assert make(store, weights=maps, train=False).batch(0).weights is None


def test_tone_changes_pictures_and_never_masks():
    """The same seed with and without tone: other grey levels in the same places."""
    shape = PatchAugmentation(flip=True, rotation=20, elastic=4)
    toned = dataclasses.replace(
        shape, brightness=0.5, contrast=(0.5, 2), gamma=(0.5, 2), noise=0.5, blur=2
    )
    plain, changed = make(augmentation=shape).batch(1), make(augmentation=toned).batch(1)
    assert torch.equal(plain.labels, changed.labels)
    assert (plain.pictures != changed.pictures).float().mean() > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"store": []}, "the split has no pictures"),
        ({"batch_size": 0}, "batch_size=0: expected 1 or more"),
        ({"workers": -1}, "workers=-1: expected 0 or more"),
        ({"rank": 2, "world": 2}, "rank=2: expected one of 0 .. 1"),
        ({"batch_size": 2, "world": 3}, "batch_size=2: expected at least one"),
        ({"size": (8, 8, 8)}, r"size=\(8, 8, 8\): expected one number, or 2, one an axis"),
        ({"size": 0}, "size=0: expected more than twice the margin"),
        ({"margin": 6}, "size=12: expected more than twice the margin, 6"),
        ({"foreground": 1.5}, "foreground=1.5: expected a share"),
        ({"classes": 2, "size": 16}, "its mask holds class 2; expected 0 to 1"),
        ({"store": [(np.zeros((4, 4, 1)), np.zeros((4, 4), np.uint8))]}, "expected one to three"),
        (
            {"store": [(np.zeros((4, 4, 1), np.uint8), np.zeros((4, 5), np.uint8))]},
            "a mask of the same size",
        ),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_the_first_batch(options, message):
    with pytest.raises(BadInput, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("flip", (3,)),
        ("rotation", -1),
        ("scale", (0, 1)),
        ("scale", (2, 1)),
        ("elastic", -1),
        ("contrast", (1.2, 1.1)),
        ("gamma", (0, 2)),
        ("noise", float("nan")),
        ("p_blur", 1.1),
        ("outside", "zero"),
    ],
)
def test_an_augmentation_that_cannot_be_names_its_key(key, value):
    with pytest.raises(BadInput, match=rf"augmentation\.{key}="):
        PatchAugmentation(**{key: value})


# -- input to the network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [(6,), (6, 7), (4, 5, 6)], ids=["1d", "2d", "3d"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_input_is_normalised_and_channels_last(sides, channels, kind):
    pictures = (torch.rand(2, *sides, channels) * 255).to(kind)
    mean, std = torch.rand(channels), torch.rand(channels) + 0.1
    out = to_network(pictures, mean, std)
    unit = pictures.double() / (255 if kind == torch.uint8 else 1)
    expected = ((unit - mean) / std).movedim(-1, 1)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    assert out.shape == (2, channels, *sides)
    assert out.movedim(1, -1).is_contiguous()
    assert to_network(pictures, mean, std, torch.bfloat16).dtype == torch.bfloat16


def test_large_offsets_do_not_lose_the_picture():
    """16-bit counts of 30,000 with a spread of 1."""
    pictures = 30_000 + torch.randn(1, 50, 50, 1)
    out = to_network(pictures, torch.tensor([30_000.0]), torch.tensor([1.0]))
    torch.testing.assert_close(out[0, 0], pictures[0, ..., 0] - 30_000)


# -- what pixels are like ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [16, 1 << 24])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mean_and_spread_are_those_of_all_pixels(dtype, at_once, monkeypatch):
    monkeypatch.setattr(decoded, "_AT_ONCE", at_once)
    store = pairs([(7, 9), (20, 3), (5, 5)], 2, dtype)
    every = np.concatenate([p.reshape(-1, 2) for p, _ in store]).astype(float)
    every /= 255 if dtype == np.uint8 else 1
    mean, std = measure_pixels(store, 2, 0)
    assert mean == pytest.approx(every.mean(0))
    assert std == pytest.approx(every.std(0))


def test_a_spread_far_from_zero_is_found_and_a_constant_has_none():
    generator = np.random.default_rng(0)
    picture = np.float32(1e4) + generator.standard_normal((50, 50, 2)).astype(np.float32)
    picture[..., 1] = 7
    mean, std = measure_pixels([(picture, None)] * 2, 2, 0)
    assert std == pytest.approx((picture[..., 0].astype(float).std(), 1))
    assert mean == pytest.approx((1e4, 7), abs=0.1)


def test_values_that_are_not_finite_are_refused():
    picture = np.full((2, 2, 1), np.nan, np.float32)
    with pytest.raises(BadInput, match="picture 0: holds values that are not finite"):
        measure_pixels([(picture, None)], 1, 0)


class Reads:
    """A split that counts how often each picture is decoded."""

    def __init__(self):
        self.reads = [0] * len(STORE)

    def __len__(self):
        return len(STORE)

    def read(self, index):
        self.reads[index] += 1
        return STORE[index]


def test_decoded_pairs_are_kept_up_to_the_limit():
    split = Reads()
    size = sum(p.nbytes + m.nbytes for p, m in STORE[:3])
    store = Decoded(split, size)
    for _ in range(3):
        for i in range(len(STORE)):
            assert np.array_equal(store[i][0], STORE[i][0])
    assert split.reads == [1, 1, 1, 3, 3]
    assert store.kept_bytes == size
    with pytest.raises(IndexError):
        store[len(STORE)]


def test_filling_stops_where_no_more_fits_and_a_copy_starts_empty():
    split = Reads()
    store = Decoded(split, sum(p.nbytes + m.nbytes for p, m in STORE[:2]))
    said = []
    store.fill(lambda done, total: said.append((done, total)))
    assert said == [(1, 5), (2, 5), (3, 5)]
    copy = pickle.loads(pickle.dumps(store))
    assert copy.kept_bytes == 0
    assert np.array_equal(copy[1][0], STORE[1][0])
    assert same(make(store).batch(1), make().batch(1))
