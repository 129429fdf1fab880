"""`selfevo artifacts rows`: what a run's models wrote and its updates, in one folder, for DuckDB and its like."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Manifest, Storage, Workdir


def rows(
    manifest: Manifest,
    to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder; each step gets one in it.")],
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Copy questions, answers, curricula and scores of all committed steps to a folder, as Parquet; updates as JSON
    lines."""
    from selfevo.text import count
    from selfevo.verbs.artifacts import copy_rows

    tables, steps = copy_rows(manifest, to=to, storage=storage, workdir=workdir)
    typer.echo(f"{to} holds {count(tables, 'table')} of {count(steps, 'step')}")
