"""Read a pickle that holds plain data and numpy arrays of bytes, and run nothing that it says.

A pickle is a program: it names functions and calls them. Here every name it may use is one of ours,
which builds a piece of plain data; any other name is refused, and the error says which.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from residua.errors import BadInput


def loads(data: bytes, name: str) -> Any:
    """Return what a pickle holds; `name` stands for it in errors.

    Raises `BadInput` for a global that is not allowed, and for a pickle that is damaged.
    """
    try:
        return _finished(_Unpickler(io.BytesIO(data), encoding="bytes").load())
    except _Refused as error:
        raise BadInput(
            f"{name}: is a pickle that asks for {error}, which plain data does not need; not run"
        ) from None
    except Exception as error:  # a damaged pickle raises nearly anything
        raise BadInput(f"{name}: is no readable pickle ({_reason(error)})") from None


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """The pickle names a global that is not on the list."""


class _Dtype:
    """Stands for numpy.dtype: only bytes are let in."""

    def __init__(self, code: object, *_: object) -> None:
        text = code.decode("latin-1") if isinstance(code, bytes) else str(code)
        if text not in ("u1", "|u1", "uint8"):
            raise _Refused(f"an array of {text!r}")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like say nothing of single bytes."""


class _Array:
    """Stands for numpy.ndarray: keeps shape and bytes, and becomes an array when all is read."""

    def __init__(self) -> None:
        self.value: np.ndarray[Any, np.dtype[np.uint8]] | None = None

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, dtype, column_major, raw = state
        if not isinstance(dtype, _Dtype):
            raise ValueError("array without a type")
        raw = raw.encode("latin-1") if isinstance(raw, str) else raw
        self.value = _build(raw, shape, "F" if column_major else "C")


def _build(raw: bytes, shape: Sequence[int], order: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if math.prod(shape) != len(raw):
        raise ValueError(f"array of shape {tuple(shape)} with {len(raw)} bytes")
    flat = np.frombuffer(raw, np.uint8)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _from_buffer(
    raw: bytes, dtype: object, shape: Sequence[int], order: str
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if not isinstance(dtype, _Dtype):
        raise ValueError("array without a type")
    return _build(bytes(raw), shape, order)


def _encode(text: str, codec: str = "latin1") -> bytes:
    """Python 3 writes bytes so at protocol 2."""
    if _as_text(codec) not in ("latin1", "latin-1"):
        raise _Refused(f"the codec {codec!r}")
    return text.encode("latin-1")


def _as_text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _no_bytes() -> bytes:
    return b""


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _Unpickler(pickle.Unpickler):
    """Finds the stand-ins above and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise _Refused(f"{module}.{name}")
        return allowed

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a persistent object")


def _finished(value: Any) -> Any:
    """Put the arrays in the place of what stood for them (top level, lists and dicts)."""
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("array without content")
        return value.value
    if isinstance(value, dict):
        return {k: _finished(v) for k, v in value.items()}
    if isinstance(value, list) and any(isinstance(v, _Array | list | dict) for v in value):
        return [_finished(v) for v in value]
    return value


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
