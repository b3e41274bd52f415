"""`--weights` in trainings on masks and joints: what goes in, what is said, and how such runs go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import residua
from residua.cli import main
from residua.data.drawn import figures
from residua.errors import BadInput, ResiduaError
from residua.training import checkpoint
from residua.training.api import resume
from residua.training.state import Watcher

STILL = ("steps=1", "batch_size=2", "optimiser.lr=1e-12", "optimiser.weight_decay=0", "ema=0")
UNET = ("model=encoder_unet", "model_options.encoder=resnet20_cifar", "size=32")
HOURGLASS = ("model=hourglass2", "model_options.width=8", "size=32")


class Listens(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("masks"), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir()
    for i in range(6):
        mask = np.indices((32, 32)).sum(0) > rng.integers(20, 40)
        grey = rng.integers(0, 99, (32, 32)) + 99 * mask
        Image.fromarray(grey.astype(np.uint8)).save(root / "images" / f"{i}.png")
        Image.fromarray(mask.astype(np.uint8)).save(root / "masks" / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "figures"
    figures.write(folder, 6, 0)
    return folder


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    state = residua.create_model("resnet20_cifar", num_classes=7, in_channels=1).state_dict()
    torch.save(state, tmp_path / "classifier.pth")
    return tmp_path / "classifier.pth"


def train(source: Path, out: Path, *settings: str, **given: Any) -> Any:
    return residua.train(
        source, out=out, settings=[*STILL, *settings], device="cpu", workers=0, **given
    )


def test_masks_begin_with_a_classifier_in_the_encoder(
    masks: Path, classifier: Path, tmp_path: Path
) -> None:
    heard = Listens()
    run = train(masks, tmp_path / "run", *UNET, weights=classifier, watcher=heard)
    theirs, ours = torch.load(classifier), run.model.state_dict()
    parameters = {name for name, _ in run.model.encoder.named_parameters()}
    for name in parameters:
        assert (ours[f"encoder.{name}"] - theirs[name]).abs().max() < 1e-6, name
    assert len(parameters) > 50
    (said,) = [line for line in heard.said if "tensors" in line]
    assert "into the encoder; fresh: " in said and str(classifier) in said


def test_a_run_on_masks_begins_another_with_more_classes(masks: Path, tmp_path: Path) -> None:
    first = train(masks, tmp_path / "first", *UNET)
    (tmp_path / "three" / "masks").mkdir(parents=True)
    (tmp_path / "three" / "images").symlink_to(masks / "images")
    for path in (masks / "masks").iterdir():
        mask = np.array(Image.open(path))
        mask[:5] = 2
        Image.fromarray(mask).save(tmp_path / "three" / "masks" / path.name)
    heard = Listens()
    second = train(
        tmp_path / "three", tmp_path / "second", *UNET, weights=first.folder.model, watcher=heard
    )
    assert second.model.head.conv.weight.shape[0] == 3
    a, b = first.model.decoder[0].state_dict(), second.model.decoder[0].state_dict()
    assert all(
        (a[name] - b[name]).abs().max() < 1e-6 for name in a if name.endswith("conv1.weight")
    )
    assert any(line.endswith("fresh: head.conv.weight, head.conv.bias") for line in heard.said)


def test_a_run_on_joints_begins_another(people: Path, tmp_path: Path) -> None:
    first = train(people, tmp_path / "first", *HOURGLASS)
    kept = train(people, tmp_path / "kept", *HOURGLASS, weights=first.folder.model, seed=1)
    new = train(
        people, tmp_path / "new", *HOURGLASS, weights=first.folder.model, seed=1, head="new"
    )
    for name, tensor in first.model.named_parameters():
        away = (new.model.get_parameter(name) - tensor).abs().max()
        assert (kept.model.get_parameter(name) - tensor).abs().max() < 1e-6, name
        assert (away > 1e-4) == name.endswith("heatmaps.weight") or "bias" in name, name


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            ("model=unet", "model_options.width=2"),
            "unet has no encoder to take it: it fits --model",
        ),
        (
            ("model=encoder_unet", "model_options.encoder=resnet32_cifar"),
            "not plain32_cifar or resnet32_cifar; it fits",
        ),
    ],
)
def test_a_classifier_that_does_not_fit_masks_is_one_line(
    masks: Path, classifier: Path, tmp_path: Path, settings: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(BadInput, match=expected) as said:
        train(masks, tmp_path / "run", *settings, "size=32", weights=classifier)
    assert "\n" not in str(said.value)
    takers = "encoder_unet or fpn with --set model_options.encoder="
    assert str(said.value).endswith(
        f"{takers}plain20_cifar or resnet20_cifar"
    )  # of the same tensors


def test_a_run_of_another_network_names_both(people: Path, masks: Path, tmp_path: Path) -> None:
    first = train(people, tmp_path / "first", *HOURGLASS)
    with pytest.raises(BadInput) as said:
        train(masks, tmp_path / "run", "model=unet", weights=first.folder.model)
    assert str(said.value) == (
        f"{first.folder.model} is of a run for pose with hourglass2 (width=8), and this one is for"
        " segmentation with unet: expected a file of the same network"
    )


class Stops(Watcher):
    """Interrupts a run after two steps, as Ctrl-C does."""

    def step(self, state: Any, loss: float, lr: float) -> None:
        if state.step == 2:
            raise KeyboardInterrupt


def test_going_on_takes_the_checkpoint_and_not_the_weights_again(
    masks: Path, classifier: Path, tmp_path: Path
) -> None:
    # a precision chosen by timing might be another one the second time
    settings = [*UNET, "precision=32-true", "steps=4", "optimiser.lr=0.01"]
    settings += ["checkpoint_seconds=1e-9"]
    whole = train(masks, tmp_path / "whole", *settings, weights=classifier)
    with pytest.raises((KeyboardInterrupt, ResiduaError)):
        train(masks, tmp_path / "parts", *settings, weights=classifier, watcher=Stops())
    step = checkpoint.load(tmp_path / "parts" / "checkpoint.safetensors")["state"]["step"]
    assert 0 < step < 4
    classifier.unlink()
    resume(tmp_path / "parts")
    parts = load_file(tmp_path / "parts" / "model.safetensors")
    for name, tensor in load_file(whole.folder.model).items():
        assert torch.equal(tensor, parts[name]), name


def test_the_command_line_says_what_was_loaded(
    masks: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = [part for setting in (*STILL, *UNET) for part in ("--set", setting)]
    given = ["train", str(masks), "--weights", str(classifier), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as done:
        main([*given, *sets, "--device", "cpu"])
    said = " ".join("".join(capsys.readouterr()).split())
    assert done.value.code == 0
    assert "in residua's layout from" in said and "into the encoder; fresh:" in said
