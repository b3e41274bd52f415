"""Scale freedom: weights whose length does not matter, how fast they really learn, and what L2 does to all.

    f(a w) = f(w)  =>  <w, g> = 0,  g(a w) = g(w) / a,  effective learning rate eta / |w|^2

van Laarhoven 2017; Zhang, Wang, Xu & Grosse 2019 (three mechanisms of weight decay). Which weights they are
comes from the graph (scale_free.py) and is checked (scale_check.py). Equilibrium and rates under L2:
laws/equilibrium.py.

statistics: "batch", as in training: with running averages, after a norm has been fixed, no weight is
scale-free. Units: a gradient is that of the subject's loss. Cost: two forward and backward passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from residua.errors import BadInput
from residua.xray.laws.equilibrium import (
    effective_rate,
    equilibrium_angle,
    equilibrium_length,
    steps_until_half,
)
from residua.xray.result import Column, Result, Table
from residua.xray.scale_check import Checked, check_free
from residua.xray.scale_free import Candidate, Roles, roles_of
from residua.xray.subject import Subject

_GROUPS = {
    "scale-free": "L2 does not change the function: it keeps |w| from growing, and so the effective rate up.",
    "norms": "L2 shrinks gains and biases of norms, which shrinks the branch; He et al. 2019 leave them out.",
    "idle biases": "No effect: the norm that follows subtracts them.",
    "head": "L2 really shrinks them: smaller logits, less sure answers.",
    "weights": "L2 really shrinks them, and with them this layer's share in what it is added to.",
    "biases": "L2 shrinks them towards zero; a bias adds little capacity, and is mostly left out.",
}
_WEIGHTS = (
    Column("weight", "Name of the parameter."),
    Column("how", "norm: only norms read its layer; weights: they are normalised themselves."),
    Column("norms", "Modules of the norms that follow."),
    Column(
        "confirmed",
        "Scaling it leaves the output and divides its gradient; None: its gradient is zero.",
    ),
    Column("gradient_error", "|a g(a w) - g(w)| / |g(w)|."),
    Column("cosine", "<w, g> / (|w| |g|), zero for scale-free weights."),
    Column("length", "|w|."),
    Column("gradient", "|g|."),
    Column("effective_rate", "eta / |w|^2; of eta = 1 where no learning rate was told."),
    Column("turn", "eta |g| / |w|: by how much one step turns it, in radians if small."),
    Column(
        "equilibrium", "|w| that the gradient of this batch and L2 lead to (laws/equilibrium.py)."
    ),
    Column("steps_until_half", "Steps after which, without L2, the effective rate has halved."),
)
_BY_GROUP = (
    Column("group", "What the parameters are."),
    Column("tensors", "How many."),
    Column("numbers", "How many numbers."),
    Column("length", "Root of the sum of squares."),
    Column("gradient", "The same of the gradient."),
    Column("l2", "What weight decay does to them."),
    Column("shrinks", "Share by which L2 shortens them in a step: eta lambda / (1 - m)."),
    Column(
        "half_life", "Steps in which L2 alone halves them; not of scale-free ones, which grow back."
    ),
)


def scale_freedom(
    subject: Subject,
    *,
    learning_rate: float | None = None,
    weight_decay: float | None = None,
    momentum: float = 0.0,
    steps: int | None = None,
) -> Result:
    """Find the scale-free weights, check them, and say what learning rate and L2 mean for each group.

    Args:
        learning_rate, weight_decay, momentum: of SGD with L2 on all parameters, if known.
        steps: of the run, if known.

    Raises:
        BadInput: a learning rate that is not above zero, negative L2, momentum outside [0, 1).
    """
    if (learning_rate is not None and learning_rate <= 0) or (weight_decay or 0) < 0:
        raise BadInput("the learning rate must be above zero, weight decay not negative")
    if not 0 <= momentum < 1:
        raise BadInput(f"momentum {momentum:g} must be at least 0 and below 1")
    graph = subject.anatomy.graph
    assert graph is not None
    parameters = dict(subject.model.named_parameters())
    roles = roles_of(graph, {name: p.dim() for name, p in parameters.items()})
    checked = Checked()
    result = Result("scale_freedom")
    try:
        checked = check_free(subject, roles)
        roles.idle_biases = {
            n: b for n, b in roles.idle_biases.items() if _idle(n, b, roles, checked)
        }
    except ValueError as error:  # a norm over a single value a channel
        result.notes.append(f"Not checked: {' '.join(str(error).split())}.")
    told = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "steps": steps,
    }
    rows = [_row(name, roles, checked, told) for name in roles.candidates]
    groups = _groups(parameters, roles, checked, rows)
    result.tables["weights"] = Table("Weights whose length does not matter", _WEIGHTS, rows)
    table = Table("What L2 does to each group", _BY_GROUP)
    table.rows = [
        _group_row(name, members, parameters, checked, told) for name, members in groups.items()
    ]
    result.tables["groups"] = table
    result.summary = told | _summary(parameters, roles, checked, rows, told)
    if rows:
        result.figures["rates"] = _figure(rows)
    result.notes.append(
        "Gradients on batch statistics, with eps 1e-30 in the norms; random layers are off. L2 is SGD's"
        " weight decay; learning rate 1 where none was told."
    )
    return result


def _row(name: str, roles: Roles, checked: Checked, told: Mapping[str, Any]) -> dict[str, Any]:
    candidate = roles.candidates[name]
    row: dict[str, Any] = {
        "weight": name,
        "how": candidate.how,
        "norms": list(dict.fromkeys(candidate.norms)),
        "source": candidate.source,
        "confirmed": None,
    }
    if name in checked.refuted:
        return row | {"confirmed": False, "cosine": checked.cosines[name]}
    if name not in checked.errors:
        return row
    length, gradient = checked.lengths[name], checked.gradients[name]
    error, rate = checked.errors[name], told["learning_rate"] or 1.0
    decay, momentum = told["weight_decay"], told["momentum"]
    known = told["learning_rate"] is not None
    return row | {
        "confirmed": None if gradient == 0 and error == 0 else error <= checked.tolerance,
        "gradient_error": error,
        "cosine": checked.cosines[name],
        "length": length,
        "gradient": gradient,
        "effective_rate": effective_rate(rate, length),
        "turn": rate * gradient / length if length else None,
        "equilibrium": equilibrium_length(rate, decay, length * gradient, momentum)
        if known and decay
        else None,
        "steps_until_half": steps_until_half(rate, length, gradient, momentum) if known else None,
    }


def _groups(
    parameters: Mapping[str, nn.Parameter],
    roles: Roles,
    checked: Checked,
    rows: list[dict[str, Any]],
) -> dict[str, list[str]]:
    """Return the names of the parameters in each group; what was not confirmed is a plain weight."""
    free = {row["weight"] for row in rows if row["confirmed"] is not False}
    groups: dict[str, list[str]] = {}
    for name, p in parameters.items():
        if name in free:
            group = "scale-free"
        elif name in roles.of_norms:
            group = "norms"
        elif name in roles.idle_biases:
            group = "idle biases"
        elif name in roles.heads:
            group = "head"
        else:
            group = "weights" if p.dim() > 1 else "biases"
        groups.setdefault(group, []).append(name)
    return {group: groups[group] for group in _GROUPS if group in groups}


def _group_row(
    group: str,
    names: list[str],
    parameters: Mapping[str, nn.Parameter],
    checked: Checked,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    rate, decay = told["learning_rate"], told["weight_decay"]
    shrinks = None
    if rate is not None and decay is not None:
        shrinks = rate * decay / (1 - told["momentum"])
    lasts = shrinks and group not in ("scale-free", "idle biases")
    return {
        "group": group,
        "tensors": len(names),
        "numbers": sum(parameters[name].numel() for name in names),
        "length": math.hypot(*(checked.lengths.get(name, 0.0) for name in names)),
        "gradient": math.hypot(*(checked.gradients.get(name, 0.0) for name in names)),
        "l2": _GROUPS[group],
        "shrinks": shrinks,
        "half_life": math.log(2) / shrinks if lasts and shrinks else None,
        "names": names,
    }


def _summary(
    parameters: Mapping[str, nn.Parameter],
    roles: Roles,
    checked: Checked,
    rows: list[dict[str, Any]],
    told: Mapping[str, Any],
) -> dict[str, Any]:
    numbers = sum(p.numel() for p in parameters.values())
    free = [row["weight"] for row in rows if row["confirmed"] is not False]
    rates = [row["effective_rate"] for row in rows if row["confirmed"]]
    angle = None
    if told["learning_rate"] is not None and told["weight_decay"]:
        angle = equilibrium_angle(told["learning_rate"], told["weight_decay"], told["momentum"])
    idle = {
        name: {
            "norms": list(bias.norms),
            "source": bias.source,
            "gradient": checked.gradients.get(name),
            "norm_gradient": _norm_gradient(bias.norms, roles, checked),
        }
        for name, bias in roles.idle_biases.items()
    }
    return {
        "candidates": len(rows),
        "confirmed": sum(row["confirmed"] is True for row in rows),
        "refuted": sum(row["confirmed"] is False for row in rows),
        "free_share": sum(parameters[n].numel() for n in free) / numbers if numbers else 0.0,
        "output_change": checked.output_change,
        "effective_rate_low": min(rates) if rates else None,
        "effective_rate_high": max(rates) if rates else None,
        "equilibrium_angle": angle,
        "idle_biases": idle,
    }


def _idle(name: str, bias: Candidate, roles: Roles, checked: Checked) -> bool:
    """Say whether a bias before a norm has no gradient, as it has where the norm's mean is fixed."""
    scale = _norm_gradient(bias.norms, roles, checked)
    return not scale or checked.gradients[name] <= checked.tolerance * scale


def _norm_gradient(norms: tuple[str, ...], roles: Roles, checked: Checked) -> float | None:
    """Return the greatest gradient of the norms' own biases, to measure others by."""
    own = [n for n in roles.of_norms if n.rpartition(".")[0] in norms and n.endswith("bias")]
    return max((checked.gradients.get(name, 0.0) for name in own), default=None)


def _figure(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Describe each weight's effective learning rate by depth."""
    shown = [row for row in rows if row.get("effective_rate")]
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "effective rate",
                "x": list(range(len(shown))),
                "y": [row["effective_rate"] for row in shown],
                "text": [row["weight"] for row in shown],
                "line": {"color": "var(--series-1)", "width": 2},
            }
        ],
        "layout": {
            "xaxis": {"title": {"text": "scale-free weight, in the order of the forward pass"}},
            "yaxis": {"title": {"text": "effective learning rate, η / |w|²"}, "type": "log"},
        },
        "height": 320,
        "label": "Effective learning rate of scale-free weights",
    }
