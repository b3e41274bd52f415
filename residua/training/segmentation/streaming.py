"""A mask that is made on the disk, for pictures whose probabilities memory does not hold.

    .NAME.parts/            beside the mask NAME, while it is made
        asked.json          what was asked for, and how many parts are done; another question begins anew
        I-M.npy             of part I what network M says, as `residua.tiles` streams it: probabilities, or
                            the classes alone where one network decides and nothing else is wanted
        mask.npy            the mask, filled block by block; uncertainty.npy likewise

A prediction that was killed goes on when it is asked for again: in the middle of a part with its tiles, and
with the parts that are not done. Parts are the planes of a stack for a network of planes, else the picture.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from residua.data.volumes import smallest_type
from residua.errors import BadInput
from residua.tiles import predict
from residua.tiles.plan import DEFAULT_MB, MB
from residua.training.checkpoint import write_text
from residua.training.segmentation.deciding import BYTES_A_CLASS, Member, decided_by
from residua.training.segmentation.ensemble import Ensemble
from residua.training.segmentation.predicting import prepared

SUFFIX = ".parts"
ASKED, MASK, UNCERTAINTY = "asked.json", "mask.npy", "uncertainty.npy"

Tell = Callable[[str, int, int], None]  # what is being done, tiles done, tiles in all


def scratch_of(target: Path) -> Path:
    """Return the folder that holds a mask while it is made."""
    return target.with_name(f".{target.name}{SUFFIX}")


def is_scratch(path: Path) -> bool:
    """Return whether a file is a part of a mask that is not finished."""
    return any(part.startswith(".") and part.endswith(SUFFIX) for part in path.parts)


@dataclass
class Stream:
    """One mask on its way: `begin` or go on, `fill`, take `mask` and `unsure`, `clear`."""

    folder: Path
    asked: dict[str, Any]
    members: Sequence[Member]
    device: torch.device
    vote: str
    uncertainty: bool
    memory_mb: float
    tell: Tell | None = None

    @property
    def waits(self) -> bool:
        """Whether a mask of the same question was begun and not finished."""
        return self._state().get("asked") == self.asked

    def fill(self, parts: NDArray[Any], name: str) -> NDArray[np.int64]:
        """Make the mask of parts (N, *S, C) that are stacked; return the pixels of each class."""
        state = self._state()
        if state.get("asked") != self.asked:
            state = self._begin(parts.shape[:-1])
        self.memory_mb = state["memory_mb"]  # tiles are of one size from beginning to end
        for number in range(state["done"], len(parts)):
            counts = self._part(number, parts[number], f"{name} {number + 1}")
            state["done"], state["counts"] = (
                number + 1,
                np.add(state["counts"], counts).tolist(),
            )
            write_text(self.folder / ASKED, json.dumps(state))
            for file in self.folder.glob(f"{number}-*"):
                file.unlink()
        return np.array(state["counts"])

    @property
    def mask(self) -> NDArray[Any]:
        """The mask (N, *S) in the values of the training's masks, mapped for reading."""
        return npy.open_memmap(self.folder / MASK, "r")

    @property
    def unsure(self) -> NDArray[np.float32]:
        """The uncertainty (N, *S), mapped for reading."""
        return npy.open_memmap(self.folder / UNCERTAINTY, "r")

    def clear(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.folder / ASKED).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _begin(self, shape: tuple[int, ...]) -> dict[str, Any]:
        self.clear()
        self.folder.mkdir(parents=True)
        values = np.asarray(self.members[0][1].values)
        npy.open_memmap(self.folder / MASK, "w+", smallest_type(values), shape)
        if self.uncertainty:
            npy.open_memmap(self.folder / UNCERTAINTY, "w+", np.float32, shape)
        state = {
            "asked": self.asked,
            "memory_mb": self.memory_mb,
            "done": 0,
            "counts": [0] * len(values),
        }
        write_text(self.folder / ASKED, json.dumps(state))
        return state

    def _part(self, number: int, picture: NDArray[Any], name: str) -> NDArray[np.int64]:
        """Predict one part, then decide on it block by block; return the pixels of each class."""
        alone = len(self.members) == 1 and not self.uncertainty
        said = [
            self._streamed(picture, member, self.folder / f"{number}-{m}.npy", alone, name)
            for m, member in enumerate(self.members)
        ]
        classes = len(self.members[0][1].classes)
        values = np.asarray(self.members[0][1].values)
        counts = np.zeros(classes, np.int64)
        mask = npy.open_memmap(self.folder / MASK, "r+")
        unsure = npy.open_memmap(self.folder / UNCERTAINTY, "r+") if self.uncertainty else None
        for rows in self._blocks(picture.shape[:-1], classes):
            if alone:
                found = said[0][rows]
            else:
                heard = Ensemble.of(torch.from_numpy(np.array(one[:, rows])) for one in said)
                decided = decided_by(heard, self.vote, unsure=unsure is not None)
                found = decided.classes
                if unsure is not None and decided.unsure is not None:
                    unsure[number, rows] = decided.unsure
            mask[number, rows] = values[found]
            counts += np.bincount(found.ravel(), minlength=classes)
        mask.flush()
        if unsure is not None:
            unsure.flush()
        return counts

    def _blocks(self, shape: tuple[int, ...], classes: int) -> list[slice]:
        """Return rows along the first axis, as many at a time as memory holds."""
        row = int(np.prod(shape[1:], dtype=np.int64)) * (BYTES_A_CLASS * classes + 40)
        step = max(1, int(self.memory_mb * MB / 2) // row)
        return [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]

    def _streamed(
        self, picture: NDArray[Any], member: Member, out: Path, alone: bool, name: str
    ) -> NDArray[Any]:
        """Return what a network says of a part, on the disk: (K, *S), or classes (*S) where alone."""
        if out.exists():
            return npy.open_memmap(out, "r")
        model, card = member
        tell = self.tell
        return predict(
            model.to(self.device),
            np.moveaxis(picture, -1, 0),
            classes=len(card.classes),
            device=self.device,
            flips=card.flips,
            prepare=prepared(card),
            memory_mb=min(self.memory_mb, DEFAULT_MB),
            out=out,
            dtype="classes" if alone else "float32",
            progress=None if tell is None else lambda done, total: tell(name, done, total),
        )


def question(path: Path, members: Sequence[Member], **more: Any) -> dict[str, Any]:
    """Return all that decides a mask, as plain data: the picture's file, the networks, what is wanted."""
    try:
        seen = path.stat()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    networks = []
    for model, card in members:
        made = hashlib.sha256(json.dumps(card.as_dict(), sort_keys=True).encode())
        for name, tensor in sorted(model.state_dict().items()):
            made.update(name.encode())
            made.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        networks.append(made.hexdigest())
    return {
        "picture": str(path.resolve()),
        "bytes": seen.st_size,
        "changed": seen.st_mtime_ns,
        "networks": networks,
        **more,
    }
