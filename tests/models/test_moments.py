"""The second moments of whole networks are what fresh ones measure, at every block and at the head."""

import pytest
import torch

from residua.models import create_model
from residua.models.moments import second_moments

CASES = [
    ("resnet20_cifar", {}, 0.16),
    ("preact_resnet20_cifar", {}, 0.1),
    ("resnet20_cifar", {"attention": "se", "shortcut": "D"}, 0.15),
    ("preact_resnet20_cifar", {"norm": "group", "merge": "stable"}, 0.13),
    ("plain20_cifar", {}, 0.06),
    ("resnet18", {}, 0.12),
]


@pytest.mark.parametrize("name, options, tolerance", CASES)
@torch.no_grad()
def test_a_fresh_network_measures_what_is_predicted(name, options, tolerance):
    """Mean over four draws; noise pictures, training mode. The scores average few channels: 25 %."""
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
            if key in ("", "stem", "tail") or (key.startswith("stages.") and key.count(".") == 2):
                module.register_forward_hook(note(key))
        model(torch.randn(16, *shape))
    assert len(found) >= 9
    for key, moment in found.items():
        assert predicted[key] == pytest.approx(moment, rel=tolerance if key else 0.25), key
