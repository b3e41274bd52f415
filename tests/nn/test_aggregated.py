"""The three forms of ResNeXt's figure 3 are one function, with one gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from residua.nn import BlockOptions, BottleneckBlock, make_norm
from residua.nn.aggregated import early_concatenation, separate_paths


def grouped(cardinality, width, stride=1, norm="batch", **options):
    """A block of `cardinality` paths of `width` channels: 8 channels in, 16 out, random norms."""
    torch.manual_seed(0)
    kind = BlockOptions(norm=make_norm(norm), groups=cardinality, base_width=16 * width, **options)
    block = BottleneckBlock(8, 4, stride, kind, 1, 2).double()
    for p in block.parameters():
        if p.dim() == 1:
            nn.init.normal_(p, 0.5, 0.5)
    return block


def pictures(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def gradients_of_paths(branch, cardinality):
    """The gradients of (c)'s parameters, gathered from those of the paths of (a) or (b)."""
    paths = branch.aggregated.paths
    assert len(paths) == cardinality
    found = {}
    for name in dict(paths[0].named_parameters()):
        parts = [path.get_parameter(name).grad for path in paths]
        found[name] = torch.cat(parts, 1 if name.startswith("conv3") else 0)
    for name, p in branch.named_parameters():
        if not name.startswith("aggregated.paths"):
            inner = name.replace("aggregated.conv.", "conv3.").replace(
                "aggregated.bias", "conv3.bias"
            )
            found[inner] = p.grad
    return found


@settings(max_examples=25, deadline=None)
@given(
    form=st.sampled_from([separate_paths, early_concatenation]),
    cardinality=st.sampled_from([1, 2, 3, 8, 32]),
    width=st.integers(1, 4),
    stride=st.integers(1, 2),
    norm=st.sampled_from(["batch", "none"]),
    attention=st.sampled_from([None, "se"]),
    training=st.booleans(),
    size=st.tuples(st.integers(2, 7), st.integers(2, 7)),
)
def test_all_forms_have_the_same_outputs_and_gradients(
    form, cardinality, width, stride, norm, attention, training, size
):
    block = grouped(cardinality, width, stride, norm, attention=attention).train(training)
    other = form(block)
    results = []
    for module in (block, other):
        x = pictures(3, 8, *size).requires_grad_()
        y = module(x)
        (y * pictures(*y.shape)).sum().backward()
        results.append((y, x.grad))
    torch.testing.assert_close(results[1], results[0])
    expected = {k: p.grad for k, p in block.skip.branch.named_parameters()}
    found = gradients_of_paths(other.skip.branch, cardinality)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        {k: p.grad for k, p in other.skip.shortcut.named_parameters()},
        {k: p.grad for k, p in block.skip.shortcut.named_parameters()},
    )


def test_running_statistics_are_moved_alike():
    block = grouped(4, 2)
    forms = [separate_paths(block), early_concatenation(block)]
    for module in (block, *forms):
        module.train()(pictures(3, 8, 5, 5))
    for form in forms:
        for norm in ("norm1", "norm2"):
            layers = [path.get_submodule(norm) for path in form.skip.branch.aggregated.paths]
            mean = torch.cat([layer.running_mean for layer in layers])
            torch.testing.assert_close(mean, block.skip.branch.get_submodule(norm).running_mean)
        x = pictures(1, 8, 3, 3)
        torch.testing.assert_close(form.eval()(x), block.eval()(x))


def test_the_first_form_is_the_papers_sum_with_nothing_shared_between_paths():
    block = grouped(32, 4, norm="none")
    branch = separate_paths(block).skip.branch
    x = pictures(2, 8, 5, 5)
    total = 0
    for path in branch.aggregated.paths:
        kinds = [(m.in_channels, m.out_channels) for m in path if isinstance(m, nn.Conv2d)]
        assert kinds == [(8, 4), (4, 4), (4, 16)]  # figure 3a
        assert all(m.groups == 1 for m in path if isinstance(m, nn.Conv2d))
        total = total + path(x)
    torch.testing.assert_close(
        total + block.skip.branch.conv3.bias[:, None, None], block.skip.branch(x)
    )


def test_all_forms_have_as_many_weights():
    block = grouped(8, 3)
    sizes = [
        sum(p.numel() for p in module.parameters())
        for module in (block, separate_paths(block), early_concatenation(block))
    ]
    assert len(set(sizes)) == 1


def test_the_block_itself_stays_as_it_was():
    block = grouped(2, 2)
    before = {k: v.clone() for k, v in block.state_dict().items()}
    other = early_concatenation(block)
    nn.init.zeros_(other.skip.branch.aggregated.paths[0].conv1.weight)
    nn.init.zeros_(other.skip.branch.aggregated.conv.weight)
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())


@pytest.mark.parametrize(
    "options, says",
    [
        ({"norm": "group"}, "GroupNorm does not treat paths one by one"),
        ({"norm": "weight"}, "WeightNormConv2d does not treat paths one by one"),
        ({"order": "preactivation"}, "this branch has conv1, pre2, conv2, pre3"),
        ({"dropout": 0.5}, "this branch has conv1, norm1, act1, dropout, conv2"),
    ],
)
def test_a_block_whose_paths_are_not_apart_is_refused(options, says):
    with pytest.raises(ValueError, match=says):
        separate_paths(grouped(2, 2, **options))
