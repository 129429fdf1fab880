"""`selfevo size`: what each phase of a run takes of a GPU's memory, about how long, and what would make it fit."""

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
    answer_tokens: Annotated[
        int | None,
        typer.Option("--answer-tokens", metavar="N", min=1, help="Tokens of a completion on average; else guessed."),
    ] = None,
    figures: Annotated[bool, typer.Option("--figures", help="Say which figures the hours go by, and whose.")] = False,
) -> None:
    """Say what each phase takes of a GPU's memory, and about how long; exit code 2 when one does not fit."""
    from selfevo.documents import each_run
    from selfevo.views.size import show_size

    raise typer.Exit(each_run(manifest, lambda name: show_size(manifest, card, config, answer_tokens, figures, name)))
