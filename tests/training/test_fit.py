"""The loop: what a step does to the weights, to norms, to what is frozen, and when the loss is lost."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from residua import create_model
from residua.data.augmentation import Augmentation, mix
from residua.data.batches import Batches, to_input
from residua.nn import is_norm
from residua.training import checkpoint
from residua.training.average import Average, freeze
from residua.training.classification.objective import Classification
from residua.training.devices import make_fabric
from residua.training.fit import Loop, NonFiniteLossError
from residua.training.optimisers import make_optimiser
from residua.training.plan import Phase, Plan
from residua.training.recipe import Recipe
from residua.training.state import State, Watcher

MEAN, STD = torch.full((3,), 0.5), torch.full((3,), 0.25)
CPU = torch.device("cpu")
NO_NORM = {"width": 4, "norm": "none"}


class Listener(Watcher):
    def __init__(self):
        self.warned = []

    def warn(self, text):
        self.warned.append(text)


def make_loop(steps=4, *, record_every=50, phases=None, state=None, lr=0.05, n=24, **settings):
    recipe = Recipe(**{"steps": steps, "batch_size": 8, "model_options": {"width": 4}} | settings)
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    batches = Batches(
        pixels,
        np.arange(n) % 4,
        batch_size=recipe.batch,
        seed=0,
        size=8,
        train=True,
        augmentation=Augmentation(crop_padding=1, flip=True),
    )
    torch.manual_seed(0)
    model = create_model("resnet9_cifar", 4, 3, **recipe.model_options)
    model = model.to(memory_format=torch.channels_last)
    frozen = freeze(model, recipe.freeze)
    return Loop(
        fabric=make_fabric(CPU, "32-true"),
        model=model,
        recipe=recipe,
        plan=Plan(
            steps=steps,
            steps_per_epoch=batches.steps_per_epoch,
            evaluate_every=steps,
            record_every=record_every,
            precision="32-true",
            threads=1,
            compile=False,
            lr=lr,
            phases=phases or (Phase(0, steps, 8),),
            seconds_per_step=None,
        ),
        seed=0,
        batches=batches,
        optimiser=make_optimiser(model, recipe.optimiser, lr),
        objective=Classification(recipe, MEAN, STD, 4),
        state=state or State(),
        evaluate=lambda result: {"loss": 1.0, "accuracy": 0.25},
        save=lambda loop: None,
        keep_best=lambda loop: None,
        describe=lambda indices: ", ".join(f"{i}.png" for i in indices[:2]),
        watcher=Listener(),
        average=Average(model, recipe.ema) if recipe.ema else None,
        frozen=frozen,
    )


def values(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def moments(loop):
    """What the optimiser remembers of each parameter."""
    return {
        (i, key): value.clone()
        for i, own in enumerate(loop.optimiser.state.values())
        for key, value in own.items()
        if value is not None
    }


def trained(**settings):
    loop = make_loop(**settings)
    loop.run()
    return loop


def same(first, second):
    return all(torch.equal(value, second[key]) for key, value in first.items())


def poison(loop, *steps):
    """Make the loss of these steps NaN, through the network itself."""
    forward, calls = loop.model.head.forward, []

    def poisoned(x):
        calls.append(None)
        return forward(x) * (math.nan if len(calls) - 1 in steps else 1.0)

    loop.model.head.forward = poisoned


# -- a step -------------------------------------------------------------------------------------------


def test_the_loop_is_the_plain_loop_that_anyone_would_write():
    loop = make_loop(steps=4, optimiser={"nesterov": False, "weight_decay": 0.0})
    torch.manual_seed(0)
    model = create_model("resnet9_cifar", 4, 3, width=4).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step, batch in enumerate(loop.batches.iterate(0, 4)):
        for group in optimiser.param_groups:
            group["lr"] = 0.05 * (1 + math.cos(math.pi * step / 4)) / 2
        loss = F.cross_entropy(model(to_input(batch.pictures, MEAN, STD)), batch.labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    loop.run()
    for key, value in loop.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-5, atol=1e-6)


def test_two_runs_of_one_seed_end_with_the_same_bits():
    assert same(values(trained().model), values(trained().model))


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_accumulating_parts_is_the_whole_batch_for_a_network_without_batch_norm(parts):
    settings = {"batch_size": 12, "model_options": NO_NORM}
    whole, summed = trained(**settings), trained(**settings, accumulate=parts)
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(summed.model.state_dict()[key], value, rtol=1e-4, atol=1e-6)
    assert summed.state.steps[-1]["loss"] == pytest.approx(whole.state.steps[-1]["loss"], rel=1e-5)


def test_parts_of_unequal_size_count_by_their_pictures():
    # a set of 7 pictures is a batch of 7, in parts of 3, 2, 2
    settings = {"n": 7, "batch_size": 9, "model_options": NO_NORM}
    whole, summed = trained(**settings), trained(**settings, accumulate=3)
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(summed.model.state_dict()[key], value, rtol=1e-4, atol=1e-6)


def test_a_batch_of_fewer_pictures_than_parts_has_a_part_for_each():
    settings = {"n": 3, "batch_size": 8, "model_options": NO_NORM}
    whole, summed = trained(**settings), trained(**settings, accumulate=8)
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(summed.model.state_dict()[key], value, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_is_not_finite_is_one_line_that_names_step_and_pictures():
    loop = make_loop(clip_gradient=1.0)
    weight = next(loop.model.parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"step 0: the gradient is not finite .*\.png"):
        loop.run()
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("norm", [0.05, 0.5])
def test_clipping_bounds_the_norm_of_the_whole_gradient(norm):
    # without momentum and decay, a step is the rate times the gradient
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    settings = {"steps": 1, "optimiser": plain, "schedule": {"name": "constant"}}
    moved = {}
    for clip in (None, norm):
        loop = make_loop(**settings, clip_gradient=clip)
        before = [p.detach().clone() for p in loop.model.parameters()]
        loop.run()
        after = [p.detach() for p in loop.model.parameters()]
        moved[clip] = [(a - b) / 0.05 for a, b in zip(after, before, strict=True)]
    size = {clip: torch.cat([g.flatten() for g in gs]).norm() for clip, gs in moved.items()}
    assert size[None] > norm
    assert size[norm] == pytest.approx(norm, rel=1e-3)
    for free, clipped in zip(moved[None], moved[norm], strict=True):  # and its direction stays
        torch.testing.assert_close(clipped, free * (norm / size[None]), rtol=1e-3, atol=1e-5)


def test_mixing_uses_the_step_as_its_counter_and_smooths_once():
    settings = {"augmentation": {"mixup": 0.4}, "label_smoothing": 0.1, "steps": 1}
    loop = make_loop(**settings)
    batch = loop.batches.batch(0)
    torch.manual_seed(0)
    model = create_model("resnet9_cifar", 4, 3, width=4)
    x, targets = mix(
        to_input(batch.pictures, MEAN, STD),
        batch.labels,
        4,
        mixup=0.4,
        smoothing=0.1,
        seed=0,
        step=0,
    )
    loss = F.cross_entropy(model(x), targets)
    loop.run()
    assert loop.state.steps[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_phases_change_the_size_of_the_pictures():
    loop = make_loop(steps=4, phases=(Phase(0, 1, 4), Phase(1, 3, 6), Phase(3, 4, 8)))
    seen = []
    loop.model.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
    loop.run()
    assert seen == [4, 6, 6, 8]


def test_a_run_that_gets_too_slow_is_cut_short_and_its_schedule_with_it():
    loop = make_loop(40, lr=1.0, schedule={"name": "one_cycle", "peak": 0.1, "final": 0.0})
    saved, told = [], []
    loop.save = lambda loop: saved.append((loop.state.step, loop.plan.steps))
    loop.watcher.repaced = told.append
    phases = (Phase(0, 40, 8, seconds=1e-9),)  # a step was planned to take no time
    loop.plan = replace(loop.plan, phases=phases, seconds_per_step=1e-9, train_seconds=1e-6)
    loop.run()
    # after the first step the time is used up; one more is left
    assert (loop.state.step, loop.plan.steps, loop.plan.phases[-1].stop) == (2, 2, 2)
    assert saved == [(1, 2), (2, 2)]
    assert [plan.steps for plan in told] == [2]
    assert [row["step"] for row in loop.state.history] == [2]
    assert loop.lr(1) == pytest.approx(1.0)  # one cycle of two steps: up, then its peak


def test_the_average_is_evaluated_and_kept():
    loop = make_loop(ema=0.9)
    seen = []
    loop.evaluate = lambda result: seen.append(result) or {"loss": 1.0, "accuracy": 0.5}
    loop.run()
    assert seen == [loop.average.model]
    assert loop.result is loop.average.model
    weight = loop.model.head.fc.weight
    assert not torch.equal(loop.average.model.head.fc.weight, weight)


def test_a_norm_after_an_evaluation_is_in_training_again():
    loop = make_loop(steps=4)
    loop.plan = Plan(**{**loop.plan.__dict__, "evaluate_every": 1})
    loop.evaluate = lambda result: result.eval() and {"loss": 1.0, "accuracy": 0.5}
    loop.run()
    assert loop.model.stem.norm.num_batches_tracked == 4


# -- what is frozen (fault 5) ---------------------------------------------------------------------------


def test_frozen_parts_keep_weights_and_statistics_and_the_others_move():
    loop = make_loop(freeze=("stem", "stages.0"), ema=0.9, optimiser={"weight_decay": 0.1})
    loop.evaluate = lambda result: result.train() and {"loss": 1.0, "accuracy": 0.5}
    loop.plan = Plan(**{**loop.plan.__dict__, "evaluate_every": 1})
    before = values(loop.model)
    loop.run()
    for key, value in values(loop.model).items():
        assert torch.equal(value, before[key]) is key.startswith(("stem", "stages.0")), key
    for key, value in values(loop.average.model).items():
        if key.startswith(("stem", "stages.0")):
            torch.testing.assert_close(value, before[key], msg=key)
    norms = [m for part in (loop.model.stem, loop.model.stages[0]) for m in part.modules()]
    assert not any(m.training for m in norms if is_norm(m))


# -- a loss that is no number ---------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run_with_the_step_and_the_files():
    loop = make_loop()
    poison(loop, 2)
    names = loop.describe(loop.batches.indices(2))
    with pytest.raises(NonFiniteLossError) as raised:
        loop.run()
    message = str(raised.value)
    assert message.startswith("step 2: the loss is nan")
    assert names in message
    assert "\n" not in message
    assert loop.state.step == 2
    assert all(torch.isfinite(p).all() for p in loop.model.parameters())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_skipped_batch_leaves_everything_as_it_was_and_is_counted(name):
    loop = make_loop(steps=3, non_finite="skip", ema=0.9, optimiser={"name": name})
    poison(loop, 1)
    loop._train_mode()
    loop._step(0, loop.batches.batch(0))
    before, average = values(loop.model), values(loop.average.model)
    momentum = moments(loop)
    loop._step(1, loop.batches.batch(1))
    assert same(values(loop.model), before)  # norm statistics and their counters included
    assert same(values(loop.average.model), average)
    assert same(moments(loop), momentum)
    assert all(p.grad is None for p in loop.model.parameters())
    assert loop.state.skipped == 1
    assert len(loop.watcher.warned) == 1
    loop._step(2, loop.batches.batch(2))
    assert not same(values(loop.model), before)


def test_a_run_that_skips_ends_and_its_mean_loss_is_a_number():
    loop = make_loop(steps=4, non_finite="skip")
    poison(loop, 1, 3)
    loop.run()
    assert (loop.state.step, loop.state.skipped) == (4, 2)
    assert math.isfinite(loop.state.history[-1]["train_loss"])
    assert len(loop.watcher.warned) == 1  # said once


def test_a_run_that_only_skips_is_given_up():
    loop = make_loop(steps=60, non_finite="skip")
    poison(loop, *range(60))
    with pytest.raises(NonFiniteLossError, match="step 19: the loss is nan"):
        loop.run()


def test_weights_that_are_no_numbers_are_not_saved():
    saved = []
    loop = make_loop()
    loop.save = saved.append
    loop.model.head.fc.weight.register_hook(lambda g: g * math.inf)  # the loss itself is finite
    loop.plan = Plan(**{**loop.plan.__dict__, "steps": 1, "phases": (Phase(0, 1, 8),)})
    with pytest.raises(NonFiniteLossError, match="weights are not finite after step 1"):
        loop.run()
    assert saved == []


# -- going on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimiser": {"name": "adamw", "lr": 0.01}},
        {"optimiser": {"name": "lamb", "lr": 0.01}},
        {"ema": 0.9, "augmentation": {"mixup": 0.3}, "accumulate": 2},
        {"model_options": {"width": 4, "stochastic_depth": 0.5}},
    ],
    ids=["sgd", "adamw", "lamb", "average", "stochastic depth"],
)
def test_a_loop_that_goes_on_from_a_file_ends_with_the_same_bits(tmp_path, settings):
    whole = trained(steps=6, **settings)
    first = make_loop(steps=6, **settings)
    first._train_mode()
    for step in range(3):
        first._step(step, first.batches.batch(step))
    first.state.step = 3
    checkpoint.save(tmp_path / "c", first.contents())
    saved = checkpoint.load(tmp_path / "c")
    second = make_loop(steps=6, state=State.from_dict(saved["state"]), **settings)
    with torch.no_grad():  # what a new process starts from must not matter
        for p in second.model.parameters():
            p.zero_()
    second.restore(saved)
    second.run()
    assert same(values(whole.result), values(second.result))
    assert same(values(whole.model), values(second.model))


def test_contents_know_the_whole_state():
    loop = trained(ema=0.9, non_finite="skip")
    assert State.from_dict(loop.contents()["state"]) == loop.state
    assert isinstance(loop.contents()["random"], torch.Tensor)


# -- what is told -----------------------------------------------------------------------------------------


def test_the_history_has_a_row_an_evaluation_and_the_best_is_kept():
    loop = make_loop(steps=6)
    loop.plan = Plan(**{**loop.plan.__dict__, "evaluate_every": 2})
    accuracies, kept = iter([0.3, 0.6, 0.4]), []
    loop.evaluate = lambda result: {"loss": 1.5, "accuracy": next(accuracies)}
    loop.keep_best = lambda loop: kept.append(loop.state.step)
    loop.run()
    assert [row["step"] for row in loop.state.history] == [2, 4, 6]
    assert [row["val_accuracy"] for row in loop.state.history] == [0.3, 0.6, 0.4]
    assert kept == [2, 4]
    assert (loop.state.best_score, loop.state.best_step) == (0.6, 4)
    losses = [row["loss"] for row in loop.state.steps]
    assert loop.state.history[1]["train_loss"] == pytest.approx(np.mean(losses[2:4]))
    assert [row["epoch"] for row in loop.state.history] == pytest.approx([2 / 3, 4 / 3, 2.0])
    assert loop.state.history[-1]["lr"] == pytest.approx(loop.lr(5))


def test_a_recorded_step_ends_with_the_same_bits_as_one_that_is_not():
    every, never = trained(record_every=1), trained(record_every=1000)
    assert every.state.traces.steps == [0, 1, 2, 3]
    assert never.state.traces.steps == [0]
    assert same(values(every.model), values(never.model))


def test_an_absurd_learning_rate_is_warned_of_live():
    loop = make_loop(steps=20, record_every=1, lr=3.0, schedule={"name": "constant"})
    loop.run()
    assert any("learning rate is too high" in text for text in loop.watcher.warned)
    assert [row["text"] for row in loop.state.warnings] == loop.watcher.warned
    assert len(set(loop.watcher.warned)) == len(loop.watcher.warned)


def test_a_healthy_run_is_not_warned_of():
    loop = make_loop(steps=30, record_every=3)
    loop.run()
    assert loop.watcher.warned == []


def test_norms_that_track_nothing_train():
    loop = make_loop(model_options={"width": 4, "norm": "group"}, non_finite="skip")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in loop.model.modules())
    loop.run()
    assert loop.state.step == 4
