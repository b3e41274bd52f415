"""Following a network's operations without computing them: fields of maps, and memory that is held.

    every operation on "meta" tensors (shapes without numbers) is seen by a dispatch mode; what it does to
    the field of its input is a row of `RULES`, and element by element it does nothing.

An operation that looks at the whole picture (statistics of an instance or group norm, global pooling,
attention), or that has no row here, ends the fields: `Follower.why` names the module and what it does. So a
network is called fully convolutional only where each of its operations is known to be.

What lives at one time is counted from the sizes of the tensors between their making and their end.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from residua.tiles.field import Field

Arguments = dict[str, Any]
Rule = Callable[["Follower", Arguments, Tensor, Field], Field]


class NotLocal(Exception):  # noqa: N818 - a finding about the network, not a failure
    """An operation after which a pixel may depend on the whole picture; the message says which."""


class Follower(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fields of all maps made while it is on; `peak` is the most bytes that lived at one time."""

    def __init__(self, picture: Tensor, dims: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fields: Any = WeakIdKeyDictionary()
        self.fields[picture] = Field.of_picture(dims)
        self.stride = [1] * dims
        self.resizes = False  # interpolates to a size, not by a factor
        self.pads = False  # makes up what is beyond a border: pixels near it differ from inner ones
        self.rounds = False  # halves a side that is no multiple of two, or the like
        self.module = ""
        self.why = ""  # the first reason why it is not local; fields end there
        self.live = self.peak = 0
        self._sharing: dict[int, list[weakref.ref[Tensor]]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do the operation, and note the fields of what it gave."""
        result = func(*args, **(kwargs or {}))
        names = [argument.name for argument in func._schema.arguments]
        arguments = dict(zip(names, args, strict=False)) | (kwargs or {})
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        for output in outputs:
            self._count(output)
        seen = [self.fields[x] for x in tree_leaves(arguments) if self._has_field(x)]
        if self.why:
            return result
        try:
            if seen and outputs:
                field = self._after(func, arguments, outputs[0], seen)
                for output in outputs:
                    self._note(output, field, written=func._schema.is_mutable)
            elif func._schema.name.split("::")[-1] in _PLACES:
                raise NotLocal(f"{self.module} counts positions")
        except NotLocal as reason:
            self.why = str(reason)
        return result

    def _has_field(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value in self.fields

    def _after(self, func: Any, arguments: Arguments, output: Tensor, seen: list[Field]) -> Field:
        name = func._schema.name.split("::")[-1]
        try:
            field = seen[0]
            for other in seen[1:]:
                field = field.joined(other)
            if name in RULES:
                field = RULES[name](self, arguments, output, field)
            elif torch.Tag.pointwise in func.tags or name in _POINTWISE:
                self._refuse_broadcast(arguments, output, field)
            else:
                raise ValueError(_WORDS.get(name, f"does `{name}`, which may look at all of it"))
        except (ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
            raise NotLocal(f"{self.module} {error}") from None
        self.stride = [math.lcm(s, round(j)) for s, j in zip(self.stride, field.jump, strict=True)]
        return field

    def _refuse_broadcast(self, arguments: Arguments, output: Tensor, field: Field) -> None:
        for value in tree_leaves(arguments):
            if not self._has_field(value) or self.fields[value].axes != field.axes:
                continue
            own = [value.shape[a] for a in field.axes]
            if value.dim() != output.dim() or own != [output.shape[a] for a in field.axes]:
                raise ValueError("stretches a map over the picture")

    def _note(self, output: Tensor, field: Field, written: bool) -> None:
        self.fields[output] = field
        if not written:
            return
        # What shares the memory that was written shares what was written.
        for reference in self._sharing.get(output.untyped_storage()._cdata, []):
            other = reference()
            if other is None or other is output:
                continue
            if other.dim() != output.dim() or any(
                other.shape[a] != output.shape[a] for a in field.axes
            ):
                raise NotLocal(f"{self.module} writes into a part of a map")
            both = self.fields[other].joined(field) if other in self.fields else field
            self.fields[other] = both

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        sharing = self._sharing.setdefault(key, [])
        if any(reference() is tensor for reference in sharing):
            return
        if not any(reference() is not None for reference in sharing):
            self.live += size
            self.peak = max(self.peak, self.live)
        sharing.append(weakref.ref(tensor))
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        left = [r for r in self._sharing.get(key, []) if r() is not None]
        if left:
            self._sharing[key] = left
        elif self._sharing.pop(key, None) is not None:
            self.live -= size


@contextmanager
def naming(network: nn.Module, follower: Follower) -> Iterator[None]:
    """Keep the name of the module that runs in `follower.module`; leave no hook behind."""
    names = {module: name or type(module).__name__ for name, module in network.named_modules()}
    stack: list[str] = []

    def enter(module: nn.Module, _: Any) -> None:
        stack.append(f"{names[module]} ({type(module).__name__})")
        follower.module = stack[-1]

    def leave(module: nn.Module, _: Any, __: Any) -> None:
        stack.pop()
        follower.module = stack[-1] if stack else ""

    hooks: list[Any] = []
    try:
        for module in names:
            hooks += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave),
            ]
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _each(numbers: Any, n: int, otherwise: Sequence[int]) -> list[int]:
    """Return one number for each of n dimensions of torch's 2, [2] or [2, 2]; [] is the default."""
    listed = [numbers] if isinstance(numbers, int) else list(numbers)
    if not listed:
        return list(otherwise)
    return [int(x) for x in (listed * n if len(listed) == 1 else listed)]


def _of_axes(
    output: Tensor, field: Field, numbers: Sequence[int], idle: int | None = None
) -> list[int]:
    """Return the numbers of the spatial axes, of those of the last len(numbers) dimensions."""
    first = output.dim() - len(numbers)
    places = [axis - first for axis in field.axes]
    if min(places) < 0:
        raise ValueError("changes the order of dimensions")
    if idle is not None and any(x != idle for i, x in enumerate(numbers) if i not in places):
        raise ValueError("mixes a dimension that is not of the picture")
    return [numbers[place] for place in places]


def _convolution(follower: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    kernel = list(a["weight"].shape[2:])
    n = len(kernel)
    options = [_each(a[k], n, ()) for k in ("stride", "padding", "dilation")]
    kernel_, stride, padding, dilation = (
        _of_axes(output, field, numbers) for numbers in (kernel, *options)
    )
    if a["transposed"]:
        # Where windows overlap, the first and the last pixels have fewer of them.
        follower.pads |= any(k > s for k, s in zip(kernel_, stride, strict=True))
        return field.spread(kernel_, stride, padding, dilation)
    follower.pads |= any(padding)
    follower.rounds |= _cuts(a["input"], field, kernel_, stride)
    return field.window(kernel_, stride, padding, dilation)


def _pool(follower: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    n = len(a["kernel_size"]) if not isinstance(a["kernel_size"], int) else 1
    kernel = _each(a["kernel_size"], n, ())
    stride = _each(a.get("stride", ()), n, kernel)
    padding = _each(a.get("padding", 0), n, ())
    dilation = _each(a.get("dilation", 1), n, ())
    follower.pads |= any(padding)
    kernel, stride, padding, dilation = (
        _of_axes(output, field, numbers, idle)
        for numbers, idle in ((kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
    )
    follower.rounds |= _cuts(a["self"], field, kernel, stride)
    return field.window(kernel, stride, padding, dilation)


def _cuts(x: Tensor, field: Field, kernel: Sequence[int], stride: Sequence[int]) -> bool:
    """Return whether windows that lie side by side do not fill the map."""
    each = zip(field.axes, kernel, stride, strict=True)
    return any(k == s and x.shape[axis] % s != 0 for axis, k, s in each)


def _resize(reach: float) -> Rule:
    """Return the rule of interpolation with `reach` neighbours on either side."""

    def rule(follower: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
        if a.get("align_corners"):
            raise ValueError("resizes with aligned corners: by a factor that depends on the size")
        scales = [a.get(f"scales_{letter}", a.get("scales")) for letter in "dhw"][-_n(field) :]
        factors = []
        for axis, scale in zip(field.axes, scales, strict=True):
            factor = output.shape[axis] / a["self"].shape[axis]
            if factor != round(factor) or (scale is not None and scale != factor):
                raise ValueError(f"resizes by {scale or factor:g}, not a whole number of times")
            follower.resizes |= scale is None
            factors.append(factor)
        if not reach:
            return field.resized(factors, 1.0, 0.0)
        follower.pads = True  # the last pixels have no neighbour
        return field.resized(factors, reach + 0.5, reach + 0.5)

    return rule


def _n(field: Field) -> int:
    return len(field.axes)


def _pad(follower: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    pad: list[int] = [*(a["pad"] if "pad" in a else a["padding"])]
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        dimension = output.dim() - 1 - i
        if dimension in field.axes:
            field = field.shifted(field.axes.index(dimension), -before)
            follower.pads |= before > 0 or after > 0
        elif dimension == 0 and (before or after):
            raise ValueError("pads the batch")
    return field


def _slice(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    dimension = a.get("dim", 0) % output.dim()
    if dimension not in field.axes:
        return field
    start, size = a.get("start") or 0, a["self"].shape[dimension]
    start = max(start + size, 0) if start < 0 else min(start, size)
    return field.shifted(field.axes.index(dimension), start, a.get("step", 1))


def _moved(field: Field, axes: Sequence[int]) -> Field:
    if list(axes) != sorted(axes):
        raise ValueError("turns the picture")
    return Field(field.low, field.high, field.jump, tuple(axes))


def _permute(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    order = [d % output.dim() for d in a["dims"]]
    return _moved(field, [order.index(axis) for axis in field.axes])


def _transpose(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    one, two = a["dim0"] % output.dim(), a["dim1"] % output.dim()
    swap = {one: two, two: one}
    return _moved(field, [swap.get(axis, axis) for axis in field.axes])


def _unsqueeze(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    at = a["dim"] % output.dim()
    return _moved(field, [axis + (axis >= at) for axis in field.axes])


def _squeeze(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    before = a["self"].dim()
    if output.dim() == before:
        return field
    at = a["dim"] % before
    if at in field.axes:
        raise ValueError("drops a dimension of the picture")
    return _moved(field, [axis - (axis > at) for axis in field.axes])


def _view(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    before = a["self"].shape
    if output.dim() == len(before) and output.shape[1:] == before[1:]:
        return field
    # Channels may be split or merged as long as the picture's dimensions stay the last ones.
    n, first = _n(field), len(before) - _n(field)
    if field.axes[0] != first or output.shape[-n:] != before[-n:]:
        raise ValueError("flattens the picture")
    return _moved(field, range(output.dim() - n, output.dim()))


def _reduce(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    dims: Any = a.get("dim")
    before = a["self"].dim()
    listed = [dims] if isinstance(dims, int) else [*(dims or range(before))]
    gone = {d % before for d in listed}
    if gone & set(field.axes):
        raise ValueError("pools the whole picture")
    if output.dim() == before:
        return field
    return _moved(field, [axis - sum(d < axis for d in gone) for axis in field.axes])


def _along(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    if a.get("dim", 0) % output.dim() in field.axes:
        raise ValueError("works along the picture")
    return field


def _batch_norm(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    if a.get("training", a.get("use_input_stats", False)):
        raise ValueError("norms by statistics of the whole picture")
    return field


def _layer_norm(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    if output.dim() - len(a["normalized_shape"]) <= field.axes[-1]:
        raise ValueError("norms by statistics of the whole picture")
    return field


def _shuffle(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    factor = a["upscale_factor"]
    return field.resized([factor] * _n(field), 1.0, 0.0)


def _unshuffle(_: Follower, a: Arguments, output: Tensor, field: Field) -> Field:
    n, factor = _n(field), a["downscale_factor"]
    return field.window([factor] * n, [factor] * n, [0] * n, [1] * n)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    **dict.fromkeys(("max_pool2d_with_indices", "max_pool3d_with_indices"), _pool),
    **dict.fromkeys(("avg_pool2d", "avg_pool3d", "max_pool2d", "max_pool3d"), _pool),
    **{f"upsample_nearest{n}d": _resize(0) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _resize(0) for n in (1, 2, 3)},
    **{f"upsample_{mode}": _resize(1) for mode in ("linear1d", "bilinear2d", "trilinear3d")},
    "upsample_bicubic2d": _resize(2),
    "constant_pad_nd": _pad,
    **{f"{kind}_pad{n}d": _pad for kind in ("reflection", "replication") for n in (1, 2, 3)},
    "slice": _slice,
    "permute": _permute,
    **dict.fromkeys(("transpose", "transpose_"), _transpose),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias"), _view),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std"), _reduce),
    **dict.fromkeys(("var_mean", "std_mean", "argmax", "linalg_vector_norm"), _reduce),
    **dict.fromkeys(("cat", "_softmax", "_log_softmax", "select", "index_select"), _along),
    **dict.fromkeys(("split", "split_with_sizes", "unbind", "stack", "chunk"), _along),
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit"), _batch_norm),
    **dict.fromkeys(("cudnn_batch_norm", "_batch_norm_no_update"), _batch_norm),
    "native_layer_norm": _layer_norm,
    "pixel_shuffle": _shuffle,
    "pixel_unshuffle": _unshuffle,
}
_POINTWISE = {
    *("_prelu_kernel", "alias", "detach", "clone", "_to_copy", "copy_", "expand", "zeros_like"),
    *("empty_like", "ones_like", "full_like", "_native_batch_norm_legit_no_training", "dropout"),
    *("contiguous", "lift_fresh", "rrelu_with_noise", "glu", "zero_", "fill_"),
}
_PLACES = {"arange", "linspace", "cumsum"}
_WORDS = {
    "native_group_norm": "norms by statistics of the whole picture",
    **{f"_adaptive_avg_pool{n}d": "pools the whole picture" for n in (2, 3)},
    **{f"adaptive_max_pool{n}d": "pools the whole picture" for n in (2, 3)},
    "bmm": "multiplies whole pictures",
    "_scaled_dot_product_flash_attention_for_cpu": "attends to the whole picture",
}
