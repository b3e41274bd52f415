"""Losses against their definitions written out, torch's own, numerical gradients and hand counts."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.segmentation import dice_score

from residua.data.masks import IGNORED
from residua.training.segmentation.losses import (
    LOSSES,
    OVERLAPS,
    LossSpec,
    centre,
    class_weights,
    nearest,
    output_weights,
    segmentation_loss,
    supervised_loss,
)


def batch(*size, pictures=2, classes=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(pictures, classes, *size, generator=generator, dtype=dtype)
    return scores, torch.randint(max(classes, 2), (pictures, *size), generator=generator)


def weights_of(targets, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return 0.5 + torch.rand(targets.shape, generator=generator, dtype=torch.float64)


def loss_of(name, scores, targets, **options):
    if getattr(name, "name", name) == "boundary":
        options.setdefault("pixel_weights", weights_of(targets))
    return segmentation_loss(name, scores, targets, **options)


def certain(targets, classes, sure=40.0):
    """Scores that say `targets`, all but certainly."""
    return F.one_hot(targets, classes).movedim(-1, 1).double() * sure


# -- every loss -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_gradients_are_those_of_finite_differences(name, classes):
    scores, targets = batch(3, 4, classes=classes)
    targets[0, 1] = IGNORED
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss_of(name, z, targets), (scores,))


@pytest.mark.parametrize("name", LOSSES)
def test_a_right_and_certain_answer_costs_nothing_and_a_wrong_one_does(name):
    _, targets = batch(6, 7)
    assert loss_of(name, certain(targets, 3), targets).item() == pytest.approx(0.0, abs=1e-4)
    assert loss_of(name, certain((targets + 1) % 3, 3), targets) > 0.9


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_ignored_pixels_costs_nothing_and_moves_nothing(name):
    scores, targets = batch(4, 4)
    scores.requires_grad_()
    loss = loss_of(name, scores, torch.full_like(targets, IGNORED))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


@pytest.mark.parametrize("name", LOSSES)
@settings(deadline=None, max_examples=20)
@given(
    size=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    classes=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_what_an_ignored_pixel_says_does_not_matter(name, size, classes, seed):
    scores, targets = batch(*size, classes=classes, seed=seed)
    gone = torch.rand(targets.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    targets = targets.masked_fill(gone, IGNORED)
    changed = torch.where(gone[:, None], 9.0 * torch.randn_like(scores), scores)
    one, other = (loss_of(name, z, targets) for z in (scores, changed))
    assert torch.isfinite(one)
    assert one.item() == pytest.approx(other.item(), abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_pixel_of_weight_two_counts_as_two_pixels(name):
    scores, targets = batch(8)
    double = loss_of(
        name, scores, targets, pixel_weights=1.0 + (torch.arange(8) == 3).double().expand(2, 8)
    )
    twice = [0, 1, 2, 3, 3, 4, 5, 6, 7]
    repeated = loss_of(
        name, scores[..., twice], targets[..., twice], pixel_weights=torch.ones(2, 9)
    )
    assert double.item() == pytest.approx(repeated.item(), rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_one_logit_is_two_classes_of_which_the_first_has_score_zero(name):
    scores, targets = batch(5, 5, classes=1)
    two = torch.cat([torch.zeros_like(scores), scores], 1)
    assert torch.equal(loss_of(name, scores, targets), loss_of(name, two, targets))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_scores_give_the_loss_in_float32(name, dtype):
    scores, targets = batch(16, 16, dtype=torch.float32)
    low = scores.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(name, low, targets)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(name, low.double(), targets).item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_scores_of_a_thousand_give_finite_losses_and_gradients(name):
    scores, targets = batch(4, 4, dtype=torch.float32)
    scores = (1000 * scores).requires_grad_()
    loss = loss_of(name, scores, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_falls_when_it_is_followed(name):
    scores, targets = batch(6, 6)
    start = loss_of(name, scores, targets).item()
    for _ in range(200):
        scores = scores.detach().requires_grad_()
        loss_of(name, scores, targets).backward()
        scores = scores - 10.0 * scores.grad
    assert loss_of(name, scores, targets).item() < 0.7 * start


# -- each by its definition -----------------------------------------------------------------------------


def test_cross_entropy_is_that_of_torch():
    scores, targets = batch(6, 7, classes=4)
    targets[0, :2] = IGNORED
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    ours = segmentation_loss("cross_entropy", scores, targets, class_weights=weights)
    theirs = F.cross_entropy(scores, targets, weight=weights, ignore_index=IGNORED)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)


def test_boundary_is_the_weighted_mean_of_the_entropies():
    scores, targets = batch(6, 7)
    w = weights_of(targets)
    ours = segmentation_loss("boundary", scores, targets, pixel_weights=w)
    entropies = F.cross_entropy(scores, targets, reduction="none")
    assert ours.item() == pytest.approx(((w * entropies).sum() / w.sum()).item(), rel=1e-12)


def test_binary_cross_entropy_is_that_of_torch():
    scores, targets = batch(6, 7, classes=1)
    ours = segmentation_loss("cross_entropy", scores, targets)
    theirs = F.binary_cross_entropy_with_logits(scores[:, 0], targets.double())
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)


def test_focal_is_its_equation_and_without_gamma_cross_entropy():
    scores, targets = batch(6, 7)
    p = scores.softmax(1).gather(1, targets[:, None])
    expected = -((1 - p) ** 2 * p.log()).mean()
    assert segmentation_loss("focal", scores, targets).item() == pytest.approx(expected.item())
    plain = segmentation_loss(LossSpec("focal", gamma=0.0), scores, targets)
    assert plain.item() == pytest.approx(F.cross_entropy(scores, targets).item())


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("over_batch", [False, True])
def test_dice_is_its_equation(squared, over_batch):
    scores, targets = batch(6, 7)
    p, g = scores.softmax(1), F.one_hot(targets, 3).movedim(-1, 1).double()
    over = (0, 2, 3) if over_batch else (2, 3)
    below = (p**2 + g**2 if squared else p + g).sum(over)
    expected = 1 - (2 * (p * g).sum(over) / below).mean()
    spec = LossSpec("dice", smooth=0.0, squared=squared, over_batch=over_batch)
    assert segmentation_loss(spec, scores, targets).item() == pytest.approx(expected.item())


def test_dice_of_certain_answers_is_one_minus_the_dice_score_of_torchmetrics():
    _, targets = batch(8, 8)
    _, said = batch(8, 8, seed=5)
    ours = segmentation_loss(LossSpec("dice", smooth=0.0), certain(said, 3, 200.0), targets)
    theirs = dice_score(said, targets, 3, average="macro", input_format="index").mean()
    assert ours.item() == pytest.approx(1 - theirs.item(), abs=1e-6)


def test_dice_and_cross_entropy_is_their_sum():
    scores, targets = batch(6, 7)
    both = segmentation_loss("dice+cross_entropy", scores, targets)
    parts = [segmentation_loss(name, scores, targets) for name in ("dice", "cross_entropy")]
    assert both.item() == pytest.approx(sum(parts).item())


def test_tversky_weighs_misses_more_than_false_alarms_and_with_halves_is_dice():
    scores, targets = batch(6, 7)
    halves = LossSpec("tversky", alpha=0.5, beta=0.5, smooth=0.0)
    dice = LossSpec("dice", smooth=0.0)
    assert segmentation_loss(halves, scores, targets).item() == pytest.approx(
        segmentation_loss(dice, scores, targets).item()
    )
    # 10 of 100 pixels are foreground; 4 are missed, or 4 too many are found.
    truth, few, many = (torch.arange(100)[None] < n for n in (10, 6, 14))
    foreground = LossSpec("tversky", background=False, smooth=0.0)
    missed, invented = (
        segmentation_loss(foreground, certain(said.long(), 2, 200.0), truth.long()).item()
        for said in (few, many)
    )
    assert missed == pytest.approx(1 - 6 / (6 + 0.7 * 4))
    assert invented == pytest.approx(1 - 10 / (10 + 0.3 * 4))


def test_focal_tversky_is_a_power_of_tversky_class_by_class():
    scores, targets = batch(6, 7)
    lost = []
    for k in range(3):
        only = torch.zeros(3, dtype=torch.float64)
        only[k] = 1.0
        spec = LossSpec("tversky", over_batch=True)
        lost.append(segmentation_loss(spec, scores, targets, class_weights=only).item())
    expected = sum(value**0.75 for value in lost) / 3
    spec = LossSpec("focal_tversky", over_batch=True)
    assert segmentation_loss(spec, scores, targets).item() == pytest.approx(expected)


# -- absent classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("background", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("over_batch", [True, False], ids=["batch", "picture"])
def test_on_a_background_picture_the_loss_grows_from_zero_with_every_wrong_pixel(
    name, background, over_batch
):
    empty = torch.zeros(1, 100, dtype=torch.int64)
    spec = LossSpec(name, background=background, over_batch=over_batch)
    losses = [
        segmentation_loss(spec, certain((torch.arange(100)[None] < n).long(), 3), empty).item()
        for n in (0, 1, 10, 50, 100)
    ]
    assert losses[0] == pytest.approx(0.0, abs=1e-4)
    assert losses == sorted(losses)
    assert all(b > a + 1e-3 for a, b in itertools.pairwise(losses))
    assert losses[-1] == pytest.approx(1.0, abs=1e-3)


def test_dice_of_a_background_picture_is_that_of_its_background():
    empty = torch.zeros(1, 100, dtype=torch.int64)
    said = (torch.arange(100)[None] < 20).long()
    loss = segmentation_loss("dice", certain(said, 2), empty)
    assert loss.item() == pytest.approx(1 - 2 * 80 / (80 + 100), abs=1e-6)


@pytest.mark.parametrize("name", OVERLAPS)
def test_classes_that_no_picture_shows_do_not_change_the_loss(name):
    scores, targets = batch(6, 7)
    never = torch.full((2, 4, 6, 7), -200.0, dtype=torch.float64)
    more = segmentation_loss(name, torch.cat([scores, never], 1), targets)
    assert more.item() == pytest.approx(segmentation_loss(name, scores, targets).item())


def test_a_picture_without_foreground_still_trains_when_the_background_is_left_out():
    scores, targets = batch(5, 5)
    targets[0] = 0
    scores.requires_grad_()
    segmentation_loss(LossSpec("dice", background=False), scores, targets).backward()
    assert scores.grad[0].abs().sum() > 0


# -- several outputs ------------------------------------------------------------------------------------


def test_one_output_or_a_list_of_one_are_the_same():
    scores, targets = batch(6, 6)
    one = segmentation_loss("dice", scores, targets)
    assert supervised_loss("dice", scores, targets).item() == pytest.approx(one.item())
    assert supervised_loss("dice", [scores], targets).item() == pytest.approx(one.item())


def test_coarser_outputs_weigh_half_and_equal_ones_the_same():
    assert output_weights([(2, 2), (4, 4), (8, 8)]) == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert output_weights([(8, 8)] * 3) == pytest.approx([1 / 3] * 3)
    assert output_weights([(4, 4), (4, 4), (8, 8)]) == pytest.approx([1 / 4, 1 / 4, 1 / 2])
    with pytest.raises(ValueError, match="no output larger than the last"):
        output_weights([(8, 8), (4, 4)])


def test_a_coarser_output_is_held_against_the_nearest_pixels_of_the_target():
    fine, targets = batch(8, 6)
    coarse, _ = batch(4, 3, seed=3)
    expected = (
        segmentation_loss("cross_entropy", coarse, targets[:, 1::2, 1::2]) / 3
        + segmentation_loss("cross_entropy", fine, targets) * 2 / 3
    )
    ours = supervised_loss("cross_entropy", [coarse, fine], targets)
    assert ours.item() == pytest.approx(expected.item())


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20))
def test_nearest_is_torchs_nearest_exact(have, want):
    maps = torch.arange(have)[None]
    theirs = F.interpolate(maps[None].double(), want, mode="nearest-exact")[0].long()
    assert torch.equal(nearest(maps, [want]), theirs)


def test_a_valid_network_is_held_against_the_centre_of_the_target():
    scores, _ = batch(4, 4)
    _, targets = batch(10, 8)
    w = weights_of(targets)
    inner = (slice(None), slice(3, 7), slice(2, 6))
    expected = segmentation_loss("boundary", scores, targets[inner], pixel_weights=w[inner])
    ours = supervised_loss("boundary", scores, targets, pixel_weights=w)
    assert ours.item() == pytest.approx(expected.item())
    with pytest.raises(ValueError, match="at most"):
        centre(targets, (12, 4))


def test_the_gradient_reaches_every_output():
    outputs = [batch(*size, seed=i)[0].requires_grad_() for i, size in enumerate([(2, 2), (4, 4)])]
    _, targets = batch(4, 4)
    supervised_loss("dice+cross_entropy", outputs, targets).backward()
    assert all(output.grad.abs().sum() > 0 for output in outputs)


# -- balance --------------------------------------------------------------------------------------------


def test_median_frequency_gives_the_median_class_weight_one():
    assert class_weights([0.6, 0.3, 0.1]).tolist() == pytest.approx([0.5, 1.0, 3.0])


def test_inverse_sqrt_gives_a_pixel_weight_one_on_average():
    shares = torch.tensor([0.64, 0.32, 0.04])
    weights = class_weights(shares, "inverse_sqrt")
    assert (shares * weights).sum().item() == pytest.approx(1.0)
    assert (weights[2] / weights[0]).item() == pytest.approx(math.sqrt(0.64 / 0.04))


def test_weights_of_absent_and_of_rare_classes_stay_bounded():
    assert class_weights([0.75, 0.25, 0.0]).tolist() == pytest.approx([2 / 3, 2.0, 2.0])
    assert class_weights([0.5, 0.5 - 1e-6, 1e-6]).max() == 50.0
    assert class_weights([1.0, 0.0]).tolist() == [1.0, 1.0]


# -- bad use --------------------------------------------------------------------------------------------


def test_wrong_use_is_one_clear_line():
    scores, targets = batch(4, 4)
    cases = [
        (lambda: segmentation_loss("hinge", scores, targets), "no loss is called 'hinge'"),
        (lambda: segmentation_loss("dice", scores, targets[:, 1:]), "expected targets"),
        (lambda: segmentation_loss("boundary", scores, targets), "needs weights of pixels"),
        (
            lambda: segmentation_loss("dice", scores, targets, class_weights=torch.ones(2)),
            "expected 3 weights of classes",
        ),
        (
            lambda: segmentation_loss("dice", scores, targets, pixel_weights=torch.ones(2, 3)),
            "expected weights of pixels",
        ),
        (lambda: LossSpec("focal", gamma=-1.0), "not negative"),
        (lambda: class_weights([0.0, 0.0]), "expected shares"),
        (lambda: class_weights([0.5, 0.5], "cube"), "expected 'median_frequency'"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
