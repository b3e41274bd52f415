"""Predict a smooth surface between evaluated points, and how far off the prediction may be.

    m(x) = c + k(x)^T K^-1 (y - c)        s(x)^2 = q [k(0) - k(x)^T K^-1 k(x)]

A Gaussian process with the Matern kernel of smoothness 5/2 (Rasmussen, Williams 2006, equations 2.25, 2.26
and 4.17) on coordinates scaled to 0 .. 1. Its length scale and nugget are those under which each evaluated
point is best foretold by the others (leave one out, equations 5.10 to 5.12). The surface is not equally
rough everywhere, as the kernel says it is: s is multiplied by what leaving out the points nearby showed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist

Array = NDArray[np.float64]

LENGTHS = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)
NUGGETS = (1e-8, 1e-6, 1e-4)
CHOSEN_ON = 400  # points at most that length scale and nugget are chosen on
NEIGHBOURS = 8  # whose leave-one-out errors say how rough it is here


def _kernel(left: Array, right: Array, length: float) -> Array:
    r = np.sqrt(5.0) * cdist(left, right) / length
    covariance: Array = (1 + r + r * r / 3) * np.exp(-r)
    return covariance


@dataclass
class Surface:
    """A surface through values at points.

    points: (n, D) in 0 .. 1. values: (n, Q): several quantities; the first one decides the kernel.
    """

    points: Array
    values: Array

    def __post_init__(self) -> None:
        some = slice(None, None, -(-len(self.points) // CHOSEN_ON))
        chosen = [
            (
                self._left_out(self.points[some], self.values[some, 0], length, nugget)[2],
                length,
                nugget,
            )
            for length in LENGTHS
            for nugget in NUGGETS
        ]
        _, self.length, self.nugget = min(chosen)
        residuals, scale, _ = self._left_out(
            self.points, self.values[:, 0], self.length, self.nugget
        )
        self.scale = scale
        self.surprise = np.square(residuals)  # mean about 1
        covariance = _kernel(self.points, self.points, self.length)
        self.factor = cho_factor(covariance + self.nugget * np.eye(len(covariance)))
        self.mean = self.values.mean(0)
        self.weights = cho_solve(self.factor, self.values - self.mean)

    @staticmethod
    def _left_out(
        points: Array, values: Array, length: float, nugget: float
    ) -> tuple[Array, float, float]:
        """Return standardised leave-one-out errors, the kernel's variance, minus the log likelihood."""
        covariance = _kernel(points, points, length) + nugget * np.eye(len(points))
        inverse = cho_solve(cho_factor(covariance), np.eye(len(points)))
        spread = 1 / np.diag(inverse)
        error = inverse @ (values - values.mean()) * spread
        scale = max(float(np.mean(error**2 / spread)), 1e-300)
        unlikely = 0.5 * float(np.sum(np.log(scale * spread)))
        return error / np.sqrt(scale * spread), scale, unlikely / len(points)

    def predict(self, points: Array) -> tuple[Array, Array]:
        """Return values (m, Q) and the standard error of the first one (m,) at points (m, D)."""
        across = _kernel(points, self.points, self.length)
        values = self.mean + across @ self.weights
        explained = np.einsum("ij,ji->i", across, cho_solve(self.factor, across.T))
        variance = self.scale * np.maximum(1 + self.nugget - explained, self.nugget)
        return values, np.sqrt(variance) * self._roughness(points)

    def _roughness(self, points: Array) -> Array:
        """Return how much rougher than on the average it is near each point: root mean square surprise."""
        distance = cdist(points, self.points)
        near = np.argsort(distance, axis=1, kind="stable")[:, :NEIGHBOURS]
        rough: Array = np.sqrt((1 + self.surprise[near].sum(1)) / (1 + near.shape[1]))
        return rough
