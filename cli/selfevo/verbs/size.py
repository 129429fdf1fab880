"""`selfevo size`: what each phase of a run takes of a GPU's memory, and what would make it fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def size(
    manifest: Annotated[
        Path, typer.Argument(metavar="MANIFEST", help="A SelfEvolutionRun, in YAML or JSON; - is standard input.")
    ],
    card: Annotated[
        str, typer.Option("--card", metavar="GB", help="Memory of the GPU: 24, 48, 80, 141 or 180.")
    ] = "80",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The model's config.json, where it is not at hand.")
    ] = None,
) -> None:
    """Say what each phase takes of a GPU's memory, by formula; exit code 2 when one does not fit."""
    from selfevo.views.size import show_size

    raise typer.Exit(show_size(manifest, card, config))
