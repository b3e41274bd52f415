"""Read a checkpoint file into names and tensors, whatever wrote it, and never run code from it.

Formats are told apart by content: safetensors (8 bytes of header length, then JSON), PyTorch's zip
and its older pickle stream. Pickles go through `torch.load(weights_only=True)`, which builds tensors
and plain containers only; any other global in the file is refused by name.
"""

from __future__ import annotations

import argparse
import pickletools
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from residua.errors import BadInput

ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGIC = b"\x80"  # the PROTO opcode, which opens PyTorch's older format
EXPECTED = "expected a PyTorch (.pth) or safetensors file of weights"

# Where trainers put the weights in what they save; averaged weights first, as timm prefers them.
WRAPPERS = ("model_ema", "state_dict_ema", "state_dict", "model")
# What DistributedDataParallel, torch.compile and Lightning put before every name.
PREFIXES = ("module.", "_orig_mod.", "model.")
COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel's own buffer


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a checkpoint, under the names of whoever wrote it.

    Reads safetensors and what `torch.save` writes (a state dict, or one under "state_dict", "model"
    or an averaged "model_ema"), whatever the file is called; drops the prefixes "module.",
    "_orig_mod." and "model.". Tensors are memory-mapped where the format allows it.

    Raises BadInput, in one line that names the file: missing, empty, truncated, not a checkpoint,
    or a pickle that would run code (with the name of what it would call).
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error
    if size == 0:
        raise BadInput(f"{path} is empty (0 bytes): {EXPECTED}")
    content = _read_safetensors(path) if start[8:9] == b"{" else _read_torch(path, start)
    return strip_prefixes(_tensors(path, _unwrap(content)))


def strip_prefixes(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Drop the prefixes of wrappers that all names share, however many are nested."""
    state = dict(state)
    while shared := [p for p in PREFIXES if state and all(name.startswith(p) for name in state)]:
        state = {name.removeprefix(shared[0]): tensor for name, tensor in state.items()}
    return state


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, struct.error) as error:
        raise BadInput(f"{path} is a truncated or damaged safetensors file ({error})") from error


def _read_torch(path: Path, start: bytes) -> Any:
    zipped = start.startswith(ZIP_MAGIC)
    # torchvision's and timm's training scripts save their command line beside the weights; a
    # Namespace is attributes and nothing else. What torch warns of, the error below says in one line.
    with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
        except Exception as error:  # a damaged file fails in as many ways as it has bytes
            raise BadInput(_refusal(path, start, str(error))) from error


def _refusal(path: Path, start: bytes, reason: str) -> str:
    """Say in one line why torch.load took no weights from a file."""
    blocked = re.search(r"[Uu]nsupported .*?GLOBAL (\S+)", reason)
    called = blocked[1] if blocked else _foreign_global(path, start)
    if called is not None:
        return (
            f"{path} would run code when loaded: it calls {called}, which is not allowed;"
            " expected a state dict of tensors (torch.save(model.state_dict(), ...))"
        )
    if "TorchScript" in reason:
        return f"{path} is a TorchScript program, which is code: expected a state dict of tensors"
    if start.startswith((ZIP_MAGIC, PICKLE_MAGIC)):
        return f"{path} is truncated, damaged, or not a checkpoint: {EXPECTED}"
    return f"{path} is not a checkpoint (it begins with {start!r}): {EXPECTED}"


def _foreign_global(path: Path, start: bytes) -> str | None:
    """Return the first foreign name that a bare pickle of protocol 4 or 5 would import.

    torch's own reader stops at such a pickle without naming it; this only lists its instructions.
    """
    if not start.startswith((b"\x80\x04", b"\x80\x05")):
        return None
    strings = ["", ""]
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name.endswith("UNICODE") or opcode.name.endswith("UNICODE8"):
                strings = [strings[-1], str(argument)]
            elif opcode.name == "STACK_GLOBAL" and not re.match("torch|collections", strings[0]):
                return ".".join(strings)
    except ValueError:  # truncated: the caller says so
        return None
    return None


def _unwrap(content: Any) -> Any:
    """Take the weights out of a training checkpoint."""
    while isinstance(content, Mapping):
        inner = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            break
        content = inner[0]
    return content


def _tensors(path: Path, content: Any) -> dict[str, torch.Tensor]:
    """Return the content as names and dense tensors, or say what it is instead."""
    if not isinstance(content, Mapping):
        raise BadInput(f"{path} is of type {type(content).__name__}, not a state dict: {EXPECTED}")
    state: dict[str, torch.Tensor] = {}
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            kind = type(tensor).__name__
            raise BadInput(f"{path}: {name!r} is of type {kind}, where a state dict has tensors")
        if tensor.is_quantized or tensor.layout != torch.strided:
            raise BadInput(f"{path}: {name} is a quantised or sparse tensor, expected a dense one")
        state[name] = tensor
    state.pop(COUNTER, None)
    if not state:
        raise BadInput(f"{path} holds no weights: {EXPECTED}")
    return state
