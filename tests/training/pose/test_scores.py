"""Scores against closed forms, loops, scipy and pycocotools; what is not labelled never counts."""

import builtins

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from residua.errors import BadInput
from residua.training.pose.scores import box_sizes, oks, oks_ap, pck, pckh

SIGMAS = (0.026, 0.079, 0.107)


def people(count=5, joints=3, seed=0):
    generator = np.random.default_rng(seed)
    truth = generator.uniform(0, 100, (count, joints, 3))
    truth[:, :, 2] = generator.integers(0, 3, (count, joints))
    truth[0, 0, 2] = 2
    return truth


def shifted(truth, distance):
    """Points at a distance (N, J) from the truth."""
    angle = np.random.default_rng(1).uniform(0, 7, truth.shape[:2])
    step = np.stack([np.cos(angle), np.sin(angle)], axis=2)
    return truth[:, :, :2] + step * np.asarray(distance)[..., None]


# -- PCK ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.floats(0.05, 1), st.integers(0, 10**6))
def test_pck_is_what_loops_count(count, joints, share, seed):
    generator = np.random.default_rng(seed)
    truth = people(count, joints, seed)
    points = shifted(truth, generator.uniform(0, 30, (count, joints)))
    sizes = generator.uniform(5, 60, count)
    sizes[generator.random(count) < 0.3] = np.nan
    hits, counted, area = np.zeros(joints), np.zeros(joints), 0.0
    for i in range(count):
        for j in range(joints):
            if truth[i, j, 2] > 0 and not np.isnan(sizes[i]):
                away = np.hypot(*(points[i, j] - truth[i, j, :2]))
                counted[j] += 1
                hits[j] += away <= share * sizes[i]
                area += max(0.0, 1 - away / (share * sizes[i]))
    found = pck(points, truth, sizes, share)
    assert list(found.counted) == counted.tolist()
    if counted.sum():
        assert found.mean == hits.sum() / counted.sum()
        assert found.auc == pytest.approx(area / counted.sum())
        rates = hits[counted > 0] / counted[counted > 0]
        assert found.mean_of_joints == pytest.approx(rates.mean())
        interval = binomtest(int(hits.sum()), int(counted.sum())).proportion_ci(method="wilson")
        assert found.interval == pytest.approx((interval.low, interval.high), abs=1e-6)
    else:
        assert np.isnan(found.mean)
        assert np.isnan(found.auc)
    for j in range(joints):
        rate = found.per_joint[j]
        assert np.isnan(rate) if not counted[j] else rate == hits[j] / counted[j]


def test_the_area_is_that_under_the_curve_of_pck():
    truth = people(40)
    points = shifted(truth, np.random.default_rng(0).uniform(0, 20, (40, 3)))
    sizes = np.full(40, 50.0)
    shares = (np.arange(2000) + 0.5) / 2000 * 0.5
    curve = [pck(points, truth, sizes, share).mean for share in shares]
    assert pck(points, truth, sizes, 0.5).auc == pytest.approx(np.mean(curve), abs=1e-3)


def test_the_bound_itself_is_correct_and_half_the_head_is_pckhs():
    truth = np.array([[[0.0, 0, 2], [0, 0, 2], [0, 0, 2]]])
    points = np.array([[[5.0, 0], [0, 5.001], [3, 4]]])
    found = pckh(points, truth, np.array([10.0]))
    assert found.per_joint == (1, 0, 1)
    assert found.share == 0.5
    assert box_sizes(np.array([[0.0, 0, 10, 30], [5, 5, 25, 6]])).tolist() == [30, 20]


def test_joints_that_are_not_labelled_never_count():
    truth = people(6)
    points = shifted(truth, 1.0 * np.ones((6, 3)))
    wild = np.where(truth[:, :, 2:] > 0, points, 1e9)
    sizes, areas = np.full(6, 20.0), np.full(6, 500.0)
    assert pck(points, truth, sizes) == pck(wild, truth, sizes)
    first, second = oks(points, truth, areas, SIGMAS), oks(wild, truth, areas, SIGMAS)
    assert np.array_equal(first, second, equal_nan=True)


def test_scores_are_plain_data_by_name():
    truth = people(4)
    truth[:, 2, 2] = 0
    data = pck(truth[:, :, :2], truth, np.full(4, 9.0)).as_dict(["a", "b", "c"])
    assert data["joints"] == {"a": 1.0, "b": 1.0, "c": None}
    assert data["mean"] == 1.0
    nobody = pck(truth[:, :, :2], truth, np.full(4, np.nan)).as_dict(["a", "b", "c"])
    assert nobody["mean"] is None
    assert nobody["interval"] == [None, None]


# -- OKS ------------------------------------------------------------------------------------------------


def test_oks_of_a_known_distance_is_its_closed_form():
    # at a distance of sqrt(2 area) 2 sigma, a joint's part is exp(-1)
    truth = np.array([[[10.0, 20, 2], [30, 40, 1], [50, 60, 0]]])
    area = 900.0
    away = np.sqrt(2 * area) * 2 * np.array(SIGMAS)
    points = shifted(truth, away[None])
    assert oks(points, truth, np.array([area]), SIGMAS)[0] == pytest.approx(np.exp(-1))
    points[0, 0] = truth[0, 0, :2]
    assert oks(points, truth, np.array([area]), SIGMAS)[0] == pytest.approx((1 + np.exp(-1)) / 2)
    truth[..., 2] = 0
    assert np.isnan(oks(points, truth, np.array([area]), SIGMAS)[0])


def ap_of(points, truth, areas, confidence=None, pictures=None):
    count = len(truth)
    boxes = np.tile([0.0, 0, 100, 100], (count, 1))
    return oks_ap(
        points,
        truth,
        boxes,
        areas,
        SIGMAS,
        pictures or [f"{i}.png" for i in range(count)],
        np.ones(count) if confidence is None else confidence,
    )


@pytest.mark.parametrize(("alike", "thresholds"), [(1.0, 10), (0.72, 5), (0.56, 2), (0.4, 0)])
def test_average_precision_counts_the_thresholds_that_oks_passes(alike, thresholds):
    pytest.importorskip("pycocotools")
    truth = people(6)
    truth[:, 0, 2] = 2
    areas = np.array([2000.0, 3000, 4000, 20000, 30000, 40000])
    spread = np.sqrt(-2 * areas[:, None] * np.log(alike)) * 2 * np.array(SIGMAS)
    points = shifted(truth, spread)
    assert oks(points, truth, areas, SIGMAS) == pytest.approx(np.full(6, alike))
    found = ap_of(points, truth, areas)
    # thresholds 0.50, 0.55, ..., 0.95; both sizes of people are there
    for key in ("ap", "ar", "ap_medium", "ap_large"):
        assert found[key] == pytest.approx(thresholds / 10)
    assert found["ap50"] == float(alike >= 0.5)
    assert found["ap75"] == float(alike >= 0.75)


def test_people_of_one_picture_are_matched_and_ranked():
    pytest.importorskip("pycocotools")
    truth = people(2)
    truth[:, :, 2] = 2
    areas = np.full(2, 3000.0)
    points = truth[:, :, :2]
    # exchanged answers are matched to the right people where both are in one picture
    assert ap_of(points[::-1], truth, areas, pictures=["a", "a"])["ap"] == pytest.approx(1)
    assert ap_of(points[::-1], truth, areas)["ap"] == 0
    # one right and one wrong: half of the recall is reached, at full precision if the right one is surer
    half = np.stack([points[0], points[1] + 500])
    sure = ap_of(half, truth, areas, confidence=np.array([0.9, 0.1]))["ap"]
    unsure = ap_of(half, truth, areas, confidence=np.array([0.1, 0.9]))["ap"]
    assert sure == pytest.approx(51 / 101)  # recalls 0, 0.01, ..., 0.50 of 0 .. 1
    assert unsure == pytest.approx(51 / 101 / 2)
    assert ap_of(half, truth, areas)["ap_large"] is None


def test_the_extra_is_named_where_pycocotools_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("pycocotools"):
            raise ImportError("not here")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    truth = people(2)
    with pytest.raises(BadInput, match=r"pip install residua\[pose\]"):
        ap_of(truth[:, :, :2], truth, np.ones(2))
