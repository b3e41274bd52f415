"""LSUV: every layer's output has variance 1 on the batch, and nothing but weights has changed."""

import pytest
import torch
from torch import nn

from residua.nn import make_norm
from residua.nn.init import lsuv


class Foreign(nn.Module):
    """A network of nobody's: functional ReLUs, dropout, batch norm, a layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.fc = nn.Linear(12, 12)
        self.unused = nn.Linear(5, 5)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        x = self.bn(self.conv1(x)).relu()
        x = x + self.dropout(self.conv2(x))
        x = self.up(x).relu().mean((2, 3))
        return self.fc(self.fc(x).relu())


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Foreign()


@pytest.fixture
def batch():
    return 5 * torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(1)) + 2


def outputs(network, batch):
    """Variance of each layer's output as Mishkin measures it, in the order of execution."""
    found = []

    def note(layer, inputs, output):
        if layer not in [m for m, _ in found]:
            found.append((layer, output.var(correction=0).item()))

    layers = [m for m in network.modules() if hasattr(m, "weight") and m is not network.bn]
    handles = [m.register_forward_hook(note) for m in layers]
    network.eval()
    network.bn.train()
    with torch.no_grad():
        network(batch)
    for handle in handles:
        handle.remove()
    return found


def test_every_layer_s_output_has_variance_one(network, batch):
    told = lsuv(network, batch, tolerance=1e-3)
    assert list(told) == ["conv1", "conv2", "up", "fc"]
    measured = outputs(network, batch)
    assert [m for m, _ in measured] == [network.conv1, network.conv2, network.up, network.fc]
    for (_, variance), said in zip(measured, told.values(), strict=True):
        assert variance == pytest.approx(1, abs=1e-3)
        assert variance == pytest.approx(said, rel=1e-4)


def test_weights_are_orthogonal_up_to_their_scale_and_biases_zero(network, batch):
    lsuv(network, batch)
    for layer in (network.conv1, network.fc, network.unused):
        matrix = layer.weight.detach().flatten(1)
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-4, rtol=1e-4)
        assert not layer.bias.any()


@pytest.mark.parametrize("kind", ["weight", "scaled_standardised"])
def test_a_convolution_that_normalises_its_weight_is_scaled_by_its_gain(kind, batch):
    torch.manual_seed(0)
    conv = make_norm(kind).conv(3, 8, 3)
    assert lsuv(conv, batch)[""] == pytest.approx(1, abs=0.01)
    with torch.no_grad():
        assert conv(batch).var(correction=0).item() == pytest.approx(1, abs=0.01)


def test_a_convolution_without_a_scale_is_refused(batch):
    with pytest.raises(ValueError, match="has no scale to set"):
        lsuv(nn.Sequential(make_norm("group+standardised").conv(3, 8, 3)), batch)


def test_two_forward_passes_do_all_layers(network, batch):
    passes = []
    network.register_forward_hook(lambda *_: passes.append(1))
    lsuv(network, batch)
    assert len(passes) == 2


def test_mode_buffers_and_hooks_come_back(network, batch):
    network.train()
    network.dropout.eval()
    modes = [m.training for m in network.modules()]
    buffers = [b.clone() for b in network.buffers()]
    lsuv(network, batch)
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), buffers, strict=True))
    assert not any(m._forward_hooks for m in network.modules())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


@pytest.mark.parametrize("value", [0.0, 3.0, float("nan")])
def test_a_layer_with_a_constant_output_is_named_and_nothing_is_changed(network, batch, value):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full_like(x, value)

    network = nn.Sequential(nn.Conv2d(3, 4, 1), Constant(), nn.Conv2d(4, 4, 1))
    if value == 3.0:  # a constant map through a 1x1 convolution with one output is constant
        network[2] = nn.Conv2d(4, 1, 1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="layer '2' is constant or not finite"):
        lsuv(network, batch)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())


def test_an_error_of_the_module_itself_leaves_it_as_it_was(network):
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(RuntimeError):
        lsuv(network, torch.randn(2, 7, 8, 8))
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert not any(m._forward_hooks for m in network.modules())
