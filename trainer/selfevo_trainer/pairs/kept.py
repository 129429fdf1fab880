"""What verifier-train made before it trains, kept among the step's checkpoints: another attempt does not make it again.

The answers of each role by their use, as they are written; then the pairs and anchors with the verdicts on them. Where
a training is resumed it is on the pairs that it began with, also on a machine that would not write the same ones again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from typing import Any

from selfevo_contract.artifacts import before_prefix
from selfevo_contract.rows import RowFile
from selfevo_store import CorruptArtifact, fetch_rows
from selfevo_trainer.context import Context

log = logging.getLogger("selfevo")


def read(context: Context, what: str, *files: RowFile[Any]) -> list[list[Any]] | None:
    """The rows of each of ``files``; None where nothing is kept, or it is damaged: then the log says so, and it is
    removed, for its place is needed.

    Raises:
        InputError: the store refuses to be read, or what lies there is another's or of a newer selfevo.
        ServiceError: the store failed.
    """
    place = before_prefix(context.config.prefix, what)
    with context.clock.during("checkpoint"):
        try:
            manifest = context.own_manifest(place)
            if manifest is None:
                return None
            return [fetch_rows(context.store, place, manifest, file) for file in files]
        except CorruptArtifact as error:
            log.warning("what was kept of %s is passed over and made again: %s", what, error)
    remove(context, what)
    return None


def commit(context: Context, what: str, *tables: tuple[RowFile[Any], Sequence[Any]]) -> None:
    """Keep the rows of each file; then end, if that was asked for. Where another attempt was faster, its rows stay.

    Raises:
        Interrupted: SIGTERM came meanwhile.
    """
    folder = context.workdir / "before" / what
    folder.mkdir(parents=True)
    files = {name: path for file, rows in tables for name, path in file.write(folder, rows).items()}
    context.commit(before_prefix(context.config.prefix, what), files)
    shutil.rmtree(folder)
    context.stop.check()


def remove(context: Context, what: str) -> None:
    """Keep it no more."""
    context.store.delete_prefix(before_prefix(context.config.prefix, what))
