"""A network for joints that was trained: evaluate it, find the joints of people in pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from residua.data.batches import to_input
from residua.data.decode import decode
from residua.data.keypoints import (
    Keypoints,
    PoseSplit,
    boxed_people,
    open_keypoints,
    whole_pictures,
)
from residua.data.person_boxes import PersonBoxes, PictureBoxes
from residua.errors import BadInput, ResiduaError
from residua.training.cards import PoseCard
from residua.training.folder import read_json
from residua.training.pose.batches import PoseBatches
from residua.training.pose.drawing import draw_people
from residua.training.pose.evaluation import Found, find_all, measures
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
        boxes: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Find the joints of people in pictures, and draw them.

        Args:
            what: pictures or folders of them.
            out: folder for the drawings; None: `poses` in the run's folder.
            boxes: COCO JSON of boxes, or of keypoints, that lists the pictures: each person is looked for in
                the own box. None: each picture is one person who fills it.

        Returns a row a picture {path, joints: [{name, x, y, confidence}], confidence (mean), drawing}, x and
        y in pixels, the first pixel's centre at 0; with boxes {path, people: [{id, box, joints, confidence}],
        confidence (mean, None of nobody), drawing}, id the annotation's, box as COCO has it: x, y, width,
        height; or {path, error}.
        """
        given = [what] if isinstance(what, str | Path) else list(what)
        paths = [path for item in given for path in files_of(Path(item))]
        known: list[PictureBoxes | None] = [None] * len(paths)
        if boxes is not None:
            known = PersonBoxes(boxes).of(paths)
        folder = Path(out) if out is not None else self.path / FOLDER
        places = places_for(paths, folder, lambda path: f"{path.stem}.png")
        self.model.to(self.fabric.device)
        rows = []
        for done, (path, place) in enumerate(zip(paths, places, strict=True)):
            try:
                if boxes is None:
                    rows.append(self._one(path, place))
                else:
                    rows.append(self._several(path, place, known[done], Path(boxes)))
            except BadInput as error:
                rows.append({"path": str(path), "error": str(error)})
            if progress is not None:
                progress(done + 1, len(paths))
        return rows

    def _one(self, path: Path, drawing: Path) -> dict[str, Any]:
        """Return the row of a picture that one person fills."""
        card = self.card
        person = whole_pictures([path], len(card.classes), card.channels)
        # The whole picture is the crop: no margin around it, as there would be around a person's box.
        tight = PoseCard(**{**vars(card), "margin": 1.0})
        found = find_all(self.fabric, self.model, tight, person, flip=card.flip)
        self._draw(path, found, drawing)
        return {"path": str(path)} | self._joints(found, 0) | {"drawing": str(drawing)}

    def _several(
        self, path: Path, drawing: Path, known: PictureBoxes | None, where: Path
    ) -> dict[str, Any]:
        """Return the row of a picture whose people are in boxes."""
        if known is None:
            raise BadInput(f"{path}: is not one of the pictures that {where} lists")
        card = self.card
        size = decode(path, card.channels).shape[:2]
        if all(known.size) and known.size != size:
            raise BadInput(
                f"{path}: is {size[0]} x {size[1]}; {where} has boxes for {known.size[0]} x {known.size[1]}"
            )
        people = boxed_people(path, known.boxes, len(card.classes), card.channels)
        store = KeptPictures(people)
        found = (
            find_all(self.fabric, self.model, card, store, flip=card.flip) if len(people) else None
        )
        self._draw(path, found, drawing)
        rows = [
            {"id": known.ids[i], "box": [left + 0.5, top + 0.5, right - left, bottom - top]}
            | self._joints(found, i)
            for i, (left, top, right, bottom) in enumerate(known.boxes.tolist())
            if found is not None
        ]
        return {
            "path": str(path),
            "people": rows,
            "confidence": None if found is None else float(found.confidence.mean()),
            "drawing": str(drawing),
        }

    def _joints(self, found: Found, i: int) -> dict[str, Any]:
        """Return the joints of person `i`, and how sure the network is of them."""
        places, confidence = found.joints[i], found.confidence[i]
        joints = [
            {"name": name, "x": float(x), "y": float(y), "confidence": float(sure)}
            for name, (x, y), sure in zip(self.classes, places, confidence, strict=True)
        ]
        return {"joints": joints, "confidence": float(confidence.mean())}

    def _draw(self, path: Path, found: Found | None, drawing: Path) -> None:
        """Draw everybody who was found in a picture; ResiduaError where it cannot be written."""
        card = self.card
        people = [] if found is None else list(found.joints)
        sure = [] if found is None else list(found.confidence)
        drawn = draw_people(decode(path, 3), people, card.classes, card.skeleton, confidence=sure)
        try:
            drawn.save(drawing)
        except OSError as error:
            drawing.unlink(missing_ok=True)
            raise ResiduaError(f"{drawing}: cannot be written ({error.strerror})") from None


def _part(people: Keypoints, split: str | None) -> tuple[str, PoseSplit]:
    name = split or ("test" if "test" in people.splits else "val")
    if name not in people.splits:
        raise BadInput(f"split {name!r}: the set has {', '.join(people.splits)}")
    return name, people.splits[name]
