"""Faults that other implementations had, by number: each must not come back here.

The numbers are those of the list that the project keeps of its peers' faults; the parts concerned have tests
of their own besides.
"""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import residua
from residua.data.augmentation import mix
from residua.data.masks import mask_values, read_mask
from residua.errors import BadInput
from residua.models import create_model, records
from residua.models.densenet import densenet
from residua.nn import is_norm
from residua.nn.regularisers import DROPS, make_drop

LIGHTEST = {}
for known in sorted(records().values(), key=lambda known: known.parameters):
    if known.task == "classification":
        LIGHTEST.setdefault(known.family, known)
WITH_NORM = [known.name for known in LIGHTEST.values() if "norm" in known.options()]

NORM_FREE = {"fixup", "nf_resnet"}  # which take no norm layer at all


def gradients(model, x):
    """The gradients of a model in training, by name; None where there is none."""
    model.train().zero_grad()
    torch.manual_seed(1)
    model(x).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", WITH_NORM)
def test_1_another_norm_is_another_norm_everywhere_and_not_in_the_stem_alone(name):
    def norms(norm):
        with torch.device("meta"):
            model = create_model(name, norm=norm)
        return [type(layer) for layer in model.modules() if is_norm(layer)]

    try:
        batch, group = norms("batch"), norms("group")
    except BadInput as error:
        assert records()[name].family in NORM_FREE, error
        return
    assert len(batch) == len(group) > 1
    assert all(issubclass(kind, nn.BatchNorm2d) for kind in batch)
    assert all(issubclass(kind, nn.GroupNorm) for kind in group)
    assert norms("none") == []


def test_2_gradient_flows_through_zero_padded_shortcuts():
    torch.manual_seed(0)
    # Every branch is silent, so the shortcuts alone lead back to the stem.
    model = create_model("resnet20_cifar", shortcut="A", zero_init_last=True)
    stem = gradients(model, torch.randn(4, 3, 16, 16))["stem.conv.weight"]
    assert (stem.abs().sum((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("kind", [kind for kind in DROPS if kind != "separated_drop"])
def test_3_stochastic_depth_is_its_own_expectation_in_evaluation(kind):
    torch.manual_seed(0)
    drop = make_drop(kind, 0.4, 1, 1)
    x = torch.ones(1, 1)
    trained = torch.stack([drop.train()(x) for _ in range(4000)])
    assert drop.eval()(x).item() == pytest.approx(trained.mean().item(), abs=0.05)
    assert torch.equal(drop(x), drop(x))


@pytest.mark.parametrize("kind", [*DROPS])
def test_3_stochastic_depth_does_not_freeze_training(kind):
    torch.manual_seed(0)
    model = create_model(
        "resnet20_cifar", stochastic_depth=0.5, drop_decay="constant", drop=kind
    ).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    for _ in range(12):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("recomputes", ["densenet", "resnet20_cifar", "preact_resnet20_cifar"])
def test_4_a_network_that_recomputes_has_the_gradients_of_one_that_does_not(recomputes):
    def build(on):
        torch.manual_seed(0)
        if recomputes != "densenet":
            return create_model(recomputes, recompute=on, dropout=0.2).double()
        return densenet(
            depths=(2, 3),
            growth=4,
            bottleneck=True,
            small=True,
            num_classes=3,
            in_channels=3,
            dropout=0.2,
            memory_efficient=on,
        ).double()

    torch.manual_seed(2)
    x = torch.randn(
        4, 3, 8, 8, dtype=torch.float64
    )  # needs no gradient itself: the fault's condition
    usual, efficient = build(False), build(True)
    expected, found = gradients(usual, x), gradients(efficient, x)
    assert all(g is not None and g.any() for g in found.values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(a, b) for a, b in zip(usual.buffers(), efficient.buffers(), strict=True))


# -- whole runs ------------------------------------------------------------------------------------------

FEW = ("model_options.width=4", "epochs=2", "augmentation.crop_padding=1")


def train(source, *settings):
    return residua.train(
        source,
        out=source.parent / "run",
        model="resnet9_cifar",
        recipe="he2015-cifar",
        settings=("steps=null", *FEW, *settings),
        workers=0,
    )


def test_5_a_frozen_part_keeps_its_weights_and_its_norms_statistics(tmp_path, write_set):
    source = write_set(tmp_path / "set", {"a": 20, "b": 20})
    run = train(source, "batch_size=8", "freeze=[stem,stages.0]")
    card = run.card
    torch.manual_seed(0)
    start = card.build().state_dict()
    moved = {k for k, v in run.model.state_dict().items() if not torch.equal(v, start[k])}
    frozen = {k for k in start if k.startswith(("stem.", "stages.0."))}
    assert any(k.endswith("running_mean") for k in frozen)
    assert moved == set(start) - frozen


def test_6_a_last_batch_of_one_picture_does_not_end_a_run(tmp_path, write_set):
    for split, n in (("train", 17), ("val", 17)):
        write_set(tmp_path / "set" / split, {"a": n - 8, "b": 8})
    run = train(tmp_path / "set", "batch_size=16", "evaluation.batch_size=16")
    assert run.measures["n"] == 17
    assert np.isfinite(run.measures["loss"])


def test_7_mixup_takes_an_odd_batch(tmp_path, write_set):
    write_set(tmp_path / "set" / "train", {"a": 11, "b": 10})
    write_set(tmp_path / "set" / "val", {"a": 3, "b": 3})
    run = train(tmp_path / "set", "batch_size=7", "augmentation.mixup=0.5")
    assert np.isfinite(run.measures["loss"])
    x, targets = mix(torch.randn(7, 3, 4, 4), torch.arange(7) % 2, 2, mixup=0.5)
    assert x.shape[0] == 7
    torch.testing.assert_close(targets.sum(1), torch.ones(7))


@pytest.mark.parametrize("values", [(0, 255), (0, 3, 7), (1, 2, 200)])
def test_8_mask_values_with_gaps_are_classes_without(tmp_path, values):
    pixels = np.array(values, np.uint8)[np.arange(12).reshape(3, 4) % len(values)]
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    found = read_mask(tmp_path / "mask.png", mask_values([tmp_path / "mask.png"]))
    assert np.unique(found).tolist() == list(range(len(values)))
    assert np.array_equal(np.array(values)[found], pixels)
