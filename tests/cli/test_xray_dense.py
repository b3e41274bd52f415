"""`residua xray` on networks with an answer a pixel: fresh ones, runs on masks, runs on joints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import residua
from residua.cli.dense import COST, MULTIPLE, drawn_joints, drawn_masks, usual_side
from residua.cli.examples import choose_examples
from residua.cli.targets import open_target
from residua.data.drawn import cells, figures
from residua.models.registry import records

Command = Callable[..., Any]
CHEAP = ("--analyses", "anatomy,signal,scale_freedom", "--batch", "2")
DENSE = {name: record for name, record in records().items() if record.task != "classification"}


@pytest.mark.parametrize("name", DENSE)
def test_a_network_for_pictures_of_any_size_is_looked_at_where_one_costs_little(name: str) -> None:
    record = DENSE[name]
    side = usual_side(record)
    assert record.smallest <= side <= record.input_size
    cost = record.multiply_adds * (side / record.input_size) ** record.dims
    assert cost <= COST or side in (MULTIPLE, record.smallest)
    larger = record.multiply_adds * ((side + MULTIPLE) / record.input_size) ** record.dims
    assert larger > COST or side + MULTIPLE > record.input_size


def test_a_classifier_is_looked_at_at_its_own_size() -> None:
    assert (
        usual_side(records()["resnet50"]) == 224 and usual_side(records()["resnet20_cifar"]) == 32
    )


@pytest.mark.parametrize("size", [(8, 12), (16,), (5, 6, 7), (3, 3)])
def test_drawn_masks_are_blocks_of_classes(size: tuple[int, ...]) -> None:
    scores = torch.empty(3, 5, *size)
    masks = drawn_masks(scores, torch.Generator().manual_seed(0))
    assert masks.shape == (3, *size) and masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= set(range(5)) and len(masks.unique()) > 1
    if min(size) >= 8:  # a quarter of each side is one square
        corner = masks[(slice(None), *(slice(0, side // 4) for side in size))].flatten(1)
        assert (corner == corner[:, :1]).all()


def test_one_score_a_pixel_tells_two_classes() -> None:
    masks = drawn_masks(torch.empty(4, 1, 8, 8), torch.Generator().manual_seed(0))
    assert set(masks.unique().tolist()) == {0, 1}


def test_drawn_joints_are_labelled_and_in_the_picture() -> None:
    joints = drawn_joints(torch.empty(50, 16, 8, 4), (32, 16), torch.Generator().manual_seed(0))
    assert joints.shape == (50, 16, 3) and bool((joints[..., 2] == 1).all())
    assert 14 < float(joints[..., 0].max()) <= 15 and 29 < float(joints[..., 1].max()) <= 31
    assert float(joints.min()) >= 0


SMALL: dict[str, tuple[tuple[str, ...], str, str]] = {
    "unet": (("width=4", "depth=3"), "3x16x16", "masks"),
    "unet1d": (("width=4", "depth=3", "deep_supervision=true"), "2x32", "masks"),
    "unet3d": (("width=4", "depth=2"), "1x8x8x8", "masks"),
    "unetpp": (("width=4", "depth=3"), "3x16x16", "masks"),
    "hourglass2": (("width=8", "levels=1"), "3x32x32", "joints"),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_fresh_network_with_an_answer_a_pixel(
    command: Command, name: str, tmp_path: Path
) -> None:
    settings, shape, truth = SMALL[name]
    chosen = [part for setting in settings for part in ("--set", setting)]
    out = tmp_path / "xray.html"
    one = command("xray", name, "--input", shape, *chosen, *CHEAP, "--out", out, "--json").value
    assert one["not_done"] == [] and one["units"]
    assert one["facts"]["targets"].startswith(truth) and "at random" in one["facts"]["targets"]
    loss = {"masks": "pixel_cross_entropy", "joints": "heatmap_error"}[truth]
    assert one["facts"]["gradient_of"] == loss
    page = out.read_text(encoding="utf-8")
    assert one["units"][-1]["name"] in page and loss in page


def test_without_input_the_size_is_the_usual_one_of_as_many_dimensions() -> None:
    assert open_target("unet1d").input == (3, 256)
    assert open_target("unet3d", settings={"in_channels": 1, "width": 4}).input == (1, 32, 32, 32)


def test_all_outputs_of_training_are_compared(tmp_path: Path) -> None:
    opened = open_target("unetpp", settings={"width": 4, "depth": 3}, shape=(3, 16, 16))
    examples = choose_examples(opened, 2, None, 0, torch.device("cpu"), 1)
    assert examples.loss is not None and examples.targets is not None
    outputs = opened.model.train()(examples.inputs[0])
    assert len(outputs) == 2
    every = torch.stack([torch.nn.functional.cross_entropy(y, examples.targets) for y in outputs])
    torch.testing.assert_close(examples.loss(outputs, examples.targets), every.mean())


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masks")
    cells.write(folder / "cells", 6, 0)
    settings = ("steps=1", "batch_size=2", "size=32", "model=unetpp")
    options = ("model_options.width=4", "model_options.depth=3")
    residua.train(
        folder / "cells",
        out=folder / "run",
        settings=(*settings, *options),
        device="cpu",
        workers=0,
    )
    return folder / "run"


@pytest.fixture(scope="module")
def posed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    figures.write(folder / "figures", 10, 0)
    settings = ("steps=1", "batch_size=4", "size=32", "model=hourglass2", "model_options.width=8")
    residua.train(
        folder / "figures", out=folder / "run", settings=settings, device="cpu", workers=0
    )
    return folder / "run"


def test_a_run_on_masks_is_looked_at_with_its_own(
    command: Command, segmented: Path, tmp_path: Path
) -> None:
    out = tmp_path / "xray.html"
    one = command("xray", segmented, "--batch", "2", "--out", out, "--json").value
    assert one["facts"]["targets"] == "the masks of the pictures"
    assert one["facts"]["gradient_of"] == "pixel_cross_entropy"
    assert one["facts"]["inputs"][0][2:] == [32, 32] and out.exists()
    assert not [line for line in one["not_done"] if "Error" in line]


def test_a_run_on_joints_is_looked_at_with_its_own(
    command: Command, posed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "xray.html"
    one = command("xray", posed, "--batch", "2", "--out", out, "--json").value
    assert one["facts"]["targets"] == "the joints of the pictures"
    assert one["facts"]["gradient_of"] == "heatmap_error"
    assert one["facts"]["inputs"] == [[2, 3, 32, 32]] and out.exists()
    assert not [line for line in one["not_done"] if "Error" in line]
