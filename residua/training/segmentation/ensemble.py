"""Several networks heard together: their mean, their votes, and where they are not sure.

For probabilities p_m(k) of members m = 1 .. n, at every pixel:

    mean          p(k) = 1/n sum_m p_m(k)
    majority      the class with most votes argmax_k p_m(k); equal votes: the larger mean
    unanimity     a class where all members vote for it, else the background
                  (Prince, Understanding Deep Learning, figure 11.11c: five U-Nets)
    entropy       H[p] = -sum_k p(k) log p(k), in nats: 0 .. log K
    information   H[p] - 1/n sum_m H[p_m], what members know and do not agree on (Houlsby et al. 2011,
                  eq. 2); 0 where all say the same, however unsure
    disagreement  the share of the members who did not vote for the majority

Members come one at a time. What is kept between them, for any number of members: a sum of probabilities
(float32), votes (one byte a class) and a sum of entropies (float32).

Shapes: probabilities (..., K, *S) with `dim` the axis of classes, 0 unless told; maps without that axis.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

MAX_MEMBERS = 255  # votes are counted in bytes


class Ensemble:
    """Adds up members' probabilities; the maps can be read after any of them."""

    def __init__(self, dim: int = 0) -> None:
        self.dim = dim
        self.members = 0
        self._sum: torch.Tensor | None = None
        self._votes: torch.Tensor
        self._entropies: torch.Tensor

    @classmethod
    def of(cls, members: Iterable[torch.Tensor], dim: int = 0) -> Ensemble:
        """Return the ensemble of members that are taken one at a time."""
        ensemble = cls(dim)
        for probabilities in members:
            ensemble.add(probabilities)
        return ensemble

    def add(self, probabilities: torch.Tensor) -> None:
        """Add one member; ValueError for another shape than the first one's, or one class alone."""
        p = probabilities.detach().float()
        if self._sum is None:
            if p.shape[self.dim] < 2:
                raise ValueError("expected probabilities of 2 classes or more")
            self._sum = torch.zeros_like(p)
            self._votes = torch.zeros(p.shape, dtype=torch.uint8, device=p.device)
            self._entropies = torch.zeros_like(p.select(self.dim, 0))
        if p.shape != self._sum.shape:
            raise ValueError(f"expected shape {tuple(self._sum.shape)}, not {tuple(p.shape)}")
        if self.members == MAX_MEMBERS:
            raise ValueError(f"expected {MAX_MEMBERS} members at most")
        self.members += 1
        self._sum += p
        self._entropies += torch.special.entr(p).sum(self.dim)
        vote = p.argmax(self.dim, keepdim=True)
        self._votes.scatter_add_(self.dim, vote, torch.ones_like(vote, dtype=torch.uint8))

    def mean(self) -> torch.Tensor:
        """Return the mean probabilities, float32, shaped as a member."""
        if self._sum is None:
            raise ValueError("expected one member or more")
        return self._sum / self.members

    def majority(self) -> torch.Tensor:
        """Return the class with most votes, int64."""
        return (self.mean() * 0.5 + self._votes).argmax(self.dim)

    def unanimous(self, otherwise: int = 0) -> torch.Tensor:
        """Return the class for which all members vote, int64; `otherwise` where they differ."""
        classes = self.majority()
        return classes.masked_fill(self.disagreement() > 0, otherwise)

    def entropy(self) -> torch.Tensor:
        """Return the entropy of the mean, float32, in nats."""
        entropy: torch.Tensor = torch.special.entr(self.mean()).sum(self.dim)
        return entropy

    def information(self) -> torch.Tensor:
        """Return the mutual information of class and member, float32, in nats; never negative."""
        return (self.entropy() - self._entropies / self.members).clamp_min(0.0)

    def disagreement(self) -> torch.Tensor:
        """Return the share of members outvoted, float32: 0 to 1 - 1 / min(n, K)."""
        if self._sum is None:
            raise ValueError("expected one member or more")
        return 1.0 - self._votes.amax(self.dim).float() / self.members
