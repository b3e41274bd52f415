"""Recomputation changes no bit of what a step computes: gradients, statistics, draws; it keeps less."""

import copy
import sys
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from residua.models import create_model
from residua.nn import BasicBlock, BlockOptions, Drop, Recomputed, make_norm, recompute
from residua.nn.recompute import Lean

OPTIONS = {
    "v1": {},
    "v2": {"order": "preactivation"},
    "dropout": {"order": "preactivation", "dropout": 0.5},
    "stochastic depth": {"drop": Drop(0.5)},
    "shake drop": {"drop": Drop(0.5, "shake_drop")},
    "squeeze and excitation": {"attention": "se"},
    "group norm": {"norm": "group"},
    "ghost norm": {"norm": "ghost(3)"},
    "skip_init, no norm": {"norm": "none", "merge": "skip_init(0.3)"},
}


def blocks(count, norm="batch", **options):
    torch.manual_seed(0)
    kind = BlockOptions(norm=make_norm(norm), **options)
    return [BasicBlock(6, 6, 1, kind, i + 1, count) for i in range(count)]


def pictures(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def step(module, x):
    """One step from seed 7: the output, every gradient, every buffer and the next random number."""
    torch.manual_seed(7)
    y = module(x)
    (y * pictures(*y.shape)).sum().backward()
    found = {"output": y.detach(), "draw": torch.rand(3)}
    found |= {f"grad {k}": p.grad for k, p in module.named_parameters()}
    found |= {f"buffer {k}": b.clone() for k, b in module.named_buffers()}
    if x.requires_grad:
        found["input"] = x.grad
    return found


def equal(first, second):
    assert first.keys() == second.keys()
    return [k for k in first if (first[k] is None) != (second[k] is None)] == [] and all(
        first[k] is None or torch.equal(first[k], second[k]) for k in first
    )


@pytest.mark.parametrize("every", [None, 1, 2, 5, 9])
@pytest.mark.parametrize("kind", OPTIONS)
def test_a_step_is_the_plain_step_in_every_bit(kind, every):
    plain = nn.Sequential(*blocks(5, **OPTIONS[kind])).train()
    lean = Recomputed(*copy.deepcopy(plain), every=every).train()
    for needs in (True, False):  # of the picture: gradient reaches the weights in either case
        for module in (plain, lean):
            module.zero_grad()
        first = step(plain, pictures(6, 6, 5, 5).requires_grad_(needs))
        second = step(lean, pictures(6, 6, 5, 5).requires_grad_(needs))
        assert equal(first, second)
        assert any(v is not None and v.any() for k, v in second.items() if "grad" in k)


@pytest.mark.parametrize("name", ["preact_resnet20_cifar", "resnet20_cifar", "resnet18"])
def test_a_network_with_the_option_takes_the_same_step(name):
    results = []
    for lean in (False, True):
        torch.manual_seed(0)
        model = create_model(name, 5, recompute=lean).train()
        results.append(step(model, pictures(4, 3, 16, 16)))
    assert equal(*results)


def test_running_statistics_move_once_a_step():
    lean = Recomputed(*blocks(4), every=2).train()
    for steps in (1, 2):
        step(lean, pictures(4, 6, 5, 5))
        counted = [m.num_batches_tracked for m in lean.modules() if isinstance(m, nn.BatchNorm2d)]
        assert counted == [steps] * 8


def test_a_frozen_norm_stays_frozen_and_is_used_as_such():
    plain = nn.Sequential(*blocks(4)).train()
    step(plain, pictures(4, 6, 5, 5))
    lean = Recomputed(*copy.deepcopy(plain), every=2).train()
    for module in (plain, lean):
        module.zero_grad()
        module[1].eval()
        module[2].skip.branch.norm1.eval()
    frozen = {k: b.clone() for k, b in lean.named_buffers() if k.startswith("1.")}
    assert equal(step(plain, pictures(4, 6, 5, 5)), step(lean, pictures(4, 6, 5, 5)))
    assert not lean[1].training
    assert not lean[2].skip.branch.norm1.training
    assert frozen
    assert all(torch.equal(lean.get_buffer(k), b) for k, b in frozen.items())


def test_two_forward_passes_before_a_backward_pass_see_their_own_statistics():
    plain = nn.Sequential(*blocks(3)).train()
    lean = Recomputed(*copy.deepcopy(plain), every=2).train()
    results = []
    for module in (plain, lean):
        x, z = pictures(4, 6, 5, 5), 3 + pictures(4, 6, 4, 4)
        (module(x).square().mean() + module(z).square().mean()).backward()
        results.append([p.grad for p in module.parameters()] + list(module.buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_evaluation_and_inference_compute_nothing_twice():
    lean = Recomputed(*blocks(4), every=2)
    calls = []
    lean[0].register_forward_hook(lambda *_: calls.append(1))
    x = pictures(2, 6, 5, 5).requires_grad_()
    lean.eval()(x).sum().backward()
    assert len(calls) == 1
    with torch.no_grad():
        lean.train()(x)
    assert len(calls) == 2
    lean.train()(x).sum().backward()
    assert len(calls) == 4


def test_a_single_module_is_recomputed_by_the_function():
    block = blocks(1)[0].train()
    calls = []
    block.skip.branch.conv1.register_forward_hook(lambda *_: calls.append(1))
    recompute(block, pictures(2, 6, 5, 5)).sum().backward()
    assert len(calls) == 2
    assert all(p.grad is not None for p in block.parameters())


def kept(module, x):
    """Bytes of all storages that autograd keeps when the forward pass ends, weights left out."""
    sizes, weights = {}, {p.untyped_storage().data_ptr() for p in module.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        y = module(x)
    del y
    return sum(sizes.values())


def test_what_is_kept_is_the_input_of_every_nth_block():
    x = pictures(16, 6, 16, 16)
    plain = kept(nn.Sequential(*blocks(16)).train(), x)
    lean = {every: kept(Recomputed(*blocks(16), every=every).train(), x) for every in (1, 4, 8)}
    size = x.numel() * 4
    for every, found in lean.items():
        assert 16 / every * size <= found < 16 / every * size * 1.1
    assert lean[4] < plain / 10


def test_it_takes_runs_of_one_block_or_more():
    with pytest.raises(ValueError, match="recompute 0 is not at least 1"):
        Recomputed(*blocks(2), every=0)
    assert Recomputed(*blocks(9)).every == 3


@pytest.mark.parametrize(
    ("norm", "channels", "less"),
    [("batch", 64, True), ("group", 64, True), ("none", 64, False), ("batch", 8, False)],
)
def test_a_lean_sequence_keeps_less_and_changes_no_bit(norm, channels, less, monkeypatch):
    """Of a norm's output and of what the activation makes of it nothing is kept, where that is worth it."""
    monkeypatch.setattr(sys.modules[Lean.__module__], "LEAN_BYTES", 1)
    how = make_norm(norm)

    def made(kind):
        torch.manual_seed(0)
        parts = OrderedDict()
        for i in range(3):
            parts[f"conv{i}"] = how.conv(channels, channels, 3)
            if how.layer is not None:
                parts[f"norm{i}"] = how.layer(channels)
            parts[f"act{i}"] = nn.ReLU(inplace=True)
        return kind(parts).double()

    x = torch.randn(2, channels, 9, 7, dtype=torch.float64)
    found = []
    for kind in (nn.Sequential, Lean):
        model, kept = made(kind), {}

        def pack(tensor, kept=kept):
            kept[tensor.data_ptr()] = tensor
            return tensor

        for _ in range(2):  # the running statistics move once a step
            model.zero_grad()
            kept.clear()
            with saved_tensors_hooks(pack, lambda tensor: tensor):
                y = model(x)
            maps = sum(tensor.shape == y.shape for tensor in kept.values())
            y.square().sum().backward()
        found.append((maps, y, *[p.grad for p in model.parameters()], *model.buffers()))
    (most, *expected), (least, *lean) = found
    assert (least < most) is less
    for one, other in zip(expected, lean, strict=True):
        assert torch.equal(one, other)
    assert made(Lean).state_dict().keys() == made(nn.Sequential).state_dict().keys()
