"""Multiply-adds of one operation, from the shapes in the graph: one multiplication and its addition is one.

    convolution   outputs x weights of one output channel             (N, C', H', W') x (C / groups, k, k)
    transposed    inputs x weights of one input channel
    linear        outputs x inputs of one output
    product       outputs x the dimension that is summed over
    attention     q k^T and its product with v, and the projections where one operation does them

Norms, activations, pools and sums are left out, as in the literature's counts (He et al. 2015, table 1).
"""

from __future__ import annotations

from math import prod

from residua.xray.kinds import weight_kind
from residua.xray.trace import Node


def multiply_adds(node: Node) -> int | None:
    """Return the multiply-adds of an operation on the whole batch; None where it cannot be said."""
    if not node.live or node.op == "input":
        return 0
    given, outputs = node.given, prod(node.shape)
    if node.op.startswith("conv_transpose"):
        return prod(given[0]) * prod(given[1][1:])
    if node.op.startswith("conv"):
        return outputs * prod(given[1][1:])
    if node.op in ("linear", "matmul", "mm", "bmm"):
        return outputs * given[0][-1]
    if node.op in ("addmm", "baddbmm"):
        return outputs * given[1][-1]
    if node.op == "bilinear":
        return outputs * prod(given[2][1:])
    if node.op == "einsum" and "equation" in node.settings:
        return _einsum(str(node.settings["equation"]), given)
    if node.op == "scaled_dot_product_attention":
        q, k, v = given[:3]
        return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    if node.op == "multi_head_attention_forward":
        return _attention(*given[:3])
    return None if weight_kind(node) else 0


def _einsum(equation: str, given: tuple[tuple[int, ...], ...]) -> int | None:
    """Return the product of all dimensions, which is what two factors cost; None for more or for "..."."""
    letters = equation.replace(" ", "").split("->")[0].split(",")
    if "." in equation or len(letters) != 2:
        return None
    sizes = {a: n for word, shape in zip(letters, given, strict=True) for a, n in zip(word, shape)}  # noqa: B905
    return prod(sizes.values())


def _attention(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...]) -> int:
    """Return projections in and out, q k^T and its product with v; q (L, N, E), k and v (S, N, ...)."""
    width, queries, keys = q[-1], prod(q[:-1]), prod(k[:-1])
    projections = queries * width * width * 2 + keys * (k[-1] + v[-1]) * width
    return projections + 2 * queries * k[0] * width
