"""The networks equal their papers' equations, computed here from other libraries' names alone.

Each function takes a state dict in torchvision's or timm's layout and nothing else: the strides, the
order of layers and the block counts are written down from He et al. 2015 and 2016b (with the stride
on the 3x3, as both libraries have it). Weights and norm statistics are random. All in float64.
"""

import pytest
import torch
import torch.nn.functional as F

import residua
from residua.models.weights import timm_state_dict

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
PRECISE = {"rtol": 0, "atol": 1e-9}


def draw_torchvision(depth):
    """Random weights of a v1 network under torchvision's names."""
    draw, expansion = Drawing(), 1 if depth < 50 else 4
    draw.conv("conv1", 64, 3, 7)
    draw.norm("bn1", 64)
    channels = 64
    for s, blocks in enumerate(BLOCKS[depth]):
        width = 64 * 2**s
        for b in range(blocks):
            at = f"layer{s + 1}.{b}"
            kernels = (3, 3) if expansion == 1 else (1, 3, 1)
            cin = channels
            for i, kernel in enumerate(kernels, start=1):
                cout = width * expansion if i == len(kernels) else width
                draw.conv(f"{at}.conv{i}", cout, cin, kernel)
                draw.norm(f"{at}.bn{i}", cout)
                cin = cout
            if b == 0 and channels != cin:
                draw.conv(f"{at}.downsample.0", cin, channels, 1)
                draw.norm(f"{at}.downsample.1", cin)
            channels = cin
    draw.state["fc.weight"] = draw(1000, channels) / channels**0.5
    draw.state["fc.bias"] = draw(1000)
    return draw.state


def draw_timm_v2_50():
    """Random weights of resnetv2_50 under timm's names."""
    draw = Drawing()
    draw.conv("stem.conv", 64, 3, 7)
    channels = 64
    for s, blocks in enumerate(BLOCKS[50]):
        width = 64 * 2**s
        for b in range(blocks):
            at = f"stages.{s}.blocks.{b}"
            if b == 0:
                draw.conv(f"{at}.downsample.conv", 4 * width, channels, 1)
            draw.norm(f"{at}.norm1", channels)
            draw.conv(f"{at}.conv1", width, channels, 1)
            draw.norm(f"{at}.norm2", width)
            draw.conv(f"{at}.conv2", width, width, 3)
            draw.norm(f"{at}.norm3", width)
            draw.conv(f"{at}.conv3", 4 * width, width, 1)
            channels = 4 * width
    draw.norm("norm", channels)
    draw.state["head.fc.weight"] = draw(1000, channels, 1, 1) / channels**0.5
    draw.state["head.fc.bias"] = draw(1000)
    return draw.state


class Drawing:
    """A state dict that is filled from one generator; convolutions have He's variance."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.state = {}

    def __call__(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def conv(self, name, cout, cin, kernel):
        self.state[f"{name}.weight"] = (
            self(cout, cin, kernel, kernel) * (2 / cin / kernel**2) ** 0.5
        )

    def norm(self, name, channels):
        self.state[f"{name}.weight"] = 1 + 0.2 * self(channels)
        self.state[f"{name}.bias"] = 0.2 * self(channels)
        self.state[f"{name}.running_mean"] = 0.2 * self(channels)
        self.state[f"{name}.running_var"] = 1 + self(channels) ** 2


class Equations:
    """The layers of the equations by name: W x, and BN with running statistics."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, stride=1):
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    def norm(self, name, x):
        leaves = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{name}.{leaf}"] for leaf in leaves), eps=1e-5)


def resnet_v1(state, x, depth):
    """2015, eq. 1 and 2: y = relu(F(x) + x), or relu(F(x) + Ws x) where shapes change."""
    e = Equations(state)
    x = F.max_pool2d(F.relu(e.norm("bn1", e.conv("conv1", x, 2))), 3, 2, 1)
    for s, blocks in enumerate(BLOCKS[depth], start=1):
        for b in range(blocks):
            at, stride = f"layer{s}.{b}", 2 if b == 0 and s > 1 else 1
            strides = (stride, 1) if depth < 50 else (1, stride, 1)
            f = x
            for i, step in enumerate(strides, start=1):
                f = e.norm(f"{at}.bn{i}", e.conv(f"{at}.conv{i}", f, step))
                f = F.relu(f) if i < len(strides) else f
            if f"{at}.downsample.0.weight" in state:
                x = e.norm(f"{at}.downsample.1", e.conv(f"{at}.downsample.0", x, stride))
            x = F.relu(f + x)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def resnet_v2_50(state, x):
    """2016b, fig. 4e: y = x + W3 a3(W2 a2(W1 a1(x))), a = relu(BN); a stage's first block projects a1."""
    e = Equations(state)
    x = F.max_pool2d(e.conv("stem.conv", x, 2), 3, 2, 1)
    for s, blocks in enumerate(BLOCKS[50]):
        for b in range(blocks):
            at, stride = f"stages.{s}.blocks.{b}", 2 if b == 0 and s > 0 else 1
            a = F.relu(e.norm(f"{at}.norm1", x))
            x = e.conv(f"{at}.downsample.conv", a, stride) if b == 0 else x
            f = e.conv(f"{at}.conv1", a)
            f = e.conv(f"{at}.conv2", F.relu(e.norm(f"{at}.norm2", f)), stride)
            x = x + e.conv(f"{at}.conv3", F.relu(e.norm(f"{at}.norm3", f)))
    x = F.relu(e.norm("norm", x)).mean((2, 3))
    return F.linear(x, state["head.fc.weight"][:, :, 0, 0], state["head.fc.bias"])


@pytest.mark.parametrize("depth, size", [(18, (64, 64)), (18, (45, 70)), (50, (37, 50))])
@torch.no_grad()
def test_a_converted_torchvision_checkpoint_computes_the_2015_equations(depth, size, tmp_path):
    state = draw_torchvision(depth)
    torch.save(state, tmp_path / "weights.pth")
    model = residua.create_model(f"resnet{depth}").double().eval()
    residua.load_weights(model, tmp_path / "weights.pth")
    x = Drawing()(2, 3, *size)
    expected = resnet_v1(state, x, depth)
    assert expected.std() > 0.1  # the comparison is of numbers that are not all zero
    torch.testing.assert_close(model(x), expected, **PRECISE)
    written = residua.torchvision_state_dict(model)
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())


@torch.no_grad()
def test_a_converted_timm_checkpoint_computes_the_2016_equations(tmp_path):
    state = draw_timm_v2_50()
    torch.save(state, tmp_path / "weights.pth")
    model = residua.create_model("resnetv2_50").double().eval()
    residua.load_weights(model, tmp_path / "weights.pth")
    x = Drawing()(2, 3, 37, 50)
    expected = resnet_v2_50(state, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(x), expected, **PRECISE)
    written = timm_state_dict(model)
    assert all(torch.equal(written[name], tensor) for name, tensor in state.items())


@torch.no_grad()
def test_the_paper_s_own_stride_is_another_network_on_the_same_weights(tmp_path):
    torch.save(draw_torchvision(50), tmp_path / "weights.pth")
    x = Drawing()(1, 3, 37, 50)
    scores = []
    for stride_on in ("3x3", "1x1"):
        model = residua.create_model("resnet50", stride_on=stride_on).double().eval()
        report = residua.load_weights(model, tmp_path / "weights.pth")
        assert bool(report.notes) == (
            stride_on == "1x1"
        )  # which one it was trained with is unknown
        scores.append(model(x))
    assert not torch.allclose(*scores)
