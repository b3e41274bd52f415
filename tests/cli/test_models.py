"""`residua models` lists the records."""

import json

import pytest
import torch

from residua.cli.main import main
from residua.cli.models import defaults
from residua.models import create_model, list_models, record, records


def printed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as done:
        main(args)
    assert done.value.code == 0
    return capsys.readouterr().out


def test_every_model_is_a_row_with_its_exact_number_of_parameters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(["models"], capsys)
    for name, known in records().items():
        assert any(
            name in row.split() and f"{known.parameters:,}" in row for row in text.splitlines()
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


def test_json_has_every_fact_of_at_least_120_models(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(["models", "--json"], capsys))
    assert [model["name"] for model in found] == list_models()
    assert len(found) >= 120
    for model in found:
        assert set(model) == {
            *("name", "family", "task", "dims", "parameters", "multiply_adds"),
            *("input_size", "smallest", "num_classes", "paper"),
        }
        assert model["paper"] and model["parameters"] > 0 and model["multiply_adds"] > 0
        assert 1 <= model["smallest"] <= model["input_size"]


def test_a_family_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(["models", "--family", "resnext", "--json"], capsys))
    assert [model["name"] for model in found] == [
        name for name, known in records().items() if known.family == "resnext"
    ]
    some = json.loads(printed(["models", "*_cifar", "--family", "wide", "--json"], capsys))
    assert {model["name"] for model in some} == set(list_models("wrn*"))


def test_a_table_says_each_family_once(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row.split() for row in printed(["models"], capsys).splitlines() if row.strip()]
    first = [row[0] for row in rows if len(row) > 1 and row[1] in records()]
    assert sorted(first) == sorted({known.family for known in records().values()})


def test_one_name_shows_its_options_with_their_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line.strip() for line in printed(["models", "resnet20_cifar"], capsys).splitlines()]
    given = create_model("resnet20_cifar").head.fc.out_features
    assert f"num_classes = {given}" in lines
    assert "shortcut = 'A'" in lines  # this model's own default
    assert "merge = 'add'" in lines
    shown = {line.partition(" = ")[0] for line in lines if " = " in line}
    assert shown == set(record("resnet20_cifar").options())
    assert any("stochastic_depth: probability of dropping" in line for line in lines)


@pytest.mark.parametrize("name", ["alexnet", "densenet121", "shake_shake26_2x32d_cifar"])
def test_the_defaults_shown_are_those_that_are_built(name: str) -> None:
    shown = defaults(record(name))
    with torch.device("meta"):
        usual, given = create_model(name), create_model(name, **shown)
    assert repr(usual) == repr(given)


def test_an_unknown_family_is_one_line_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for args, says in (
        (["--family", "densnet"], "Did you mean densenet"),
        (["resnet50", "--family", "vgg"], "no model of the family vgg is called 'resnet50'"),
    ):
        with pytest.raises(SystemExit) as done:
            main(["models", *args])
        out, err = capsys.readouterr()
        assert (done.value.code, out) == (2, "")
        assert says in err
        assert err.count("\n") == 1


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
