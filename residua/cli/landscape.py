"""`residua landscape`: the loss around a trained network's weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from residua.cli.output import console, print_json
from residua.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from residua.xray.landscape import Landscape


def landscape(
    run: Annotated[Path, typer.Argument(help="Folder of a run, or its model.safetensors.")],
    directions: Annotated[
        str,
        typer.Option(
            help="random; pca, of a trajectory of weights; to:RUN2, a line to another run."
        ),
    ] = "random",
    trajectory: Annotated[
        list[Path] | None,
        typer.Option(help="For pca: runs, model files, or folders of them; may be repeated."),
    ] = None,
    points: Annotated[int, typer.Option(help="On a side of the grid.")] = 51,
    span: Annotated[
        str | None,
        typer.Option("--range", metavar="A:B", help="Of the coordinates; -1:1 for random ones."),
    ] = None,
    line: Annotated[bool, typer.Option("--line", help="Along one direction only.")] = False,
    pictures: Annotated[
        int, typer.Option(min=2, help="Drawn by the seed; more: less error.")
    ] = 1000,
    data: Annotated[str | None, typer.Option(help="Other pictures than the run's own.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test; default: the run's own train.")
    ] = None,
    norms: Annotated[
        str, typer.Option(help="Statistics of norms: frozen, recalibrated or batch.")
    ] = "frozen",
    batch: Annotated[
        int, typer.Option(min=1, help="Pictures in a batch, for norms of batches.")
    ] = 128,
    pairs: Annotated[int, typer.Option(help="Pairs of random directions, a surface each.")] = 1,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0, help="Interpolate to this share of the standard error; 0: evaluate all."
        ),
    ] = 0.5,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Half the precision: faster, rougher.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides directions and pictures.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; what is there is gone on with. Default: RUN/landscape."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Draw the loss around a trained network: planes and lines in the space of its weights."""
    import shlex
    import sys

    from torch import split as split_of

    from residua.cli.share import share_bar
    from residua.training.api import open_run
    from residua.xray.landscape import landscape as measure
    from residua.xray.landscape.storage import ranks

    opened = open_run(run)
    opened.device = device
    kind, other = _kind(directions)
    networks = _trajectory(trajectory or []) if kind == "pca" else []
    if split is None and data is None:
        split = "train"
    inputs, targets = opened.sample(pictures, data, split=split, seed=seed)
    folder = out or (run if run.is_dir() else run.parent) / "landscape"
    with share_bar(quiet=as_json or ranks()[0] > 0) as progress:
        found = measure(
            opened.model.to(inputs.device),
            list(zip(split_of(inputs, batch), split_of(targets, batch), strict=True)),
            directions=kind,
            other=None if other is None else open_run(other).model.state_dict(),
            trajectory=networks,
            points=points,
            span=None if span is None else _span(span),
            line=line,
            norms=norms,  # type: ignore[arg-type]
            pairs=pairs,
            seed=seed,
            tolerance=tolerance,
            bfloat16=bf16,
            out=folder,
            facts={
                "name": f"{opened.card.name} in {run}",
                "split": split or "",
                "command": shlex.join(["residua", *sys.argv[1:]]),
            },
            progress=progress,
        )
    if found.facts["rank"] == 0:
        _say(found, found.save(folder), as_json)


def _kind(directions: str) -> tuple[str, Path | None]:
    """Return the kind of directions, and the other run of a line.

    >>> _kind("pca"), _kind("to:runs/b")
    (('pca', None), ('to', PosixPath('runs/b')))
    """
    kind, colon, other = directions.partition(":")
    if kind == "to" and not other:
        raise BadInput("--directions to: expected to:RUN2")
    if colon and kind != "to":
        raise BadInput(f"--directions {directions}: expected random, pca or to:RUN2")
    return kind, Path(other) if other else None


def _span(text: str) -> tuple[float, float]:
    """Return both ends.

    >>> _span("-1:1")
    (-1.0, 1.0)
    """
    first, _, last = text.partition(":")
    try:
        return float(first), float(last)
    except ValueError:
        raise BadInput(f"--range {text!r}: expected two numbers, as in -1:1") from None


def _trajectory(given: list[Path]) -> list[Mapping[str, Tensor]]:
    """Return the weights in runs, in model files, and in folders of either."""
    from residua.training.folder import read_model

    files: list[Path] = []
    for path in given:
        if (path / "model.safetensors").exists():
            files.append(path / "model.safetensors")
        elif path.is_dir():
            files += sorted([*path.glob("*.safetensors"), *path.glob("*/model.safetensors")])
        else:
            files.append(path)
    if not files:
        raise BadInput("--directions pca: give --trajectory, a folder with two or more model files")
    return [read_model(file)[0].state_dict() for file in files]


def _say(found: Landscape, written: list[Path], as_json: bool) -> None:
    facts = found.facts
    if as_json:
        value: dict[str, Any] = {"facts": facts, "surfaces": found.rows(), "notes": found.notes}
        print_json(value | {"files": [str(path) for path in written]})
        return
    for row in found.rows():
        most = "not finite" if row["most"] is None else f"{row['most']:.4g}"
        console().print(
            f"pair {row['pair']}: loss {row['centre']:.4f} at the centre, {row['least']:.4f} to {most};"
            f" standard error {row['error']:.2g} (of the difference from the centre {row['paired']:.2g});"
            f" {row['evaluated']:,} points evaluated of {found.loss[0].size:,}",
            soft_wrap=True,
        )
    for sentence in [*found.notes, *found.page_facts().method()]:
        console().print(sentence, soft_wrap=True, markup=False)
    console().print(f"page: {written[-1]}", soft_wrap=True, markup=False)
