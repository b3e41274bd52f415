"""`residua models` lists the records."""

import json

import pytest

from residua.cli.main import main
from residua.models import list_models, records


def printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as done:
        main(args)
    assert done.value.code == 0
    return capsys.readouterr().out


def test_every_model_is_a_row_with_its_exact_number_of_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(["models"], capsys)
    for name, record in records().items():
        assert any(
            name in row.split() and f"{record.parameters:,}" in row for row in text.splitlines()
        )


def test_a_pattern_chooses_by_wild_cards(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(["models", "ResNet*_cifar", "--json"], capsys))
    assert [model["name"] for model in found] == list_models("resnet*_cifar")


def test_the_published_size_of_resnet50_is_in_its_row(capsys: pytest.CaptureFixture[str]) -> None:
    row = next(
        line for line in printed(["models", "resnet50"], capsys).splitlines() if "50" in line
    )
    assert "25,557,032" in row
    assert "4.09 G" in row
    assert "224x224" in row


def test_an_unknown_pattern_is_one_line_with_the_nearest_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as done:
        main(["models", "resnt50"])
    out, err = capsys.readouterr()
    assert done.value.code == 2
    assert out == ""
    assert "Did you mean resnet50" in err
    assert err.count("\n") == 1
