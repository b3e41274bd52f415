"""A network for masks that was trained: evaluate it, write the masks of pictures of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from residua.data import decode, volumes
from residua.data.decoded import Decoded
from residua.data.network_input import to_network
from residua.data.pairs import Pairs, PairSplit, open_pairs
from residua.data.patches import Patches
from residua.data.volumes import lossless_name
from residua.errors import BadInput
from residua.training.cards import SegmentationCard
from residua.training.folder import read_json
from residua.training.recipe import read_yaml
from residua.training.run import Run, files_of, places_for
from residua.training.segmentation.evaluation import evaluate_all
from residua.training.segmentation.masks import MaskWriter, Wanted
from residua.training.segmentation.materials import source_of
from residua.training.segmentation.reading import refuse_depth
from residua.training.segmentation.shapes import shape_words, shapes_of
from residua.training.segmentation.streaming import Tell, is_scratch

READABLE = (*decode.EXTENSIONS, *volumes.EXTENSIONS)
FOLDER = "masks"  # in the run's folder, where no other is named


class SegmentationRun(Run[SegmentationCard]):
    """A trained network for masks in its folder."""

    kind = SegmentationCard

    def sentence(self, measures: dict[str, Any]) -> str:
        """Say what the measures of a split come to."""
        return (
            f"mean IoU {measures['iou']:.2%}, mean Dice {measures['dice']:.2%}, pixel error"
            f" {measures['pixel_error']:.2%} on {measures['n']:,} {measures['split']} pictures"
            + "".join(f"; {text}" for text in shape_words(measures))
        )

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        split: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Measure the network; return IoU, Dice, pixel error, loss, scores of classes, confusion, shapes.

        data: another folder of pictures with masks (whose values mean what the training's did); None:
        the run's own. split: "train", "val" or "test"; None: test where there is one, else val.
        """
        pairs = self._pairs(data)
        name, part = _part(pairs, split, own=data is None)
        model = self.model.to(self.fabric.device)
        found = evaluate_all(
            self.fabric,
            model,
            self.card,
            Decoded(part),
            flips=self.card.flips,
            shapes=shapes_of(pairs),
            spacing=part.spacing,
            progress=progress,
        )
        return {"data": pairs.location, "split": name} | found.measures()

    def sample(
        self, n: int, data: str | Path | None = None, *, split: str | None = None, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return n patches (n, C, *S), drawn by the seed, and their classes (n, *S), on the device."""
        part = _part(self._pairs(data), split, own=data is None)[1]
        card, device = self.card, self.fabric.device
        patches = Patches(
            Decoded(part),
            batch_size=n,
            seed=seed,
            size=card.patch,
            train=True,
            classes=len(card.classes),
            foreground=0.0,
            margin=card.margin,
            device=device,
        )
        batch = patches.batch(0)
        mean, std = (t.to(device) for t in card.normalisation.tensors())
        return to_network(batch.pictures, mean, std), batch.labels

    def _pairs(self, data: str | Path | None) -> Pairs:
        card = self.card
        known: dict[str, Any] = {
            "classes": card.classes,
            "values": card.values,
            "ignore": card.ignore,
            "dims": card.dims,
            "axis": card.axis,
        }
        if data is not None:
            found = open_pairs(source_of(str(data)), **known)
            parts = found.splits.values()
            refuse_depth(card, found.location, deep=any(part.deep for part in parts))
            found.splits = {
                key: replace(part, channels=card.channels, deep=card.deep)
                for key, part in found.splits.items()
            }
            return found
        config = read_yaml(self.folder.config)
        return open_pairs(
            source_of(config["source"]), split_record=read_json(self.folder.split), **known
        )

    def predict(
        self,
        what: str | Path | Sequence[str | Path],
        *,
        out: str | Path | None = None,
        members: Sequence[SegmentationRun] = (),
        vote: str = "mean",
        uncertainty: bool = False,
        instances: bool = False,
        min_size: int = 0,
        memory_mb: float | None = None,
        progress: Callable[[int, int], None] | None = None,
        tell: Tell | None = None,
    ) -> list[dict[str, Any]]:
        """Write the mask of every picture: files and folders, of any size, in tiles where they are large.

        Args:
            what: pictures, stacks or folders of them.
            out: folder for the masks; None: `masks` in the run's folder.
            members: other runs on the same classes that decide together with this one.
            vote: "mean" of the probabilities, "majority", or "unanimity": the class on which all agree,
                else class 0.
            uncertainty: also write the entropy of the mean, 0 .. 1 of log K, as NAME-uncertainty.tif.
            instances: also write the objects, numbered 1 .. N, as NAME-instances; see `objects`.
            min_size: pixels of the smallest object that counts.
            memory_mb: beside the pictures and the networks; None: half of what is free. A picture that
                needs more is predicted on the disk, and goes on there where it was killed.
            progress: is told of pictures. tell: of the tiles of one that is predicted on the disk.

        Returns a row a picture {path, mask, shares: {class: share of pixels}}, or {path, error}; with
        instances also {instances, objects: {class: how many}, apart: how they are told apart}.
        """
        wanted = Wanted(vote, uncertainty, instances, min_size, memory_mb)
        for other in members:
            self._refuse_stranger(other)
        runs = [(run.model, run.card) for run in (self, *members)]
        writer = MaskWriter(runs, self.fabric.device, wanted, tell)
        given = [what] if isinstance(what, str | Path) else list(what)
        paths = [path for item in given for path in files_of(Path(item), READABLE)]
        paths = [path for path in paths if not is_scratch(path)]
        folder = Path(out) if out is not None else self.path / FOLDER
        rows = []
        places = places_for(paths, folder, lossless_name)
        for done, (path, place) in enumerate(zip(paths, places, strict=True), start=1):
            try:
                rows.append(writer.row(path, place))
            except BadInput as error:
                rows.append({"path": str(path), "error": str(error)})
            if progress is not None:
                progress(done, len(paths))
        return rows

    def _refuse_stranger(self, other: Run[Any]) -> None:
        """Raise BadInput where a run cannot decide together with this one."""
        if not isinstance(other, SegmentationRun):
            raise BadInput(f"{other.path}: is a run for {other.kind.task}; expected one on masks")
        mine, its = self.card, other.card
        for what, same in (
            ("classes", (its.classes, its.values) == (mine.classes, mine.values)),
            ("dimensions", its.dims == mine.dims),
            ("channels", its.channels == mine.channels),
            ("bits", its.deep == mine.deep),
        ):
            if not same:
                raise BadInput(f"{other.path}: its {what} are not those of {self.path}")


def _part(pairs: Pairs, split: str | None, *, own: bool) -> tuple[str, PairSplit]:
    """Return the split to evaluate, and its name; of other data without splits, everything."""
    if split is not None:
        if split not in pairs.splits:
            raise BadInput(f"split {split!r}: the set has {', '.join(pairs.splits)}")
        return split, pairs.splits[split]
    how = pairs.split_record["how"]
    if not own and "given" not in (how.get("val"), how.get("test")):
        first, *others = pairs.splits.values()
        items = [*first.items, *(item for other in others for item in other.items)]
        return "all", replace(first, items=items)
    name = "test" if "test" in pairs.splits else "val"
    return name, pairs.splits[name]
