"""Receptive fields: which input positions can reach an output, and which do.

    theoretical   along each path as `residua.tiles.field` has it; over paths that join: the least low,
                  the greatest high, the largest jump                          (Araujo, Norris & Sim 2019)
    effective     the squared gradient of the centre position's mean with respect to the input, as a
                  density: +- 2 standard deviations                           (Luo, Li, Urtasun & Zemel 2016)

Position p of a map sees input positions low + j p to high + j p: its size is high - low + 1, its jump j.
For independent random weights without an activation the squared gradient spreads as a random walk does,
sigma^2 = sum over layers of j^2 (k^2 - 1) / 12: the effective field grows with the square root of depth.

What is one number for a whole map is left out: statistics of norms, factors of squeeze-and-excitation.
Global pools, flattening and attention see the whole picture: None. Resizing is taken at its widest, so that
fields behind it are upper bounds.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from residua.tiles.field import Field
from residua.xray.trace import Graph, Node

_WHOLE = {
    *("matmul", "bmm", "mm", "einsum", "baddbmm", "scaled_dot_product_attention"),
    *("multi_head_attention_forward", "lstm", "gru", "opaque", "fft2", "cumsum"),
}
_VIEWS = {"view", "reshape", "flatten", "unflatten", "squeeze"}
_REDUCES = {
    "mean",
    "sum",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "std_mean",
    "norm",
}
_REACH = {"bilinear": 1.0, "linear": 1.0, "trilinear": 1.0, "bicubic": 2.0}


def fields(graph: Graph) -> dict[int, Field | None]:
    """Return what each node that depends on the picture sees; None: all of it.

    Empty where no input has positions, (N, C, ...).
    """
    found: dict[int, Field | None] = {}
    pictures = [n for n in graph.nodes if n.op == "input" and len(n.shape) > 2]
    if not pictures:
        return {}
    k = len(pictures[0].shape) - 2
    for node in graph.nodes:
        if node.op == "input" and len(node.shape) == k + 2:
            found[node.index] = Field((0.0,) * k, (0.0,) * k, (1.0,) * k)
        elif node.live:
            read = [n for n in graph.live(node) if n.index in found]
            field = _joined(node, read, found, k)
            found[node.index] = None if field is None else _after(node, read[0], field, k)
    return found


def _joined(node: Node, read: list[Node], found: dict[int, Field | None], k: int) -> Field | None:
    """Return the union of what a node's inputs see."""
    known = []
    for n in read:
        field = found[n.index]
        if field is not None:
            known.append(field)
        elif len(read) == 1 or math.prod(n.shape[-k:]) > 1:  # else one number for a whole map
            return None
    if not known:
        return None
    low = tuple(min(f.low[i] for f in known) for i in range(k))
    high = tuple(max(f.high[i] for f in known) for i in range(k))
    return Field(low, high, tuple(max(f.jump[i] for f in known) for i in range(k)))


def _after(node: Node, read: Node, field: Field, k: int) -> Field | None:
    """Return the field after an operation, from that of its input."""
    op, s = node.op, node.settings
    before, after = read.shape[-k:], node.shape[-k:]
    if op in _WHOLE:
        return None
    if op.startswith("conv") and op[-2:] != f"{k}d":
        return None
    if op.startswith("conv_transpose"):
        return _transposed(node, field, k)
    if op.startswith("conv") or ("adaptive" not in op and "pool" in op):
        return _windowed(node, field, k)
    if "adaptive" in op or op in ("interpolate", "upsample", "pixel_shuffle", "pixel_unshuffle"):
        if math.prod(after) == 1 and math.prod(before) > 1:
            return None
        if before == after:
            return field
        factor = [a / b for a, b in zip(after, before, strict=True)]
        shrinks = max(0.0, 1 / min(factor) - 1)
        reach = max(shrinks, _REACH.get(str(s.get("mode")), 0.0))
        return field.resized(factor, reach, reach)
    if op == "pad" and "pad" in s:
        ends = [*s["pad"][: 2 * k], *[0] * (2 * k - len(s["pad"]))]
        left = [ends[2 * (k - 1 - i)] for i in range(k)]
        return field.window([1] * k, [1] * k, left, [1] * k)
    if op == "getitem":
        return _sliced(node, read, field, k)
    if op in _VIEWS or op in _REDUCES:
        return field if before == after else None
    return field


def _numbers(value: Any, k: int, default: int) -> list[int]:
    if value is None or value == () or value == []:
        return [default] * k
    if isinstance(value, (tuple, list)):
        return [int(v) for v in value] if len(value) == k else [int(value[0])] * k
    return [int(value)] * k


def _windowed(node: Node, field: Field, k: int) -> Field | None:
    """A convolution or pool."""
    s = node.settings
    if node.op.startswith("conv"):
        kernel, stride = list(node.given[1][2:]), _numbers(s.get("stride"), k, 1)
    elif "kernel_size" in s:
        kernel = _numbers(s["kernel_size"], k, 1)
        stride = [a or b for a, b in zip(_numbers(s.get("stride"), k, 0), kernel, strict=True)]
    else:
        return None
    dilation = _numbers(s.get("dilation"), k, 1)
    padding = s.get("padding", 0)
    if padding == "same":
        before = [d * (n - 1) // 2 for d, n in zip(dilation, kernel, strict=True)]
    else:
        before = [0] * k if padding == "valid" else _numbers(padding, k, 0)
    return field.window(kernel, stride, before, dilation)


def _transposed(node: Node, field: Field, k: int) -> Field:
    """A transposed convolution."""
    s = node.settings
    stride, dilation = _numbers(s.get("stride"), k, 1), _numbers(s.get("dilation"), k, 1)
    return field.spread(node.given[1][2:], stride, _numbers(s.get("padding"), k, 0), dilation)


def _sliced(node: Node, read: Node, field: Field, k: int) -> Field | None:
    """A slice moves and thins positions; other indexing keeps them only where the shape stays."""
    index = node.settings.get("index")
    if isinstance(index, slice):
        index = (index,)
    if not isinstance(index, tuple) or len(read.shape) != len(node.shape):
        return field if read.shape[-k:] == node.shape[-k:] else None
    if Ellipsis in index:
        at = index.index(Ellipsis)
        gap = len(read.shape) - len(index) + 1
        index = (*index[:at], *[slice(None)] * gap, *index[at + 1 :])
    index = (*index, *[slice(None)] * (len(read.shape) - len(index)))
    parts = [i if isinstance(i, slice) else slice(None) for i in index[-k:]]
    spans = [p.indices(n) for p, n in zip(parts, read.shape[-k:], strict=True)]
    return field.window([1] * k, [step for _, _, step in spans], [-b for b, _, _ in spans], [1] * k)


def features(graph: Graph, found: dict[int, Field | None]) -> Node | None:
    """Return the last node that has a field: the map before the head, or a dense output."""
    needed = set(graph.results)
    for node in reversed(graph.nodes):
        if node.index in needed:
            needed.update(node.live_inputs)
    seen = [i for i, field in found.items() if field is not None and i in needed]
    seen = [i for i in seen if graph.nodes[i].op != "input"]
    return graph.nodes[max(seen)] if seen else None


def effective_sigma(value: torch.Tensor, picture: torch.Tensor) -> list[float] | None:
    """Return the standard deviations of the squared gradient of a map's centre, in input positions.

    value: (N, C, ...), made from picture (N, C, ...). None where no gradient comes through.
    """
    centre = value
    for n in value.shape[2:]:
        centre = centre.select(2, n // 2)
    (gradient,) = torch.autograd.grad(
        centre.float().mean(1).sum(), picture, retain_graph=True, allow_unused=True
    )
    if gradient is None:
        return None
    density = gradient.double().abs()
    top = density.max()
    if not bool(top > 0) or not bool(top.isfinite()):
        return None
    density = (density / top).square().sum((0, 1))
    sigmas = []
    for d in range(density.dim()):
        others = [i for i in range(density.dim()) if i != d]
        along = density.sum(others) if others else density  # over no dimension torch takes all
        share = along / along.sum()
        at = torch.arange(len(share), dtype=share.dtype, device=share.device)
        mean = (share * at).sum()
        sigmas.append(float((share * (at - mean).square()).sum().sqrt()))
    return sigmas
