"""Checkpoints: whole or absent, and nothing in them that could run.

A checkpoint is one safetensors file. Its tensors are the tensors of the state; everything else is
JSON in the header. It is written aside, flushed to the disk and renamed, so that a crash at any
instant leaves the previous one, and a truncated file is refused by the format itself.

    state = {"model": {...}, "optimiser": {...}, "step": 120, ...}     any tree of dicts and lists
    save(path, state); load(path) == state
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from residua.errors import BadInput, ResiduaError

FORMAT = "residua-checkpoint-1"
TREE = "tree"  # the metadata entry that holds everything but the tensors
_TENSOR, _ITEMS = "$tensor", "$items"


class CannotSaveError(ResiduaError):
    """The disk is full or not writable; what was saved before is still there."""


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` to `path`, whole or not at all.

    Raises CannotSaveError (one line) where the disk is full or read-only; the file that was at
    `path` is then still there.
    """
    tensors: dict[str, torch.Tensor] = {}
    tree = _pack(state, "", tensors)
    metadata = {"format": FORMAT, TREE: json.dumps(tree)}
    write_tensors(path, tensors, metadata)


def write_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    """Write a safetensors file aside, flush it, rename it."""
    plain: dict[str, torch.Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # The format refuses tensors that share memory.
        plain[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    with _written_aside(path) as aside:
        save_file(plain, aside, metadata)


def write_text(path: Path, text: str) -> None:
    """Write a text file aside, flush it, rename it."""
    with _written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def is_aside(path: Path) -> bool:
    """Return whether a file is one that is, or was to be, renamed when it is whole."""
    return re.fullmatch(r"\..+\.\d+\.(aside|tmp)", path.name) is not None


@contextlib.contextmanager
def _written_aside(path: Path) -> Any:
    aside = path.with_name(f".{path.name}.{os.getpid()}.aside")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        # The tensors' writer makes a private file; let whoever may read the folder read it.
        aside.chmod(path.parent.stat().st_mode & 0o666)
        aside.replace(path)
        _flush_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise CannotSaveError(
            f"{path}: cannot be written ({_reason(error)}); what was saved before is untouched"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())


def _flush_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system lets a folder be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def load(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint of ours.

    Raises BadInput in one line if the file is missing, truncated, damaged or another program's.
    """
    tensors, metadata = read_tensors(path)
    if metadata.get("format") != FORMAT:
        raise BadInput(f"{path}: not a residua checkpoint of format {FORMAT}")
    try:
        state: dict[str, Any] = _unpack(json.loads(metadata[TREE]), tensors)
    except (KeyError, ValueError) as error:
        raise BadInput(f"{path}: a damaged checkpoint ({error})") from error
    return state


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file; BadInput if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except FileNotFoundError:
        raise BadInput(f"{path}: there is no such file") from None
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{path}: truncated, damaged or not a checkpoint ({reason})") from None


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        while path in tensors:  # "a.b" is also the name of "b" in "a"
            path += "'"
        tensors[path] = value
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key not in (_TENSOR, _ITEMS) for key in value):
            return {k: _pack(v, f"{path}.{k}" if path else k, tensors) for k, v in value.items()}
        return {_ITEMS: [[k, _pack(v, f"{path}.{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{path}: a checkpoint cannot hold a {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        if set(value) == {_ITEMS}:
            return {key: _unpack(item, tensors) for key, item in value[_ITEMS]}
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
