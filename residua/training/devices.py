"""Where to train: one device, or the ranks that torchrun started."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from lightning_fabric import Fabric

from residua.errors import BadInput

DEVICES = ("auto", "cpu", "cuda", "mps")
T = TypeVar("T")


def choose_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is CUDA, else MPS, else the CPU."""
    if name not in DEVICES:
        raise BadInput(f"device {name!r} is unknown: expected one of {', '.join(DEVICES)}")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind, is_there in there.items() if is_there), "cpu")
    if not there.get(name, True):
        raise BadInput(f"device {name}: there is none here")
    return (
        torch.device(name, int(os.environ.get("LOCAL_RANK", 0)))
        if name == "cuda"
        else torch.device(name)
    )


def world_size() -> int:
    """Return the number of processes that torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main() -> bool:
    """Return whether this process writes the files."""
    return int(os.environ.get("RANK", 0)) == 0


def first_does(action: Callable[[], T]) -> T:
    """Return what `action` gives on the first rank, on every rank; its error is raised on all.

    For what a clock decides and for the files of a run: the ranks would read them at different times.
    """
    if world_size() == 1:
        return action()
    _join()
    given: list[Any] = [None, None]
    if is_main():
        try:
            given[0] = action()
        except Exception as error:  # passed on to every rank, which raises it
            given[1] = error
    torch.distributed.broadcast_object_list(given, src=0)
    if given[1] is not None:
        raise given[1]
    value: T = given[0]
    return value


def _join() -> None:
    """Meet the other ranks, once; Fabric then finds the group and uses it."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group()  # gloo for the CPU and, where there is one, NCCL
        atexit.register(torch.distributed.destroy_process_group)


def make_fabric(device: torch.device, precision: str) -> Fabric:
    """Return a launched Fabric on the device, over all ranks of torchrun where there are several."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it announces the obvious
    settings: dict[str, Any] = {"devices": 1}
    if world_size() > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world_size()))
        settings = {"devices": local, "num_nodes": world_size() // local, "strategy": "ddp"}
    fabric = Fabric(accelerator=device.type, precision=precision, **settings)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def describe_device(device: torch.device) -> str:
    """Return the device in words, as "2 CPU cores" or the GPU's name."""
    ranks = f"{world_size()} x " if world_size() > 1 else ""
    if device.type == "cuda":
        return ranks + torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"{ranks}{threads} CPU core{'s' if threads > 1 else ''}"
    return ranks + "Apple GPU"
