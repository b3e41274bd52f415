"""Highway networks: learned gates decide how much of each layer's input is carried on.

    y = T(x) H(x) + (1 - T(x)) x        H = relu(conv3x3(x)), T = sigmoid(conv3x3(x))

Srivastava, Greff, Schmidhuber 2015 (Training Very Deep Networks), equation 3; section 4.2 for CIFAR. The
bias of T starts negative, so that a layer starts by carrying its input.

    stem      conv3x3 relu
    stage i   (2x2 max pooling, conv3x3 relu to another width,) n highway layers; in the last one
              conv1x1 relu to 100 channels
    head      global average pooling, fc

Highway-19 is the 19-layer network that the authors published as a Caffe definition: 4, 5, 5 highway layers
of 32, 80, 128 channels and biases of -2, 2.3 million parameters. Of Highway-32 the paper gives the number of
layers and 1.25 million parameters, no table: 9, 9, 9 highway layers of 32, 48, 64 channels are our reading,
which fits both (1,255,270 parameters). Layers are counted as there: stem, the other two 3x3 convolutions,
the highway layers, conv1x1, fc.

Started from He's initialisation by fan-in, gates too: there is no norm to restore what fan-out loses at the
stem. In training, dropout of the picture, after each pooling and before fc; 0.2 in the published
definition, off by default here.

Shapes: (N, C, H, W) -> (N, classes), any H, W >= 1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from residua.models.network import Network
from residua.models.registry import register
from residua.models.straight import DropoutHead, activated
from residua.nn.init import initialise
from residua.nn.init.scheme import Fan
from residua.nn.merges.gates import GatedAdd
from residua.nn.norms import make_norm
from residua.nn.pooling import Halve
from residua.nn.skip import Skip

PAPER = "Srivastava, Greff, Schmidhuber 2015, Training Very Deep Networks"

LAST = 100  # channels of the 1x1 convolution before the average


def highway(
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    num_classes: int,
    in_channels: int,
    gate_bias: float = -2.0,
    norm: str = "none",
    dropout: float = 0.0,
    init: str = "he",
    fan: Fan = "fan_in",
    features_only: bool = False,
) -> Network:
    """Build a highway network.

    Args:
        depths: highway layers a stage. widths: their channels.
        gate_bias: of every transform gate at first; -2 or -4 in the paper.
        norm: one of `residua.nn.NORMS`, after each convolution but the gates'.
        dropout: probability. init, fan: see `residua.nn.initialise`.
        features_only: no head; return one map a stage, the last one of 100 channels.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout {dropout} is not in [0, 1)")
    how = make_norm(norm)

    def drop() -> dict[str, nn.Module]:
        return {"drop": nn.Dropout(dropout)} if dropout else {}

    def activations(cin: int, cout: int, kernel: int) -> OrderedDict[str, nn.Module]:
        return activated(how.conv(cin, cout, kernel), how)

    def layer(width: int) -> Skip:
        branch = nn.Sequential(activations(width, width, 3))
        return Skip(branch, nn.Identity(), GatedAdd(width, gate_bias, kernel=3))

    stem = nn.Sequential(OrderedDict(**drop(), **activations(in_channels, widths[0], 3)))
    stages = []
    for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if i:
            widen = nn.Sequential(activations(widths[i - 1], width, 3))
            parts.update(pool=Halve("max"), **drop(), widen=widen)
        parts.update((str(j), layer(width)) for j in range(depth))
        stages.append(nn.Sequential(parts))
    stages[-1].add_module("last", nn.Sequential(activations(widths[-1], LAST, 1)))
    head = None if features_only else DropoutHead(LAST, num_classes, dropout)
    network = Network(stem, stages, None, head, [*widths[:-1], LAST])
    initialise(network, init, fan)
    return network


# name: (highway layers a stage, their channels, parameters, multiply-adds)
NETWORKS = {
    "highway19_cifar": ((4, 5, 5), (32, 80, 128), 2_256_838, 330_826_728),
    "highway32_cifar": ((9, 9, 9), (32, 48, 64), 1_255_270, 314_491_880),
}

for name, (depths, widths, parameters, multiply_adds) in NETWORKS.items():
    register(
        name,
        highway,
        family="highway",
        paper=PAPER,
        parameters=parameters,
        multiply_adds=multiply_adds,
        input_size=32,
        num_classes=10,
        preset={"depths": depths, "widths": widths},
    )
