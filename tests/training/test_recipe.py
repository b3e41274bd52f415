"""A recipe is typed: what is wrong in it is one line that names the key; --set reads values as YAML."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.errors import BadInput
from residua.training.recipe import (
    Recipe,
    all_keys,
    build,
    read_yaml,
    seconds,
    with_batch_size,
    with_overrides,
)

BASE = Recipe(epochs=10)


def changed(*assignments, base=BASE):
    return with_overrides(base, assignments)


def value(recipe, key):
    for part in key.split("."):
        recipe = recipe[part] if isinstance(recipe, dict) else getattr(recipe, part)
    return recipe


def one_line(raised):
    text = str(raised.value)
    assert text
    assert "\n" not in text
    return text


# -- --set ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("optimiser.lr=1e-3", 0.001),
        ("optimiser.lr=.5", 0.5),
        ("optimiser.lr=5.e-2", 0.05),
        ("optimiser.lr=1E+1", 10.0),
        ("optimiser.lr=auto", "auto"),
        ("optimiser.weight_decay=0", 0.0),
        ("optimiser.nesterov=false", False),
        ("optimiser.betas=[0.8, 0.99]", (0.8, 0.99)),
        ("batch_size=auto", "auto"),
        ("batch_size=48", 48),
        ("clip_gradient=null", None),
        ("model=null", None),
        ("model = resnet20_cifar", "resnet20_cifar"),
        ("freeze=[stem, stages.0]", ("stem", "stages.0")),
        ("progressive=[[0.3, 0.5], [0.6, 0.75]]", ((0.3, 0.5), (0.6, 0.75))),
        ("augmentation.flip=auto", "auto"),
        ("augmentation.flip=no", False),
        ("augmentation.random_resized_crop=[0.1, 1]", (0.1, 1.0)),
        ("evaluation.every_epochs=0.5", 0.5),
        ("model_options.width=12", 12),
        ("model_options.norm=none", "none"),
        ("compile=yes", "yes"),  # YAML 1.1 reads these two as true and false
        ("compile=no", "no"),
        ("compile=auto", "auto"),
    ],
)
def test_a_setting_is_read_as_yaml_and_typed(assignment, expected):
    found = value(changed(assignment), assignment.partition("=")[0].strip())
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(("key", "text", "got"), [("steps", "7", 7), ("budget", "90s", "90s")])
def test_setting_a_length_takes_the_place_of_the_others(key, text, got):
    recipe = changed(f"{key}={text}")
    assert recipe.epochs is None
    assert getattr(recipe, key) == got


def test_settings_leave_the_recipe_itself_and_all_other_keys_alone():
    recipe = changed("optimiser.lr=0.7")
    assert BASE.optimiser.lr == 0.1
    assert recipe.model_copy(update={"optimiser": BASE.optimiser}) == BASE


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("optimizer.lr=1", ["'optimizer.lr'", "optimiser.lr"]),
        ("optimiser.learning_rate=1", ["'optimiser.learning_rate'"]),
        ("batchsize=3", ["'batchsize'", "batch_size"]),
        ("optimiser=3", ["unknown key 'optimiser'"]),
        ("optimiser.lr", ["key=value"]),
        ("=3", ["unknown key ''"]),
        ("optimiser.lr=-1", ["optimiser.lr", "greater than 0", "-1"]),
        ("optimiser.lr=nan", ["optimiser.lr", "nan"]),
        ("optimiser.lr=.inf", ["optimiser.lr", "inf"]),
        ("optimiser.lr=[1", ["YAML"]),
        ("optimiser.name=adam", ["optimiser.name", "adamw", "lamb"]),
        ("optimiser.betas=[0.9]", ["optimiser.betas"]),
        ("label_smoothing=1", ["label_smoothing", "less than 1"]),
        ("augmentation.randaugment=[2, 10]", ["augmentation.randaugment", "equal to 9, not 10"]),
        ("augmentation.randaugment=[0, 5]", ["augmentation.randaugment", "equal to 1, not 0"]),
        ("batch_size=0", ["batch_size"]),
        ("freeze=stem", ["freeze", "stem"]),
        ("budget=5x", ["budget", "5x", "10m"]),
        ("epochs=null", ["exactly one of epochs, steps and budget"]),
        ("accumulate=3", ["accumulate (3)", "batch_size (128)"]),
        ("progressive=[[0.5, 0.5], [0.3, 1]]", ["progressive", "rise"]),
        ("model_options.a.b=1", ["model_options.a.b"]),
        ("model_options=3", ["model_options"]),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(assignment, parts):
    with pytest.raises(BadInput) as raised:
        changed(assignment)
    text = one_line(raised)
    for part in parts:
        assert part in text


def test_an_option_of_the_model_after_a_null_is_refused_in_one_line():
    with pytest.raises(BadInput) as raised:
        changed("model_options=null", "model_options.width=3")
    assert "model_options" in one_line(raised)


@settings(deadline=None)
@given(st.sampled_from(all_keys()), st.text(max_size=12))
def test_any_value_of_a_known_key_is_taken_or_refused_as_bad_input(key, text):
    try:
        assert isinstance(changed(f"{key}={text}"), Recipe)
    except BadInput as error:
        assert str(error).startswith("--set")


# -- lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"epochs": 1, "steps": 2}, {"steps": 1, "budget": "1m"}])
def test_a_recipe_has_exactly_one_length(values):
    with pytest.raises(BadInput, match="exactly one of epochs, steps and budget"):
        build(values, "x.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("10m", 600), ("1.5h", 5400), ("2d", 172800), (" 3 m ", 180)],
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "0s", "1e3s", "10 minutes", "nan", "1m30s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(BadInput, match="duration"):
        seconds(text)


# -- the batch size that a set's size decides -------------------------------------------------------------


def test_the_automatic_batch_is_a_16th_of_the_set_and_the_rate_goes_with_it():
    recipe = changed("batch_size=auto", "optimiser.lr=0.4")
    sizes = {n: with_batch_size(recipe, n) for n in (10, 1_437, 4_096, 8_192, 45_000, 10**6)}
    assert {n: r.batch for n, r in sizes.items()} == {
        10: 16,
        1_437: 64,
        4_096: 256,
        8_192: 512,
        45_000: 512,
        10**6: 512,
    }
    for settled in sizes.values():  # Goyal et al. 2017: linear in the batch
        assert settled.optimiser.lr == pytest.approx(0.4 * settled.batch / 512)


def test_a_given_batch_size_and_an_automatic_rate_are_left_alone():
    assert with_batch_size(BASE, 5) is BASE
    settled = with_batch_size(changed("batch_size=auto", "optimiser.lr=auto"), 100)
    assert settled.optimiser.lr == "auto"


def test_a_batch_size_that_is_not_settled_cannot_be_used():
    with pytest.raises(ValueError, match="not settled"):
        _ = changed("batch_size=auto").batch


# -- files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("- 1\n", "expected a mapping"),
        ("", "expected a mapping"),
        ("epochs: [1\n", "not valid YAML at line"),
        ("a: 1\n b: 2\n", "not valid YAML at line 2"),
        ("x: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    ],
)
def test_a_yaml_file_that_is_no_recipe_is_named_in_one_line(tmp_path, text, part):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as raised:
        read_yaml(path)
    assert str(path) in one_line(raised)
    assert part in one_line(raised)


def test_a_yaml_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"none\.yaml: there is no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(BadInput, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"bytes\.yaml"):
        read_yaml(tmp_path / "bytes.yaml")


@pytest.mark.parametrize("values", [{1: 2}, {"optimiser": 3}, {"optimiser": {"lr": {}}}])
def test_keys_and_sections_of_a_wrong_kind_are_one_line(values):
    with pytest.raises(BadInput) as raised:
        build({"epochs": 1, **values}, "my.yaml")
    assert one_line(raised).startswith("my.yaml: ")


def test_what_a_recipe_dumps_builds_the_same_recipe():
    recipe = changed("progressive=[[0.3, 0.5]]", "optimiser.lr=auto", "compile=yes", "budget=2m")
    assert build(recipe.model_dump(mode="json"), "config.yaml") == recipe
