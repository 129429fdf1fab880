"""What verifier-train made before it trains, kept among the step's checkpoints: another attempt does not make it again.

The answers of each role by their use, as they are written; then the pairs and anchors with the verdicts on them. Where
a training is resumed it is on the pairs that it began with, also on a machine that would not write the same ones again.
Of two attempts at once both go on with what the faster one kept.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from selfevo_contract.artifacts import before_prefix
from selfevo_contract.errors import ServiceError
from selfevo_contract.rows import RowFile
from selfevo_store import CorruptArtifact, fetch_rows
from selfevo_trainer.context import Context

Tables = list[list[Any]]
"""The rows of each file."""

log = logging.getLogger("selfevo")


def once(
    context: Context,
    what: str,
    files: Sequence[RowFile[Any]],
    make: Callable[[], Tables],
    fault: Callable[[Tables], str | None],
) -> Tables:
    """What is kept as ``what``; else what ``make`` returns, which is kept from now on, and then the process ends if
    that was asked for. Where another attempt has kept its own meanwhile, that is returned.

    Args:
        context: the step's.
        what: the name that it is kept by.
        files: of the rows.
        make: makes the rows of each of ``files``.
        fault: why rows that were kept are not those of this step's inputs as they are now; None where they are. Then
            the log says so, and they are made again, as damaged ones are.

    Raises:
        InputError: the store refuses to be read, or what lies there is another's or of a newer selfevo.
        ServiceError: the store failed, or what another attempt kept meanwhile is gone or cannot be used.
        Interrupted: SIGTERM came while it was kept.
    """
    if (found := _read(context, what, files, fault)) is not None:
        return found
    made = make()
    folder = context.workdir / "before" / what
    folder.mkdir(parents=True)
    tables = zip(files, made, strict=True)
    written = {name: path for file, rows in tables for name, path in file.write(folder, rows).items()}
    won = context.commit(before_prefix(context.config.prefix, what), written).won
    shutil.rmtree(folder)
    if (found := made if won else _read(context, what, files, fault)) is None:
        # That attempt may have checkpoints of it, which are removed by who finds nothing kept.
        raise ServiceError(f"what another attempt has just kept of {what} is gone or cannot be used; try again")
    context.stop.check()
    return found


def _read(
    context: Context, what: str, files: Sequence[RowFile[Any]], fault: Callable[[Tables], str | None]
) -> Tables | None:
    """None where nothing is kept, or nothing that can be used: that is removed, for its place is needed."""
    place = before_prefix(context.config.prefix, what)
    with context.clock.during("checkpoint"):
        try:
            manifest = context.own_manifest(place)
            if manifest is None:
                return None
            found = [fetch_rows(context.store, place, manifest, file) for file in files]
            why = fault(found)
        except CorruptArtifact as error:
            why = str(error)
        if why is None:
            return found
        log.warning("what was kept of %s is passed over and made again: %s", what, why)
        context.store.delete_prefix(place)
        return None
