"""Targets are Gaussians at the joints, and predicting nothing is a loss of one: never a small one."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.training.pose.targets import (
    collapsed,
    collapsed_peaks,
    from_heatmap,
    heatmaps,
    pose_loss,
    to_heatmap,
)


def joints_at(*places, v=2.0):
    return torch.tensor([[[x, y, v] for x, y in places]])


def figures(count, size=64, joints=3, seed=0):
    """Pictures (B, J, size, size) with a bright square of its own channel at each joint."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(6, size - 6, (count, joints, 2), generator=generator).float()
    near = (torch.arange(size) - places[..., None]).abs() <= 3  # (B, J, 2, size)
    pictures = (near[:, :, 1, :, None] & near[:, :, 0, None, :]).float()
    return pictures, torch.cat([places, torch.full((count, joints, 1), 2.0)], dim=2)


def test_a_target_is_the_gaussian_of_the_paper_at_every_pixel():
    joints = joints_at((13.0, 30.2))
    (target,) = heatmaps(joints, (16, 12))[0]
    for i in range(16):
        for j in range(12):
            # pixel (i, j) is centred on (4 j + 1.5, 4 i + 1.5) of the picture
            square = ((4 * j + 1.5 - 13.0) ** 2 + (4 * i + 1.5 - 30.2) ** 2) / 4**2
            assert target[i, j] == pytest.approx(math.exp(-square / 2), rel=1e-4)


def test_a_joint_that_is_not_labelled_has_an_empty_target():
    joints = joints_at((13.0, 30.0), (20.0, 20.0))
    joints[0, 1, 2] = 0
    target = heatmaps(joints, (16, 16))
    assert target[0, 0].max() > 0.9
    assert (target[0, 1] == 0).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_the_mirrored_target_is_the_target_of_the_mirrored_joint(cells, seed):
    size = 4 * cells
    generator = torch.Generator().manual_seed(seed)
    joints = torch.rand(2, 3, 3, generator=generator) * size + 1e-3
    turned = joints.clone()
    turned[..., 0] = size - 1 - turned[..., 0]
    straight, back = (heatmaps(j, (cells, cells)) for j in (joints, turned))
    assert torch.allclose(back.flip(3), straight, atol=1e-4)


def test_places_go_to_the_heatmap_and_back():
    assert to_heatmap(torch.tensor([-0.5, 1.5, 255.5])).tolist() == [-0.5, 0, 63.5]
    places = torch.linspace(-3, 300, 50)
    assert torch.allclose(from_heatmap(to_heatmap(places)), places, atol=1e-4)


# -- the loss -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cells", [16, 64])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
@pytest.mark.parametrize("positive", [0.0, 5.0])
def test_to_predict_nothing_is_a_loss_of_one_whatever_the_size(cells, sigma, positive):
    # sum over pixels of g^2 is pi sigma^2, of g^3 is 2 pi sigma^2 / 3; plainly averaged it is tiny
    joints = joints_at((2 * cells + 0.3, 2 * cells - 0.8))
    nothing = torch.zeros(1, 1, cells, cells)
    loss = pose_loss(nothing, joints, sigma=sigma, positive=positive)
    assert loss == pytest.approx(1.0, abs=3e-3)
    target = heatmaps(joints, (cells, cells), sigma=sigma)
    assert (target**2).mean() == pytest.approx(math.pi * sigma**2 / cells**2, rel=1e-2)
    assert pose_loss(target, joints, sigma=sigma, positive=positive) == 0


@pytest.mark.parametrize("positive", [0, 40])
def test_the_loss_is_the_mean_over_labelled_joints_by_hand(positive):
    generator = torch.Generator().manual_seed(0)
    joints = torch.rand(3, 4, 3, generator=generator) * 60
    joints[..., 2] = torch.tensor([2.0, 1.0, 0.0, 2.0])
    joints[2, :, 2] = 0
    output = torch.rand(3, 4, 16, 16, generator=generator)
    target = heatmaps(joints, (16, 16))
    parts = [
        float(((1 + positive * target[b, j]) * (output[b, j] - target[b, j]) ** 2).sum())
        for b in range(3)
        for j in range(4)
        if joints[b, j, 2] > 0
    ]
    assert len(parts) == 6
    expected = np.mean(parts) / (math.pi * (1 + 2 * positive / 3))
    assert pose_loss(output, joints, positive=positive) == pytest.approx(expected, rel=1e-5)


def test_joints_that_are_not_labelled_have_no_gradient():
    joints = joints_at((20.0, 20.0), (30.0, 30.0))
    joints[0, 1, 2] = 0
    output = torch.rand(1, 2, 16, 16, requires_grad=True)
    pose_loss(output, joints).backward()
    assert output.grad[0, 0].abs().sum() > 0
    assert (output.grad[0, 1] == 0).all()
    joints[..., 2] = 0
    loss = pose_loss(output, joints)
    assert loss == 0
    loss.backward()  # a batch without labels trains nothing, and does not fail


def test_losses_of_the_stacks_are_summed_also_of_coarser_ones():
    joints = joints_at((20.3, 30.9))
    fine, coarse = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 8, 8)
    assert pose_loss([fine, fine], joints) == pytest.approx(2 * float(pose_loss(fine, joints)))
    own = pose_loss(coarse, joints, stride=8)
    both = pose_loss([coarse, fine], joints)
    assert both == pytest.approx(float(own + pose_loss(fine, joints)))


def test_heatmaps_that_do_not_fit_the_joints_are_refused():
    with pytest.raises(ValueError, match=r"heatmaps of shape \(1, 3, 8, 8\) for joints of shape"):
        pose_loss(torch.zeros(1, 3, 8, 8), joints_at((1.0, 1.0)))


# -- the collapse ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "maps",
    [
        torch.zeros(4, 3, 8, 8),
        torch.full((4, 3, 8, 8), 0.5),
        0.01 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        heatmaps(torch.tensor([[[1.5, 1.5, 2.0]] * 3] * 4), (8, 8)),
    ],
    ids=["zero", "constant", "faint noise", "always one corner"],
)
def test_maps_that_say_nothing_are_found_out(maps):
    assert collapsed(maps).tolist() == [True] * 3


def test_maps_that_say_something_are_not_accused():
    _, joints = figures(4)
    maps = heatmaps(joints, (16, 16))
    assert collapsed(maps).tolist() == [False] * 3
    assert collapsed(0.1 * maps).tolist() == [False] * 3  # early in training
    maps[:, 1] = 0
    assert collapsed(maps).tolist() == [False, True, False]
    assert collapsed(maps[:1]).tolist() == [False, True, False]  # one picture: no place repeats


def test_a_collapse_is_found_from_answers_gathered_over_batches():
    generator = torch.Generator().manual_seed(0)
    places = torch.rand(10, 3, 2, generator=generator)
    heights = torch.full((10, 3), 0.8)
    places[:, 0] = 0
    heights[:, 1] = 0.001
    assert collapsed_peaks(places, heights).tolist() == [True, True, False]


def trained(loss, steps=40):
    """Train a network that begins by answering 0 everywhere; return its maps of new pictures."""
    torch.manual_seed(0)
    last = nn.Conv2d(8, 3, 5, padding=2)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), last)
    optimiser = torch.optim.SGD(network.parameters(), 1e-4, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        pictures, joints = figures(4, seed=step)
        optimiser.zero_grad()
        value = loss(network(pictures), joints)
        value.backward()
        optimiser.step()
    with torch.no_grad():
        return network.eval()(figures(16, seed=999)[0]), value.item()


def test_a_network_that_starts_at_zero_leaves_it_where_the_plain_mean_stays():
    def plain(output, joints):
        return (output - heatmaps(joints, (64, 64), stride=1)).square().mean()

    maps, loss = trained(plain)
    assert loss < 0.001  # which looks trained
    assert collapsed(maps).all()
    maps, loss = trained(functools.partial(pose_loss, stride=1))
    assert loss < 0.6
    assert not collapsed(maps).any()
