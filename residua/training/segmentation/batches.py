"""Training patches whose size is one number, as the plan and progressive resizing have it."""

from __future__ import annotations

from collections.abc import Iterator

from residua.data.counter import Ints
from residua.data.patches import PatchBatch, Patches

MULTIPLE = 8  # pixels: smaller patches are rounded to it


class SizedPatches:
    """`Patches` with sides in proportion: `size` is the last side, margins included."""

    def __init__(self, patches: Patches) -> None:
        self.patches = patches
        self.full = patches.patch

    @property
    def size(self) -> int:
        """The last side of a patch."""
        size: int = self.patches.patch[-1]
        return size

    def set_size(self, size: int) -> None:
        """Deliver patches whose last side is `size` from the next `batch` or `iterate` on."""
        margins, last = self.patches.margin, self.full[-1]
        if size == last:
            self.patches.set_size(self.full)
            return
        scale = (size - 2 * margins[-1]) / (last - 2 * margins[-1])
        inner = [n - 2 * m for n, m in zip(self.full, margins, strict=True)]
        rounded = [max(MULTIPLE, round(n * scale / MULTIPLE) * MULTIPLE) for n in inner]
        smaller = [min(n, r) + 2 * m for n, r, m in zip(inner, rounded, margins, strict=True)]
        self.patches.set_size((*smaller[:-1], size))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every picture has been covered once, about."""
        return self.patches.steps_per_epoch

    def indices(self, step: int) -> Ints:
        """Return the indices of this rank's pictures at a step."""
        return self.patches.indices(step)

    def batch(self, step: int) -> PatchBatch:
        """Return the batch of a step."""
        return self.patches.batch(step)

    def iterate(self, start: int = 0, stop: int | None = None) -> Iterator[PatchBatch]:
        """Yield the batches of steps start .. stop-1."""
        return self.patches.iterate(start, stop)

    def close(self) -> None:
        """Stop the workers."""
        self.patches.close()
