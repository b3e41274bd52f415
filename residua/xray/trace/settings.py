"""What an operation was called with besides tensors: kernel, stride, padding, the index of a slice.

Arguments are named as torch documents them, whether they were given by place or by name, so that
`F.conv2d(x, w, None, 2)` and `F.conv2d(x, w, stride=2)` are noted alike. Only operations that move or
cover positions are noted, and those whose numbers say what they do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = (
    "input",
    "weight",
    "bias",
    "stride",
    "padding",
    "output_padding",
    "groups",
    "dilation",
)
_MAX_POOL = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
_AVG_POOL = ("input", "kernel_size", "stride", "padding", "ceil_mode")
_DIMENSIONS = ("1d", "2d", "3d")
_NAMES: dict[str, tuple[str, ...]] = {
    **{f"conv{d}": _CONV for d in _DIMENSIONS},
    **{f"conv_transpose{d}": _TRANSPOSED for d in _DIMENSIONS},
    **{f"max_pool{d}": _MAX_POOL for d in _DIMENSIONS},
    **{f"max_pool{d}_with_indices": _MAX_POOL for d in _DIMENSIONS},
    **{f"avg_pool{d}": _AVG_POOL for d in _DIMENSIONS},
    **{f"lp_pool{d}": ("input", "norm_type", "kernel_size", "stride") for d in _DIMENSIONS},
    "pad": ("input", "pad", "mode", "value"),
    "interpolate": ("input", "size", "scale_factor", "mode"),
    "getitem": ("input", "index"),
    "einsum": ("equation",),
    "hardtanh": ("input", "min_val", "max_val"),
    "clamp": ("input", "min", "max"),
    "clamp_min": ("input", "min"),
    "clamp_max": ("input", "max"),
    "elu": ("input", "alpha"),
    "celu": ("input", "alpha"),
    "threshold": ("input", "threshold", "value"),
    "mul": ("input", "other"),
    "where": ("condition", "input", "other"),
    "maximum": ("input", "other"),
    "max": ("input", "other"),
}


def settings_of(op: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return {argument: value} of an operation's arguments that are no tensors; empty for most.

    >>> settings_of("max_pool2d", (torch.zeros(1), 3, 2), {"padding": 1})
    {'kernel_size': 3, 'stride': 2, 'padding': 1}
    """
    names = _NAMES.get(op)
    if names is None:
        return {}
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    return {name: value for name, value in given.items() if _plain(value)}


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_plain(item) for item in value)
    return value is not None and not isinstance(value, torch.Tensor)
