"""What an operation is in the words of the field: a convolution, a norm, an activation, a pool.

Operations of one leaf module stand for that module, so that a norm or an activation written out in
elementary operations is one thing on a path, as `F.batch_norm` is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from residua.xray.trace import Graph, Node

_WEIGHT = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), "conv"),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), "conv"),
    **dict.fromkeys(("linear", "addmm", "bilinear"), "linear"),
    **dict.fromkeys(("scaled_dot_product_attention", "multi_head_attention_forward"), "attention"),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), "recurrent"),
}
_PRODUCTS = {"matmul", "bmm", "mm", "einsum", "baddbmm", "tensordot"}
_NORMS = {
    "batch_norm",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "rms_norm",
    "local_response_norm",
}
_MOMENTS = {"mean", "var", "std", "var_mean", "std_mean", "rsqrt"}
_ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "prelu", "rrelu", "elu", "celu", "selu", "gelu", "silu"),
    *("mish", "hardswish", "hardtanh", "softplus", "softsign", "tanh", "threshold", "clamp"),
    *("clamp_min", "softmax", "glu", "maximum", "swish", "logsigmoid", "tanhshrink", "hardshrink"),
}
SQUASHES = {"sigmoid", "hardsigmoid", "tanh", "softmax"}  # what a gate is made with


def weight_kind(node: Node) -> str:
    """Return "conv", "linear", "attention", "recurrent", or an empty string."""
    several = sum(i is not None for i in node.inputs) > 1
    if node.op in _PRODUCTS:
        return "attention" if several else "linear" if node.parameters else ""
    if node.op == "opaque" and node.parameters:
        return "opaque"
    # A convolution with fixed weights is a filter: it averages, as a pool does.
    return _WEIGHT.get(node.op, "") if node.parameters or several else ""


def kind(nodes: Sequence[Node]) -> str:
    """Return what one operation, or the operations of one leaf module, are."""
    for node in nodes:
        weight = weight_kind(node)
        if weight:
            return weight
    ops = {node.op for node in nodes}
    if ops & _NORMS or (len(nodes) > 1 and ops & _MOMENTS and ops & {"mul", "div", "rsqrt"}):
        return "norm"
    if any("pool" in op or op.startswith("conv") for op in ops):
        return "pool"
    if ops & _ACTIVATIONS or (len(nodes) > 1 and "sigmoid" in ops):
        return "relu" if "relu" in ops else "activation"
    if ops & SQUASHES:
        return "gate"
    if any("dropout" in op for op in ops):
        return "dropout"
    if ops & {"interpolate", "upsample", "pixel_shuffle", "grid_sample"}:
        return "upsample"
    if "pad" in ops:
        return "pad"
    if ops & {"mul", "div"} and all(len(set(node.live_inputs)) <= 1 for node in nodes):
        return "scale"
    return ""


def tokens(path: Iterable[Node], leaves: set[str]) -> list[str]:
    """Return the kinds along a path, those of one call of a leaf module as one; views are left out."""
    groups: list[list[Node]] = []
    for node in path:
        last = groups[-1][-1] if groups else None
        same = last is not None and last.key[:2] == node.key[:2]
        if same and node.module in leaves:
            groups[-1].append(node)
        else:
            groups.append([node])
    return [found for group in groups if (found := kind(group))]


def leaf_modules(graph: Graph) -> set[str]:
    """Return the paths of modules that ran operations and called no other module that did."""
    ran = {node.module for node in graph.nodes if node.op != "input"}
    parents = {path.rpartition(".")[0] for path in ran if path}
    for path in list(parents):
        while path:
            path = path.rpartition(".")[0]
            parents.add(path)
    return ran - parents - {""}
