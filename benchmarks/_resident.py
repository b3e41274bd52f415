"""Our real training loop on made-up pictures that stay in memory, to be driven a few steps at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from residua.data.batches import Batches
from residua.models import create_model
from residua.training.classification.objective import Classification
from residua.training.devices import choose_device, make_fabric
from residua.training.fit import Loop
from residua.training.memory import keep_freed_memory
from residua.training.optimisers import make_optimiser
from residua.training.plan import RECORD_EVERY, Phase, Plan, synchronise
from residua.training.recipe import OptimiserSection, Recipe, ScheduleSection
from residua.training.state import State, Watcher

PRECISIONS = {"cpu": "32-true", "cuda": "bf16-mixed", "mps": "32-true"}
BATCHES = 4  # different ones, taken in turn
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LR, MOMENTUM, WEIGHT_DECAY = 1e-3, 0.9, 1e-4
NEVER = 1 << 40  # steps


def make_pictures(batch: int, size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random pictures uint8 (N, size, size, 3) and labels int64 (N,)."""
    generator = np.random.default_rng(0)
    shape = (BATCHES * batch, size, size, 3)
    pictures = generator.integers(0, 256, shape, dtype=np.uint8)
    return pictures, generator.integers(0, classes, len(pictures))


def make_loop(
    name: str, batch: int, size: int, device: str, options: dict[str, Any] | None = None
) -> Loop:
    """Return the loop as a session makes it, with nothing to evaluate or to save."""
    where = choose_device(device)
    if where.type == "cpu":
        keep_freed_memory()  # as a session does
    recipe = Recipe(
        steps=1,
        batch_size=batch,
        optimiser=OptimiserSection(
            lr=LR, momentum=MOMENTUM, nesterov=False, weight_decay=WEIGHT_DECAY
        ),
        schedule=ScheduleSection(name="constant"),
    )
    plan = Plan(
        steps=NEVER,
        steps_per_epoch=BATCHES,
        evaluate_every=NEVER,
        record_every=RECORD_EVERY,
        precision=PRECISIONS[where.type],
        threads=torch.get_num_threads(),
        compile=False,
        lr=LR,
        phases=(),
        seconds_per_step=None,
    )
    fabric = make_fabric(where, plan.precision)
    torch.manual_seed(0)
    model = create_model(name, **(options or {}))
    model = model.to(device=where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = model.head.fc.out_features
    pictures, labels = make_pictures(batch, size, classes)
    return Loop(
        fabric=fabric,
        model=model,
        recipe=recipe,
        plan=plan,
        seed=0,
        batches=Batches(
            pictures, labels, batch_size=batch, seed=0, size=size, train=True, device=where
        ),
        optimiser=make_optimiser(model, recipe.optimiser, LR),
        objective=Classification(
            recipe, torch.tensor(MEAN, device=where), torch.tensor(STD, device=where), classes
        ),
        state=State(),
        evaluate=lambda _: {"loss": 0.0, "accuracy": 0.0},
        save=lambda _: None,
        keep_best=lambda _: None,
        describe=str,
        watcher=Watcher(),
    )


def advance(loop: Loop, steps: int) -> float:
    """Train some steps more and return the seconds that they took."""
    stop, device = loop.state.step + steps, loop.fabric.device
    phases = (Phase(0, stop, loop.batches.size),)
    loop.plan = replace(loop.plan, steps=stop, phases=phases)
    synchronise(device)
    start = time.perf_counter()
    loop.run()
    synchronise(device)
    return time.perf_counter() - start
