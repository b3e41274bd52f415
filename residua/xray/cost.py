"""What the network costs: parameters, multiply-adds, memory in training, receptive field, time.

    memory(B) = parameters + gradients + momentum + B kept / N       kept: by autograd, on a batch of N

Multiply-adds come from the shapes in the graph (products.py); kept bytes from autograd's own hooks, each
storage once, without parameters (meter.py); receptive fields from kernels and strides, and from the gradient
of the centre position (receptive.py: Araujo, Norris & Sim 2019; Luo et al. 2016); seconds are the median of
several passes on this machine. kept / N counts the little that does not grow with the batch as if it did.

statistics: memory and time "batch", as in training, with dropout and other random layers off, whose masks are
not counted; the effective field "detached", so that each sample's gradient is its own.
Cost: two forward passes (quick; five otherwise) and the effective field's on two samples.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch

from residua.errors import BadInput
from residua.tiles.field import Field
from residua.xray.meter import Meter
from residua.xray.portions import Places, Portion, portions
from residua.xray.products import multiply_adds
from residua.xray.receptive import effective_sigma, features, fields
from residua.xray.result import Column, Result, Table
from residua.xray.subject import Subject, tensors_in
from residua.xray.trace import Graph, Node, Reach, interpose

REPEATS = {"quick": 1, "normal": 4}  # timed passes, after one that warms up and is counted in bytes
TAPS = {"quick": 1, "normal": 5}  # maps whose effective field is measured
SAMPLES = 2  # for the effective field

_PARTS = (
    Column("part", "A residual unit, or what lies outside the units, by module."),
    Column("unit", "Whether it is a residual unit."),
    Column("parameters", "Trained numbers; shared ones count where they are first used."),
    Column("multiply_adds", "Of one sample: a multiplication with its addition is one."),
    Column("multiply_adds_share", "Of the whole."),
    Column("kept", "Kept by autograd for the backward pass, of this batch.", "bytes"),
    Column("kept_share", "Of the whole."),
    Column("milliseconds", "Forward pass of this batch in training: median.", "ms"),
    Column("milliseconds_low", "The least of the passes.", "ms"),
    Column("milliseconds_high", "The most.", "ms"),
    Column("time_share", "Median share of a pass."),
    Column(
        "field",
        "Theoretical receptive field at its end, by dimension; None: the whole picture.",
        "pixels",
    ),
    Column(
        "effective_field",
        "4 sigma of the squared gradient of the centre, where measured.",
        "pixels",
    ),
)


def cost(
    subject: Subject,
    *,
    repeats: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """Measure the costs on the subject's batch.

    Args:
        repeats: timed forward passes; None: what the effort allows (1 quick, 4 normal).

    Raises:
        BadInput: repeats below 1.
    """
    repeats = REPEATS[subject.effort] if repeats is None else repeats
    if repeats < 1:
        raise BadInput(f"{repeats} timed passes: 1 or more are needed")
    tell = progress or (lambda done, what: None)
    graph = subject.anatomy.graph
    assert graph is not None
    parts = portions(subject.anatomy)
    tell(0.0, "memory and time")
    kept, seconds = _metered(subject, graph, parts, repeats, tell)
    rows = _rows(subject, parts, kept, seconds)
    found = fields(graph)
    tell(0.7, "effective receptive field")
    effective = _effective(subject, graph, parts, found)
    _add_fields(rows, parts, found, effective)
    result = Result("cost", _totals(subject, graph, rows, seconds))
    result.summary |= _field_facts(graph, found, effective) | _machine(subject, repeats)
    result.tables["parts"] = Table("Cost of each part", _PARTS, rows)
    result.figures["shares"] = _figure(rows)
    result.notes = _notes(result.summary)
    return result


def _metered(
    subject: Subject,
    graph: Graph,
    parts: list[Portion],
    repeats: int,
    tell: Callable[[float, str], None],
) -> tuple[list[int], list[list[float]]]:
    """Return the bytes that each part keeps, and its seconds in each of the passes."""
    places = Places(graph, parts)
    kept, seconds = [0] * len(parts), []
    with subject.running("batch") as model:
        for i in range(repeats + 1):  # the first warms up
            meter = Meter(model, subject.device)
            with torch.set_grad_enabled(True), meter.running(model, keeps=i == 0):
                output = subject.forward()
            del output
            if i == 0:
                _sum(places, meter.kept, kept)
            else:
                seconds.append([0.0] * len(parts))
                _sum(places, meter.seconds, seconds[-1])
            tell(0.7 * (i + 1) / (repeats + 1), "memory and time")
    return kept, seconds


def _sum(places: Places, amounts: Mapping[Any, Any], into: list[Any]) -> None:
    last = 0
    for key, amount in amounts.items():
        at = places.at(key)
        last = last if at is None else at
        into[last] += amount


def _rows(
    subject: Subject, parts: list[Portion], kept: list[int], seconds: list[list[float]]
) -> list[dict[str, Any]]:
    sizes = {name: p.numel() for name, p in subject.model.named_parameters()}
    adds = [sum(multiply_adds(n) or 0 for n in part.nodes) for part in parts]
    times = list(zip(*seconds, strict=True))
    totals = [sum(one) for one in seconds]
    rows = []
    for i, part in enumerate(parts):
        names = {name for node in part.nodes for name in node.parameters}
        shares = [t / max(total, 1e-12) for t, total in zip(times[i], totals, strict=True)]
        rows.append(
            {
                "part": part.name,
                "unit": part.unit is not None,
                "trunk": part.unit is not None and part.unit.parent is None,
                "source": part.nodes[-1].source,
                "parameters": sum(sizes.pop(name, 0) for name in names),
                "multiply_adds": adds[i] / subject.samples,
                "multiply_adds_share": adds[i] / max(sum(adds), 1),
                "kept": kept[i],
                "kept_share": kept[i] / max(sum(kept), 1),
                "milliseconds": 1e3 * median(times[i]),
                "milliseconds_low": 1e3 * min(times[i]),
                "milliseconds_high": 1e3 * max(times[i]),
                "time_share": median(shares),
                "time_share_low": min(shares),
                "time_share_high": max(shares),
            }
        )
    return rows


def _effective(
    subject: Subject, graph: Graph, parts: list[Portion], found: dict[int, Field | None]
) -> dict[int, list[float]]:
    """Return {node: standard deviations} for the last map with a field and some units' ends."""
    last = features(graph, found)
    picture = tensors_in(subject.inputs)[0]
    if last is None or not picture.is_floating_point() or len(last.shape) != picture.dim():
        return {}
    ends = [_end_of(part) for part in parts if part.unit is not None]
    ends = [n for n in ends if found.get(n.index) is not None and len(n.shape) == picture.dim()]
    wanted = TAPS[subject.effort] - 1
    step = max(1, len(ends) // max(wanted, 1))
    taps = {n.index: n for n in [*(ends[::step][:wanted] if wanted else []), last]}
    taken: dict[int, torch.Tensor] = {}

    def tap(node: Node) -> Reach:
        def result(value: torch.Tensor) -> torch.Tensor:
            taken[node.index] = value.clone()  # an operation in place may follow
            return value

        return Reach(node, result=result)

    alone = isinstance(subject.inputs, torch.Tensor)
    with subject.running("detached") as model:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        x = (picture[:SAMPLES] if alone else picture).detach().clone().requires_grad_(True)
        try:
            with torch.enable_grad(), interpose(model, graph, [tap(n) for n in taps.values()]):
                subject.forward(x if alone else _exchanged(subject.inputs, picture, x))
        except BadInput:  # in training it does other operations than in evaluation
            return {}
        sigmas = {i: effective_sigma(value, x) for i, value in taken.items() if value.requires_grad}
    return {i: sigma for i, sigma in sigmas.items() if sigma is not None}


def _exchanged(value: Any, old: torch.Tensor, new: torch.Tensor) -> Any:
    """Return inputs with one tensor exchanged."""
    if value is old:
        return new
    if isinstance(value, Mapping):
        return {k: _exchanged(v, old, new) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_exchanged(v, old, new) for v in value)
    return value


def _end_of(part: Portion) -> Node:
    """Return the node whose value a unit hands on: its last that depends on the input."""
    assert part.unit is not None and part.unit.sites.merge is not None
    return part.unit.sites.merge


def _add_fields(
    rows: list[dict[str, Any]],
    parts: list[Portion],
    found: dict[int, Field | None],
    effective: dict[int, list[float]],
) -> None:
    for row, part in zip(rows, parts, strict=True):
        ends = [n for n in part.nodes if n.index in found]
        end = _end_of(part) if part.unit is not None else ends[-1] if ends else None
        field = None if end is None else found.get(end.index)
        row["field"] = None if field is None else list(field.size)
        sigma = None if end is None else effective.get(end.index)
        row["effective_field"] = None if sigma is None else [4 * s for s in sigma]


def _totals(
    subject: Subject, graph: Graph, rows: list[dict[str, Any]], seconds: list[list[float]]
) -> dict[str, Any]:
    parameters = list(subject.model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    weights = sum(p.numel() * p.element_size() for p in parameters)
    kept = sum(row["kept"] for row in rows)
    attention = sum(multiply_adds(n) or 0 for n in graph.nodes if _is_attention(n))
    return {
        "samples": subject.samples,
        "parameters": sum(p.numel() for p in parameters),
        "multiply_adds": sum(row["multiply_adds"] for row in rows),
        "attention_multiply_adds": attention / subject.samples,
        "not_counted": sorted({n.op for n in graph.nodes if multiply_adds(n) is None}),
        "weight_bytes": weights,
        "fixed_bytes": weights + 2 * sum(p.numel() * p.element_size() for p in trained),
        "kept_bytes": kept,
        "kept_per_sample": kept / subject.samples,
        "milliseconds": 1e3 * median(sum(one) for one in seconds),
    }


def _is_attention(node: Node) -> bool:
    products = ("matmul", "bmm", "mm", "einsum", "baddbmm")
    return (node.op in products and len(node.live_inputs) > 1) or "attention" in node.op


def _field_facts(
    graph: Graph, found: dict[int, Field | None], effective: dict[int, list[float]]
) -> dict[str, Any]:
    last = features(graph, found)
    field = None if last is None else found[last.index]
    if last is None or field is None:
        return {"field": None, "field_at": None, "dense": False, "picture": None}
    k = len(field.low)
    picture = next(n for n in graph.nodes if n.op == "input" and len(n.shape) == k + 2)
    sigma = effective.get(last.index)
    return {
        "field": list(field.size),
        "field_jump": list(field.jump),
        "field_at": last.module,
        "field_source": last.source,
        "effective_field": None if sigma is None else [4 * s for s in sigma],
        "picture": list(picture.shape[2:]),
        "dense": last.index in graph.results,  # the output has positions of its own
    }


def _machine(subject: Subject, repeats: int) -> dict[str, Any]:
    device = subject.device
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    else:
        machine = platform.processor() or platform.machine()
    return {
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "device": str(device),
        "machine": machine,
    }


def _notes(facts: Mapping[str, Any]) -> list[str]:
    notes = [
        f"Time: median of {facts['repeats']} forward passes in training mode on {facts['machine']}"
        f" ({facts['device']}, {facts['threads']} threads), operations one by one.",
        f"Memory for a batch of B: {facts['fixed_bytes']:,} bytes for weights, gradients and momentum, and"
        f" {facts['kept_per_sample']:,.0f} B for what the backward pass needs; masks of dropout not counted.",
    ]
    if facts["not_counted"]:
        notes.append(f"Multiply-adds of {', '.join(facts['not_counted'])} are not counted.")
    if facts["field"] is not None:
        notes.append(
            f"Receptive field at {facts['field_at'] or 'the model'}, before the whole picture is pooled or"
            " flattened; statistics of norms and squeeze-and-excitation factors are left out."
        )
    return notes


def _figure(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
    """Describe each part's share of arithmetic, memory and time."""
    names = [row["part"] for row in rows]
    lines = (
        ("multiply-adds", "multiply_adds_share", "var(--series-1)"),
        ("memory kept", "kept_share", "var(--series-2)"),
        ("time", "time_share", "var(--series-3)"),
    )
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": list(range(len(rows))),
            "y": [row[key] for row in rows],
            "text": names,
            "line": {"color": colour, "width": 2},
        }
        for name, key, colour in lines
    ]
    return {
        "data": data,
        "layout": {
            "xaxis": {"title": {"text": "part, in the order of the forward pass"}},
            "yaxis": {"title": {"text": "share of the whole"}, "rangemode": "tozero"},
        },
        "height": 320,
        "label": "Share of arithmetic, memory and time by part",
    }
