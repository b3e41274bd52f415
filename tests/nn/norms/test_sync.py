"""Batch norm over two processes is batch norm of the whole batch in one."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from residua.nn.norms.sync import SyncBatchNorm

SHARES = {"even": ((0, 4), (4, 8)), "uneven": ((0, 1), (1, 8)), "one value": ((0, 1), (1, 2))}


def layer(kind=SyncBatchNorm):
    made = kind(3).double()
    with torch.no_grad():
        made.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        made.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    return made


def batch(n, side):
    generator = torch.Generator().manual_seed(0)
    x = 100 + torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)
    return x, torch.randn(n, 3, side, side, dtype=torch.float64, generator=generator)


def step(norm, x, cotangent):
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * cotangent).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return found | {name: value.clone() for name, value in norm.named_buffers()}


def one_of_two(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for name, shares in SHARES.items():
        first, last = shares[rank]
        whole = batch(shares[1][1], 1 if name == "one value" else 3)
        found[name] = step(layer(), *(t[first:last] for t in whole))
    norm = layer().eval()  # in evaluation nothing is sent: one process alone does not wait
    if rank == 0:
        found["evaluation"] = norm(batch(2, 3)[0]).detach()
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(one_of_two, (port, str(folder)), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", SHARES)
def test_two_processes_give_the_outputs_and_gradients_of_the_whole_batch(two, name):
    n, side = SHARES[name][1][1], 1 if name == "one value" else 3
    whole = step(layer(nn.BatchNorm2d), *batch(n, side))
    found = [rank[name] for rank in two]
    for key in ("y", "x"):
        torch.testing.assert_close(torch.cat([rank[key] for rank in found]), whole[key])
    for key in ("weight", "bias"):  # each holds its share; data-parallel training adds them up
        torch.testing.assert_close(found[0][key] + found[1][key], whole[key])
    for rank in found:
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(rank[key], whole[key])


def test_in_evaluation_a_process_needs_no_other(two):
    torch.testing.assert_close(two[0]["evaluation"], layer().eval()(batch(2, 3)[0]))


def test_one_process_alone_is_batch_norm_bit_for_bit():
    ours, theirs = (step(layer(kind), *batch(5, 3)) for kind in (SyncBatchNorm, nn.BatchNorm2d))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
