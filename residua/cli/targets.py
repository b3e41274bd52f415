"""What a verb that looks at networks is pointed at: a run, a function in a file, or a registered model.

runs/NAME              a run of ours: its trained network
file.py:function       any callable that returns a module; it is executed, as Python executes it
resnet50               a registered model, freshly initialised
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from residua.errors import BadInput, ResiduaError, nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from residua.training.run import Run

DEFAULT_INPUT = (3, 224, 224)


@dataclass
class Target:
    """A network, how to draw it again, and what it takes.

    rebuild: seed -> the network freshly drawn; None for a trained one. input: (C, *S). run: where it
    comes from one. task: what it is for, one of `TASKS`; "" where nobody says.
    """

    name: str
    model: nn.Module
    input: tuple[int, ...]
    rebuild: Callable[[int], nn.Module] | None = None
    run: Run[Any] | None = None
    task: str = ""

    def rebuild_on(self, device: torch.device) -> Callable[[int], nn.Module] | None:
        """Return `rebuild`, its networks on a device."""
        rebuild = self.rebuild
        return None if rebuild is None else lambda seed: rebuild(seed).to(device)


def open_target(
    target: str,
    *,
    seed: int = 0,
    depth: int | None = None,
    no_norm: bool = False,
    settings: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] | None = None,
) -> Target:
    """Return the network that TARGET names.

    depth, no_norm: for a registered model; settings: its options, or the function's keyword arguments.
    shape: of one sample, where it is not the network's own; a registered model takes its channels.
    Raises BadInput in one line for whatever cannot be had.
    """
    options = dict(settings or {})
    changed = [
        flag for flag, given in (("--depth", depth is not None), ("--no-norm", no_norm)) if given
    ]
    file, colon, function = target.rpartition(":")
    if colon and file.endswith(".py"):
        _refuse(changed, "a function of yours; --set gives it arguments")
        return _from_file(Path(file), function, options, seed, shape or DEFAULT_INPUT)
    if target.endswith(".py"):
        raise BadInput(f"{target}: name the function that returns the module, as in {target}:build")
    if Path(target).exists():
        options_given = ["--set"] if options else []
        _refuse([*changed, *options_given, *(["--input"] if shape else [])], "a trained network")
        return _from_run(target)
    if "/" in target or target.endswith(".safetensors"):
        raise BadInput(f"{target}: there is no such run or file")
    norm = {"norm": "none"} if no_norm else {}
    return _registered(target, seed, depth, options | norm, shape)


def other_depth(name: str, depth: int) -> str:
    """Return the registered model of the same family with another depth.

    Raises BadInput with the depths that there are.
    """
    from residua.models.registry import record, records

    known = records()
    family = record(name).family
    for number in re.finditer(r"\d+", name):
        pattern = re.escape(name[: number.start()]) + r"(\d+)" + re.escape(name[number.end() :])
        alike = (re.fullmatch(pattern, n) for n in known if known[n].family == family)
        depths = {int(found.group(1)): found.group(0) for found in alike if found}
        if depth in depths:
            return depths[depth]
        if len(depths) > 1:
            raise BadInput(
                f"{name} has no depth {depth}: there are {', '.join(map(str, sorted(depths)))}"
            )
    raise BadInput(f"{name} has no other depths")


def parse_input(text: str) -> tuple[int, ...]:
    """Return the shape of one sample.

    >>> parse_input("3x224x224")
    (3, 224, 224)
    """
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text.lower()):
        raise BadInput(f"--input {text!r}: expected sizes joined by x, as in 3x224x224")
    return tuple(int(size) for size in text.lower().split("x"))


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Return {option: value}; values are read as YAML.

    >>> parse_settings(["norm=group", "stochastic_depth=0.1"])
    {'norm': 'group', 'stochastic_depth': 0.1}
    """
    import yaml

    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip().isidentifier():
            raise BadInput(f"--set {setting}: expected option=value")
        try:
            # YAML reads 1e-3 as text, which nobody means by it
            number = re.fullmatch(r"[-+]?\d+e[-+]?\d+", value.strip(), re.IGNORECASE)
            found[key.strip()] = float(value) if number else yaml.safe_load(value)
        except yaml.YAMLError:
            raise BadInput(f"--set {setting}: the value cannot be read") from None
    return found


def _refuse(flags: list[str], what: str) -> None:
    if flags:
        raise BadInput(f"{' and '.join(flags)}: not for {what}")


def _registered(
    name: str,
    seed: int,
    depth: int | None,
    options: dict[str, Any],
    shape: tuple[int, ...] | None,
) -> Target:
    from residua.cli.dense import usual_side
    from residua.models.registry import create_model, record

    if depth is not None:
        name = other_depth(name, depth)
    known = record(name)
    channels = int(options.pop("in_channels", shape[0] if shape else 3))
    classes = options.pop("num_classes", None)

    def build() -> nn.Module:
        return create_model(name, classes, channels, **options)

    own = (channels, *(usual_side(known),) * known.dims)
    shown = name + "".join(f" {key}={value}" for key, value in options.items())
    rebuild = _drawn(build)
    return Target(shown, rebuild(seed), shape or own, rebuild, task=known.task)


def _drawn(build: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    """Return seed -> network; torch's generator is the caller's again afterwards."""
    import torch

    def rebuild(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return build()

    return rebuild


def _from_run(path: str) -> Target:
    from residua.training.api import open_run

    run = open_run(path)
    card = run.card
    return Target(f"{card.name} in {path}", run.model, card.input_shape, run=run, task=card.task)


def _from_file(
    path: Path, function: str, options: dict[str, Any], seed: int, shape: tuple[int, ...]
) -> Target:
    """Execute the user's file and call the function."""
    from torch import nn

    if not path.is_file():
        raise BadInput(f"{path}: there is no such file")
    called = f"{path}:{function}"
    made = _called(called, lambda: _module(path))
    if not callable(found := getattr(made, function, None)):
        names = [n for n, value in vars(made).items() if callable(value) and not n.startswith("_")]
        raise BadInput(f"{path}: has no function {function!r}.{nearest(function, names)}")

    def build() -> nn.Module:
        model = _called(called, lambda: found(**options))
        if not isinstance(model, nn.Module):
            raise BadInput(f"{called} returned {type(model).__name__}, expected a torch.nn.Module")
        return model

    rebuild = _drawn(build)
    return Target(called, rebuild(seed), shape, rebuild)


def _module(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # its dataclasses look there
    sys.path.insert(0, str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module


def _called(what: str, call: Callable[[], Any]) -> Any:
    """Run the user's code; what it prints is a remark, and what it raises is one line."""
    try:
        with redirect_stdout(sys.stderr):
            return call()
    except ResiduaError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise BadInput(f"{what} failed: {type(error).__name__}: {text}") from error
