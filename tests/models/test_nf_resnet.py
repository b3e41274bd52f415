"""NF-ResNets: the predicted variances are the measured ones, and no norm is anywhere."""

import math

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.models.moments import second_moments
from residua.models.nf_resnet import RELU_GAIN, ScaledReLU, expected_std
from residua.nn import is_norm
from residua.nn.norms.standardised import ScaledStandardisedConv2d

NAMES = ["nf_resnet26", "nf_resnet20_cifar"]


def test_the_gain_makes_the_variance_of_a_rectified_gaussian_one():
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert ScaledReLU()(x).var().item() == pytest.approx(1, rel=0.01)
    # The authors' code has it from draws, to three digits.
    assert pytest.approx(1.7139588594436646, rel=1e-3) == RELU_GAIN


def test_beta_grows_by_alpha_squared_a_block_and_starts_again_with_each_stage():
    """Brock, De, Smith 2021, section 3.1: 1.0, 1.04, 1.08 ... for alpha 0.2."""
    squares = [b * b for b in expected_std(0.2, (3, 4, 2))]
    expected = [1.0, 1.04, 1.08, 1.12, 1.04, 1.08, 1.12, 1.16, 1.04]
    assert squares == pytest.approx(expected)


def circular(model):
    """Without zeros at the borders, of which the law knows nothing."""
    for conv in model.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] > 1:
            conv.padding_mode = "circular"
    return model


@torch.no_grad()
def trunk(model, x):
    """E[y^2] after the stem and after each block, on one batch."""
    x = model.stem(x)
    found = []
    for stage in model.stages:
        for block in stage:
            x = block(x)
            found.append(x.double().square().mean().item())
    return found


@pytest.mark.parametrize("name, size", [("nf_resnet26", 128), ("nf_resnet56_cifar", 16)])
def test_the_trunk_follows_the_variance_law_at_the_start(name, size):
    """Mean over draws of weights; the moment is the variance, as the blocks' mean is zero."""
    draws = 4
    total = None
    for seed in range(draws):
        torch.manual_seed(seed)
        model = circular(create_model(name, skip_init=1.0, alpha=0.5))
        found = torch.tensor(trunk(model, torch.randn(4, 3, size, size)))
        total = found / draws if total is None else total + found / draws
    depths = [len(stage) for stage in model.stages]
    law = [1 + 0.25 * (j + 1) for depth in depths for j in range(depth)]
    # The first projection reads what the stem's maximum gives: not a Gaussian of variance 1.
    assert total.tolist() == pytest.approx(law, rel=0.12)


@torch.no_grad()
def test_the_general_prediction_agrees_with_the_law_and_with_measurement():
    predicted = None
    shape = (3, 32, 32)
    found = torch.zeros(6)
    for seed in range(4):
        torch.manual_seed(seed)
        model = create_model("nf_resnet20_cifar", skip_init=1.0)
        told = second_moments(model, shape)
        blocks = torch.tensor([told[f"stages.{i}.{j}"] for i in range(2) for j in range(3)])
        predicted = blocks / 4 if predicted is None else predicted + blocks / 4
        found += torch.tensor(trunk(model, torch.randn(4, *shape))[:6]) / 4
    torch.testing.assert_close(predicted.float(), found, rtol=0.1, atol=0)
    torch.manual_seed(0)
    endless = second_moments(create_model("nf_resnet20_cifar", skip_init=1.0))
    law = [1 + 0.04 * (j + 1) for _ in range(3) for j in range(3)]
    assert [endless[f"stages.{i}.{j}"] for i in range(3) for j in range(3)] == pytest.approx(
        law, rel=1e-3
    )


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_with_skip_init_at_zero_every_block_starts_as_its_shortcut(name):
    torch.manual_seed(0)
    model = create_model(name)
    for stage in model.stages:
        x = torch.randn(2, stage[1].skip.branch[1].in_channels, 5, 5)
        assert torch.equal(stage[1](x), x)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_norm_and_every_convolution_is_standardised(name):
    model = create_model(name)
    assert not any(is_norm(m) for m in model.modules())
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert {type(m) for m in convolutions} == {ScaledStandardisedConv2d}
    assert not list(model.buffers())
    for norm in ("batch", "group+standardised"):
        with pytest.raises(BadInput, match="has a layer: expected scaled_standardised"):
            create_model(name, norm=norm)
    with pytest.raises(BadInput, match="alpha 0 is not above 0"):
        create_model(name, alpha=0)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_any_size_and_a_batch_of_one_score_alike_in_training_and_evaluation(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, skip_init=1.0).double()
    for size in ((1, 1), (33, 57)):
        x = torch.randn(3, 3, *size, dtype=torch.float64)
        scores = model.train()(x)
        assert scores.shape == (3, 7) and scores.isfinite().all()
        assert torch.equal(model.eval()(x), scores)
        torch.testing.assert_close(model(x[1:2]), scores[1:2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_reaches_the_scalars_at_once_and_every_parameter_from_then_on(name):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7)
    x = torch.randn(2, 3, 33, 33)
    for reached in ("gains", "everything"):
        model.zero_grad()
        (model(x) * torch.randn(2, 7)).sum().backward()
        dead = {k for k, p in model.named_parameters() if not p.grad.abs().sum() > 0}
        if reached == "gains":
            assert dead and all(".skip.branch." in k for k in dead)
            with torch.no_grad():
                for key, parameter in model.named_parameters():
                    if key.endswith("merge.gain"):
                        parameter -= 0.1 * parameter.grad.sign()
        else:
            assert dead == set()


def test_a_hundred_and_ten_layers_keep_scores_of_the_head_s_size():
    """Fresh scores: E[y^2] = 64 * 0.01^2 * E[(pooled activation)^2], whatever the depth."""
    scores = []
    for name in ("nf_resnet20_cifar", "nf_resnet110_cifar"):
        torch.manual_seed(0)
        model = create_model(name, skip_init=1.0)
        with torch.no_grad():
            scores.append(model(torch.randn(4, 3, 32, 32)).square().mean().sqrt().item())
    assert all(math.isfinite(s) and 0.01 < s < 0.3 for s in scores)
