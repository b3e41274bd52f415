"""A file that is no checkpoint is refused in one line that names it, and no code in it ever runs."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from residua.errors import BadInput
from residua.models.reading import read_weights

STATE = {"stem.conv.weight": torch.ones(8, 3, 3, 3), "head.fc.bias": torch.zeros(10)}


class Command:
    """Pickles as a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def refusal(path):
    with pytest.raises(BadInput) as raised:
        read_weights(path)
    line = str(raised.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def save_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def pickled(protocol):
    def save(content, path):
        path.write_bytes(pickle.dumps(content, protocol))

    return save


WAYS = {"zip": torch.save, "old": save_old} | {f"pickle {p}": pickled(p) for p in range(1, 6)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("inside", [lambda x: x, lambda x: {"note": "best", "other": x}])
def test_a_pickle_that_would_run_code_does_not_and_is_named(way, inside, tmp_path, recwarn):
    path, proof = tmp_path / "weights.pth", tmp_path / "ran"
    WAYS[way](inside(Command(f"touch {proof}")), path)
    assert not proof.exists()
    line = refusal(path)
    assert f"would run code when loaded: it calls {os.system.__module__}.system" in line
    assert not proof.exists()
    assert not recwarn.list
    # The same file is dangerous to whoever trusts it: the test is of something.
    if way.startswith("pickle"):
        with path.open("rb") as file:
            pickle.load(file)
        assert proof.exists()


def test_a_whole_pickled_model_is_refused_by_the_name_of_its_class(tmp_path):
    torch.save(nn.Sequential(nn.Linear(1, 1)), tmp_path / "model.pth")
    assert "it calls torch.nn.modules.container.Sequential" in refusal(tmp_path / "model.pth")


@pytest.mark.parametrize("save", [torch.save, save_old, save_file])
def test_a_truncated_file_is_refused(save, tmp_path):
    path = tmp_path / "weights.pth"
    save(STATE, path)
    whole = path.read_bytes()
    assert read_weights(path).keys() == STATE.keys()
    for share in (0.02, 0.3, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    "content, says",
    [
        (b"", "is empty (0 bytes)"),
        (
            b"<!DOCTYPE html><title>404</title>",
            "not a checkpoint (it begins with b'<!DOCTYPE html>",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "it begins with b'version https:"),
        (b"PK\x03\x04", "truncated, damaged, or not a checkpoint"),
        (b"\x10\0\0\0\0\0\0\0{not json at all", "damaged safetensors file"),
    ],
)
def test_what_is_no_checkpoint_says_what_it_is(content, says, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert says in refusal(path)


@pytest.mark.parametrize(
    "content, says",
    [
        ([1, 2], "is of type list, not a state dict"),
        (torch.zeros(3), "is of type Tensor, not a state dict"),
        ({}, "holds no weights"),
        ({"lr": 0.1}, "'lr' is of type float, where a state dict has tensors"),
        ({"weight": torch.zeros(2).to_sparse()}, "weight is a quantised or sparse tensor"),
    ],
)
def test_what_holds_no_state_dict_says_what_it_holds(content, says, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    assert says in refusal(tmp_path / "weights.pth")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.pth")
    assert "Is a directory" in refusal(tmp_path)


def test_a_torchscript_program_is_refused(tmp_path):
    path = tmp_path / "program.pt"
    torch.jit.script(nn.ReLU()).save(str(path))
    assert "TorchScript" in refusal(path)


def test_paths_may_be_strings(tmp_path):
    torch.save(STATE, tmp_path / "weights.pth")
    assert read_weights(str(Path(tmp_path / "weights.pth"))).keys() == STATE.keys()
