"""A small network learns the joints of drawn figures: crops, targets, loss, flip test and scores together."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua.data.drawn.figures import Drawn
from residua.data.drawn.skeleton import JOINTS
from residua.data.joints import mirror_of, torso_sizes
from residua.training.pose.batches import PoseBatches
from residua.training.pose.decode import decode, flip_test, in_picture
from residua.training.pose.scores import pck
from residua.training.pose.targets import collapsed, pose_loss

SIZE, STEPS = 64, 400
MIRROR = mirror_of(JOINTS)[0]


@dataclass
class Figures:
    """Drawn figures as people; the box is that of the labelled joints."""

    pictures: list
    joints: np.ndarray
    boxes: np.ndarray

    @classmethod
    def drawn(cls, count, first):
        samples = Drawn(count, 0, first=first)
        samples = [samples[i] for i in range(count)]
        joints = np.stack([sample.joints for sample in samples])
        there = [j[j[:, 2] > 0, :2] for j in joints]
        boxes = np.array([[*p.min(0), *p.max(0)] for p in there], np.float32)
        return cls([sample.picture for sample in samples], joints, boxes)

    def __len__(self):
        return len(self.joints)

    def read(self, i):
        return self.pictures[i]


@functools.cache
def sets():
    return Figures.drawn(160, 0), Figures.drawn(64, 10_000)


def block(inside, out, stride=1):
    convolution = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU())


class Small(nn.Module):
    """Down to a quarter, to an eighth and a sixteenth, and up again."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(block(3, 16, 2), block(16, 24, 2))
        self.down, self.deep = block(24, 32, 2), block(32, 32, 2)
        self.up, self.out = block(32, 24), nn.Conv2d(24, len(JOINTS), 1)

    def forward(self, x):
        fine = self.stem(x)
        coarse = self.down(fine)
        coarse = coarse + F.interpolate(self.deep(coarse), scale_factor=2)
        return self.out(fine + self.up(F.interpolate(coarse, scale_factor=2)))


def to_float(batch):
    return batch.pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


def trained(**options):
    """Return PCK@0.2 and the heatmaps of the test figures after a short training."""
    train, test = sets()
    torch.manual_seed(0)
    network = Small()
    optimiser = torch.optim.AdamW(network.parameters(), 3e-3)
    batches = PoseBatches(train, batch_size=16, seed=0, train=True, size=SIZE, mirror=MIRROR)
    for batch in batches.iterate(0, STEPS):
        optimiser.zero_grad()
        pose_loss(network(to_float(batch)), batch.labels, **options).backward()
        optimiser.step()
    network.eval()
    (batch,) = PoseBatches(test, batch_size=64, seed=0, train=False, size=SIZE).iterate()
    with torch.no_grad():
        maps = flip_test(network, to_float(batch), MIRROR)
    points = in_picture(decode(maps)[0], batch.maps)
    return pck(points, test.joints, torso_sizes(test.joints, JOINTS)), maps


def blind(train, test):
    """Answer everybody with the mean figure, at the place and the size of the box."""

    def frame(people):
        corners = people.boxes.reshape(-1, 2, 2)
        return corners.mean(axis=1)[:, None], np.ptp(corners, axis=1).max(axis=1)[:, None, None]

    middle, side = frame(train)
    places, labelled = (train.joints[:, :, :2] - middle) / side, train.joints[:, :, 2:] > 0
    mean = (places * labelled).sum(axis=0) / labelled.sum(axis=0)
    middle, side = frame(test)
    return pck(middle + side * mean, test.joints, torso_sizes(test.joints, JOINTS))


@pytest.mark.slow
def test_joints_are_learned_and_sooner_where_they_weigh_more_than_the_background():
    score, maps = trained()
    plain, _ = trained(positive=0.0)
    assert not collapsed(maps).any()
    assert score.mean > blind(*sets()).mean
    assert score.mean > 1.4 * plain.mean
