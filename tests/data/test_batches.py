"""A batch is a function of its step: not of workers, ranks, resuming, or who asked before."""

import gc
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.data.augmentation import Augmentation
from residua.data.batches import Batches, resize, to_input
from residua.data.counter import Draws
from residua.errors import BadInput

CROP = Augmentation(crop_padding=2, flip=True)


def numbered(n, size=8, channels=3):
    """Pictures whose first pixel is their index, labels equal to the index."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(n)
    return pixels, np.arange(n)


class Ragged:
    """Pictures of different shapes."""

    uniform = False

    def __init__(self, n=11, channels=3):
        generator = np.random.default_rng(1)
        sizes = generator.integers(20, 50, (n, 2))
        self.pictures = [
            generator.integers(0, 256, (*size, channels), dtype=np.uint8) for size in sizes
        ]

    @property
    def pixels(self):
        raise AssertionError("a ragged store has no array of pictures")

    def __getitem__(self, index):
        return self.pictures[index]

    def __len__(self):
        return len(self.pictures)


def make(store=None, n=50, **options):
    pixels, labels = numbered(n)
    store = pixels if store is None else store
    defaults = {"batch_size": 16, "seed": 3, "size": 8, "train": True, "augmentation": CROP}
    return Batches(store, labels[: len(store)], **(defaults | options))


def same(first, second):
    return (
        torch.equal(first.pictures, second.pictures)
        and torch.equal(first.labels, second.labels)
        and np.array_equal(first.indices, second.indices)
    )


def all_same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


# -- which pictures -------------------------------------------------------------------------------------


@given(st.integers(1, 80), st.integers(1, 100), st.integers(0, 9), st.integers(1, 4))
def test_a_training_epoch_shows_every_picture_in_full_batches(n, batch_size, epoch, repeats):
    batches = make(n=n, batch_size=batch_size, repeats=repeats)
    steps = batches.steps_per_epoch
    assert steps == -(-n // min(n, batch_size))
    seen = [batches.indices(epoch * steps + k) for k in range(steps)]
    assert {len(index) for index in seen} == {min(n, batch_size)}
    flat = np.concatenate(seen)
    if repeats == 1:
        assert sorted(flat[:n].tolist()) == list(range(n))
        assert flat[n:].tolist() == flat[: len(flat) - n].tolist()  # filled up from the start
        assert all(len(set(index.tolist())) == len(index) for index in seen)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(2, 4))
def test_repeats_show_each_picture_that_often_over_as_many_epochs(n, batch_size, repeats):
    batches = make(n=n, batch_size=batch_size, repeats=repeats)
    steps = batches.steps_per_epoch
    shown = [
        np.concatenate([batches.indices(e * steps + k) for k in range(steps)])[:n]
        for e in range(repeats)
    ]
    order = np.concatenate(shown)
    assert np.bincount(order, minlength=n).tolist() == [repeats] * n
    assert (order.reshape(n, repeats) == order[::repeats, None]).all()  # neighbours are one picture


def test_repeats_of_a_picture_in_a_batch_are_augmented_differently():
    how = Augmentation(crop_padding=6, flip=True)
    batch = make(repeats=4, augmentation=how).batch(0)
    groups = batch.pictures.view(4, 4, *batch.pictures.shape[1:])
    assert all(len({p.numpy().tobytes() for p in group}) > 1 for group in groups)


@given(st.integers(4, 60), st.integers(4, 40), st.integers(1, 4), st.integers(0, 50))
@settings(max_examples=40)
def test_the_ranks_shares_put_together_are_the_single_process_batch(n, batch_size, world, step):
    whole = make(n=n, batch_size=batch_size).batch(step)
    parts = [
        make(n=n, batch_size=batch_size, rank=r, world=world).batch(step) for r in range(world)
    ]
    assert torch.equal(torch.cat([part.pictures for part in parts]), whole.pictures)
    assert np.concatenate([part.indices for part in parts]).tolist() == whole.indices.tolist()


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 7))
def test_evaluation_covers_each_picture_once_over_all_ranks(n, batch_size, world):
    seen = []
    for rank in range(world):
        batches = make(n=n, batch_size=batch_size, rank=rank, world=world, train=False)
        own = [batch.indices for batch in batches.iterate()]
        assert len(own) == batches.steps_per_epoch
        assert all(len(index) for index in own)
        seen += [i for index in own for i in index.tolist()]
    assert sorted(seen) == list(range(n))


def test_evaluation_is_in_order_and_untouched_by_augmentation():
    pixels, _ = numbered(50)
    batches = make(train=False)
    assert [len(b.indices) for b in batches.iterate()] == [16, 16, 16, 2]
    assert np.array_equal(torch.cat([b.pictures for b in batches.iterate()]), pixels)
    assert torch.cat([b.labels for b in batches.iterate()]).tolist() == list(range(50))


def test_labels_and_pictures_belong_to_the_indices():
    pixels, _ = numbered(50)
    batch = make(augmentation=None).batch(7)
    assert np.array_equal(batch.pictures, pixels[batch.indices])
    assert batch.labels.tolist() == batch.indices.tolist()
    assert batch.labels.dtype == torch.int64
    assert batch.indices.dtype == np.int64


# -- what they look like ----------------------------------------------------------------------------------


def test_a_picture_is_a_function_of_seed_epoch_and_index():
    """The same picture in another batch size, so another place of another step, is the same bits."""
    small, large = make(batch_size=5), make(batch_size=25)
    by_index = {}
    for batch in large.iterate(2, 4):  # epoch 1
        by_index |= dict(zip(batch.indices.tolist(), batch.pictures, strict=True))
    seen = 0
    for batch in small.iterate(10, 20):  # epoch 1
        for index, picture in zip(batch.indices.tolist(), batch.pictures, strict=True):
            assert torch.equal(picture, by_index[index])
            seen += 1
    assert seen == 50
    assert not same(make(seed=4).batch(0), make().batch(0))


def test_the_draws_are_those_of_the_counter():
    pixels, _ = numbered(50)
    batches = make(augmentation=Augmentation(flip=True))
    batch = batches.batch(5)  # of epoch 1
    index = batch.indices
    flipped = Draws(3, 1, index, np.zeros_like(index)).uniform(2) < 0.5
    for picture, i, flip in zip(batch.pictures.numpy(), index, flipped, strict=True):
        assert np.array_equal(picture, pixels[i][:, ::-1] if flip else pixels[i])


@pytest.mark.parametrize(
    ("store", "options"),
    [
        (None, {"augmentation": CROP}),
        (None, {"augmentation": CROP, "repeats": 3, "size": 6}),
        (None, {"augmentation": Augmentation(random_resized_crop=(0.3, 1.0), flip=True)}),
        (None, {"augmentation": Augmentation(randaugment=(2, 9), random_erasing=0.5)}),
        (Ragged(), {"augmentation": Augmentation(random_resized_crop=(0.3, 1.0)), "batch_size": 4}),
        (Ragged(channels=1), {"augmentation": CROP, "batch_size": 4}),
        (Ragged(), {"train": False, "batch_size": 4}),
    ],
    ids=["crop", "repeats", "resized", "randaugment", "ragged-resized", "ragged", "evaluation"],
)
def test_any_number_of_workers_delivers_the_same_bits(store, options):
    expected = list(make(store, **options).iterate(2, 7))
    for workers in (1, 2):
        with make(store, workers=workers, **options) as batches:
            assert all_same(batches.iterate(2, 7), expected)


def test_workers_started_by_spawn_deliver_the_same_bits(monkeypatch):
    expected = list(make().iterate(0, 3))
    monkeypatch.setattr(multiprocessing.context._default_context, "_actual_context", None)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with make(workers=1) as batches:
            assert all_same(batches.iterate(0, 3), expected)
    finally:
        multiprocessing.set_start_method(None, force=True)


@pytest.mark.parametrize("workers", [0, 1])
def test_starting_in_the_middle_gives_what_would_have_come(workers):
    with make(workers=workers) as whole, make(workers=workers) as resumed:
        assert all_same(list(whole.iterate(0, 12))[5:], resumed.iterate(5, 12))


def test_an_abandoned_iteration_and_two_at_once_disturb_nothing():
    expected = list(make().iterate(0, 8))
    with make(workers=1) as batches:
        running = batches.iterate(0, 8)
        assert same(next(running), expected[0])
        assert all_same(batches.iterate(4, 6), expected[4:6])
        assert same(next(running), expected[1])
        running.close()
        assert all_same(batches.iterate(0, 8), expected)


def test_workers_leave_the_global_generators_alone_and_go_when_closed():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    known = set(multiprocessing.active_children())
    batches = make(workers=2)
    list(batches.iterate(0, 3))
    assert len(set(multiprocessing.active_children()) - known) == 2  # they wait for the next epoch
    list(batches.iterate(3, 6))
    assert torch.equal(torch.get_rng_state(), before)
    batches.close()
    gc.collect()
    assert set(multiprocessing.active_children()) <= known


def test_a_pickled_copy_delivers_the_same_bits():
    batches = make()
    batches.batch(0)
    assert same(pickle.loads(pickle.dumps(batches)).batch(4), batches.batch(4))


def test_a_memory_mapped_read_only_store_gives_writable_batches(tmp_path):
    pixels, labels = numbered(20)
    np.save(tmp_path / "pixels.npy", pixels)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    batches = Batches(mapped, labels, batch_size=4, seed=0, size=8, train=False)
    batch = next(batches.iterate())
    batch.pictures.zero_()
    assert np.array_equal(mapped, pixels)


# -- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_new_size_holds_from_the_next_iteration_on(workers):
    with make(workers=workers) as batches:
        running = batches.iterate(0, 3)
        next(running)
        batches.set_size(5)
        assert next(running).pictures.shape == (16, 8, 8, 3)
        assert next(batches.iterate(0, 3)).pictures.shape == (16, 5, 5, 3)
        assert batches.batch(1).pictures.shape == (16, 5, 5, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 9, 16])
def test_resizing_is_antialiased_bilinear_within_a_level_picture_by_picture(channels, size):
    pictures = torch.from_numpy(numbered(7, 12, channels)[0])
    out = resize(pictures, size)
    planes = pictures.permute(0, 3, 1, 2).double()
    exact = torch.nn.functional.interpolate(planes, (size, size), mode="bilinear", antialias=True)
    assert (
        out.permute(0, 3, 1, 2).double() - exact
    ).abs().max() < 1.1  # rounded between rows and columns
    assert torch.equal(out[3:4], resize(pictures[3:4], size))


def test_evaluation_of_ragged_pictures_takes_the_centred_share_of_the_short_side():
    picture = np.zeros((40, 60, 1), dtype=np.uint8)
    picture[2:38, 12:48] = 200  # the centred 30 x 30, and what the filter sees around it
    store = Ragged(1)
    store.pictures = [picture]
    batches = make(store, n=1, batch_size=1, size=10, train=False, crop_ratio=0.75)
    assert (batches.batch(0).pictures == 200).all()
    wider = make(store, n=1, batch_size=1, size=10, train=False, crop_ratio=1.0)
    assert (wider.batch(0).pictures < 200).any()


# -- edges -----------------------------------------------------------------------------------------------


def test_a_set_smaller_than_a_batch_is_the_batch():
    batches = make(n=5, batch_size=128)
    assert batches.steps_per_epoch == 1
    assert sorted(batches.batch(3).indices.tolist()) == [0, 1, 2, 3, 4]


def test_a_single_picture_is_a_batch_of_one():
    assert make(n=1).batch(9).pictures.shape == (1, 8, 8, 3)
    assert make(n=1, train=False).batch(0).pictures.shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected 1 or more"),
        ({"workers": -1}, "workers=-1: expected 0 or more"),
        ({"rank": 2, "world": 2}, "rank=2: expected one of 0 .. 1"),
        ({"batch_size": 2, "world": 3}, "batch_size=2 of 50 pictures: expected at least one"),
        ({"augmentation": Augmentation(randaugment=(2, 9)), "resident": True}, "resident=True"),
        ({"augmentation": Augmentation(crop_padding=1, fill=(1, 2))}, "augmentation.fill"),
        ({"store": np.zeros((4, 6, 8, 3), np.uint8)}, r"expected \(N, S, S, C\)"),
        ({"store": np.zeros((0, 8, 8, 3), np.uint8)}, "no pictures"),
    ],
)
def test_what_cannot_work_is_said_in_one_line_before_the_first_batch(options, message):
    with pytest.raises(BadInput, match=message) as caught:
        make(**options)
    assert "\n" not in str(caught.value)


# -- input to the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_input_is_normalised_and_channels_last_by_its_strides(channels, batch, dtype):
    pictures = torch.from_numpy(numbered(batch, 6, channels)[0])
    mean, std = torch.rand(channels), torch.rand(channels) + 0.1
    out = to_input(pictures, mean, std, dtype)
    assert out.shape == (batch, channels, 6, 6)
    assert out.stride() == (36 * channels, 1, 6 * channels, channels)
    assert out.is_contiguous(memory_format=torch.channels_last)
    planes = pictures.permute(0, 3, 1, 2).double() / 255
    expected = (planes - mean.double().view(-1, 1, 1)) / std.double().view(-1, 1, 1)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(out.double(), expected, atol=tolerance, rtol=tolerance)
