"""What a trained residual network bears and a plain one does not: lesions and paths, beside Veit et al.

    python benchmarks/lesions.py --run RUN --plain RUN --data DIR [--samples 500] [--draws 10] [--out DIR]

RUN is a finished run, as `residua train DIR --model resnet56_cifar` and `plain56_cifar` make it; DIR holds
the pictures to measure on (default: the run's own test pictures). The published shape (Veit, Wilber &
Belongie 2016; Prince, Understanding Deep Learning, chapter 11 and its notes):

    deleting one unit of a residual network hardly matters, deleting one layer of VGG is fatal
    error grows smoothly with the number of units deleted, and with how far the order is from the first
    of 54 units almost all of the gradient is on paths of 5 to 17, which are 0.45 % of all paths

In the plain network, layers that keep the shape are deleted with their norm and activation. Statistics of the
norms: running, as in evaluation. Numbers are of one trained network each, on --samples pictures; spreads are
standard deviations over --draws.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from _common import caption, machine
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import spearmanr

import residua
from residua.training.run import Run
from residua.xray.deletion import parts_of
from residua.xray.lesions import lesions
from residua.xray.paths import paths
from residua.xray.subject import Subject

COUNTS = (2, 5, 10, 15, 20)  # units deleted at once
SWAPS = (1, 2, 4, 8, 16, 32)  # exchanges of a reordering
DIGITS = ("steps=60", "batch_size=64", "optimiser.lr=0.1")  # the runs of --quick
PUBLISHED_UNITS, PUBLISHED_LENGTHS = 54, (5, 17)  # of ResNet-110, Veit et al. 2016, figure 6


def subject_of(run: Run, data: str | None, samples: int, seed: int) -> Subject:
    """Return the run's network and pictures that it was not trained on."""
    inputs, labels = run.sample(samples, data, seed=seed)
    return Subject(run.model.to(inputs.device), inputs, labels, seed=seed)


def measure_lesions(subject: Subject, draws: int, progress: Any) -> dict[str, Any]:
    """Delete every unit (or layer) alone, several, and reorder them."""
    anatomy = subject.anatomy
    n = len(anatomy.units)
    counts = tuple(count for count in COUNTS if count <= n) if n else ()
    found = lesions(
        subject,
        single=len(parts_of(anatomy)),
        counts=counts,
        swaps=SWAPS,
        draws=draws if n else 0,
        progress=progress,
    )
    rows = {name: table.rows for name, table in found.tables.items()}
    return {"summary": found.summary, "notes": found.notes} | rows


def measure_paths(subject: Subject, samples: int, progress: Any) -> dict[str, Any]:
    """Measure the gradient by path length, exactly."""
    found = paths(subject, samples=samples, draws=0, progress=progress)
    rows = [
        {key: row[key] for key in ("length", "paths_share", "share", "share_spread")}
        for row in found.tables["lengths"].rows
    ]
    return {"summary": found.summary, "lengths": rows}


def measure(run: Run, plain: Run, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both networks."""
    found: dict[str, Any] = {}
    with Progress(console=Console(stderr=True), disable=options.json) as bar:

        def told(what: str) -> Any:
            task = bar.add_task(what, total=1.0)
            return lambda done, step: bar.update(
                task, completed=done, description=f"{what}: {step}"
            )

        for name, network in (("residual", run), ("plain", plain)):
            subject = subject_of(network, options.data, options.samples, options.seed)
            found[name] = measure_lesions(subject, options.draws, told(name))
            found[name]["model"] = network.card.name
            if name == "residual":
                found["paths"] = measure_paths(subject, options.path_samples, told("paths"))
    return found | {"shape": shape(found), "machine": machine(torch.device("cpu"))}


def shape(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers that the published shape is about."""
    rises = {
        name: [row["error_rise"] for row in found[name]["deletions"]]
        for name in ("residual", "plain")
    }
    curve, orders = found["residual"]["curve"], found["residual"].get("reorderings", [])
    low, high = PUBLISHED_LENGTHS
    rows = found["paths"]["lengths"]
    units = found["residual"]["summary"]["number"]
    inside = [row for row in rows if units == PUBLISHED_UNITS and low <= row["length"] <= high]
    return {
        "units": units,
        "median_rise_residual": statistics.median(rises["residual"]),
        "largest_rise_residual": max(rises["residual"]),
        "median_rise_plain": statistics.median(rises["plain"]),
        "smallest_rise_plain": min(rises["plain"]),
        "chance": found["plain"]["summary"]["chance"],
        "error_by_number": rank([r["deleted"] for r in curve], [r["error"] for r in curve]),
        "error_by_tau": rank([r["tau"] for r in orders], [r["error"] for r in orders]),
        "gradient_in_published_lengths": sum(r["share"] or 0 for r in inside) if inside else None,
        "paths_in_published_lengths": sum(r["paths_share"] for r in inside) if inside else None,
        "mean_length": sum(row["length"] * (row["share"] or 0) for row in rows),
    }


def rank(xs: list[float], ys: list[float]) -> float | None:
    """Return Spearman's rank correlation, None of fewer than three points or of a constant."""
    if len(xs) < 3 or len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    return float(spearmanr(xs, ys).statistic)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Lay out the numbers beside the published shape."""
    facts = found["shape"]
    out = Table(title="the published shape, and what was measured")
    for heading in ("published (Veit et al. 2016)", "measured", "value"):
        out.add_column(heading)

    def row(published: str, what: str, *values: float | None) -> None:
        shown = " .. ".join("not measured" if v is None else f"{v:.3f}" for v in values)
        out.add_row(published, what, shown)

    residual = ("median_rise_residual", "largest_rise_residual")
    row(
        "one residual unit less hardly matters",
        "rise of error: median .. largest",
        *map(facts.get, residual),
    )
    plain = ("smallest_rise_plain", "median_rise_plain")
    row("one layer of VGG less is fatal", "rise of error: least .. median", *map(facts.get, plain))
    row("", "error of guessing", facts["chance"])
    row("error rises smoothly with the number", "rank correlation", facts["error_by_number"])
    row("error rises smoothly with disorder", "rank correlation with tau", facts["error_by_tau"])
    inside = facts["gradient_in_published_lengths"]
    row("almost all gradient on paths of 5 to 17 of 54", "share of the gradient there", inside)
    row("", "mean length of paths, weighed by gradient", facts["mean_length"])
    curve = Table(title=f"{found['residual']['model']}: error against number deleted")
    for heading in ("deleted", "error", "standard deviation", "draws"):
        curve.add_column(heading)
    for each in found["residual"]["curve"]:
        spread = each.get("error_sd")
        cells = (
            f"{each['error']:.3f}",
            "" if spread is None else f"{spread:.3f}",
            str(each["draws"]),
        )
        curve.add_row(str(each["deleted"]), *cells)
    return [out, curve]


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the four curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    single, several, order, lengths = figure.subplots(2, 2).flat
    for name in ("residual", "plain"):
        rows = found[name]["deletions"]
        depth = max(row["number"] for row in rows)
        xs = [row["number"] / depth for row in rows]
        single.plot(xs, [row["error"] for row in rows], ".-", label=found[name]["model"])
    single.axhline(found["shape"]["chance"], color="k", ls=":", lw=1, label="guessing")
    single.set(xlabel="what is deleted, by depth", ylabel="error", ylim=(0, 1), title="one deleted")
    single.legend(fontsize=8)
    curve = found["residual"]["curve"]
    spread = [row.get("error_sd") or 0 for row in curve]
    several.errorbar([r["deleted"] for r in curve], [r["error"] for r in curve], spread, capsize=3)
    several.set(xlabel="units deleted", ylabel="error", ylim=(0, 1), title="several deleted")
    orders = found["residual"].get("reorderings", [])
    order.plot([row["tau"] for row in orders], [row["error"] for row in orders], ".")
    order.set(xlabel="Kendall's tau", ylabel="error", ylim=(0, 1), title="units exchanged")
    order.invert_xaxis()
    rows = found["paths"]["lengths"]
    xs = [row["length"] for row in rows]
    lengths.plot(xs, [row["share"] for row in rows], label="of the gradient")
    lengths.plot(xs, [row["paths_share"] for row in rows], "k:", label="of the paths")
    if found["shape"]["units"] == PUBLISHED_UNITS:
        lengths.axvspan(*PUBLISHED_LENGTHS, alpha=0.15, label="published: almost all gradient")
    lengths.set(xlabel="path length (units)", ylabel="share", title="paths")
    lengths.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Open or train, measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", help="a finished run of a residual network")
    parser.add_argument("--plain", help="a finished run of a plain network")
    parser.add_argument("--data", help="pictures to measure on")
    parser.add_argument("--samples", type=int, default=500, help="pictures")
    parser.add_argument("--path-samples", type=int, default=4, help="pictures for the path lengths")
    parser.add_argument("--draws", type=int, default=10, help="random draws of each number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for lesions.png and lesions.json")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="it needs no other")
    parser.add_argument("--quick", action="store_true", help="digits: shows that it runs, no more")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.quick and not (options.run and options.plain):
        parser.error("--run RUN and --plain RUN, or --quick")
    with tempfile.TemporaryDirectory() as made:
        runs = [residua.open_run(r) for r in (options.run, options.plain) if not options.quick]
        if options.quick:
            options.samples, options.draws, options.path_samples, options.data = 100, 2, 1, None
            runs = [
                residua.train("digits", out=Path(made) / name, model=name, settings=DIGITS)
                for name in ("resnet20_cifar", "plain20_cifar")
            ]
        found = measure(runs[0], runs[1], options)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        draw(found, options.out / "lesions.png")
        (options.out / "lesions.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    if options.json:
        json.dump(found, sys.stdout, indent=2)
        return
    console = Console()
    for table in tables(found):
        console.print(table)
    console.print(caption(found["machine"]))


if __name__ == "__main__":
    main()
