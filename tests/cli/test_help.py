"""The list of verbs is quick to print and true."""

import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

from residua.cli.main import VERBS, main

CALL = "from residua.cli import main; main()"


def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CALL, *args],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_lists_every_verb_with_its_line() -> None:
    done = run("--help", COLUMNS="100")
    assert done.returncode == 0
    for name, line in VERBS.items():
        assert f"{name} " in done.stdout
        assert line in done.stdout


def test_help_imports_neither_torch_nor_numpy_nor_a_verb() -> None:
    watch = (
        "import sys\n"
        "from residua.cli import main\n"
        "try:\n    main(['--help'])\n"
        "finally:\n    print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", watch], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    loaded = done.stderr
    assert "'residua.cli.main'" in loaded
    for name in ["torch", "numpy", "pydantic", *(f"residua.cli.{verb}" for verb in VERBS)]:
        assert f"'{name}'" not in loaded


@pytest.mark.parametrize("verb", VERBS)
def test_the_line_in_the_list_is_the_first_of_the_verb_itself(verb: str) -> None:
    function = getattr(import_module(f"residua.cli.{verb}"), verb)
    assert function.__doc__.strip().splitlines()[0] == VERBS[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_help_and_json(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    assert "--json" in capsys.readouterr().out


def test_no_verb_prints_the_list_and_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([])
    assert done.value.code == 2
    assert "Usage: residua" in capsys.readouterr().out


def test_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--version"])
    assert done.value.code == 0
    assert capsys.readouterr().out == f"residua {version('residua')}\n"


def test_the_shell_completes_verbs_and_their_options() -> None:
    verbs = run(_RESIDUA_COMPLETE="complete_bash", COMP_WORDS="residua mo", COMP_CWORD="1")
    assert verbs.stdout.split() == ["models"]
    options = run(
        _RESIDUA_COMPLETE="complete_bash", COMP_WORDS="residua models --j", COMP_CWORD="2"
    )
    assert options.stdout.split() == ["--json"]
