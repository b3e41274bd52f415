"""The chapter's equation 11.6: dy/df1 of a network of four residual blocks is a sum of eight terms.

h1 = x + f1(x),  h2 = h1 + f2(h1),  h3 = h2 + f3(h2),  y = h3 + f4(h3)
dy/df1 = (I + J4)(I + J3)(I + J2) = I + J2 + J3 + J3 J2 + J4 + J4 J2 + J4 J3 + J4 J3 J2
"""

from itertools import product

import torch
from torch import nn

from residua.nn.merges.add import Add
from residua.nn.skip import Skip
from residua.xray.anatomy import anatomy
from residua.xray.units import Unit

WIDTH = 5
Jacobian = torch.Tensor


def _network() -> nn.Sequential:
    torch.manual_seed(0)

    def branch() -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, WIDTH))

    blocks = [Skip(branch(), nn.Identity(), Add()) for _ in range(4)]
    return nn.Sequential(*blocks).double()


def _jacobian(y: torch.Tensor, f: torch.Tensor) -> Jacobian:
    """dy/df of one sample, zero where y does not depend on f."""
    rows = [
        torch.autograd.grad(y[0, i], f, retain_graph=True, allow_unused=True)[0]
        for i in range(WIDTH)
    ]
    return torch.stack([torch.zeros(WIDTH).double() if row is None else row[0] for row in rows])


def _through(model: nn.Sequential, x: torch.Tensor, path: tuple[bool, ...]) -> Jacobian:
    """dy/df1 along one path alone: of each block after the first, its branch (True) or its shortcut."""
    found: list[torch.Tensor] = []

    def branch(unit: Unit, value: torch.Tensor) -> torch.Tensor:
        if unit.index == 0:
            found.append(value)
            return value
        return value if path[unit.index - 1] else value.detach()

    def shortcut(unit: Unit, value: torch.Tensor) -> torch.Tensor:
        return value.detach() if unit.index and path[unit.index - 1] else value

    with anatomy(model, x).interpose(branch=branch, shortcut=shortcut):
        y = model(x)
    return _jacobian(y, found[0])


def test_the_derivative_is_the_sum_of_its_eight_terms_each_a_product_of_jacobians() -> None:
    model = _network()
    x = torch.randn(1, WIDTH, dtype=torch.float64, requires_grad=True)
    inputs = [x]
    for block in model:
        inputs.append(block(inputs[-1]))
    jacobians = [
        torch.autograd.functional.jacobian(lambda h, b=block: b.branch(h)[0], inputs[k])[:, 0]
        for k, block in enumerate(model)
    ][1:]

    found: list[torch.Tensor] = []
    with anatomy(model, x).interpose(
        branch=lambda unit, value: found.append(value) or value if unit.index == 0 else value
    ):
        whole = _jacobian(model(x), found[0])

    terms = []
    for path in product((False, True), repeat=3):
        term = torch.eye(WIDTH, dtype=torch.float64)
        for taken, jacobian in zip(path, jacobians, strict=True):
            term = jacobian @ term if taken else term
        assert torch.allclose(_through(model, x, path), term, rtol=1e-10, atol=1e-12)
        terms.append(term)
    assert len(terms) == 8
    assert torch.allclose(sum(terms), whole, rtol=1e-10, atol=1e-12)
    product_form = torch.eye(WIDTH, dtype=torch.float64)
    for jacobian in jacobians:
        product_form = product_form + jacobian @ product_form
    assert torch.allclose(product_form, whole, rtol=1e-10, atol=1e-12)
