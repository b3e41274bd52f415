"""How near each layer is to a singularity, where the loss has directions that change nothing.

    elimination   a unit whose incoming or outgoing weights vanish:  |w_i| -> 0
    overlap       two units with the same incoming weights:  cos(w_i, w_j) -> 1
    dependence    units whose incoming weights are linearly dependent:  smallest singular value -> 0

Orhan & Pitkow 2018, "Skip connections eliminate singularities". The loss is flat along such units' weights
and descent slows down nearby. Beside each measure stands what random weights of the same shape give: the
median, and a bound that a healthy network crosses anywhere with FALSE_ALARM chance (laws/random_weights.py).

Weights alone are read: no data, no gradient, no mode. The outgoing weights of a unit are measured where they
are read, one reading layer at a time; its factor in a norm counts, too. Lengths are relative to the median of
the layer; units of other groups read other inputs and are no pair. cos = -1 is no singularity under ReLU, but
dependence of the weights; it is counted apart ("mirrored").

Units that sum to zero are dependent, but a trained classifier's do: the softmax does not see a shift of all
scores, so cross-entropy's gradients sum to zero over classes and decay takes the sum away. This one direction
is left out ("balanced") and the next smallest singular value is given.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from residua.xray.laws.random_weights import overlap, shortest, smallest_bound, smallest_typical
from residua.xray.result import Column, Result, Table
from residua.xray.subject import Subject
from residua.xray.weights import Layer, Scale, layers_of, scales_of

FALSE_ALARM = 1e-4  # of ten thousand networks with random weights, one crosses any bound
TESTS = 4  # a layer: incoming, outgoing, overlap, dependence
MOST_UNITS = 4096  # compared in pairs; of more, these many at random
MOST_PRODUCTS = (
    4 * 10**9
)  # of one layer's pairs; beyond, pairs are compared on a part of their weights
MOST_SIDE = 256  # of the matrix whose smallest singular value is sought
MOST_PAIRS = 10_000  # that are looked at closely

_LAYERS = [
    Column("layer", "module path"),
    Column("units", "output channels"),
    Column("weights", "incoming weights of a unit"),
    Column("groups", "units of different groups read different inputs"),
    Column("zero", "whether all weights are zero, as some initialisations want it"),
    Column("incoming", "the shortest unit's |w|, relative to the median's"),
    Column("incoming_law", "the median of this for random weights"),
    Column("incoming_bound", "below is beyond chance"),
    Column("near", "units below that bound"),
    Column("eliminated", "of these, units that vanish to working precision (below sqrt eps)"),
    Column("outgoing", "the shortest input channel's |w|, over all units that read it"),
    Column("outgoing_law", "the median of this for random weights"),
    Column("outgoing_bound", "below is beyond chance"),
    Column("near_inputs", "input channels below that bound"),
    Column("unread", "of these, channels that vanish to working precision"),
    Column("cosine", "of the most alike pair of units, with its sign"),
    Column("cosine_law", "the median of its size for random weights"),
    Column("cosine_bound", "above is beyond chance"),
    Column("alike", "pairs above that bound"),
    Column("mirrored", "pairs below its negative"),
    Column("duplicates", "of the alike, pairs equal to working precision, biases too, up to scale"),
    Column("singular", "smallest singular value of units of length one; 1 for orthogonal ones"),
    Column(
        "balanced", "whether the smallest was left out: units that sum to zero, as of a softmax"
    ),
    Column("singular_law", "Marchenko and Pastur's edge"),
    Column("singular_bound", "below is beyond chance"),
]
_SCALES = [
    Column("norm", "module path"),
    Column("channels", "number of factors"),
    Column("zero", "whether all are zero, as some initialisations want it"),
    Column("smallest", "smallest |factor|, relative to the median's"),
    Column("eliminated", "channels whose factor vanishes to working precision (below sqrt eps)"),
]

Row = dict[str, Any]


def singularities(subject: Subject) -> Result:
    """Measure how near every layer is to elimination, overlap and linear dependence."""
    layers, scales = layers_of(subject.model), scales_of(subject.model)
    result = Result("singularities")
    finite = [layer for layer in layers if bool(layer.weight.isfinite().all())]
    chance = FALSE_ALARM / (TESTS * max(1, len(finite)))
    generator = torch.Generator().manual_seed(subject.seed)
    rows = [_measure(layer, chance, generator) for layer in finite]
    factors = [_factors(scale) for scale in scales if bool(scale.weight.isfinite().all())]
    result.tables["layers"] = Table("Nearness to singularities", _LAYERS, rows)
    result.tables["scales"] = Table("Factors of the norms", _SCALES, factors)
    counted = ("near", "eliminated", "unread", "alike", "mirrored", "duplicates")
    result.summary = {name: sum(row[name] or 0 for row in rows) for name in counted} | {
        "layers": len(rows),
        "units": sum(row["units"] for row in rows),
        "false_alarm": FALSE_ALARM,
        "dependent": sum(
            row["singular"] is not None and row["singular"] < row["singular_bound"] for row in rows
        ),
        "silent": sum(row["eliminated"] for row in factors),
    }
    result.figures["overlap"] = _figure(rows)
    if len(finite) < len(layers):
        result.notes.append(
            f"{len(layers) - len(finite)} layer(s) hold numbers that are not finite."
        )
    if any(row["units"] > MOST_UNITS for row in rows):
        result.notes.append(
            f"Of layers with more units, {MOST_UNITS} at random were compared in pairs."
        )
    return result


def _measure(layer: Layer, chance: float, generator: torch.Generator) -> Row:
    groups, units, inputs, taps = layer.weight.shape
    rows = layer.weight.reshape(groups, units, inputs * taps)
    row: Row = {
        "layer": layer.name,
        "units": groups * units,
        "weights": inputs * taps,
        "groups": groups,
        "zero": not bool(rows.any()),
    }
    row |= dict.fromkeys((c.name for c in _LAYERS if c.name not in row), None)
    if row["zero"]:
        return row
    lengths = torch.linalg.vector_norm(rows, dim=2)
    row |= _elimination(lengths, inputs * taps, chance, layer.eps, "incoming", "near", "eliminated")
    readers = torch.linalg.vector_norm(layer.weight, dim=(1, 3))
    row |= _elimination(
        readers, units * taps, chance, layer.eps, "outgoing", "near_inputs", "unread"
    )
    directions = rows / lengths.clamp(min=torch.finfo(torch.float32).tiny)[..., None]
    row |= _overlap(layer, directions, lengths, chance, generator)
    return row | _dependence(directions, lengths, chance, generator)


def _elimination(
    lengths: torch.Tensor, weights: int, chance: float, eps: float, name: str, near: str, gone: str
) -> Row:
    """Compare lengths (groups, units) with those of random units."""
    flat = lengths.reshape(-1).double()
    middle = float(flat.quantile(0.5) if len(flat) < 2**24 else flat.median())
    relative = flat / (middle or float(flat[flat > 0].median()))
    bound = shortest(len(flat), weights, chance)
    return {
        name: float(relative.min()),
        f"{name}_law": shortest(len(flat), weights),
        f"{name}_bound": bound,
        near: int((relative < bound).sum()),
        gone: int((relative < min(bound, math.sqrt(eps))).sum()),
    }


def _overlap(
    layer: Layer,
    directions: torch.Tensor,
    lengths: torch.Tensor,
    chance: float,
    generator: torch.Generator,
) -> Row:
    """Compare every pair of units of a group (directions (G, n, d) of length one) with random pairs."""
    groups, units, weights = directions.shape
    if units < 2 or weights < 2:
        return {"alike": 0, "mirrored": 0, "duplicates": 0}
    kept = _some(units, MOST_UNITS, generator).to(directions.device)
    n = len(kept)
    part = _some(weights, max(64, MOST_PRODUCTS // (groups * n * n)), generator)
    vectors = directions[:, kept]
    if len(part) < weights:
        vectors = _unit(vectors[..., part.to(directions.device)])
    cosines = vectors @ vectors.transpose(1, 2)
    cosines.diagonal(dim1=1, dim2=2).zero_()
    cosines = cosines.triu(1)
    bound = overlap(n, len(part), chance / groups)
    flat = cosines.reshape(-1)
    extreme = int(flat.abs().argmax())
    alike = flat > bound
    found = {
        "cosine": float(flat[extreme].clamp(-1.0, 1.0)),
        "cosine_law": _typical_overlap(groups, n, len(part)),
        "cosine_bound": bound,
        "alike": int(alike.sum()),
        "mirrored": int((flat < -bound).sum()),
    }
    pairs = alike.nonzero().reshape(-1)
    if len(pairs) > MOST_PAIRS:
        pairs = flat.topk(MOST_PAIRS).indices
    where = (pairs // (n * n), kept[pairs // n % n], kept[pairs % n])
    return found | {"duplicates": _duplicates(layer, directions, lengths, where)}


def _typical_overlap(groups: int, units: int, weights: int) -> float:
    """Return the median of the largest |cos| over all groups."""
    return overlap(units, weights, -math.expm1(math.log(0.5) / groups))


def _duplicates(
    layer: Layer,
    directions: torch.Tensor,
    lengths: torch.Tensor,
    where: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> int:
    """Count pairs (group, i, j) that are one unit twice, up to scale: weights, and biases with them."""
    group, left, right = where
    apart = (directions[group, left].double() - directions[group, right].double()).norm(dim=1)
    if layer.bias is not None:
        shift = (layer.bias / lengths.clamp(min=torch.finfo(torch.float32).tiny)).double()
        apart = torch.hypot(apart, (shift[group, left] - shift[group, right]))
    return int((apart < math.sqrt(layer.eps)).sum())


def _dependence(
    directions: torch.Tensor, lengths: torch.Tensor, chance: float, generator: torch.Generator
) -> Row:
    """Compare the smallest singular value over groups with that of random units.

    Units without weights, which elimination counts, are left out.
    """
    groups, _, weights = directions.shape
    smallest: list[tuple[float, int, int, bool]] = []
    for matrix, length in zip(directions, lengths, strict=True):
        kept, length = matrix[length > 0], length[length > 0]
        if min(len(kept), weights) < 2:
            continue
        if len(kept) <= weights:
            some = _some(len(kept), MOST_SIDE, generator).to(kept.device)
            kept, length = kept[some], length[some]
        elif weights > MOST_SIDE:
            kept = _unit(kept[:, _some(weights, MOST_SIDE, generator).to(kept.device)])
        n, read = kept.shape
        value, after = _smallest(kept, length)
        balanced = False
        if after is not None and value < smallest_bound(n, read, chance / groups):
            value, balanced = after, True
        smallest.append((value, n, read, balanced))
    if not smallest:
        return {}
    value, units, read, balanced = min(smallest)
    return {
        "singular": value,
        "balanced": balanced,
        "singular_law": smallest_typical(units, read),
        "singular_bound": smallest_bound(units, read, chance / groups),
    }


def _smallest(units: torch.Tensor, lengths: torch.Tensor) -> tuple[float, float | None]:
    """Return the smallest singular value of sqrt(d) units (n, d), over sqrt(max(n, d)).

    And the next, where the smallest is mostly that of sum_i lengths_i units_i, the sum of the weights.
    """
    n, weights = units.shape
    few = n <= weights
    wide = units.double() if few else units.double().T
    squares, vectors = torch.linalg.eigh(wide @ wide.T)
    values = (squares.clamp(min=0) * (weights / max(n, weights))).sqrt().tolist()
    if few and n > 2 and float(_unit(lengths.double()) @ vectors[:, 0]) ** 2 > 0.5:
        return values[0], values[1]
    return values[0], None


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Bring vectors (..., d) to length one; those of length zero stay."""
    return torch.nn.functional.normalize(vectors, dim=-1)


def _some(n: int, most: int, generator: torch.Generator) -> torch.Tensor:
    """Return all of n indices, or `most` of them at random, ascending."""
    if n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=generator)[:most].sort().values


def _factors(scale: Scale) -> Row:
    size = scale.weight.abs().double()
    zero = not bool(size.any())
    typical = float(size.median()) or (float(size[size > 0].median()) if not zero else 1.0)
    relative = size / typical
    return {
        "norm": scale.name,
        "channels": len(size),
        "zero": zero,
        "smallest": float(relative.min()),
        "eliminated": 0 if zero else int((relative < math.sqrt(scale.eps)).sum()),
    }


def _figure(rows: list[Row]) -> dict[str, Any]:
    """Describe the most alike pair of each layer beside chance and its bound; at most 2,000 layers."""
    shown = [row for row in rows if row["cosine"] is not None]
    shown = shown[:: max(1, -(-len(shown) // 2000))]
    names = {
        "cosine": ("most alike pair", "--series-1"),
        "cosine_law": ("random weights (median)", "--series-2"),
        "cosine_bound": ("beyond chance above", "--series-3"),
    }
    data = [
        {
            "type": "scatter",
            "mode": "markers" if key == "cosine" else "lines",
            "name": label,
            "x": [row["layer"] for row in shown],
            "y": [abs(row[key]) for row in shown],
            "marker": {"color": f"var({colour})", "size": 6},
            "line": {"color": f"var({colour})", "width": 2},
        }
        for key, (label, colour) in names.items()
    ]
    layout = {
        "xaxis": {"title": {"text": "layer, in order"}, "showticklabels": False},
        "yaxis": {"title": {"text": "|cos| of two units' weights"}, "range": [0, 1.05]},
    }
    return {"data": data, "layout": layout, "height": 320, "label": "Overlap of units by layer"}
