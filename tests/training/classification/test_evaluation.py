"""Every picture is looked at once, over any number of ranks, and the model comes back as it was."""

import os
import socket

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from residua import create_model
from residua.training.cards import Shape
from residua.training.classification.evaluation import predict_all
from residua.training.classification.inputs import evaluation_batches
from residua.training.classification.measures import Predictions
from residua.training.devices import make_fabric

MEAN, STD = torch.full((3,), 0.5), torch.full((3,), 0.25)
SHAPE = Shape(size=8, evaluation_size=8, channels=3, small=True, crop=0.875)
CPU = torch.device("cpu")


def pictures(n=23):
    pixels = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return pixels, np.arange(n) % 4


def network():
    torch.manual_seed(0)
    return create_model("resnet9_cifar", 4, 3, width=4)


def fabric():
    return make_fabric(CPU, "32-true")


def batches(n=23, batch_size=6, rank=0, world=1):
    pixels, labels = pictures(n)
    return evaluation_batches(pixels, labels, SHAPE, batch_size, CPU, rank, world)


def by_hand(model, pixels):
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return model.eval()((x - 0.5) / 0.25).softmax(1)


@torch.no_grad()
def test_predictions_are_the_networks_in_evaluation_in_the_order_of_the_split():
    model = network()
    found = predict_all(fabric(), model, batches(), MEAN, STD)
    pixels, labels = pictures()
    p = by_hand(model, pixels)
    assert found.index.tolist() == list(range(23))
    assert found.label.tolist() == labels.tolist()
    assert found.predicted.tolist() == p.argmax(1).tolist()
    assert found.confidence == pytest.approx(p.amax(1).numpy(), rel=1e-4)


def test_the_size_of_the_batches_changes_no_prediction():
    model = network()
    whole = predict_all(fabric(), model, batches(batch_size=23), MEAN, STD)
    single = predict_all(fabric(), model, batches(batch_size=1), MEAN, STD)
    assert np.array_equal(whole.predicted, single.predicted)
    assert whole.loss == pytest.approx(single.loss, rel=1e-4)


@torch.no_grad()
def test_flipping_averages_the_probabilities_with_the_mirrored_pictures():
    model = network()
    found = predict_all(fabric(), model, batches(), MEAN, STD, flip=True)
    pixels, labels = pictures()
    p = (by_hand(model, pixels) + by_hand(model, pixels[:, :, ::-1].copy())) / 2
    truth = p[torch.arange(23), torch.from_numpy(labels)]
    assert found.truth_confidence == pytest.approx(truth.numpy(), rel=1e-4)
    assert found.loss == pytest.approx(-truth.log().numpy(), rel=1e-4)


def test_a_network_that_is_all_but_certain_has_a_finite_loss_flipped_or_not():
    model = network()
    with torch.no_grad():
        model.head.fc.weight.mul_(1e5)
    plain = predict_all(fabric(), model, batches(), MEAN, STD)
    flipped = predict_all(fabric(), model, batches(), MEAN, STD, flip=True)
    assert plain.loss.max() > 200  # the probability is zero in float32
    assert np.isfinite(flipped.loss).all()


@pytest.mark.parametrize("mode", [True, False])
def test_mode_weights_and_statistics_come_back(mode):
    model = network().train(mode)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    predict_all(fabric(), model, batches(), MEAN, STD)
    assert model.training is mode
    assert all(m.training is mode for m in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_parts_that_are_in_another_mode_come_back_so():
    model = network().train()
    model.stem.eval()  # as a frozen part is
    predict_all(fabric(), model, batches(), MEAN, STD)
    assert model.training
    assert not any(m.training for m in model.stem.modules())


def test_progress_counts_every_picture():
    seen = []
    predict_all(fabric(), network(), batches(), MEAN, STD, progress=seen.append)
    assert seen == [6, 6, 6, 5]


# -- over several ranks (fault 11) ---------------------------------------------------------------------


@pytest.mark.parametrize(("n", "world"), [(23, 2), (24, 2), (23, 3), (5, 4), (1, 2)])
def test_the_ranks_together_see_each_picture_once(n, world):
    model = network()
    shares = [
        predict_all(fabric(), model, batches(n, rank=rank, world=world), MEAN, STD)
        for rank in range(world)
        if rank < n
    ]
    joined = Predictions.joined(shares)
    whole = predict_all(fabric(), model, batches(n), MEAN, STD)
    assert joined.index.tolist() == list(range(n))
    assert joined.predicted.tolist() == whole.predicted.tolist()
    assert joined.loss == pytest.approx(whole.loss, rel=1e-4)


def one_of_two(rank, port, folder):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    ranks = fabric()
    share = batches(rank=ranks.global_rank, world=ranks.world_size)
    found = predict_all(ranks, network(), share, MEAN, STD)
    np.savez(f"{folder}/{rank}.npz", index=found.index, loss=found.loss)
    torch.distributed.destroy_process_group()


def test_two_processes_both_return_the_whole_without_duplicates(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(one_of_two, (port, str(tmp_path)), nprocs=2, start_method="fork")
    whole = predict_all(fabric(), network(), batches(), MEAN, STD)
    for rank in range(2):
        found = np.load(tmp_path / f"{rank}.npz")
        assert found["index"].tolist() == list(range(23))
        assert found["loss"] == pytest.approx(whole.loss, rel=1e-4)


class Constant(nn.Module):
    """Says the same of every picture."""

    def forward(self, x):
        return torch.tensor([0.0, 1.0, 0.0, 0.0]).expand(len(x), 4)


def test_accuracy_is_the_share_of_pictures_not_a_mean_over_batches():
    found = predict_all(fabric(), Constant(), batches(n=7, batch_size=6), MEAN, STD)
    assert found.correct.mean() == pytest.approx(2 / 7)  # labels 0 1 2 3 0 1 2
