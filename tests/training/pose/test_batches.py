"""A batch is a function of its step, and its joints are where the picture shows them."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import BadInput
from residua.training.pose.affine import moved
from residua.training.pose.augmentation import PoseAugmentation
from residua.training.pose.batches import PoseBatches, in_crop

MIRROR = (1, 0, 2)  # left (red), right (green), nose (blue)
HEIGHT, WIDTH = 150, 200


@dataclass
class Dots:
    """People of three joints, each a soft dot of one colour in a picture of its own."""

    joints: np.ndarray
    boxes: np.ndarray

    @classmethod
    def drawn(cls, count=11, seed=0):
        generator = np.random.default_rng(seed)
        places = generator.uniform((70, 50), (130, 100), (count, 3, 2))
        joints = np.concatenate([places, np.full((count, 3, 1), 2.0)], axis=2)
        box = np.array([40, 20, 160, 130]) + generator.uniform(-8, 8, (count, 4))
        return cls(joints.astype(np.float32), box.astype(np.float32))

    def __len__(self):
        return len(self.joints)

    def read(self, i):
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        dots = [
            255 * np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * 5.0**2))
            for a, b, _ in self.joints[i]
        ]
        return np.rint(np.stack(dots, axis=2)).astype(np.uint8)


def make(count=11, **options):
    defaults = {"batch_size": 4, "seed": 3, "size": 24, "train": True, "mirror": MIRROR}
    return PoseBatches(Dots.drawn(count), **(defaults | options))


def same(first, second):
    return (
        torch.equal(first.pictures, second.pictures)
        and torch.equal(first.labels, second.labels)
        and np.array_equal(first.indices, second.indices)
        and np.array_equal(first.maps, second.maps)
    )


def all_same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(same, first, second))


def centres(crop):
    """Return the centre of each colour's light (3, 2), x and y."""
    light = np.clip(crop.astype(float) - 3, 0, None)
    total = light.sum(axis=(0, 1))
    x = (light.sum(axis=0) * np.arange(crop.shape[1])[:, None]).sum(axis=0) / total
    y = (light.sum(axis=1) * np.arange(crop.shape[0])[:, None]).sum(axis=0) / total
    return np.stack([x, y], axis=1)


# -- what they look like --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, 64, 200])
def test_the_dots_of_an_augmented_crop_are_where_its_joints_are(size):
    how = PoseAugmentation(colour=(0, 0, 0))
    batches = make(8, batch_size=8, size=size, augmentation=how)
    flips = 0
    for batch in batches.iterate(0, 2):
        for k in range(8):
            flipped = np.linalg.det(batch.maps[k, :, :2]) < 0
            flips += flipped
            # in a mirrored picture, the dot of the left hand is the right hand
            colours = list(MIRROR) if flipped else [0, 1, 2]
            found = centres(batch.pictures[k].numpy())[colours]
            away = np.abs(batch.labels[k, :, :2].numpy() - found)
            assert away.max() < max(0.1, 0.001 * size)
            assert (batch.labels[k, :, 2] == 2).all()
    assert 0 < flips < 16


def test_labels_lead_back_to_the_joints_of_the_picture():
    batch = make(train=False, batch_size=11).batch(0)
    joints = Dots.drawn().joints
    assert moved(batch.labels[:, :, :2].numpy(), batch.maps) == pytest.approx(
        joints[:, :, :2], abs=1e-3
    )


def test_without_pairs_nothing_is_mirrored():
    with_pairs, without = make(), make(mirror=None)
    turned = [np.linalg.det(b.maps[:, :, :2]) < 0 for b in with_pairs.iterate(0, 6)]
    assert any(t.any() for t in turned)
    for batch in without.iterate(0, 6):
        assert (np.linalg.det(batch.maps[:, :, :2]) > 0).all()


def test_a_joint_outside_of_the_crop_is_not_labelled():
    maps = np.array([[[1.0, 0, 10], [0, 1, 0]]])
    joints = np.array([[[9.5, 0, 2], [9.4, 0, 2], [17.5, 7, 1], [17.6, 7, 2], [12, 3, 0]]])
    out = in_crop(joints, maps, 8)
    assert out[0, :, 2].tolist() == [2, 0, 1, 0, 0]
    assert out[0, 0, :2].tolist() == [-0.5, 0]


# -- which people -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 5))
def test_a_training_epoch_shows_everybody_in_full_batches(n, batch_size, epoch):
    batches = make(n, batch_size=batch_size)
    steps = batches.steps_per_epoch
    seen = [batches.indices(epoch * steps + k) for k in range(steps)]
    assert {len(index) for index in seen} == {min(n, batch_size)}
    assert set(np.concatenate(seen)) == set(range(n))


def test_an_evaluation_shows_everybody_once_over_all_ranks():
    shares = [make(train=False, rank=rank, world=3) for rank in range(3)]
    seen = [b.indices for own in shares for b in own.iterate(0, own.steps_per_epoch)]
    assert sorted(np.concatenate(seen).tolist()) == list(range(11))


def test_ranks_share_the_batch_of_one():
    whole = make(batch_size=6)
    for step in (0, 1, 5):
        parts = [make(batch_size=6, rank=rank, world=2).batch(step) for rank in range(2)]
        assert torch.equal(torch.cat([p.pictures for p in parts]), whole.batch(step).pictures)
        assert torch.equal(torch.cat([p.labels for p in parts]), whole.batch(step).labels)


def test_a_resumed_iteration_goes_on_where_it_was():
    whole = list(make().iterate(0, 7))
    assert all_same(make().iterate(4, 7), whole[4:])
    assert same(make().batch(5), whole[5])
    assert not torch.equal(whole[0].pictures, make(seed=4).batch(0).pictures)


@pytest.mark.slow
def test_workers_change_no_bit():
    with make(workers=2) as worked:
        assert all_same(worked.iterate(0, 7), make().iterate(0, 7))
        worked.set_size(16)
        small = make()
        small.set_size(16)
        assert all_same(worked.iterate(2, 5), small.iterate(2, 5))


def test_a_size_that_is_set_holds_from_the_next_iteration_on():
    batches = make()
    running = batches.iterate(0, 3)
    first = next(running)
    batches.set_size(16)
    assert next(running).pictures.shape == first.pictures.shape == (4, 24, 24, 3)
    assert batches.batch(0).pictures.shape == (4, 16, 16, 3)
    assert batches.size == 16


def test_batches_survive_being_pickled():
    batches = make()
    assert same(pickle.loads(pickle.dumps(batches)).batch(1), batches.batch(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"size": 0}, "size=0"),
        ({"margin": 0}, "margin=0"),
        ({"rank": 2, "world": 2}, "rank=2"),
        ({"batch_size": 1, "world": 2}, "one for each of the 2 processes"),
        ({"mirror": (1, 2, 0)}, "expected pairs of the 3 joints"),
        ({"mirror": (1, 0)}, "expected pairs of the 3 joints"),
        ({"count": 0}, "the split has no people"),
    ],
    ids=["batch", "size", "margin", "rank", "world", "cycle", "short", "nobody"],
)
def test_numbers_that_do_not_fit_are_refused(options, expected):
    with pytest.raises(BadInput, match=expected.replace("(", r"\(")):
        make(**options)
