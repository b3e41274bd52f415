"""Train a policy for a trained backbone, then both together.

    1 curriculum   the policy alone; it decides the last 1, 2, ... K blocks, the others are kept
    2 policy       the policy alone, for all K blocks
    3 finetuning   policy and backbone: the policy's loss plus the cross-entropy of the greedy choice

Wu et al. 2018, BlockDrop, section 3.3. While the policy learns, the backbone is in evaluation mode and needs
no gradient: one forward pass for the sampled and the greedy choice, whose common blocks run once. In
finetuning its norms take batch statistics of the pictures that keep a block. The paper takes the
cross-entropy of the sampled choice; the greedy one is what runs in the end.

Every step is a function of the settings and the step's number; a training that was killed and goes on from
its checkpoint ends with the same weights, bit by bit, on a CPU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from residua.data.batches import Batches, to_input
from residua.data.counter import bits, uniform
from residua.errors import BadInput
from residua.models.policy import BlockDrop, policy_network
from residua.models.skipping import SkippingNetwork
from residua.training import checkpoint as checkpoints
from residua.training.blockdrop.reward import (
    bounded,
    decided_blocks,
    keep_undecided,
    policy_loss,
    reward,
)
from residua.training.optimisers import restore_optimiser

CHOICE = 10_000  # the draw that decides block 0, and those after it: apart from the augmentation's

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class BlockDropSettings:
    """How a policy is trained.

    gamma: what a wrong prediction costs, in finetuning finetune_gamma. soft: reward the
    probability of the true class rather than a right prediction: less noise. start: the probability that an
    untrained policy keeps a block. alpha: bounds the sampled probabilities to [1 - alpha, alpha]. lr
    of Adam, constant; finetune_lr falls linearly to 0. freeze_norms: finetune on the statistics that
    are there. shrink: of the pictures that the policy sees (see `policy_network`). bf16: compute in
    bfloat16 where torch finds it safe.

    The authors' code has start 0.5, alpha 0.8 and thousands of epochs. With minutes, samples must
    differ from the greedy choice in a few blocks, or nothing is learnt of any one of them.
    """

    curriculum_steps: int = 1000
    policy_steps: int = 0
    finetune_steps: int = 1000
    gamma: float = 1.0
    finetune_gamma: float = 10.0
    soft: bool = False
    start: float = 0.9
    alpha: float = 0.95
    lr: float = 1e-3
    finetune_lr: float = 1e-4
    freeze_norms: bool = False
    shrink: int | None = None
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("curriculum_steps", "policy_steps", "finetune_steps"):
            if getattr(self, key) < 0:
                raise BadInput(f"{key}={getattr(self, key)}: expected 0 or more")
        for key in ("gamma", "finetune_gamma", "lr", "finetune_lr"):
            if not getattr(self, key) >= 0:
                raise BadInput(f"{key}={getattr(self, key)}: expected 0 or more")
        if not 0.5 < self.alpha <= 1.0:
            raise BadInput(f"alpha={self.alpha}: expected more than 0.5 and at most 1")
        if not 0.0 < self.start < 1.0:
            raise BadInput(f"start={self.start}: expected between 0 and 1")
        if self.shrink is not None and self.shrink < 1:
            raise BadInput(f"shrink={self.shrink}: expected 1 or more")

    @property
    def alone(self) -> int:
        """Steps in which the policy alone is trained."""
        return self.curriculum_steps + self.policy_steps

    @property
    def steps(self) -> int:
        """All steps."""
        return self.alone + self.finetune_steps


def train_policy(
    network: nn.Module,
    batches: Batches,
    mean: torch.Tensor,
    std: torch.Tensor,
    settings: BlockDropSettings | None = None,
    *,
    checkpoint: Path | None = None,
    save_every: int = 100,
    progress: Progress | None = None,
) -> BlockDrop:
    """Return a copy of the network with a policy of its blocks, both trained, in evaluation mode.

    Args:
        network: a trained classifier of residual blocks; it is left as it is.
        batches: training pictures, a batch a step. mean, std: of their channels (C,).
        settings: how long and how; None: the defaults.
        checkpoint: a file to save to every `save_every` steps; one that is there is gone on from.
        progress: is told {step, steps, phase, decided, accuracy, blocks, reward} after each step.

    Raises:
        BadInput: a network whose blocks cannot be dropped, or a checkpoint of other settings.
    """
    settings = settings or BlockDropSettings()
    with torch.random.fork_rng():
        training = _Training(network, batches, mean, std, settings)
        if checkpoint is not None and checkpoint.exists():
            training.restore(checkpoint)
        while training.step < settings.steps:
            row = training.advance()
            if progress is not None:
                progress(row)
            last = training.step == settings.steps
            if checkpoint is not None and (last or training.step % save_every == 0):
                checkpoints.save(checkpoint, training.contents())
    return training.pair.eval()


class _Training:
    """Where a training is, and its next step."""

    def __init__(
        self,
        network: nn.Module,
        batches: Batches,
        mean: torch.Tensor,
        std: torch.Tensor,
        settings: BlockDropSettings,
    ) -> None:
        self.batches, self.mean, self.std, self.settings = batches, mean, std, settings
        backbone = SkippingNetwork(copy.deepcopy(network)).requires_grad_(True)
        parameter = next(backbone.parameters())
        torch.manual_seed(int(bits(settings.seed, 0, 0, CHOICE).item()) >> 1)
        channels, large = len(mean), batches.size > 64
        policy = policy_network(
            backbone.blocks, channels, large=large, shrink=settings.shrink, start=settings.start
        )
        policy.to(parameter.device)
        self.pair = BlockDrop(backbone, policy)
        self.backbone, self.policy, self.blocks = backbone, policy, backbone.blocks
        self.step = 0
        self.optimiser = self._optimiser(0)

    def _optimiser(self, step: int) -> torch.optim.Optimizer:
        """Return the optimiser of the phase that a step is in."""
        alone = step < self.settings.alone
        lr = self.settings.lr if alone else self.settings.finetune_lr
        return torch.optim.Adam((self.policy if alone else self.pair).parameters(), lr=lr)

    # -- a checkpoint -----------------------------------------------------------------------------

    def contents(self) -> dict[str, Any]:
        """Return all that is needed to go on from here."""
        return {
            "settings": asdict(self.settings),
            "step": self.step,
            "pair": self.pair.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Take back what `contents` gave."""
        saved = checkpoints.load(path)
        if saved.get("settings") != asdict(self.settings):
            raise BadInput(f"{path}: a training with other settings; remove it or choose another")
        try:
            self.pair.load_state_dict(saved["pair"])
        except RuntimeError:
            raise BadInput(f"{path}: the training of another network") from None
        self.step = saved["step"]
        self.optimiser = self._optimiser(
            self.step - 1
        )  # of the last step: a new phase makes its own
        restore_optimiser(self.optimiser, saved["optimiser"])

    # -- a step -----------------------------------------------------------------------------------

    def advance(self) -> dict[str, Any]:
        """Do one step and return what happened in it."""
        settings, step = self.settings, self.step
        alone = step < settings.alone
        if step == settings.alone:
            self.optimiser = self._optimiser(step)
        if not alone:
            left = 1.0 - (step - settings.alone) / settings.finetune_steps
            for group in self.optimiser.param_groups:
                group["lr"] = settings.finetune_lr * left
        torch.manual_seed(int(bits(settings.seed, 0, step, CHOICE - 1).item()) >> 1)  # dropout
        batch = self.batches.batch(step)
        x, labels = to_input(batch.pictures, self.mean, self.std), batch.labels
        decided = decided_blocks(step, settings.curriculum_steps, self.blocks)
        self.policy.train()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=settings.bf16):
            logits = self.policy(x).float()
            sampled = keep_undecided(self._sample(logits.detach()), decided)
            greedy = keep_undecided(logits.detach() > 0, decided)
            both = torch.stack([sampled, greedy])
            if alone:
                loss = self._loss(
                    self._frozen(x, both), labels, logits, both, decided, settings.gamma
                )
            else:
                sampled_scores = self._frozen(x, both[0])
                self.backbone.train(not settings.freeze_norms)
                scores = self.backbone(x, both[1]).float()
                found = torch.stack([sampled_scores.float(), scores.detach()])
                loss = self._loss(found, labels, logits, both, decided, settings.finetune_gamma)
                loss = loss + F.cross_entropy(scores, labels)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.step += 1
        phase = "finetuning" if not alone else "curriculum" if decided < self.blocks else "policy"
        facts = {"step": self.step, "steps": settings.steps, "phase": phase, "decided": decided}
        return facts | self.last

    def _sample(self, logits: torch.Tensor) -> torch.Tensor:
        """Return u ~ Bernoulli(s'), drawn from (seed, step, row, block)."""
        rows, blocks = np.arange(len(logits))[:, None], np.arange(self.blocks)
        drawn = uniform(self.settings.seed, self.step, rows, CHOICE + blocks)
        p = bounded(logits, self.settings.alpha)
        return torch.from_numpy(drawn).to(p.device, p.dtype) < p

    @torch.no_grad()
    def _frozen(self, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Return the scores of the backbone as it is in evaluation, without gradient."""
        self.backbone.eval()
        scores: torch.Tensor = self.backbone(x, keep)
        return scores

    def _loss(
        self,
        scores: torch.Tensor,
        labels: torch.Tensor,
        logits: torch.Tensor,
        both: torch.Tensor,
        decided: int,
        gamma: float,
    ) -> torch.Tensor:
        correct = scores.argmax(-1) == labels  # (2, N): sampled, greedy
        right = correct
        if self.settings.soft:
            right = scores.float().softmax(-1)[:, torch.arange(len(labels)), labels]
        rewards = reward(right, both, gamma)
        self.last = {
            "accuracy": float(correct[1].float().mean()),
            "blocks": float(both[1].float().sum(-1).mean()),
            "reward": float(rewards[1].mean()),
        }
        advantage = rewards[0] - rewards[1]
        return policy_loss(logits, both[0], advantage, self.settings.alpha, decided)
