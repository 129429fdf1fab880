"""`selfevo artifacts rows`: what a run's models wrote, as Parquet in one folder, for DuckDB and its like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def rows(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="A SelfEvolutionRun, in YAML or JSON; - is standard input.")
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder; each step gets one in it.")],
    storage: Annotated[
        str | None, typer.Option(metavar="URI", help="Use this object store in place of spec.storage.uri.")
    ] = None,
    workdir: Annotated[Path, typer.Option(metavar="DIR", help="Where caches are kept.")] = Path(".selfevo"),
) -> None:
    """Copy questions, answers, curricula and scores of all committed steps to a folder, as Parquet."""
    from selfevo.text import count
    from selfevo.verbs.artifacts import copy_rows

    tables, steps = copy_rows(manifest, to=to, storage=storage, workdir=workdir)
    typer.echo(f"{to} holds {count(tables, 'table')} of {count(steps, 'step')}")
