"""What follows the last map: closed forms, torch's own attention, and names that say nothing."""

import pytest
import torch
from torch import nn

from residua.errors import BadInput
from residua.models import create_model
from residua.models.classifiers import make_classifier
from residua.nn.norms import make_norm

BATCH = make_norm("batch", activation="silu")


def maps(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_attention_is_torchs_asked_by_the_mean():
    torch.manual_seed(0)
    ours = make_classifier("attention(3)", 128, 5, BATCH).double()
    theirs = nn.MultiheadAttention(128, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.q.weight, ours.k.weight, ours.v.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.q.bias, ours.k.bias, ours.v.bias]))
    theirs.out_proj = nn.Identity()
    theirs.out_proj.weight, theirs.out_proj.bias = torch.eye(128, dtype=torch.float64), None
    x = maps(2, 128, 3, 3)
    places = x.flatten(2).transpose(1, 2)
    tokens = torch.cat([places.mean(1, keepdim=True), places], 1) + ours.positions
    seen, _ = theirs(tokens[:, :1], tokens, tokens)
    torch.testing.assert_close(ours(x), ours.fc(seen[:, 0]))


def test_on_another_grid_the_places_are_interpolated():
    ours = make_classifier("attention(4)", 64, 5, BATCH).double()
    with torch.no_grad():
        across = torch.arange(4, dtype=torch.float64)[None, :, None].expand(4, 4, 64)
        ours.positions[1:] = across.reshape(16, 64)
    assert ours.at(4, 4) is ours.positions
    wide = ours.at(2, 8)[1:].unflatten(0, (2, 8))
    torch.testing.assert_close(wide[0], wide[1])  # what is alike in every row stays so
    # half a place further for every column, away from the border
    torch.testing.assert_close(wide[0, 3:5, 0], torch.tensor([1.25, 1.75], dtype=torch.float64))
    torch.testing.assert_close(ours.at(2, 8)[0], ours.positions[0])
    assert ours(maps(2, 64, 1, 1)).shape == (2, 5)


def test_attention_needs_whole_heads():
    with pytest.raises(ValueError, match="attention has heads of 64 channels: not of 96"):
        make_classifier("attention(7)", 96, 5, BATCH)


def test_the_others_are_their_equations():
    torch.manual_seed(0)
    x, silu = maps(2, 8, 3, 5), nn.functional.silu
    wide = make_classifier("wide(16)", 8, 5, BATCH).double().eval()
    y = nn.functional.conv2d(x, wide.features.conv.weight) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(wide(x), wide.fc(silu(y).mean((2, 3))))
    hidden = make_classifier("hidden(16)", 8, 5, BATCH).double().eval()
    z = hidden.hidden(x.mean((2, 3)) / (1 + 1e-5) ** 0.5)
    torch.testing.assert_close(hidden(x), hidden.fc(silu(z)))


@pytest.mark.parametrize("name", ["mean", "wide(6)", "hidden(6)", "attention(2)"])
def test_every_classifier_goes_with_any_network_of_blocks_and_its_features(name):
    model = create_model("preact_resnet164_cifar", 3, classifier=name)  # of 256 channels at the end
    scores = model.eval()(torch.randn(1, 3, 17, 33))
    assert scores.shape == (1, 3)
    scores.sum().backward()
    assert [n for n, p in model.head.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("median", "classifier 'median' is unknown: expected one of mean, wide, hidden, attention"),
        ("wide", "classifier 'wide' does not take the numbers ()"),
        ("mean(3)", "classifier 'mean(3)' does not take the numbers (3,)"),
        ("hidden(2.5)", "classifier 'hidden(2.5)': expected whole numbers from 1"),
        ("attention(0)", "classifier 'attention(0)': expected whole numbers from 1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(name, says):
    with pytest.raises(BadInput) as raised:
        create_model("resnet20_cifar", classifier=name)
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)
