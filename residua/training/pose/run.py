"""A network for joints that was trained: evaluate it, find the joints of people in pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from residua.data.batches import to_input
from residua.data.decode import decode
from residua.data.keypoints import Keypoints, PoseSplit, open_keypoints, whole_pictures
from residua.errors import BadInput, ResiduaError
from residua.training.cards import PoseCard
from residua.training.folder import read_json
from residua.training.pose.batches import PoseBatches
from residua.training.pose.drawing import draw_pose
from residua.training.pose.evaluation import find_all, measures
from residua.training.pose.materials import KeptPictures, source_of
from residua.training.pose.precision import average_precision
from residua.training.recipe import read_yaml
from residua.training.run import Run, files_of, places_for

FOLDER = "poses"  # in the run's folder, where no other is named


class PoseRun(Run[PoseCard]):
    """A trained network for joints in its folder."""

    kind = PoseCard

    def sentence(self, measures: dict[str, Any]) -> str:
        """Say what the measures of a split come to."""
        low, high = measures["interval"]
        return (
            f"{measures['pck']:.2%} of {measures['joints']:,} joints within {measures['threshold']} of"
            f" the {measures['normalised_by']} (PCK, 95 % interval {low:.2%} to {high:.2%}),"
            f" {measures['n']:,} {measures['split']} people"
        )

    def evaluate(
        self,
        data: str | Path | None = None,
        *,
        split: str | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Measure the network; return PCK, PCKh, OKS, OKS-AP, loss, joint by joint.

        data: another set with the same joints; None: the run's own. split: "train", "val" or "test";
        None: test where there is one, else val.
        """
        people = self._people(data)
        name, part = _part(people, split)
        model = self.model.to(self.fabric.device)
        found = find_all(
            self.fabric,
            model,
            self.card,
            KeptPictures(part),
            flip=self.card.flip,
            progress=progress,
        )
        return (
            {"data": people.location, "split": name}
            | measures(found, part, self.card)
            | average_precision(found, part, self.classes)
        )

    def sample(
        self, n: int, data: str | Path | None = None, *, split: str | None = None, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return up to n crops (n, C, H, W), drawn by the seed, and joints (n, J, 3), on the device."""
        part = _part(self._people(data), split)[1]
        part = part.take(np.sort(np.random.default_rng(seed).permutation(len(part))[:n]))
        card, device = self.card, self.fabric.device
        batch = PoseBatches(
            part,
            batch_size=len(part),
            seed=0,
            train=False,
            size=card.size,
            margin=card.margin,
            device=device,
        ).batch(0)
        mean, std = (t.to(device) for t in card.normalisation.tensors())
        return to_input(batch.pictures, mean, std), batch.labels

    def _people(self, data: str | Path | None) -> Keypoints:
        if data is None:
            config = read_yaml(self.folder.config)
            found = open_keypoints(
                source_of(config["source"]), split_record=read_json(self.folder.split)
            )
        else:
            found = open_keypoints(source_of(str(data)))
        if found.joints != self.classes:
            raise BadInput(f"{found.location}: has other joints than the run was trained on")
        for part in found.splits.values():
            part.channels = self.card.channels
        return found

    def predict(
        self,
        what: str | Path | Sequence[str | Path],
        *,
        out: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Find the joints of one person a picture, who fills it, and draw them.

        what: pictures or folders of them. out: folder for the drawings; None: `poses` in the run's folder.
        Returns a row a picture {path, joints: [{name, x, y, confidence}], confidence (mean), drawing}, x and
        y in pixels, the first pixel's centre at 0; or {path, error}.
        """
        given = [what] if isinstance(what, str | Path) else list(what)
        paths = [path for item in given for path in files_of(Path(item))]
        folder = Path(out) if out is not None else self.path / FOLDER
        places = places_for(paths, folder, lambda path: f"{path.stem}.png")
        self.model.to(self.fabric.device)
        rows = []
        for done, (path, place) in enumerate(zip(paths, places, strict=True), start=1):
            try:
                rows.append(self._predict(path, place))
            except BadInput as error:
                rows.append({"path": str(path), "error": str(error)})
            if progress is not None:
                progress(done, len(paths))
        return rows

    def _predict(self, path: Path, drawing: Path) -> dict[str, Any]:
        card = self.card
        person = whole_pictures([path], len(card.classes), card.channels)
        # The whole picture is the crop: no margin around it, as there would be around a person's box.
        tight = PoseCard(**{**vars(card), "margin": 1.0})
        found = find_all(self.fabric, self.model, tight, person, flip=card.flip)
        places, confidence = found.joints[0], found.confidence[0]
        drawn = draw_pose(
            decode(path, 3), places, card.classes, card.skeleton, confidence=confidence
        )
        try:
            drawn.save(drawing)
        except OSError as error:
            drawing.unlink(missing_ok=True)
            raise ResiduaError(f"{drawing}: cannot be written ({error.strerror})") from None
        joints = [
            {"name": name, "x": float(x), "y": float(y), "confidence": float(sure)}
            for name, (x, y), sure in zip(card.classes, places, confidence, strict=True)
        ]
        return {
            "path": str(path),
            "joints": joints,
            "confidence": float(confidence.mean()),
            "drawing": str(drawing),
        }


def _part(people: Keypoints, split: str | None) -> tuple[str, PoseSplit]:
    name = split or ("test" if "test" in people.splits else "val")
    if name not in people.splits:
        raise BadInput(f"split {name!r}: the set has {', '.join(people.splits)}")
    return name, people.splits[name]
