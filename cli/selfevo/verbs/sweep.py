"""`selfevo sweep`: one manifest and a grid of settings, as a folder of manifests or as runs on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Manifest, Storage, Workdir

if TYPE_CHECKING:
    from selfevo.sweeps.grid import Cell


def sweep(
    manifest: Manifest,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUES", help="A field of the spec and its values: solver.grpo.lora.rank=8,32."
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="SEEDS", help="Values of spec.seed: 0-4, or 0,3,10-12.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Write the manifests to a new folder, with a kustomization.yaml."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="How many runs there may be.")] = 100,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Shards of a step that are made at once; one a CPU by default."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors and the table at the end only.")] = False,
) -> None:
    """Run a manifest with every combination of the settings, one after another, or write their manifests."""
    from selfevo.manifest import read_document, read_yaml
    from selfevo.sweeps import files
    from selfevo.sweeps.grid import cells_of, parse_axis, parse_seeds
    from selfevo.text import count

    axes = [parse_axis(text, read_yaml) for text in settings or []]
    axes += [parse_seeds(seeds)] if seeds is not None else []
    cells = cells_of(read_document(manifest), axes, limit)
    _check(cells)
    if output is not None:
        files.write_new(cells, manifest.parent, output)
        typer.echo(f"{output} holds {count(len(cells), 'run')}; `kubectl apply -k {output}` queues them all")
        return
    raise typer.Exit(_run(manifest, cells, storage, workdir, workers, quiet))


def _check(cells: Sequence[Cell]) -> None:
    """Raises InputError where a setting is refused, in the words that say what is wrong with its value."""
    from pydantic import ValidationError

    from selfevo.sweeps.places import check_places
    from selfevo_contract.errors import InputError
    from selfevo_contract.explain import explain
    from selfevo_contract.run import SelfEvolutionRun, refuse_what_is_not_built

    checked = []
    for cell in cells:
        try:
            checked.append((cell, SelfEvolutionRun.model_validate(cell.document).spec))
            refuse_what_is_not_built(checked[-1][1])
        except ValidationError as error:
            sentences = explain(error, SelfEvolutionRun)
            raise InputError("\n".join(f"with {cell.label}: {sentence}" for sentence in sentences)) from None
        except InputError as error:
            raise InputError(f"with {cell.label}: {error}", reason=error.reason) from None
    check_places(checked)


def _run(
    manifest: Path, cells: Sequence[Cell], storage: str | None, workdir: Path, workers: int | None, quiet: bool
) -> int:
    """One after another; what ends early does not keep the others from their turn. Returns the exit code."""
    from selfevo.documents import INTERRUPTED, in_turn
    from selfevo.manifest import load
    from selfevo.sweeps import files
    from selfevo.sweeps.grid import LABEL
    from selfevo.sweeps.results import result_of, table, to_do
    from selfevo.text import count, width
    from selfevo.verbs.run import run_here

    name = cells[0].document["metadata"]["labels"][LABEL]
    places = files.write(cells, manifest.parent, workdir / "sweeps" / name)
    steps = to_do(places, storage, workdir)
    if not quiet:
        print(f"{count(len(cells), 'run')}, {steps.sentence}\n", flush=True)
    code = in_turn(
        [cell.name for cell in cells],
        lambda number: run_here(
            load(places[number], storage=storage, cache=workdir),
            places[number],
            storage=storage,
            workdir=workdir,
            workers=workers,
            quiet=quiet,
        ),
        quiet,
        [cell.label for cell in cells],
    )
    if code == INTERRUPTED:
        return code
    print()
    for line in table([result_of(cell, workdir) for cell in cells], width()):
        print(line)
    return code
