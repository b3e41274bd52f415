"""The name of a residual unit: the path of a module, by which a person finds it in the network.

1  the deepest module that holds its branch and its merge             layer1.0
2  where two units would share that: the module of the branch alone   blocks.0.attn, blocks.0.mlp
3  where only the whole model holds them: the module that joins them  decoder.0, its branch in the encoder
4  where that is the whole model, too, or is another unit's name: the module of the branch alone, or else
   the outermost one that gave the branch's value                     links.0.features, links.0.heatmaps
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from residua.xray.sides import Merge
from residua.xray.trace import Graph
from residua.xray.units import Unit


def name_units(
    units: Sequence[Unit], merges: Sequence[Merge], graph: Graph, leaves: Collection[str]
) -> None:
    """Fill in `name` of the units that these merges are; leaves: modules without modules inside."""
    branches = [[node.module for node in merge.branch.path] for merge in merges]
    whole = [
        common_path([*modules, merge.node.module])
        for modules, merge in zip(branches, merges, strict=True)
    ]
    joins = ["" if name else _join(m, graph, leaves) for name, m in zip(whole, merges, strict=True)]
    count, joined = Counter(whole), Counter(joins)
    for unit, around, join in zip(units, whole, joins, strict=True):
        if around and count[around] == 1:
            unit.name = around
        elif join and joined[join] == 1 and join not in count:
            unit.name = join
    taken = {unit.name for unit in units}
    for unit, modules, around, merge in zip(units, branches, whole, merges, strict=True):
        if unit.name:
            continue
        alone = common_path(modules)
        if around:
            unit.name = alone or around
            continue
        given = graph.givers.get(merge.branch.end, [])[::-1]
        known = [name for name in (alone, *given) if name]
        unit.name = next((name for name in known if name not in taken), known[0] if known else "")
        taken.add(unit.name)


def _join(merge: Merge, graph: Graph, leaves: Collection[str]) -> str:
    """Return the module that joins two values; one that does nothing else is no name for a unit."""
    ends = [graph.nodes[side.end].module for side in (merge.shortcut, merge.branch)]
    own = merge.node.module
    around = common_path([own, *ends])
    # a list of modules holds them, and joins nothing
    return around if around and around in graph.calls else ("" if own in leaves else own)


def common_path(paths: Sequence[str]) -> str:
    """Return the deepest module that holds all of these.

    >>> common_path(["layer1.0.conv1", "layer1.0.bn2", "layer1.0"])
    'layer1.0'
    """
    parts = [path.split(".") if path else [] for path in paths]
    found: list[str] = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        found.append(names[0])
    return ".".join(found)
