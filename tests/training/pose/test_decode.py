"""Joints come out of heatmaps where they went in, also out of mirrored ones: no pixel is lost."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.training.pose.affine import crop_maps, inverse, moved
from residua.training.pose.decode import (
    METHODS,
    blurred,
    decode,
    flip_test,
    in_picture,
    mirrored,
)
from residua.training.pose.targets import heatmaps

MIRROR = (0, 2, 1)  # nose, left, right


def random_joints(count, size, seed=0, joints=5, border=0.0):
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, joints, 2, generator=generator) * (size - 2 * border) + border - 0.5
    return torch.cat([places, torch.full((count, joints, 1), 2.0)], dim=2)


def errors(maps, joints, **options):
    return (decode(maps, **options)[0] - joints[..., :2]).norm(dim=2)


# -- without noise --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 40), st.integers(3, 40), st.integers(0, 10**6))
def test_joints_anywhere_in_the_crop_come_back_within_a_tenth_of_a_pixel(rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    joints = torch.rand(2, 5, 3, generator=generator)
    joints = joints * torch.tensor([4 * columns, 4 * rows, 0]) + torch.tensor([-0.5, -0.5, 2])
    maps = heatmaps(joints, (rows, columns))
    assert errors(maps, joints).max() < 0.1
    assert errors(maps, joints, blur=0).max() < 0.02
    confidence = decode(maps)[1]
    assert (confidence > 0.77).all()  # half a pixel off in both directions: exp(-1/4) = 0.78
    assert (confidence <= 1).all()


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0, 3.0])
def test_the_width_and_the_height_of_the_peak_do_not_matter(sigma):
    joints = random_joints(8, 128, border=40)
    maps = 0.3 * heatmaps(joints, (32, 32), sigma=sigma)
    assert errors(maps, joints).max() < 0.1


def test_the_quarter_is_what_newell_published():
    joints = torch.tensor([[[4 * 5 + 1.5 + 1.2, 4 * 9 + 1.5 - 0.4, 2.0]]])
    place, _ = decode(heatmaps(joints, (16, 16)), method="quarter")
    assert place[0, 0].tolist() == [4 * 5.25 + 1.5, 4 * 8.75 + 1.5]


def test_a_peak_at_the_border_has_no_quarter():
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 0, 7] = 1
    place, _ = decode(maps, method="quarter")
    assert place[0, 0].tolist() == [4 * 7 + 1.5, 1.5]


def test_the_default_is_the_method_of_the_smallest_error():
    joints = random_joints(64, 256, border=24)
    generator = torch.Generator().manual_seed(1)
    target = heatmaps(joints, (64, 64))
    for noise, largest in ((0.0, 0.01), (0.01, 0.06), (0.05, 0.25)):
        maps = target + noise * torch.randn(target.shape, generator=generator)
        mean = {method: float(errors(maps, joints, method=method).mean()) for method in METHODS}
        mean["unblurred"] = float(errors(maps, joints, blur=0.0).mean())
        if noise:
            assert min(mean, key=mean.get) == "taylor"
            assert mean["taylor"] < 0.65 * mean["unblurred"]
        assert mean["taylor"] < largest
        assert mean["taylor"] < mean["soft"] < mean["quarter"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 8)])
def test_maps_of_any_size_and_content_decode_to_places_on_them(method, shape):
    generator = torch.Generator().manual_seed(0)
    for maps in (torch.zeros(2, 3, *shape), torch.randn(2, 3, *shape, generator=generator)):
        places, confidence = decode(maps, method=method)
        assert places.shape == (2, 3, 2)
        assert torch.equal(confidence, maps.amax((2, 3)))
        cells = (places - 1.5) / 4
        assert (cells >= -1).all()
        assert (cells <= torch.tensor([shape[1], shape[0]])).all()


def test_half_precision_loses_little():
    joints = random_joints(4, 128, border=20)
    maps = heatmaps(joints, (32, 32))
    assert errors(maps.half(), joints).max() < 0.1


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="expected one of taylor, quarter, soft"):
        decode(torch.zeros(1, 1, 4, 4), method="mean")


def test_a_blur_keeps_the_sum_and_adds_the_variances():
    joints = torch.tensor([[[64.0, 66.0, 2.0]]])
    wide = blurred(heatmaps(joints, (32, 32)), 1.0)
    expected = heatmaps(joints, (32, 32), sigma=2**0.5) / 2
    assert torch.allclose(wide, expected, atol=5e-3)


# -- mirrored: fault 10 -----------------------------------------------------------------------------------


class Perfect:
    """A network that knows: channel 0 shows the nose, channel 1 both hands.

    People face the viewer, so a right hand is in the left half of the picture: as in a mirrored picture,
    whose right hand was the left one. It measures where the light is, and answers with the heatmap.
    """

    def __call__(self, pictures):
        size = pictures.shape[3]
        axis = torch.arange(size, dtype=torch.float64)
        half = (axis < size / 2).double()
        parts = [
            pictures[:, 0],
            pictures[:, 1] * (1 - half),  # the left hand
            pictures[:, 1] * half,
        ]
        light = torch.stack(parts, dim=1).double()
        total = light.sum(dim=(2, 3))
        x = (light.sum(dim=2) * axis).sum(dim=2) / total
        y = (light.sum(dim=3) * axis).sum(dim=2) / total
        joints = torch.stack([x, y, torch.full_like(x, 2)], dim=2)
        return heatmaps(joints, (size // 4, size // 4))


def light_at(joints, size):
    """Pictures (B, 2, size, size) in which the nose and the hands shine."""
    glow = heatmaps(joints, (size, size), stride=1, sigma=1.5)
    return torch.stack([glow[:, 0], glow[:, 1] + glow[:, 2]], dim=1)


def facing(size, count=6, seed=0):
    """Nose anywhere, left hand in the right half, right hand in the left half."""
    joints = random_joints(count, size, seed, joints=3, border=14)
    joints[:, 1, 0] = size / 2 + 9 + joints[:, 1, 0] * 0.25
    joints[:, 2, 0] = 10 + joints[:, 2, 0] * 0.25
    return joints


@pytest.mark.parametrize("size", [64, 96, 128])
def test_a_mirrored_picture_decodes_to_the_same_joints(size):
    joints = facing(size)
    pictures = light_at(joints, size)
    network = Perfect()
    straight, _ = decode(network(pictures))
    turned, _ = decode(mirrored(network(pictures.flip(3)), MIRROR))
    both, _ = decode(flip_test(network, pictures, MIRROR))
    assert (straight - joints[..., :2]).abs().max() < 0.05
    assert (turned - straight).abs().max() < 1e-4
    assert (both - straight).abs().max() < 1e-4


@pytest.mark.parametrize("fault", ["wrong pairs", "no pairs", "one pixel off"])
def test_the_faults_of_others_would_be_seen(fault):
    joints = facing(64)
    pictures = light_at(joints, 64)
    maps = Perfect()(pictures.flip(3))
    if fault == "one pixel off":
        wrong = mirrored(maps, MIRROR).roll(1, dims=3)
    else:
        wrong = mirrored(maps, (0, 1, 2) if fault == "no pairs" else (1, 0, 2))
    assert errors(wrong, joints).max() > 3.9


def test_mirroring_maps_twice_changes_nothing_and_exchanges_the_names():
    maps = torch.rand(2, 3, 4, 6)
    assert torch.equal(mirrored(mirrored(maps, MIRROR), MIRROR), maps)
    assert torch.equal(mirrored(maps, MIRROR)[:, 1], maps[:, 2].flip(2))


# -- back to the picture ----------------------------------------------------------------------------------


def test_joints_go_from_the_picture_through_the_heatmap_and_back():
    generator = np.random.default_rng(0)
    boxes = np.array([[10.0, 20.0, 300.0, 500.0], [900.0, 30.0, 960.0, 80.0]])
    for flip in (False, True):
        maps = crop_maps(boxes, 128, angle=np.array([17.0, -29.0]), scale=1.1, mirrored=flip)
        truth = np.stack([generator.uniform(box[:2], box[2:], (6, 2)) for box in boxes])
        crop = torch.from_numpy(moved(truth, inverse(maps)))
        joints = torch.cat([crop, torch.full((2, 6, 1), 2.0)], dim=2)
        joints[..., :2] = joints[..., :2].clamp(0, 127)
        places, _ = decode(heatmaps(joints, (32, 32)))
        found = in_picture(places, maps)
        expected = moved(joints[..., :2].numpy(), maps)
        pixel = np.array([480, 60]) * 1.25 * 1.1 / 128  # of the crop, in the picture
        assert (np.linalg.norm(found - expected, axis=2).max(axis=1) < 0.1 * pixel).all()
