"""Any block with any shortcut, merge, norm, order, attention, regulariser and initialisation.

Either the combination builds, trains and is stored, or it is refused in one line; which are refused is
said by `reasons`, which knows nothing of the code.
"""

import io
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.models.residual import residual_network
from residua.models.stem import STEMS
from residua.nn import (
    ACTIVATIONS,
    MERGES,
    NORMS,
    ORDERS,
    SHORTCUTS,
    BasicBlock,
    BottleneckBlock,
    DepthwiseBlock,
    EdgeBlock,
    Skip,
    is_norm,
)
from residua.nn.init import SCHEMES
from residua.nn.regularisers import DROPS, RandomDrop, SeparatedDrop, ShakeDrop, StochasticDepth

ACTIVATING = {"evonorm", "filter_response_tlu"}
WITHOUT_LAYER = {"none", "weight", "scaled_standardised", "standardised"}
RANDOM = (nn.Dropout, StochasticDepth, RandomDrop, SeparatedDrop, ShakeDrop)

OPTIONS = {
    "block": st.sampled_from(
        [
            BasicBlock,
            BottleneckBlock,
            DepthwiseBlock,
            (EdgeBlock, BottleneckBlock),
            (BasicBlock, BottleneckBlock),
        ]
    ),
    "stem": st.sampled_from(STEMS),
    "plain": st.sampled_from([False] * 5 + [True]),
    "order": st.sampled_from(list(ORDERS)),
    "shortcut": st.sampled_from(SHORTCUTS),
    "merge": st.sampled_from(
        ["add"] * 5 + list(MERGES) + ["skip_init(0.5)", "constant(1, 0.3)", "highway(-1)"]
    ),
    "norm": st.sampled_from(
        ["none"] * 5 + list(NORMS) + ["standardised", "batch+weight", "ghost(2)", "group(2)"]
    ),
    "activation": st.sampled_from(["relu"] * 3 + list(ACTIVATIONS)),
    "stride_on": st.sampled_from(["3x3", "1x1"]),
    "groups": st.sampled_from([1, 1, 1, 2]),
    "group_size": st.sampled_from([None, None, None, 2, 3]),
    "spatial": st.sampled_from([1, 1, 1, 2]),
    "attention": st.sampled_from([None, "se"]),
    "attention_at": st.sampled_from(["end", "inside"]),
    "antialias": st.sampled_from([None, None, None, "mean", "blur"]),
    "dropout": st.sampled_from([0.0, 0.3]),
    "shortcut_dropout": st.sampled_from([0.0, 0.0, 0.3]),
    "stochastic_depth": st.sampled_from([0.0, 0.5]),
    "drop": st.sampled_from(DROPS),
    "drop_decay": st.sampled_from(["linear", "constant"]),
    "drop_per": st.sampled_from(["sample", "batch", "channel", "pixel"]),
    "zero_init_last": st.booleans(),
    "init": st.sampled_from([*SCHEMES, "fixup"]),
    "fan": st.sampled_from(["fan_in", "fan_out"]),
    "recompute": st.sampled_from([False, True, 1]),
    "classifier": st.sampled_from(["mean", "mean", "wide(6)", "hidden(6)", "attention(2)"]),
}
USUAL = {
    "block": BasicBlock,
    "stem": "3x3",
    "plain": False,
    "order": "original",
    "shortcut": "B",
    "merge": "add",
    "norm": "batch",
    "activation": "relu",
    "stride_on": "3x3",
    "groups": 1,
    "group_size": None,
    "spatial": 1,
    "attention": None,
    "attention_at": "end",
    "antialias": None,
    "dropout": 0.0,
    "shortcut_dropout": 0.0,
    "stochastic_depth": 0.0,
    "drop": "stochastic_depth",
    "drop_decay": "linear",
    "drop_per": "sample",
    "zero_init_last": False,
    "init": "he",
    "fan": "fan_out",
    "recompute": False,
    "classifier": "mean",
}


def reasons(o):
    """What makes no sense in these options: words that its message has."""
    dropped = o["stochastic_depth"] > 0
    kinds = o["block"] if isinstance(o["block"], tuple) else (o["block"],) * 2
    if o["plain"]:
        for option, given in (
            ("merge", o["merge"] != "add"),
            ("shortcut_dropout", o["shortcut_dropout"] > 0),
            ("stochastic_depth", dropped),
            ("zero_init_last", o["zero_init_last"]),
            ("plain block", o["init"] == "fixup"),
        ):
            if given:
                yield option
    if o["order"] == "fixup" and o["norm"] not in WITHOUT_LAYER:
        yield "to train without norm layers"
    if o["norm"] == "standardised":
        yield "needs a layer after it"
    if o["antialias"] is not None:
        if o["stride_on"] != "3x3":
            yield "it goes with stride_on 3x3"
        if o["stem"] not in ("3x3", "7x7", "deep", "tiered"):
            yield "has a pooling of its own"
    if (o["groups"], o["group_size"], o["spatial"]) != (1, None, 1) and BasicBlock in kinds:
        yield "of bottleneck blocks"
    if o["groups"] != 1 and o["group_size"] is not None:
        yield "say the same thing"
    if o["group_size"] == 3 and BottleneckBlock in kinds:
        yield "do not divide"
    if o["norm"] in ACTIVATING and o["activation"] != "relu":
        yield "is an activation itself"
    if o["classifier"] == "attention(2)" and kinds[1] is BasicBlock:
        yield "heads of 64 channels"
    if o["drop_per"] in ("channel", "pixel") and o["drop"] != "shake_drop":
        yield "drop_per"
    if o["drop"] == "separated_drop" and dropped and o["shortcut"] != "A":
        yield "zero-padded"
    if o["zero_init_last"] or o["init"] == "fixup":
        if o["order"] == "relu_before_addition":
            yield "a ReLU ends the branch"
        if o["merge"] == "skip_init":
            yield "gets no gradient through a scalar"
    # A standardised weight has no length: none can be made small, and a last one none that is zero.
    ends_in_convolution = o["order"] in ("norm_after_addition", "preactivation", "fixup")
    if o["norm"] == "group+standardised" and (
        o["init"] == "fixup" or (o["zero_init_last"] and ends_in_convolution)
    ):
        yield "has no scale to set"


def build(options):
    return residual_network(
        depths=(1, 2), widths=(8, 16), num_classes=3, in_channels=2, **(USUAL | options)
    )


def two_faced(module):
    return isinstance(module, RANDOM) or (is_norm(module) and [*module.buffers()] != [])


@example(o=USUAL)
@example(o=USUAL | {"stochastic_depth": 0.5, "drop": "separated_drop", "shortcut": "A"})
@settings(max_examples=250, deadline=None)
@given(o=st.fixed_dictionaries(OPTIONS))
def test_a_combination_trains_and_is_stored_or_is_refused_in_one_line(o):
    torch.manual_seed(0)
    expected = [*reasons(o)]
    try:
        model = build(o)
    except ValueError as error:
        assert any(words in str(error) for words in expected), (error, expected)
        assert "\n" not in str(error)
        return
    assert expected == []

    x = torch.randn(4, 2, 9, 7)
    scores = model.train()(x)
    assert scores.shape == (4, 3)
    nn.functional.cross_entropy(scores, torch.tensor([0, 1, 2, 0])).backward()
    assert scores.isfinite().all()
    gradients = {k: p.grad for k, p in model.named_parameters()}
    assert [k for k, g in gradients.items() if g is None or not g.isfinite().all()] == []

    model.eval()
    with torch.no_grad():
        evaluated = model(x)
        assert torch.equal(model(x), evaluated)  # nothing is drawn
        torch.testing.assert_close(model(x[:1]), evaluated[:1], rtol=1e-4, atol=1e-4)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        other = build(o).eval()
        other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
        assert torch.equal(other(x), evaluated)
        model.train()
        for module in model.modules():
            if two_faced(module):
                module.eval()
        assert torch.equal(model(x), evaluated)


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("merge", [*MERGES, "skip_init(0.2)"])
@pytest.mark.parametrize("start", [{}, {"zero_init_last": True}, {"init": "fixup"}])
def test_whatever_is_not_refused_learns_in_every_block(order, merge, start):
    """Two steps, because what starts at zero lets the first one through to itself alone."""
    o = USUAL | {"order": order, "merge": merge, "norm": "none"} | start
    if [*reasons(o)]:
        with pytest.raises(ValueError):
            build(o)
        return
    torch.manual_seed(0)
    model = build(o).double()
    x = torch.randn(8, 2, 9, 7, dtype=torch.float64)
    labels = torch.arange(8) % 3
    for _ in range(3):
        model.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.02 * p.grad
    skips = [m for m in model.modules() if isinstance(m, Skip)]
    assert len(skips) == 3
    for skip in skips:
        assert all(p.grad.abs().sum() > 0 for p in skip.branch.parameters() if p.dim() > 1)


@pytest.mark.parametrize("rate", [1e-9, 0.5, 0.99])
def test_a_plain_network_has_no_branch_to_drop_and_says_so_through_create_model(rate):
    with pytest.raises(BadInput) as raised:
        create_model("plain20_cifar", stochastic_depth=rate)
    assert str(raised.value) == (
        "plain20_cifar: a plain network has no shortcut: stochastic_depth does not go with it"
    )


@pytest.mark.parametrize("option, bad", [("stochastic_depth", math.nan), ("dropout", math.nan)])
def test_no_number_is_no_rate(option, bad):
    with pytest.raises(BadInput, match=rf"{option} nan is not in \[0, 1\)"):
        create_model("resnet20_cifar", **{option: bad})
