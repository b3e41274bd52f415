"""What a policy is rewarded for, and the loss whose gradient raises the expected reward.

    R(u)   = 1 - (|u| / K)^2   where the prediction is right,   -gamma   where it is wrong
    s'     = alpha s + (1 - alpha) (1 - s)                      sampled from, so that both stay possible
    A      = R(u) - R(u~),  u ~ Bernoulli(s'),  u~ = [s > 1/2]  the greedy choice is the baseline
    loss   = -mean_n A sum_k log p(u_k),  over the decided blocks

With `soft`, "right" is not 0 or 1 but the probability of the true class: the expected reward of a guess
drawn from the prediction, which tells a block that matters a little from one that does not at all.

Wu et al. 2018, BlockDrop, section 3.2 (equation 3 is the reward), with the self-critical baseline of Rennie
et al. 2017. The curriculum (section 3.3) decides the last t blocks and keeps the others.

Shapes: logits, keep (N, K), or with leading dimensions; correct, rewards (N,).
"""

from __future__ import annotations

import torch


def reward(right: torch.Tensor, keep: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return the reward of each picture's choice; right: whether, or with what probability (N,).

    >>> reward(torch.tensor([True, False]), torch.tensor([[True, False], [True, False]]), 5.0).tolist()
    [0.75, -5.0]
    """
    saved = 1.0 - keep.float().mean(-1).square()
    p = right.float()
    return p * saved - (1.0 - p) * gamma


def bounded(logits: torch.Tensor, alpha: float) -> torch.Tensor:
    """Return probabilities in [1 - alpha, alpha]."""
    s = logits.float().sigmoid()
    return alpha * s + (1.0 - alpha) * (1.0 - s)


def log_probability(
    logits: torch.Tensor, keep: torch.Tensor, alpha: float, decided: int
) -> torch.Tensor:
    """Return log pi(u | x) of the last `decided` blocks: (N,)."""
    p = bounded(logits, alpha)
    tiny = torch.finfo(p.dtype).tiny  # for alpha = 1, where a probability may be 0
    chosen = torch.where(keep, p, 1.0 - p).clamp_min(tiny).log()
    return chosen[..., logits.shape[-1] - decided :].sum(-1)


def policy_loss(
    logits: torch.Tensor,
    keep: torch.Tensor,
    advantage: torch.Tensor,
    alpha: float,
    decided: int,
) -> torch.Tensor:
    """Return -mean A log pi(u | x): its gradient is that of the expected reward, with its sign turned."""
    return -(advantage.detach() * log_probability(logits, keep, alpha, decided)).mean()


def decided_blocks(step: int, curriculum: int, blocks: int) -> int:
    """Return how many of the last blocks the policy decides at a step: 1 at first, in the end all.

    >>> [decided_blocks(step, 6, 3) for step in range(8)]
    [1, 1, 2, 2, 3, 3, 3, 3]
    """
    return min(blocks, 1 + step * blocks // curriculum) if curriculum > 0 else blocks


def keep_undecided(keep: torch.Tensor, decided: int) -> torch.Tensor:
    """Return the choice with every block kept but the last `decided`."""
    keep = keep.clone()
    keep[..., : keep.shape[-1] - decided] = True
    return keep
