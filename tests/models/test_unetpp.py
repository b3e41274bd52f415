"""U-Net++: the published count, the nodes, and that a pruned network is the shallower part of the whole."""

import pytest
import torch

from residua.errors import BadInput
from residua.models import create_model
from residua.xray.anatomy import anatomy


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def narrow(**options):
    torch.manual_seed(0)
    return create_model("unetpp", **{"width": 2} | options).eval()


def test_without_norm_and_supervision_it_has_the_9041601_parameters_of_the_authors_code():
    with torch.device("meta"):
        model = create_model(
            "unetpp", in_channels=1, num_classes=1, norm="none", deep_supervision=False
        )
    assert parameters(model) == 9_041_601


@torch.no_grad()
def test_nodes_follow_equation_1():
    model = narrow(depth=3)
    x = torch.randn(1, 3, 8, 8)
    up, encode, pool = model.up, model.encode, model.down[0]

    def node(name, *maps):
        return model.decode[name].blocks(torch.cat(maps, 1))

    x00 = encode[0](x)
    x10 = encode[1](pool(x00))
    x20 = encode[2](pool(x10))
    x01 = node("01", x00, up["01"](x10))
    x11 = node("11", x10, up["11"](x20))
    x02 = node("02", x00, x01, up["02"](x11))
    torch.testing.assert_close(model(x), model.heads["2"](x02))
    training = [model.heads[str(j)](x0j) for j, x0j in ((1, x01), (2, x02))]
    model.train()
    for part in model.modules():
        if part is not model:
            part.eval()
    for found, expected in zip(model(x), training, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@torch.no_grad()
def test_a_pruned_network_gives_the_scores_of_its_level_and_has_the_parameters_of_its_depth(level):
    model = narrow()
    x = torch.randn(1, 3, 21, 34)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    pruned = model.prune(level)
    model.train()
    for part in model.modules():
        if part is not model:
            part.eval()
    torch.testing.assert_close(pruned(x), model(x)[level - 1])
    assert parameters(pruned) == parameters(narrow(depth=level + 1))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_without_deep_supervision_there_is_one_head_and_nothing_to_prune_to():
    model = narrow(deep_supervision=False)
    assert isinstance(model.train()(torch.randn(2, 3, 16, 16)), torch.Tensor)
    with pytest.raises(ValueError, match="no head at level 1: there are 4"):
        model.prune(1)


def test_nodes_across_and_the_rows_that_they_read_are_found_as_concatenations():
    with torch.device("meta"):
        model = create_model("unetpp", width=2)
    found = anatomy(model, torch.empty(1, 3, 16, 16, device="meta"))
    joins = [unit.name for unit in found.units if unit.name.count(".") == 1]
    assert sorted(joins) == [f"decode.{i}{j}" for i in range(4) for j in range(1, 5 - i)]
    # a row [x_i0, ..., x_i(j-1)] is read by x_ij: one for each node that is not the first of its row
    assert len(model.nodes()) == 10 and len(found.units) == 10 + 6
    assert {unit.merge for unit in found.units} == {"concatenate"}


def test_recomputation_changes_no_bit():
    gradients = []
    for again in (False, True):
        model = narrow(recompute=again).double().train()
        x = torch.ones(2, 3, 9, 9).double() * torch.linspace(-1, 1, 9).double()
        x[1] = x[1].square()
        sum(y.square().sum() for y in model(x)).backward()
        gradients.append({k: p.grad for k, p in model.named_parameters()})
    assert all(torch.equal(v, gradients[1][k]) for k, v in gradients[0].items())


def test_bad_options_are_refused_in_one_line():
    with pytest.raises(BadInput, match="depth 1 from 2 to 10"):
        create_model("unetpp", depth=1)
