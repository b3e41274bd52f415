"""A failure is one line and an exit code, never a traceback."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from residua.cli.main import VERBS, main
from residua.errors import BadInput, ResiduaError

Fails = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a verb that raises what it is given; return exit code, standard output and error."""

    def run(failure: BaseException, *args: str) -> tuple[int, str, str]:
        def fall() -> None:
            raise failure

        module = ModuleType("residua.cli.fall")
        module.fall = fall  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "residua.cli.fall", module)
        monkeypatch.setitem(VERBS, "fall", "Fall.")
        return outcome(["fall", *args], capsys)

    return run


def outcome(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(args)
    assert isinstance(done.value.code, int)
    return done.value.code, *capsys.readouterr()


def test_bad_input_is_one_line_and_exit_code_2(fails: Fails) -> None:
    assert fails(BadInput("a.jpg: not a\npicture")) == (2, "", "error: a.jpg: not a picture\n")


def test_a_failed_run_is_one_line_and_exit_code_1(fails: Fails) -> None:
    assert fails(ResiduaError("the loss is NaN")) == (1, "", "error: the loss is NaN\n")


def test_with_json_the_error_is_also_json_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = outcome(["models", "resnt50", "--json"], capsys)
    assert code == 2
    assert err == f"error: {json.loads(out)['error']}\n"
    assert "resnet50" in err


def test_an_interruption_is_a_line_and_exit_code_130(fails: Fails) -> None:
    assert fails(KeyboardInterrupt()) == (130, "", "interrupted\n")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_locked_disk_is_named_with_its_file(fails: Fails, number: int) -> None:
    failure = OSError(number, os.strerror(number), "runs/a/last.ckpt")
    assert fails(failure) == (1, "", f"error: {os.strerror(number)}: runs/a/last.ckpt\n")


def test_a_fault_of_ours_is_one_line_that_names_the_file_of_the_traceback(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, out, err = fails(ZeroDivisionError("division\nby zero"))
    (file,) = tmp_path.iterdir()
    assert (code, out) == (1, "")
    assert err.startswith("error: internal error: ZeroDivisionError: division by zero")
    assert err.count("\n") == 1
    assert str(file) in err
    assert "Traceback" in file.read_text(encoding="utf-8")


def test_a_fault_of_ours_is_said_even_where_no_file_can_be_written(
    fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    code, _, err = fails(ZeroDivisionError("division by zero"))
    assert code == 1
    assert "no traceback written" in err


def test_the_whole_traceback_is_there_for_those_who_ask(
    fails: Fails, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESIDUA_DEBUG", "1")
    code, _, err = fails(BadInput("a.jpg: not a picture"))
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("error: a.jpg: not a picture\n")


@pytest.mark.parametrize(
    ("args", "wrong", "hint"),
    [
        (["trian"], "'trian'", "Try 'residua --help'.\n"),
        (["models", "--jsn"], "--jsn", "Try 'residua models --help'.\n"),
        (["models", "a", "b"], "(b)", "Try 'residua models --help'.\n"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    args: list[str], wrong: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = outcome(args, capsys)
    assert (code, out) == (2, "")
    assert wrong in err
    assert err.endswith(hint)
    assert err.count("\n") == 1


def test_a_mistyped_verb_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = outcome(["trian"], capsys)
    assert "id you mean 'train'?" in err


def test_a_reader_that_leaves_early_is_no_news() -> None:
    command = f'"{sys.executable}" -c "from residua.cli import main; main()" models | true'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
