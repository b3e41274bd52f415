"""The named recipes hold the numbers that were published; a file may change any of them."""

import math

import pytest

from residua.errors import BadInput
from residua.training.optimisers import lr_factor
from residua.training.recipe import build
from residua.training.recipes import RECIPES, load_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_bears_its_name(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert build(recipe.model_dump(mode="json"), "again") == recipe


def test_the_seven_recipes_are_there():
    assert set(RECIPES) == {
        "quick",
        "he2015-cifar",
        "wrn-cifar",
        "he2015-imagenet",
        "rsb-a1",
        "rsb-a2",
        "rsb-a3",
    }


# Wightman, Touvron, Jegou 2021, table 2: epochs, lr, decay, mixup, magnitude, repeats, drop path, smoothing
RSB = {
    "rsb-a1": (600, 5e-3, 0.01, 0.2, 7, 3, 0.05, 0.1),
    "rsb-a2": (300, 5e-3, 0.02, 0.1, 7, 3, 0.05, 0.0),
    "rsb-a3": (100, 8e-3, 0.02, 0.1, 6, 1, 0.0, 0.0),
}


@pytest.mark.parametrize("name", RSB)
def test_resnet_strikes_back(name):
    recipe = load_recipe(name)
    found = (
        recipe.epochs,
        recipe.optimiser.lr,
        recipe.optimiser.weight_decay,
        recipe.augmentation.mixup,
        recipe.augmentation.randaugment[1],
        recipe.augmentation.repeats,
        recipe.model_options.get("stochastic_depth", 0.0),
        recipe.label_smoothing,
    )
    assert found == RSB[name]
    assert (recipe.model, recipe.batch, recipe.optimiser.name) == ("resnet50", 2048, "lamb")
    assert (recipe.schedule.name, recipe.schedule.warmup_epochs) == ("cosine", 5)
    assert recipe.loss == "binary_cross_entropy"
    assert recipe.augmentation.cutmix == 1.0
    assert not recipe.optimiser.decay_norms_and_biases
    assert recipe.size == (160 if name == "rsb-a3" else 224)
    assert (recipe.evaluation.size, recipe.evaluation.crop) == (224, 0.95)


def test_he2015_on_cifar():
    recipe = load_recipe("he2015-cifar")
    assert (recipe.steps, recipe.batch, recipe.model) == (64_000, 128, "resnet20_cifar")
    optimiser = recipe.optimiser
    assert (optimiser.name, optimiser.momentum, optimiser.nesterov) == ("sgd", 0.9, False)
    assert (optimiser.lr, optimiser.weight_decay) == (0.1, 1e-4)
    assert optimiser.decay_norms_and_biases
    assert recipe.augmentation.crop_padding == 4
    assert recipe.augmentation.padding_mode == "zero"
    rates = [optimiser.lr * _factor(recipe, step, 352) for step in (0, 31_999, 32_000, 48_000)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])  # section 4.2: at 32k and 48k of 64k


def test_wide_residual_networks_on_cifar():
    recipe = load_recipe("wrn-cifar")
    assert (recipe.epochs, recipe.batch, recipe.model) == (200, 128, "wrn28_10_cifar")
    assert (recipe.optimiser.nesterov, recipe.optimiser.weight_decay) == (True, 5e-4)
    per_epoch = 391
    changes = [60, 120, 160]  # epochs, each by a fifth
    for passed, epoch in enumerate(changes):
        last, first = epoch * per_epoch - 1, epoch * per_epoch
        steps = 200 * per_epoch
        before = lr_factor(recipe.schedule, last, steps, per_epoch)
        after = lr_factor(recipe.schedule, first, steps, per_epoch)
        assert before == pytest.approx(0.2**passed)
        assert after == pytest.approx(0.2 ** (passed + 1))


def test_he2015_on_imagenet():
    recipe = load_recipe("he2015-imagenet")
    assert (recipe.model, recipe.epochs, recipe.batch, recipe.size) == ("resnet50", 90, 256, 224)
    assert recipe.augmentation.random_resized_crop == (0.08, 1.0)
    steps = 90 * 5005
    for epoch, expected in ((29, 1.0), (30, 0.1), (59, 0.1), (60, 0.01), (89, 0.01)):
        found = lr_factor(recipe.schedule, epoch * 5005, steps, 5005)
        assert found == pytest.approx(expected), epoch
    assert recipe.evaluation.crop == 0.875  # 224 of 256
    assert math.isclose(recipe.optimiser.weight_decay, 1e-4)


def _factor(recipe, step, per_epoch):
    return lr_factor(recipe.schedule, step, recipe.steps, per_epoch)


# -- files ------------------------------------------------------------------------------------------------


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_with_a_base_changes_what_it_names_and_nothing_else(tmp_path):
    text = "base: he2015-cifar\noptimiser:\n  lr: 5e-2\nsteps: 10\n"
    recipe, base = load_recipe(written(tmp_path, text)), load_recipe("he2015-cifar")
    assert recipe.name == "mine"
    assert (recipe.optimiser.lr, recipe.steps) == (0.05, 10)
    optimiser = base.optimiser.model_copy(update={"lr": 0.05})
    assert recipe == base.model_copy(update={"name": "mine", "steps": 10, "optimiser": optimiser})


@pytest.mark.parametrize("length", ["epochs: 3", "steps: 5", "budget: 90s"])
def test_a_length_in_a_file_takes_the_place_of_its_bases(tmp_path, length):
    recipe = load_recipe(written(tmp_path, f"base: quick\n{length}\n"))
    key = length.partition(":")[0]
    assert [k for k in ("epochs", "steps", "budget") if getattr(recipe, k) is not None] == [key]


def test_a_file_without_a_base_stands_on_its_own(tmp_path):
    recipe = load_recipe(written(tmp_path, "epochs: 2\nmodel: resnet18\ncompile: no\n"))
    assert (recipe.epochs, recipe.model, recipe.optimiser.lr) == (2, "resnet18", 0.1)
    assert recipe.compile == "no"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("base: quik\n", ["unknown base 'quik'", "quick"]),
        ("base: [quick]\n", ["base"]),
        ("epochs: 1\noptimiser:\n  learning: 3\n", ["unknown key 'optimiser.learning'"]),
        ("epochs: 1\nbatch_sise: 3\n", ["'batch_sise'", "batch_size"]),
        ("epochs: many\n", ["epochs", "many"]),
        ("base: quick\noptimiser: 3\n", ["optimiser"]),
    ],
)
def test_a_wrong_file_is_one_line_with_its_name(tmp_path, text, parts):
    path = written(tmp_path, text)
    with pytest.raises(BadInput) as raised:
        load_recipe(path)
    message = str(raised.value)
    assert "\n" not in message
    for part in [path, *parts]:
        assert part in message


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(BadInput, match=r"unknown recipe 'rsb-a4'\. Did you mean rsb-a"):
        load_recipe("rsb-a4")
