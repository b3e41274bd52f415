"""Batch norm in plain NumPy against torch's, node by node."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from residua.nn.norms.numpy_batch import backward, forward


def drawn(*shape, seed=0):
    generator = np.random.default_rng(seed)
    z, dy = generator.normal(2, 3, shape), generator.normal(0, 1, shape)
    return z, generator.normal(1, 0.5, shape[1:]), generator.normal(0, 1, shape[1:]), dy


@settings(deadline=None, max_examples=25)
@given(
    count=st.integers(1, 9), shape=st.lists(st.integers(1, 4), max_size=2), seed=st.integers(0, 99)
)
def test_every_derivative_is_autograds(count, shape, seed):
    z, gamma, delta, dy = drawn(count, *shape, seed=seed)
    y, nodes = forward(z, gamma, delta)
    leaves = {"z": z, "gamma": np.asarray(gamma), "delta": np.asarray(delta)}
    g = {name: torch.tensor(value, requires_grad=True) for name, value in leaves.items()}
    g["f1"] = g["z"].mean(0)
    g["f2"] = g["z"] - g["f1"]
    g["f3"] = g["f2"] ** 2
    g["f4"] = g["f3"].mean(0)
    g["f5"] = (g["f4"] + 1e-5).sqrt()
    g["f6"] = 1 / g["f5"]
    g["f7"] = g["f2"] * g["f6"]
    for node in g.values():
        node.retain_grad()
    out = g["gamma"] * g["f7"] + g["delta"]
    out.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-10, atol=1e-10)
    found = backward(dy, nodes)
    for name, node in g.items():
        ours, theirs = getattr(nodes, name), node.detach().numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=name)
        scale = max(1.0, float(node.grad.abs().max()))
        error = np.abs(getattr(found, name) - node.grad.numpy()).max()
        assert error <= 1e-9 * scale, name


def test_maps_of_pictures_are_torchs_batch_norm():
    x = np.random.default_rng(0).normal(3, 2, (4, 5, 3, 6))
    dy = np.random.default_rng(1).normal(0, 1, x.shape)
    layer = torch.nn.BatchNorm2d(5).double()
    torch.nn.init.uniform_(layer.weight)
    t = torch.tensor(x, requires_grad=True)
    out = layer(t)
    out.backward(torch.tensor(dy))

    def columns(maps):
        return maps.transpose(0, 2, 3, 1).reshape(-1, 5)

    weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
    y, nodes = forward(columns(x), weight, bias, eps=layer.eps)
    found = backward(columns(dy), nodes)
    np.testing.assert_allclose(y, columns(out.detach().numpy()), atol=1e-12)
    np.testing.assert_allclose(found.z, columns(t.grad.numpy()), atol=1e-12)
    np.testing.assert_allclose(found.gamma, layer.weight.grad.numpy(), atol=1e-11)
    np.testing.assert_allclose(found.delta, layer.bias.grad.numpy(), atol=1e-11)


def test_the_gradient_of_a_batch_has_mean_zero_and_does_not_change_its_scale():
    z, gamma, delta, dy = drawn(16)
    y, nodes = forward(z, gamma, delta, eps=0.0)
    found = backward(dy, nodes)
    assert found.z.sum() == pytest.approx(0, abs=1e-12)
    assert (found.z * nodes.f2).sum() == pytest.approx(0, abs=1e-12)
    assert y.mean() == pytest.approx(delta)
    assert y.std() == pytest.approx(abs(gamma))
