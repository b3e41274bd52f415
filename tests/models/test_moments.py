"""The second moments of whole networks are what fresh ones measure, at every block and at the head."""

import pytest
import torch
from torch import nn

from residua.models import create_model, list_models, record
from residua.models.moments import second_moments
from residua.nn import Merge
from residua.nn.init.moments.walk import rule_of

CASES = [
    ("resnet20_cifar", {}, 0.16),
    ("preact_resnet20_cifar", {}, 0.1),
    ("resnet20_cifar", {"attention": "se", "shortcut": "D"}, 0.15),
    ("preact_resnet20_cifar", {"norm": "group", "merge": "stable"}, 0.13),
    ("plain20_cifar", {}, 0.06),
    ("resnet18", {}, 0.12),
    ("fixup_resnet20_cifar", {}, 0.06),
    ("densenet40_12_cifar", {}, 0.1),
    ("shake_shake26_2x32d_cifar", {}, 0.06),
    ("resnet9_cifar", {"width": 16}, 0.12),
]


@pytest.mark.parametrize("name, options, tolerance", CASES)
@torch.no_grad()
def test_a_fresh_network_measures_what_is_predicted(name, options, tolerance):
    """Mean over four draws; noise pictures, training mode.

    Scores are not compared to better than a factor of two: they average few channels, over positions that
    share more or less than wide layers would.
    """
    draws, shape = 4, (3, 32, 32)
    predicted, found = {}, {}

    def note(name):
        def hook(module, inputs, output):
            found[name] = found.get(name, 0) + output.double().square().mean().item() / draws

        return hook

    for seed in range(draws):
        torch.manual_seed(seed)
        model = create_model(name, **options)
        for key, moment in second_moments(model, shape).items():
            predicted[key] = predicted.get(key, 0) + moment / draws
        for key, module in model.named_modules():
            if key in ("", "stem", "tail") or (key.startswith("stages.") and key.count(".") <= 2):
                module.register_forward_hook(note(key))
        model(torch.randn(8, *shape))
    assert len(found) >= 5
    for key, moment in found.items():
        if key:
            assert predicted[key] == pytest.approx(moment, rel=tolerance), key
        else:
            assert 0.5 * moment <= predicted[key] <= 2 * moment


def test_every_kind_of_part_that_a_family_has_is_known():
    """Checked on one model of each family, by the types of its modules."""
    names = {record(name).family: name for name in reversed(list_models(task="classification"))}
    for name in names.values():
        with torch.device("meta"):
            walked = create_model(name)
        known = {type(m) for m in walked.modules() if not isinstance(m, Merge | nn.ModuleList)}
        for kind in known:
            sample = next(m for m in walked.modules() if type(m) is kind)
            if not any(sample is child for child in _unwalked(walked)):
                rule_of(sample, name)


def _unwalked(model):
    """Modules that a merge or attention holds: its own rule deals with them."""
    merges = [m for m in model.modules() if isinstance(m, Merge)]
    return [child for merge in merges for child in merge.modules()]
