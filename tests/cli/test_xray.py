"""`residua xray` on a run, a user's file, a registered model; every failure is one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import residua
from residua.cli.examples import choose_examples
from residua.cli.targets import open_target, other_depth, parse_input, parse_settings
from residua.errors import BadInput

Command = Callable[..., Any]
CHEAP = ("--analyses", "anatomy,singularities", "--batch", "2")
MINE = """
from torch import nn

print("a remark of the user's file")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x).relu()


def build(width=4):
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    return nn.Sequential(nn.Conv2d(3, width, 3), Block(width), Block(width), *pool)


def breaks():
    raise KeyError("nothing there")


def no_module():
    return 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mymodels.py"
    path.write_text(MINE, encoding="utf-8")
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "page" / "xray.html"


@pytest.fixture(scope="module")
def run(corners: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("xray") / "corners"
    settings = ["steps=1", "batch_size=16"]
    residua.train(
        corners, out=path, recipe="he2015-cifar", model="resnet20_cifar", settings=settings
    )
    return path


def test_a_function_in_a_file(command: Command, mine: Path, out: Path) -> None:
    said = command("xray", f"{mine}:build", "--input", "3x8x8", *CHEAP, "--out", out)
    assert said.code == 0
    assert f"page: {out}" in said.out and "a remark" in said.error
    page = out.read_text(encoding="utf-8")
    assert f"{mine}:build" in page and "random standard normal numbers" in page


def test_the_functions_arguments_are_set(command: Command, mine: Path, out: Path) -> None:
    one = command(
        "xray", f"{mine}:build", "--input", "3x8x8", "--set", "width=6", *CHEAP, "--out", out, "--json"
    ).value  # fmt: skip
    assert one["facts"]["outputs"] == [[2, 5]] and one["page"] == str(out)
    assert [unit["shape"][1] for unit in one["units"]] == [6, 6]
    assert set(one["analyses"]) == {"anatomy", "singularities"}
    assert one["facts"]["targets"] == "classes drawn at random"


def test_a_registered_model_with_changes(command: Command, out: Path) -> None:
    one = command(
        "xray", "resnet20_cifar", "--depth", "32", "--no-norm", "--input", "1x8x8",
        *CHEAP, "--out", out, "--json",
    ).value  # fmt: skip
    assert one["name"] == "resnet32_cifar norm=none"
    assert len(one["units"]) == 15
    assert one["facts"]["inputs"] == [[2, 1, 8, 8]]


def test_a_run_is_looked_at_with_its_own_pictures(command: Command, run: Path, out: Path) -> None:
    one = command("xray", run, *CHEAP, "--out", out, "--json").value
    assert one["name"] == f"resnet20_cifar in {run}"
    assert one["facts"]["pictures"] == "6 pictures of the run"
    assert one["facts"]["targets"] == "the labels of the pictures"
    assert one["facts"]["inputs"] == [[2, 3, 16, 16]]
    assert one["facts"]["gradient_of"] == "cross-entropy"


def test_a_sample_of_a_run_is_what_evaluation_sees(run: Path) -> None:
    opened = residua.open_run(run)
    opened.device = "cpu"
    inputs, labels = opened.sample(1000)
    assert len(inputs) == len(labels) == opened.evaluate()["n"]
    right = (opened.model(inputs).argmax(1) == labels).float().mean().item()
    assert right == pytest.approx(opened.evaluate()["accuracy"], abs=1e-6)
    again, _ = opened.sample(4, seed=1)
    assert torch.equal(again, opened.sample(4, seed=1)[0])
    assert not torch.equal(again, opened.sample(4, seed=2)[0])


def test_pictures_of_a_folder_are_the_batch(corners: Path) -> None:
    opened = open_target("resnet20_cifar", shape=(3, 12, 12))
    examples = choose_examples(opened, 4, str(corners), 0, torch.device("cpu"), 3)
    assert [tuple(x.shape) for x in examples.inputs] == [(4, 3, 12, 12)] * 3
    every = torch.cat(examples.inputs)
    torch.testing.assert_close(every.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(every.var((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


def test_the_seed_draws_the_weights_and_leaves_the_generator() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again, other = (open_target("resnet20_cifar", seed=s).model for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_targets_are_drawn_only_where_the_output_looks_like_classes() -> None:
    opened = open_target("resnet20_cifar", shape=(3, 8, 8))
    found = choose_examples(opened, 4, None, 0, torch.device("cpu"), 1)
    assert found.targets is not None and found.targets.shape == (4,)
    opened.model = nn.Conv2d(3, 4, 3)
    found = choose_examples(opened, 4, None, 0, torch.device("cpu"), 1)
    assert found.targets is None and found.meaning == "none"


@pytest.mark.parametrize(
    ("name", "depth", "other"),
    [
        ("resnet50", 200, "resnet200"), ("resnetv2_50", 101, "resnetv2_101"),
        ("plain56_cifar", 20, "plain20_cifar"), ("wide_resnet50_2", 101, "wide_resnet101_2"),
        ("densenet121", 169, "densenet169"), ("resnext50_32x4d", 101, "resnext101_32x4d"),
        ("resnet20_cifar", 20, "resnet20_cifar"),
    ],
)  # fmt: skip
def test_depth_is_another_member_of_the_family(name: str, depth: int, other: str) -> None:
    assert other_depth(name, depth) == other


def test_a_depth_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(
        BadInput, match="resnet50 has no depth 51: there are 18, 26, 34, 50, 101, 152, 200"
    ):
        other_depth("resnet50", 51)
    with pytest.raises(BadInput, match="alexnet has no other depths"):
        other_depth("alexnet", 9)


def test_sizes_and_settings_are_read() -> None:
    assert parse_input("1X28x28") == (1, 28, 28)
    assert parse_settings(["a=1e-3", "b=[1, 2]", "c=none"]) == {
        "a": 1e-3,
        "b": [1, 2],
        "c": "none",
    }
    for wrong in ("", "3x", "0x3", "3 x 4", "-1x3"):
        with pytest.raises(BadInput, match="expected sizes joined by x"):
            parse_input(wrong)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("resnet5O",), "unknown model 'resnet5O'. Did you mean resnet50"),
        (("runs/nothing",), "runs/nothing: there is no such run or file"),
        (("MINE",), "name the function that returns the module, as in"),
        (("MINE:biuld",), "has no function 'biuld'. Did you mean build?"),
        (("MINE:breaks",), "breaks failed: KeyError: 'nothing there'"),
        (("MINE:no_module",), "returned int, expected a torch.nn.Module"),
        (("MINE:build", "--set", "widht=3"), "unexpected keyword argument 'widht'"),
        (("MINE:build", "--depth", "3"), "--depth: not for a function of yours"),
        (("MINE:build", "--input", "7x8x8"), "does not run on this batch: RuntimeError"),
        (("MINE:build", "--data", "MISSING"), "no pictures in this folder"),
        (("missing.py:build",), "missing.py: there is no such file"),
        (("RUN", "--no-norm"), "--no-norm: not for a trained network"),
        (("RUN", "--input", "3x8x8"), "--input: not for a trained network"),
        (("resnet20_cifar", "--set", "nrom=group"), "unknown option 'nrom' for resnet20_cifar"),
        (("resnet20_cifar", "--set", "norm"), "--set norm: expected option=value"),
        (("resnet20_cifar", "--input", "3x8x8", "--analyses", "anatomi"), "Did you mean anatomy?"),
        (("resnet20_cifar", "--device", "tpu"), "device 'tpu' is unknown"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, mine: Path, run: Path, out: Path, given: tuple[str, ...], said: str
) -> None:
    names = {"MINE": str(mine), "RUN": str(run), "MISSING": str(mine.parent / "missing")}
    head = given[0].replace("MINE", names["MINE"]).replace("RUN", names["RUN"])
    rest = [names.get(part, part) for part in given[1:]]
    if "--input" not in rest and head.endswith("build"):
        rest += ["--input", "3x8x8"]
    result = command("xray", head, *rest, "--batch", "2", "--out", out)
    assert result.code == 2 and said in result.line
    assert not out.exists()


def test_what_could_not_be_done_is_said_and_the_exit_code_is_0(
    command: Command, mine: Path, out: Path
) -> None:
    mine.write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))\n"
    )
    said = command("xray", f"{mine}:build", "--input", "3x2x2", *CHEAP, "--out", out)
    assert said.code == 0
    assert "not done: anatomy: no addition or concatenation" in said.error


def test_it_works_in_a_process_of_its_own(mine: Path, out: Path) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "residua", "xray", f"{mine}:build", "--input", "3x8x8",
            "--quick", "--analyses", "anatomy", "--out", str(out),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"page: {out}"
    assert f"residua xray {mine}:build --input 3x8x8 --quick" in out.read_text(encoding="utf-8")
