"""Lanczos' method: a symmetric matrix seen through a few of its products with vectors.

    H Q = Q T + rest e_m^T,    Q^T Q = I,    T tridiagonal (m x m)

(Lanczos 1950; Golub & Van Loan, Matrix Computations, chapter 10.) An eigenpair (theta, s) of T gives a Ritz
value: it is the Rayleigh quotient of Q s, so theta_max <= lambda_max and theta_min >= lambda_min; and an
eigenvalue of H lies within |rest| |s_m| of it. Every new vector is made orthogonal to all before it, twice:
without that, eigenvalues already found come back as ghosts. Q is (m, P): m vectors of the weights' size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Krylov:
    """What m steps found. basis (m, P); diagonal (m,), beside (m - 1,): T; rest (P,): what is left over.

    length: |start|; values (m,) ascending: Ritz values; weights (m,): squared first components of T's
    eigenvectors, which are the quadrature's weights for a random start; residuals (m,): error bounds.
    """

    basis: torch.Tensor
    diagonal: torch.Tensor
    beside: torch.Tensor
    rest: torch.Tensor
    length: float
    values: torch.Tensor
    weights: torch.Tensor
    residuals: torch.Tensor

    @property
    def first_product(self) -> torch.Tensor:
        """H times the start (P,), read off the recurrence: no further product is needed."""
        more = self.rest if len(self.diagonal) == 1 else float(self.beside[0]) * self.basis[1]
        return self.length * (float(self.diagonal[0]) * self.basis[0] + more)


def lanczos(
    product: Product, start: torch.Tensor, steps: int, tick: Callable[[], None] | None = None
) -> Krylov:
    """Run at most `steps` steps from `start` (P,), which must not be zero; `tick` is called after each.

    Stops early where the vectors found so far span an invariant subspace: their Ritz values are exact.
    """
    length = float(start.norm())
    steps = min(steps, len(start))
    basis = start.new_empty((steps, len(start)))
    diagonal, beside = torch.zeros(steps, dtype=torch.float64), []  # small: kept off the device
    rest, scale = start / length, 0.0
    beta, found = 1.0, 0
    for index in range(steps):
        torch.div(rest, rest.norm(), out=basis[index])
        rest = product(basis[index])
        diagonal[index] = float(torch.dot(rest, basis[index]))
        found = index + 1
        for _ in range(2):
            rest = torch.addmv(rest, basis[:found].T, basis[:found] @ rest, alpha=-1)
        beta = float(rest.norm())
        scale = max(scale, abs(float(diagonal[index])), beta)
        if tick is not None:
            tick()
        if not beta > 10 * torch.finfo(start.dtype).eps * scale:
            break  # what is left is rounding
        beside.append(beta)
    offs = torch.tensor(beside[: found - 1], dtype=torch.float64)
    tridiagonal = torch.diag(diagonal[:found])
    tridiagonal += torch.diag(offs, 1) + torch.diag(offs, -1)
    values, vectors = torch.linalg.eigh(tridiagonal)
    rounding = torch.finfo(start.dtype).eps * scale  # of the products: no bound is smaller
    residuals = float(rest.norm()) * vectors[-1].abs() + rounding
    basis = basis[:found]
    return Krylov(
        basis, diagonal[:found], offs, rest, length, values, vectors[0].square(), residuals
    )
