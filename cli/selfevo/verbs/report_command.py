"""The options of `selfevo report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selfevo.options import DEFAULT_WORKDIR, Storage, Workdir
from selfevo_contract.errors import InputError


def report(
    manifests: Annotated[
        list[Path],
        typer.Argument(
            metavar="MANIFEST...", help="Of one run, for its report; of several, to compare them with the first."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The HTML file to write; <run>-report.html, or comparison.html, by default.",
        ),
    ] = None,
    storage: Storage = None,
    workdir: Workdir = DEFAULT_WORKDIR,
) -> None:
    """Write one HTML file that says what happened: scores, curricula, rewards, samples, lineage; or compares runs."""
    from selfevo.documents import each_run
    from selfevo.verbs.report import report_comparison, report_run

    if len(manifests) > 1:
        path, sentences = report_comparison(manifests, output, storage=storage, workdir=workdir)
        for sentence in sentences:
            typer.echo(sentence)
        typer.echo(f"wrote {path}")
        return
    manifest = manifests[0]

    def do(name: str | None) -> None:
        if name is not None and output is not None:
            raise InputError(f"-o names one file, and {manifest} holds several runs; leave it out")
        typer.echo(f"wrote {report_run(manifest, output, name=name, storage=storage, workdir=workdir)}")

    raise typer.Exit(each_run(manifest, do, quiet=True))
