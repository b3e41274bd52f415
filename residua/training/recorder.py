"""The flight recorder: what happens inside the network while it trains.

Every so many steps, per stage of the network:

    gradient_norm            |g| of the stage's parameters
    shortcut_second_moment   mean of s(x)^2 over batch, channels and positions, in its last `Skip`
    branch_second_moment     mean of f(x)^2, the same
    dead_share               channels of its last block whose ReLU is zero on the whole batch
    update_ratio             |w_after - w_before| / |w_before|

Hooks are there only during a recorded step, so that the other steps cost nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from residua.nn import Skip

QUANTITIES = (
    "gradient_norm",
    "shortcut_second_moment",
    "branch_second_moment",
    "dead_share",
    "update_ratio",
)

# Limits for the warnings; each is far from what a healthy run shows.
VANISHING = 1e-4  # gradient of the first stage against the last
EXPLODING = 1e4
DEAD = 0.5  # share of channels
LARGE_UPDATE = 0.1  # of the weights' norm in one step, past the first tenth of the run


@dataclass
class Traces:
    """The recorded numbers: `values[quantity][stage]` is one number (or None) a recorded step."""

    stages: list[str]
    steps: list[int] = field(default_factory=list)
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)

    def add(self, step: int, reading: dict[str, dict[str, float]]) -> None:
        """Append one recorded step."""
        self.steps.append(step)
        for quantity in QUANTITIES:
            for stage in self.stages:
                row = self.values.setdefault(quantity, {}).setdefault(stage, [])
                row.append(reading[quantity].get(stage))

    def for_report(self) -> dict[str, Any]:
        """Return {"stages": ..., "traces": {quantity: {"steps", "values"}}}; empty traces left out."""
        traces = {}
        for quantity, by_stage in self.values.items():
            known = {s: row for s, row in by_stage.items() if any(v is not None for v in row)}
            if known:
                traces[quantity] = {"steps": self.steps, "values": known}
        return {"stages": self.stages, "traces": traces}


def stages_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the parts to record, by name: stem, stages and head, or any module's children."""
    stages = getattr(model, "stages", None)
    if not isinstance(stages, nn.Sequential):
        parts = dict(model.named_children())
    else:
        parts = {}
        for name, child in model.named_children():
            if child is stages:
                parts |= {f"stages.{key}": stage for key, stage in stages.named_children()}
            else:
                parts[name] = child
    return {name: part for name, part in parts.items() if any(True for _ in part.parameters())}


class FlightRecorder:
    """Records a model every `every` steps; `reading` holds the numbers of the current one."""

    def __init__(self, model: nn.Module, every: int) -> None:
        self.every = every
        self.stages = stages_of(model)
        self.reading: dict[str, dict[str, torch.Tensor]] = {}
        self._before: dict[str, list[torch.Tensor]] = {}

    def due(self, step: int) -> bool:
        """Return whether this step is recorded."""
        return step % self.every == 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to the forward pass inside the `with` block."""
        self.reading = {quantity: {} for quantity in QUANTITIES}
        handles = []
        for name, stage in self.stages.items():
            handles += self._listen(name, stage)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _listen(self, stage: str, module: nn.Module) -> list[Any]:
        # A batch may come in parts: moments are means over them, and a channel that lives in one of
        # them is alive.
        def moment(quantity: str) -> Any:
            parts: list[torch.Tensor] = []

            def hook(_: nn.Module, __: Any, output: Any) -> None:
                if isinstance(output, torch.Tensor):
                    parts.append(output.detach().float().square().mean())
                    self.reading[quantity][stage] = torch.stack(parts).mean()

            return hook

        alive: dict[int, torch.Tensor] = {}  # by the place of the ReLU's call in a forward pass
        place = 0

        def begin(_: nn.Module, __: Any) -> None:
            nonlocal place
            place = 0

        def dead(_: nn.Module, __: Any, output: torch.Tensor) -> None:
            nonlocal place
            if output.dim() == 4:
                lives = output.detach().amax((0, 2, 3)) > 0
                alive[place] = alive[place] | lives if place in alive else lives
                place += 1
                share = torch.cat(list(alive.values())).float().mean()
                self.reading["dead_share"][stage] = 1.0 - share

        handles: list[Any] = [module.register_forward_pre_hook(begin)]
        skips = [m for m in module.modules() if isinstance(m, Skip)]
        if skips:
            for part in ("shortcut", "branch"):
                hook = moment(f"{part}_second_moment")
                handles.append(getattr(skips[-1], part).register_forward_hook(hook))
        block = skips[-1] if skips else module
        for layer in block.modules():
            if isinstance(layer, nn.ReLU):
                handles.append(layer.register_forward_hook(dead))
        return handles

    @torch.no_grad()
    def before_update(self) -> None:
        """Read the gradients and remember the weights."""
        for name, stage in self.stages.items():
            parameters = [p for p in stage.parameters() if p.grad is not None]
            if parameters:
                self.reading["gradient_norm"][name] = _norm([p.grad for p in parameters])
                self._before[name] = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def after_update(self) -> dict[str, dict[str, float]]:
        """Return the finished reading, as plain numbers."""
        for name, before in self._before.items():
            after = [p.detach() for p in self.stages[name].parameters() if p.grad is not None]
            moved = torch._foreach_sub(after, before)
            self.reading["update_ratio"][name] = _norm(list(moved)) / _norm(before).clamp_min(1e-30)
        self._before = {}
        return {
            quantity: {stage: float(value) for stage, value in by_stage.items()}
            for quantity, by_stage in self.reading.items()
        }


def _norm(tensors: list[Any]) -> torch.Tensor:
    norm: torch.Tensor = torch.stack(torch._foreach_norm(tensors)).float().norm()
    return norm


def warnings(reading: dict[str, dict[str, float]], step: int, steps: int) -> dict[str, str]:
    """Return what a reading warns of in plain words, by a key that names the kind and place."""
    found: dict[str, str] = {}
    gradients = {s: g for s, g in reading["gradient_norm"].items() if s not in ("head", "tail")}
    if len(gradients) > 1:
        first, last = next(iter(gradients)), list(gradients)[-1]
        ratio = gradients[first] / max(gradients[last], 1e-30)
        if ratio < VANISHING:
            found["vanishing"] = (
                f"the gradient vanishes: {first} gets {ratio:.1g} of what {last} gets."
                " Shortcuts, a norm, or fewer layers would help."
            )
        elif ratio > EXPLODING:
            found["exploding"] = (
                f"the gradient explodes: {first} gets {ratio:.1g} times what {last} gets."
                " Shortcuts, a norm, or a smaller initialisation would help."
            )
    for stage, share in reading["dead_share"].items():
        if share > DEAD:
            found[f"dead {stage}"] = (
                f"{share:.0%} of the channels at the end of {stage} are zero on a whole batch."
                " A smaller learning rate usually keeps them alive."
            )
    for stage, ratio in reading["update_ratio"].items():
        if ratio > LARGE_UPDATE and step > steps // 10:
            found[f"rate {stage}"] = (
                f"the learning rate is too high for {stage}: one step moves its weights by"
                f" {ratio:.0%} of their size. Try a third of it."
            )
    return found
