"""A checkpoint comes back as it was, or is refused in one line; a failed write leaves the old one."""

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from residua.errors import BadInput
from residua.training import checkpoint
from residua.training.checkpoint import CannotSaveError, load, read_tensors, save, write_text

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8)


def tensor(shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(dtype)


tensors = st.builds(
    tensor,
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | tensors
)
# Few letters, so that different places in the tree often spell alike: "a.b" and "a" -> "b".
keys = st.text("ab.$1", max_size=4) | st.integers(0, 3) | st.sampled_from(["$tensor", "$items"])
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
states = st.dictionaries(keys.filter(lambda k: isinstance(k, str)), trees, max_size=4)


def equal(first, second):
    if isinstance(first, torch.Tensor):
        same_kind = isinstance(second, torch.Tensor) and first.dtype == second.dtype
        return same_kind and torch.equal(first, second)
    if isinstance(first, dict):
        same_keys = isinstance(second, dict) and list(first) == list(second)
        return same_keys and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list):
        same_length = isinstance(second, list) and len(first) == len(second)
        return same_length and all(map(equal, first, second))
    return type(first) is type(second) and first == second


STATE = {
    "model": {"stem.weight": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)},
    "optimiser": {"state": {0: {"momentum": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    "step": 7,
}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# -- there and back --------------------------------------------------------------------------------------


@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150
)
@given(states)
def test_any_tree_comes_back_as_it_was(tmp_path, state):
    path = tmp_path / "checkpoint.safetensors"
    save(path, state)
    assert equal(load(path), state)
    assert names(tmp_path) == [path.name]


def test_tuples_come_back_as_lists_and_numbers_that_are_not_finite_as_they_are(tmp_path):
    save(tmp_path / "c", {"betas": (0.9, 0.999), "loss": [float("inf"), float("nan")]})
    found = load(tmp_path / "c")
    assert found["betas"] == [0.9, 0.999]
    assert found["loss"][0] == float("inf")
    assert found["loss"][1] != found["loss"][1]


def test_views_and_shared_tensors_are_saved_with_their_values(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"whole": whole, "again": whole, "row": whole[1], "column": whole[:, 2]}
    save(tmp_path / "c", state)
    assert equal(load(tmp_path / "c"), state)


def test_memory_layout_changes_no_value(tmp_path):
    weight = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    save(tmp_path / "c", {"w": weight})
    assert torch.equal(load(tmp_path / "c")["w"], weight)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_the_state_of_an_optimiser_comes_back(tmp_path, make):
    layer = torch.nn.Linear(3, 2)
    optimiser = make(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    save(tmp_path / "c", {"optimiser": optimiser.state_dict()})
    other = make(layer.parameters(), lr=0.5)
    other.load_state_dict(load(tmp_path / "c")["optimiser"])
    assert other.param_groups[0]["lr"] == 0.1
    for parameter in layer.parameters():
        for key, value in optimiser.state[parameter].items():
            assert value is None or torch.equal(other.state[parameter][key], value)


def test_what_cannot_be_held_is_refused_with_its_place(tmp_path):
    with pytest.raises(TypeError, match=r"a\.0\.b: a checkpoint cannot hold a set"):
        save(tmp_path / "c", {"a": [{"b": {1, 2}}]})
    assert names(tmp_path) == []


# -- damaged files ---------------------------------------------------------------------------------------


def refused(path):
    with pytest.raises(BadInput) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_checkpoint_cut_at_any_byte_is_refused(tmp_path):
    path = tmp_path / "c"
    save(path, STATE)
    whole = path.read_bytes()
    cuts = [*range(0, len(whole), 7), *range(12), *range(len(whole) - 12, len(whole))]
    for cut in cuts:
        path.write_bytes(whole[:cut])
        refused(path)


def test_a_checkpoint_with_bytes_after_its_end_is_refused(tmp_path):
    save(tmp_path / "c", STATE)
    with (tmp_path / "c").open("ab") as file:
        file.write(b"\0" * 8)
    refused(tmp_path / "c")


@given(st.binary(max_size=64))
@settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)
def test_any_other_bytes_are_refused(tmp_path, data):
    (tmp_path / "c").write_bytes(data)
    refused(tmp_path / "c")


def with_metadata(path, metadata):
    save_file({"w": torch.ones(1)}, path, metadata)


def test_files_of_other_programs_and_broken_trees_are_refused(tmp_path):
    path = tmp_path / "c"
    with_metadata(path, None)
    assert "not a residua checkpoint" in refused(path)
    with_metadata(path, {"format": "pt"})
    assert "not a residua checkpoint" in refused(path)
    for tree in ("{", json.dumps({"a": {"$tensor": "absent"}})):
        with_metadata(path, {"format": checkpoint.FORMAT, "tree": tree})
        assert "damaged" in refused(path)
    with_metadata(path, {"format": checkpoint.FORMAT})
    assert "damaged" in refused(path)


def test_a_pickle_is_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"model": Bomb()}, tmp_path / "c")
    refused(tmp_path / "c")
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert "no such file" in refused(tmp_path / "none")
    refused(tmp_path)


def test_a_header_that_claims_to_be_huge_is_refused(tmp_path):
    (tmp_path / "c").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    refused(tmp_path / "c")


# -- writes that fail ------------------------------------------------------------------------------------


def run(code, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


FULL_DISK = """
    import resource, signal, sys, torch
    from pathlib import Path
    from residua.training.checkpoint import CannotSaveError, save, write_text

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    folder = Path(sys.argv[1])
    for write in (
        lambda: save(folder / "c", {"w": torch.zeros(100_000)}),
        lambda: write_text(folder / "text", "x" * 100_000),
    ):
        try:
            write()
        except CannotSaveError as error:
            print(error)
"""


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path):
    save(tmp_path / "c", STATE)
    done = run(FULL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    for name, line in (("c", first), ("text", second)):
        assert line.startswith(f"{tmp_path / name}: cannot be written (")
        assert line.endswith("what was saved before is untouched")
    assert equal(load(tmp_path / "c"), STATE)
    assert names(tmp_path) == ["c"]


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CannotSaveError) as raised:
        save(tmp_path / "file" / "c", STATE)
    assert str(tmp_path / "file" / "c") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("at", ["os.fsync", "Path.replace"])
def test_a_crash_before_the_rename_leaves_the_old_checkpoint(tmp_path, at):
    path = tmp_path / "c"
    save(path, STATE)
    crash = f"""
        import os, signal, sys, torch
        from pathlib import Path
        from residua.training.checkpoint import save

        def killed(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        {at} = killed
        save(Path(sys.argv[1]), {{"w": torch.zeros(100)}})
    """
    assert run(crash, path).returncode == -signal.SIGKILL
    assert equal(load(path), STATE)
    save(path, {"step": 8})  # and what was left aside is in nobody's way
    assert load(path) == {"step": 8}


def test_a_write_that_is_given_up_leaves_nothing_aside(tmp_path):
    path = tmp_path / "c"
    save(path, STATE)
    with pytest.raises(KeyboardInterrupt), checkpoint._written_aside(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["c"]
    assert equal(load(path), STATE)


def test_text_and_tensors_are_written_whole(tmp_path):
    write_text(tmp_path / "deep" / "er" / "notes.txt", "é\n")
    assert (tmp_path / "deep" / "er" / "notes.txt").read_text(encoding="utf-8") == "é\n"
    save(tmp_path / "c", STATE)
    found, metadata = read_tensors(tmp_path / "c")
    assert metadata["format"] == checkpoint.FORMAT
    assert set(found) == {"model.stem.weight", "model.n", "optimiser.state.0.momentum"}
