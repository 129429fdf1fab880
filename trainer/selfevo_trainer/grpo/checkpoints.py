"""Intra-phase checkpoints: a trainer's state, committed to the store, checked before it is opened.

TRL's own checkpoint folder is what is committed, less ``training_args.bin``, which nothing reads back and which only a
pickle can hold. The optimizer's state is torch's format; its digest is checked before it is opened, and transformers
opens it with ``weights_only=True`` (docs/decisions/0002-optimizer-state.md).
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

from selfevo_contract.artifacts import MANIFEST_NAME, checkpoint_prefix
from selfevo_contract.errors import ServiceError
from selfevo_store import CorruptArtifact, fetch, read_manifest
from selfevo_trainer.context import Context

_LEFT_OUT = {"training_args.bin", "README.md"}
_KEPT = 2

log = logging.getLogger("selfevo")


def _steps(context: Context) -> list[int]:
    """Steps with a committed checkpoint, newest first."""
    prefix = f"{context.config.prefix}/checkpoints"
    pattern = re.compile(rf"^{re.escape(prefix)}/(\d{{8}})/{re.escape(MANIFEST_NAME)}$")
    found = (pattern.match(info.key) for info in context.store.list(prefix))
    return sorted((int(match[1]) for match in found if match), reverse=True)


def kept_files(folder: Path) -> dict[str, Path]:
    """What is stored of a folder that TRL saved: all of it but the pickled arguments and the model card."""
    return {file.name: file for file in folder.iterdir() if file.is_file() and file.name not in _LEFT_OUT}


def save(context: Context, folder: Path, step: int) -> None:
    """Commit the trainer's folder as the checkpoint of ``step``; older ones but the last are removed."""
    files = kept_files(folder)
    with context.clock.during("checkpoint"):
        context.commit(checkpoint_prefix(context.config.prefix, step), files)
        for old in _steps(context)[_KEPT:]:
            context.store.delete_prefix(checkpoint_prefix(context.config.prefix, old))
        shutil.rmtree(folder, ignore_errors=True)


def latest(context: Context) -> tuple[Path, int] | None:
    """The newest checkpoint that is whole, on this disk, and its step.

    A damaged one is passed over, which the log says, and removed, for its place is needed when training gets there
    again. Nothing else is: a store that fails is for the next attempt, and to start anew because access was denied,
    credentials have expired or a newer selfevo wrote the checkpoint would throw hours away.

    Raises:
        InputError: the store refuses to be read, or what lies there is another's or of a newer selfevo.
        ServiceError: the store failed.
    """
    with context.clock.during("checkpoint"):
        for step in _steps(context):
            prefix = checkpoint_prefix(context.config.prefix, step)
            dest = context.workdir / f"checkpoint-{step}"
            try:
                manifest = context.own_manifest(prefix)
                if manifest is None:
                    continue
                fetch(context.store, prefix, manifest, dest)
            except CorruptArtifact as error:
                log.warning("the checkpoint of step %d is passed over: %s", step, error)
                shutil.rmtree(dest, ignore_errors=True)
                context.store.delete_prefix(prefix)
                continue
            return dest, step
    return None


def at(context: Context, step: int) -> Path:
    """The checkpoint of ``step`` on this disk, for a process that was told to go on from there.

    Raises:
        InputError: the store refuses to be read.
        ServiceError: it is not there or not whole, although the first process has just had it.
    """
    prefix = checkpoint_prefix(context.config.prefix, step)
    with context.clock.during("checkpoint"):
        try:
            manifest = read_manifest(context.store, prefix)
            if manifest is not None:
                return fetch(context.store, prefix, manifest, context.workdir / f"checkpoint-{step}")
            why = "it is gone"
        except CorruptArtifact as error:
            why = str(error)
        raise ServiceError(f"the checkpoint of step {step} cannot be fetched by every process: {why}; try again")


def clear(context: Context) -> None:
    """Remove all checkpoints: the step's output is committed."""
    context.store.delete_prefix(f"{context.config.prefix}/checkpoints")
