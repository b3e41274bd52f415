"""How the gradient of a plain network explodes with batch norm before each ReLU, at any batch size.

    h -> norm over the batch -> ReLU -> W:  |gradient| grows by sqrt(pi / (pi - 1)) = 1.2112 a layer backward

for a large batch (Yang, Pennington, Rao, Sohl-Dickstein, Schoenholz 2019, "A mean field theory of batch
normalization"). At B inputs a batch, batch statistics, infinite width and layers that have settled (so
leave out the first), the square of the growth is, worked out here in the same way,

    lambda(B) = 2 B T / ((1 - J) (B - 3) (B - 1)),   theta = arccos(-1 / (B - 1)),  P = (pi - theta) / (2 pi),
    J = (sin theta + (pi - theta) cos theta) / pi,
    T = (B - 1) / 2 - 1/2 - (B / 2 - 1/2 - (B - 1) P - (1/2 + (B - 1) J / 2)) / B

from three facts: the normalised units of a neuron are uniform on a sphere of B - 1 dimensions; 1 / its
length^2 has mean 1 / ((B - 3) v), which is where small batches explode faster (and B <= 3 has no mean);
the norm's backward pass takes off the mean and the part along the unit itself. With W ~ N(0, 2/n) or any
other variance: the norm takes the scale off.
"""

from __future__ import annotations

import math

from residua.errors import BadInput

LARGE_BATCH_GROWTH = math.sqrt(math.pi / (math.pi - 1))  # 1.2112


def norm_gradient_growth(batch: int | None = None) -> float:
    """Return the growth of the gradient's root mean square a BN-ReLU layer; None: a large batch.

    Raises BadInput where batch < 4: the mean over weights is then infinite.

    >>> round(norm_gradient_growth(), 4), round(norm_gradient_growth(10**6), 4)
    (1.2112, 1.2112)
    >>> norm_gradient_growth(8) > norm_gradient_growth(64) > LARGE_BATCH_GROWTH
    True
    """
    if batch is None:
        return LARGE_BATCH_GROWTH
    if batch < 4:
        raise BadInput(f"the growth has no mean at {batch} inputs a batch; 4 is the least")
    b = float(batch)
    theta = math.acos(-1 / (b - 1))
    both = (math.pi - theta) / (2 * math.pi)  # two inputs of the batch are both active
    alike = (math.sin(theta) + (math.pi - theta) * math.cos(theta)) / math.pi
    active, active_squared = (
        b / 2,
        b / 2 + b * (b - 1) * both,
    )  # units active in a batch: E k, E k^2
    along = 0.5 + (b - 1) * alike / 2  # E (sum of the active units)^2 on the unit sphere
    kept = active * (1 - 1 / b) - 0.5 - (active - active_squared / b - along) / b
    return math.sqrt(2 * b * kept / ((1 - alike) * (b - 3) * (b - 1)))
