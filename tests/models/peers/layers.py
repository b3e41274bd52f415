"""What the peers' networks are written with: shapes of layers by name, random weights, plain functions."""

import torch
import torch.nn.functional as F

NORM = {"weight": 1, "bias": 1, "running_mean": 1, "running_var": 1, "num_batches_tracked": 0}


def conv(name, cout, cin, kernel, groups=1, bias=False):
    shapes = {f"{name}.weight": (cout, cin // groups, kernel, kernel)}
    return shapes | ({f"{name}.bias": (cout,)} if bias else {})


def linear(name, cout, cin):
    return {f"{name}.weight": (cout, cin), f"{name}.bias": (cout,)}


def norm(name, channels, running=True):
    leaves = NORM if running else ("weight", "bias")
    return {f"{name}.{leaf}": () if leaf.startswith("num") else (channels,) for leaf in leaves}


def draw(shapes, seed=0):
    """Random weights and statistics; weights have He's variance."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif len(shape) > 1:
            state[name] = noise * (2 / noise[0].numel()) ** 0.5
        elif name.endswith("running_var"):
            state[name] = 1 + noise**2
        else:
            state[name] = (name.endswith("weight")) + 0.2 * noise
    return state


class Layers:
    """The layers of a state dict by name."""

    def __init__(self, state):
        self.state = state

    def __contains__(self, name):
        return f"{name}.weight" in self.state

    def weight(self, name):
        return self.state[f"{name}.weight"]

    def conv(self, name, x, stride=1, padding=None):
        """A convolution; the groups are as many as its weight leaves open."""
        weight = self.weight(name)
        return F.conv2d(
            x,
            weight,
            self.state.get(f"{name}.bias"),
            stride=stride,
            padding=weight.shape[-1] // 2 if padding is None else padding,
            groups=x.shape[1] // weight.shape[1],
        )

    def norm(self, name, x):
        """Batch norm by running statistics; where there are none, group norm of 32 groups."""
        if f"{name}.running_mean" not in self.state:
            return F.group_norm(x, 32, self.weight(name), self.state[f"{name}.bias"], 1e-5)
        leaves = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{name}.{leaf}"] for leaf in leaves), eps=1e-5)

    def linear(self, name, x):
        return F.linear(x, self.weight(name).flatten(1), self.state[f"{name}.bias"])

    def count(self, name, first=0):
        """How many there are of `name` with first, first + 1, ... in its place."""
        n = first
        while any(other.startswith(name.format(n)) for other in self.state):
            n += 1
        return n - first
