"""The reward, its gradient, and the training of a policy; the network is tested on its own."""

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from residua.data.batches import Batches
from residua.errors import BadInput
from residua.models import create_model
from residua.models.policy import policy_network
from residua.models.skipping import SkippingNetwork
from residua.training.blockdrop import (
    BlockDrop,
    BlockDropSettings,
    load_pair,
    save_pair,
    train_policy,
)
from residua.training.blockdrop.reward import (
    bounded,
    decided_blocks,
    keep_undecided,
    log_probability,
    policy_loss,
    reward,
)
from residua.training.cards import ModelCard, Normalisation, Shape

MEAN, STD = torch.tensor([0.5, 0.5, 0.5]), torch.tensor([0.25, 0.25, 0.25])


# -- the reward and its gradient -------------------------------------------------------------------------


def test_the_reward_is_the_papers() -> None:
    keep = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
    correct = torch.tensor([True, True, True, False])
    assert reward(correct, keep, gamma=3.0).tolist() == [0.0, 0.75, 1.0, -3.0]


def test_a_soft_reward_is_the_expected_reward_of_a_drawn_guess() -> None:
    keep = torch.tensor([[True, False]])
    right, wrong = (float(reward(torch.tensor([r]), keep, gamma=3.0)) for r in (True, False))
    found = reward(torch.tensor([0.3]), keep, gamma=3.0)
    torch.testing.assert_close(found, torch.tensor([0.3 * right + 0.7 * wrong]))


def test_bounded_probabilities_stay_possible() -> None:
    p = bounded(torch.tensor([-1e9, 0.0, 1e9]), alpha=0.8)
    torch.testing.assert_close(p, torch.tensor([0.2, 0.5, 0.8]))


def test_probabilities_of_all_choices_sum_to_one() -> None:
    logits = torch.randn(3).double().repeat(8, 1)
    choices = torch.tensor(list(itertools.product([False, True], repeat=3)))
    total = log_probability(logits, choices, 0.9, 3).exp().sum()
    torch.testing.assert_close(total, torch.ones(()))


@pytest.mark.parametrize("baseline", [0.0, -0.7])
@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_the_expected_gradient_of_the_loss_is_that_of_the_reward(
    baseline: float, alpha: float
) -> None:
    """Exactly, over all 2^3 choices of one picture; a baseline changes nothing."""
    logits = torch.tensor([0.3, -1.2, 0.9], requires_grad=True)
    choices = torch.tensor(list(itertools.product([False, True], repeat=3)))
    correct = torch.tensor([False, True, False, True, True, True, False, True])
    rewards = reward(correct, choices, gamma=2.0)
    p = alpha * logits.sigmoid() + (1 - alpha) * (1 - logits.sigmoid())
    chances = torch.where(choices, p, 1 - p).prod(1)
    (expected,) = torch.autograd.grad((chances * rewards).sum(), logits)
    found = torch.zeros(3)
    for i in range(8):
        loss = policy_loss(logits[None], choices[[i]], rewards[[i]] - baseline, alpha, 3)
        found -= chances[i].detach() * torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_the_curriculum_decides_the_last_blocks_first() -> None:
    decided = [decided_blocks(step, 12, 4) for step in range(14)]
    assert decided == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 4, 4]
    assert decided_blocks(0, 0, 4) == 4
    keep = keep_undecided(torch.zeros(2, 4, dtype=torch.bool), 1)
    assert keep.tolist() == [[True, True, True, False]] * 2


def test_undecided_blocks_have_no_gradient() -> None:
    logits = torch.randn(5, 4, requires_grad=True)
    keep = torch.rand(5, 4) < 0.5
    policy_loss(logits, keep, torch.ones(5), 0.8, 2).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, :2], torch.zeros(5, 2))
    assert (logits.grad[:, 2:] != 0).all()


# -- the policy ------------------------------------------------------------------------------------------


# A 3x3 convolution and its norm hold 9 c c' + 2 c' numbers, a projection c c' + 2 c'.
RESNET8 = 464 + 2 * 2_336 + (4_672 + 9_280) + (18_560 + 36_992) + 65 * 54
RESNET10 = (
    (9_408 + 128)
    + 2 * 36_992
    + (73_984 + 147_712 + 8_448)
    + (295_424 + 590_336 + 33_280)
    + (1_180_672 + 2_360_320 + 132_096)
    + 513 * 54
)


@pytest.mark.parametrize(
    ("large", "size", "parameters"), [(False, 32, RESNET8), (True, 64, RESNET10)]
)
def test_a_policy_is_a_small_residual_network(large: bool, size: int, parameters: int) -> None:
    policy = policy_network(54, large=large).eval()
    assert policy(torch.randn(2, 3, size, size)).shape == (2, 54)
    assert sum(p.numel() for p in policy.parameters()) == parameters


def test_an_untrained_policy_keeps_as_asked() -> None:
    torch.manual_seed(0)
    logits = policy_network(54, start=0.9).eval()(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(logits.sigmoid(), torch.full((1, 54), 0.9))


def test_a_policy_that_keeps_all_gives_the_network() -> None:
    network = create_model("resnet20_cifar").eval()
    policy = policy_network(9, start=1 - 1e-7, shrink=2).eval()
    x = torch.randn(3, 3, 32, 32)
    pair = BlockDrop(SkippingNetwork(network), policy).eval()
    assert pair.keep(x).all()
    assert torch.equal(pair(x), network(x))


# -- training --------------------------------------------------------------------------------------------


def make_batches(seed: int = 0, n: int = 64, batch: int = 32) -> Batches:
    """Return pictures of two classes, dark and bright."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    pixels = generator.integers(0, 100, (n, 8, 8, 3)) + 120 * labels[:, None, None, None]
    return Batches(pixels.astype(np.uint8), labels, batch_size=batch, seed=0, size=8, train=True)


def make_network() -> nn.Module:
    """Return a network that needs block 0, which tells dark from bright, and none of blocks 1 .. 8."""
    torch.manual_seed(0)
    network = create_model("resnet20_cifar", num_classes=2).eval()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    batches = make_batches()
    for step in range(8):
        batch = batches.batch(step)
        x = (batch.pictures.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), batch.labels).backward()
        optimiser.step()
    return network


def train(**changes: Any) -> tuple[BlockDrop, list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    quick = BlockDropSettings(
        curriculum_steps=3, policy_steps=2, finetune_steps=3, start=0.6, alpha=0.8
    )
    how = {key: changes.pop(key) for key in ("checkpoint", "save_every") if key in changes}
    network = changes.pop("network", None) or create_model("resnet20_cifar", num_classes=2)
    pair = train_policy(
        network, make_batches(), MEAN, STD, replace(quick, **changes), progress=rows.append, **how
    )
    return pair, rows


@pytest.mark.parametrize("soft", [False, True])
def test_training_drops_blocks_that_are_not_needed(soft: bool) -> None:
    pair, rows = train(
        network=make_network(),
        soft=soft,
        curriculum_steps=10,
        policy_steps=30,
        finetune_steps=5,
        lr=1e-2,
        start=0.9,
    )
    batch = make_batches(seed=1).batch(0)
    x = (batch.pictures.permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    kept = pair.keep(x).float().sum(1).mean()
    assert rows[0]["blocks"] > 8
    assert kept < 7
    assert (pair(x).argmax(1) == batch.labels).all()


def test_phases_follow_one_another() -> None:
    _, rows = train(curriculum_steps=18)
    assert [row["decided"] for row in rows[:5]] == [1, 1, 2, 2, 3]
    assert [row["phase"] for row in rows[15:]] == [
        "curriculum",
        *["policy"] * 4,
        *["finetuning"] * 3,
    ]
    assert all(row["blocks"] >= 9 - row["decided"] for row in rows)


def test_the_backbone_stays_until_finetuning_and_the_given_network_always() -> None:
    network = create_model("resnet20_cifar", num_classes=2)
    before = copy.deepcopy(network.state_dict())
    pair, _ = train(network=network, finetune_steps=0)
    for name, tensor in pair.backbone.network.state_dict().items():
        assert torch.equal(tensor, before[name])
    pair, _ = train(network=network)
    assert not torch.equal(pair.backbone.network.stem.conv.weight, before["stem.conv.weight"])
    assert not pair.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_finetuning_trains_what_the_greedy_choice_runs() -> None:
    network = create_model("resnet20_cifar", num_classes=2)
    pair, rows = train(network=network, curriculum_steps=0, policy_steps=0, start=1e-4)
    assert [row["blocks"] for row in rows] == [0.0, 0.0, 0.0]
    for name, tensor in pair.backbone.network.named_parameters():
        same = torch.equal(tensor, network.get_parameter(name))
        assert same == name.startswith("stages."), name


def test_frozen_norms_keep_their_statistics() -> None:
    network = create_model("resnet20_cifar", num_classes=2)
    pair, _ = train(network=network, freeze_norms=True)
    norm = pair.backbone.network.stem.norm
    assert torch.equal(norm.running_mean, network.stem.norm.running_mean)
    assert not torch.equal(norm.weight, network.stem.norm.weight)


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    network = create_model("resnet20_cifar", num_classes=2)
    torch.manual_seed(5)
    train(network=network)
    assert torch.equal(torch.rand(1), expected)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("at", [2, 5, 7])
def test_a_killed_training_goes_on_bit_by_bit(tmp_path: Path, at: int) -> None:
    torch.manual_seed(1)
    network = create_model("resnet20_cifar", num_classes=2, stochastic_depth=0.2)
    whole, rows = train(network=network)

    def kill(row: dict[str, Any]) -> None:
        if row["step"] == at + 1:
            raise KilledError

    settings = BlockDropSettings(
        curriculum_steps=3, policy_steps=2, finetune_steps=3, start=0.6, alpha=0.8
    )
    file = tmp_path / "training.safetensors"
    with pytest.raises(KilledError):
        train_policy(
            network,
            make_batches(),
            MEAN,
            STD,
            settings,
            checkpoint=file,
            save_every=1,
            progress=kill,
        )
    torch.rand(3)  # the global generator may be anywhere
    resumed, later = train(network=network, checkpoint=file, save_every=1)
    assert later == rows[at:]
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "training.safetensors"
    train(checkpoint=file, finetune_steps=0)
    with pytest.raises(BadInput, match="other settings"):
        train(checkpoint=file, finetune_steps=0, gamma=2.0)
    with pytest.raises(BadInput, match="another network"):
        train(checkpoint=file, finetune_steps=0, network=create_model("resnet32_cifar"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.5},
        {"alpha": 1.1},
        {"gamma": -1.0},
        {"start": 1.0},
        {"shrink": 0},
        {"policy_steps": -1},
    ],
)
def test_settings_out_of_range_name_the_key(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        BlockDropSettings(**wrong)


# -- the pair as a file ----------------------------------------------------------------------------------

CARD = ModelCard(
    "resnet20_cifar",
    {},
    ("dark", "bright"),
    Shape(8, 8, 3, True, 0.875),
    Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    flip=False,
)


def test_a_pair_comes_back_from_its_file(tmp_path: Path) -> None:
    pair, _ = train(shrink=2)
    file = tmp_path / "pair.safetensors"
    save_pair(file, pair, CARD, {"accuracy": 0.5})
    loaded, card, facts = load_pair(file)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(loaded.keep(x), pair.keep(x))
    torch.testing.assert_close(loaded(x), pair(x))
    assert (card, facts, loaded.training) == (CARD, {"accuracy": 0.5}, False)


def test_a_file_that_is_no_pair_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "pair.safetensors"
    save_pair(file, train(finetune_steps=0)[0], replace(CARD, name="resnet32_cifar"), {})
    with pytest.raises(BadInput, match="damaged") as error:
        load_pair(file)
    assert "\n" not in str(error.value)
    with pytest.raises(BadInput, match="no such file"):
        load_pair(tmp_path / "none.safetensors")
